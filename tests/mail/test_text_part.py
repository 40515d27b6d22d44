from __future__ import annotations

import base64
import email
import email.message
import email.policy
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.mail import charset, jis
from gateway.mail.message import Client, Message, MessageSealedError, TextPart, TextPartError

Spans = list[tuple[int, int, str]]


def message(content: bytes) -> Message:
    message = Message("id", "alice@example.com", Client("192.0.2.1"))
    message.content = content
    return message


def single(data: bytes, name: str = "utf-8", encoding: str = "8bit") -> tuple[Message, TextPart]:
    """A message of one text part with these encoded octets."""
    made = message(
        f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset={name}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        + data
    )
    return made, made.text_parts()[0]


def python_reads(content: bytes) -> str:
    """The text of a message of one part, as Python's email package and our charsets read it."""
    parsed = email.message_from_bytes(content, policy=email.policy.compat32)
    data = parsed.get_payload(decode=True)
    assert isinstance(data, bytes)
    name = str(parsed.get_param("charset", "us-ascii"))
    return charset.decode(data, name).replace("\r\n", "\n")


def applied(text: str, spans: Spans) -> str:
    for start, end, new in reversed(sorted(spans, key=lambda span: span[:2])):  # noqa: C413 - stable
        text = text[:start] + new + text[end:]
    return text


ALPHABET = "ab =.-~\t\n\n" + "éあ日本①髙ｱ"
ENCODINGS = ["7bit", "8bit", "binary", "quoted-printable", "base64"]
CHARSETS = ["utf-8", "iso-2022-jp", "shift_jis", "euc-jp", "gb18030", "us-ascii", "iso-8859-1"]


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str, str, bytes, Spans]:
    """A charset, an encoding, a text, the octets of that text, and spans to replace in it."""
    name, encoding = draw(st.sampled_from(CHARSETS)), draw(st.sampled_from(ENCODINGS))
    text = draw(st.text(st.sampled_from(ALPHABET), max_size=300))
    text = "".join(character for character in text if fits(character, name))
    pieces = [text] if draw(st.booleans()) else list(text)
    octets = b"".join(charset.encode(piece.replace("\n", "\r\n"), name) for piece in pieces)
    text = charset.decode(octets, name).replace("\r\n", "\n")
    if encoding == "quoted-printable":
        width = draw(st.sampled_from([20, 76]))
        octets = quoted_printable(octets, width)
    elif encoding == "base64":
        width = draw(st.sampled_from([4, 30, 76]))
        letters = base64.b64encode(octets)
        lines = [letters[start : start + width] for start in range(0, len(letters), width)]
        octets = b"\r\n".join(lines) + draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]))
    elif encoding == "7bit" and not octets.isascii():
        encoding = "8bit"
    places = draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    new = st.text(st.sampled_from(ALPHABET), max_size=90)
    pairs = zip(places[::2], places[1::2], strict=False)
    return name, encoding, text, octets, [(start, end, draw(new)) for start, end in pairs]


def fits(character: str, name: str) -> bool:
    try:
        charset.encode(character, name, exact=True)
    except UnicodeEncodeError:
        return False
    return True


def quoted_printable(octets: bytes, width: int) -> bytes:
    """Encodes with another line width than our own encoder uses."""
    out = []
    for line in octets.split(b"\r\n"):
        tokens = [
            bytes((octet,)) if 32 < octet < 127 and octet != 61 else b"=%02X" % octet
            for octet in line
        ]
        row = b""
        for token in tokens:
            if len(row) + len(token) >= width:
                out.append(row + b"=")
                row = b""
            row += token
        out.append(row)
    return b"\r\n".join(out)


@settings(max_examples=300)
@given(edits())
@example(("utf-8", "quoted-printable", "a b\nc", b"a b\r\nc", [(3, 3, ""), (2, 3, "")]))
@example(("utf-8", "quoted-printable", "x" * 76 + "\n", b"x" * 76 + b"\r\n", [(76, 76, "y")]))
@example(("utf-8", "quoted-printable", "x" * 76 + "\n", b"x" * 76 + b"\r\n", [(76, 76, "\ny")]))
@example(("utf-8", "quoted-printable", "a \nb\n", b"a=20\r\nb\r\n", [(2, 3, "")]))
@example(("iso-2022-jp", "8bit", "日本", b"\x1b$BF|K\\", [(2, 2, "x")]))
def test_edit(case: tuple[str, str, str, bytes, Spans]) -> None:
    name, encoding, text, octets, spans = case
    made, part = single(octets, name, encoding)
    before = made.content
    assert part.editable
    assert part.text == text
    part.text = part.text
    part.replace([(0, 0, ""), (len(text), len(text), "")])
    assert made.content is before

    part.replace(spans)
    wanted = applied(text, spans)
    if part.changed:
        assert wanted != text
        assert made.content != before
        if charset.known(name) and part.charset != "utf-8" and name in ("shift_jis", "euc-jp"):
            wanted = wanted.translate({ord(old): new for old, new in jis.VARIANTS.items()})
        if part.transfer_encoding in ("7bit", "8bit", "binary") and part.text != wanted:
            assert part.text == wanted + "\n"  # a message ends in a line end
        else:
            assert part.text == wanted
        assert python_reads(made.content) == part.text
        assert made.content.endswith(b"\r\n") or not made.body
        # Who reads the message anew finds the same.
        assert message(made.content).text_parts()[0].text == part.text
        if part.transfer_encoding == "7bit":
            assert made.body.isascii()
        if part.transfer_encoding in ("quoted-printable", "base64"):
            assert all(len(line) <= 76 for line in made.body.split(b"\r\n"))
    else:
        assert wanted in (text, text.removesuffix("\n"))
        assert made.content is before


@given(edits())
def test_setting_the_text_is_the_same_as_replacing_it(
    case: tuple[str, str, str, bytes, Spans],
) -> None:
    name, encoding, text, octets, spans = case
    made, part = single(octets, name, encoding)
    wanted = applied(text, spans)
    part.text = wanted
    assert part.text in (wanted, wanted + "\n")
    assert python_reads(made.content) == part.text


def test_quoted_printable_lines_that_are_not_touched_stay() -> None:
    octets = b"one =E3=81=\r\n=82 =3d lower\r\ntwo  \r\nlink: http://a/=\r\n?b=3Dc\r\nfour=20\r\n"
    made, part = single(octets, "utf-8", "quoted-printable")
    assert part.text == "one あ = lower\ntwo\nlink: http://a/?b=c\nfour \n"
    start = part.text.index("http")
    part.replace([(start, start + 13, "https://example.com/" + "x" * 80)])
    assert made.body == octets.replace(
        b"http://a/=\r\n?b=3Dc",
        b"https://example.com/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx=\r\n"
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    )


def test_quoted_printable_breaks_before_a_tail_that_would_not_fit() -> None:
    octets = b"a" * 30 + b"X" + b"b" * 45 + b"\r\n"
    made, part = single(octets, "utf-8", "quoted-printable")
    part.text = part.text.replace("X", "long")
    assert made.body == b"a" * 30 + b"long=\r\n" + b"b" * 45 + b"\r\n"


def test_base64_is_encoded_anew_only_as_far_as_needed() -> None:
    data = b"".join(b"line number %03d\r\n" % n for n in range(40))
    octets = base64.encodebytes(data).replace(b"\n", b"\r\n")
    made, part = single(octets, "utf-8", "base64")
    part.text = part.text.replace("number 020", "NUMBER 020")
    lines = zip(octets.split(b"\r\n"), made.body.split(b"\r\n"), strict=True)
    assert sum(one != two for one, two in lines) == 1
    part.text = part.text.replace("NUMBER 020", "number three more 020")
    assert base64.b64decode(made.body) == data.replace(b"number 020", b"number three more 020")
    # Eleven octets more: all that follows shifts.
    assert made.body[: octets.index(b"\r\n", 400)] == octets[: octets.index(b"\r\n", 400)]
    part.text = part.text.replace("number three more 020", "number 7654321 020")
    assert base64.b64decode(made.body) == data.replace(b"number 020", b"number 7654321 020")


def test_base64_joins_again_after_whole_groups() -> None:
    data = b"".join(b"line number %03d\r\n" % n for n in range(40))
    octets = base64.encodebytes(data).replace(b"\n", b"\r\n")
    made, part = single(octets, "utf-8", "base64")
    part.text = part.text.replace("number 020", "number+three 020".replace("+", " x"))
    assert base64.b64decode(made.body) == data.replace(b"number 020", b"number xthree 020")
    made, part = single(octets, "utf-8", "base64")
    part.text = part.text.replace("number 020", "number 123020")
    assert base64.b64decode(made.body) == data.replace(b"number 020", b"number 123020")
    assert made.body.endswith(octets[-400:])
    assert all(len(line) <= 76 for line in made.body.split(b"\r\n"))


def test_quoted_printable_without_a_last_line_end_gets_a_soft_one() -> None:
    for last in ("y", "="):
        made, part = single(b"x", "utf-8", "quoted-printable")
        for length in range(70, 78):
            part.text = "x" * length + last
            assert part.text == "x" * length + last
            lines = made.body.split(b"\r\n")
            assert lines.pop() == b""
            assert all(line.endswith(b"=") and len(line) <= 76 for line in lines)


def test_padding_at_the_very_end_does_not_become_text() -> None:
    for octets in (b"ab \t", b"ab=", b"ab= "):
        made, part = single(octets, "utf-8", "quoted-printable")
        part.replace([(0, 1, "A")])
        assert part.text == "Ab"
        assert python_reads(made.content) == "Ab"
        assert made.content.endswith(b"\r\n")


@pytest.mark.parametrize("name", ["utf-16-le", "utf-8-sig", "cp037"])
def test_charsets_with_other_line_ends_become_utf_8(name: str) -> None:
    octets = base64.b64encode("one\r\ntwo\u0a0d\r\n".encode(name, "ignore"))
    made, part = single(octets, name, "base64")
    text = part.text
    part.replace([(0, 3, "ONE"), (5, 5, "x\n")])
    assert part.text == applied(text, [(0, 3, "ONE"), (5, 5, "x\n")])
    assert part.charset == "utf-8"
    assert python_reads(made.content) == part.text


def test_iso_2022_jp_that_did_not_shift_back_does_so_after_an_edit() -> None:
    made, part = single(b"\x1b$BF|", "iso-2022-jp", "7bit")
    part.text += "本"
    assert made.body == b"\x1b$BF|K\\\x1b(B\r\n"


def test_lone_cr_inside_of_base64_stays() -> None:
    made, part = single(base64.b64encode(b"a\rb\nc\r\nd") + b"\r\n", "utf-8", "base64")
    assert part.text == "a\rb\nc\nd"
    part.text = part.text
    assert not part.changed
    part.text = part.text.replace("d", "e\rf")
    assert base64.b64decode(made.body) == b"a\rb\nc\r\ne\r\nf"


def test_lines_that_end_in_lf_inside_of_base64_stay_so() -> None:
    made, part = single(base64.b64encode(b"a\nb\n") + b"\r\n", "utf-8", "base64")
    part.text += "c\n"
    assert base64.b64decode(made.body) == b"a\nb\nc\n"


def test_text_that_does_not_fit_the_charset_makes_the_part_utf_8() -> None:
    content = (
        b'X: 1\r\nMIME-Version: 1.0\r\nContent-Type:text/plain;\r\n\tcharset="ISO-2022-JP"; x=y'
        b'\r\nContent-Transfer-Encoding: 7bit\r\nX: 2\r\n\r\n\x1b$B$"\x1b(B\r\n'
    )
    made = message(content)
    part = made.text_parts()[0]
    part.text = part.text.replace("あ", "あ😀")
    assert made.headers.raw == content.partition(b"\r\n\r\n")[0].replace(
        b"ISO-2022-JP", b"utf-8"
    ).replace(b"7bit", b"base64") + (b"\r\n")
    assert base64.b64decode(made.body).decode() == "あ😀\r\n"
    assert (part.charset, part.transfer_encoding) == ("utf-8", "base64")
    assert made.text_parts()[0] is part


@pytest.mark.parametrize(
    ("header", "changed"),
    [
        (b"Subject: x\r\n", b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain;"
         b' charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n'),
        (b"MIME-Version: 1.0\r\nContent-Type: text/plain;\r\nContent-Transfer-Encoding: 8bit\r\n",
         b'MIME-Version: 1.0\r\nContent-Type: text/plain; charset="utf-8"\r\n'
         b"Content-Transfer-Encoding: 8bit\r\n"),
        (b"MIME-Version: 1.0\r\nContent-Type: text/html; charset*=us-ascii''us-ascii\r\n",
         b'MIME-Version: 1.0\r\nContent-Type: text/html; charset="utf-8"\r\n'
         b"Content-Transfer-Encoding: quoted-printable\r\n"),
    ],
)  # fmt: skip
def test_header_of_a_part_that_becomes_utf_8(header: bytes, changed: bytes) -> None:
    made = message(header + b"\r\nhello world\r\n")
    part = made.text_parts()[0]
    part.text += "é\n"
    assert made.headers.raw == changed
    assert python_reads(made.content) == "hello world\né\n"


def test_only_the_header_of_the_part_changes_in_a_multipart() -> None:
    content = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
        b"one\r\n--b\r\n\r\nsecond part\r\n--b\r\npart without header\r\n--b\r\n"
        b"Content-Type: text/html; charset=us-ascii\r\n\r\nthree\r\n--b--\r\nepilogue\r\n"
    )
    made = message(content)
    parts = made.text_parts()
    assert [part.text for part in parts] == ["one", "second part", "part without header", "three"]
    parts[1].text = "second part é"
    parts[2].text += "é"
    parts[3].text = "THREE"
    new = (
        b'Content-Type: text/plain; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    )
    assert made.content == content.replace(b"\r\nsecond part", new + b"second part =C3=A9").replace(
        b"part without header", new + b"part without header=C3=A9"
    ).replace(b"three", b"THREE")
    assert [part.text for part in message(made.content).text_parts()] == [
        "one",
        "second part é",
        "part without headeré",
        "THREE",
    ]


@pytest.mark.parametrize("new", ["é", "x" * 999, "nul \0", "a\n" + "x" * 1200 + "\nb"])
def test_text_that_does_not_fit_7bit_changes_the_transfer_encoding(new: str) -> None:
    made, part = single(b"hello\r\n", "iso-8859-1", "7bit")
    part.text += new + "\n"
    assert part.transfer_encoding == "quoted-printable"
    assert made.headers.get("Content-Transfer-Encoding") == "quoted-printable"
    assert python_reads(made.content) == "hello\n" + new + "\n"
    assert part.charset == "iso-8859-1"


def test_line_that_was_too_long_before_stays_as_it_was() -> None:
    octets = b"x" * 1500 + b" link\r\nshort\r\n"
    made, part = single(octets, "us-ascii", "7bit")
    part.text = part.text.replace("short", "SHORT").replace("link", "LI")
    assert made.body == octets.replace(b"short", b"SHORT").replace(b"link", b"LI")


def test_eight_bit_octets_under_7bit_that_came_so_stay_so() -> None:
    made = message("Subject: x\r\n\r\nあ\r\n".encode())
    part = made.text_parts()[0]
    assert (part.text, part.charset, part.transfer_encoding) == ("あ\n", "utf-8", "7bit")
    part.text = "x" + part.text
    assert made.body == "xあ\r\n".encode()


@pytest.mark.parametrize(
    ("data", "name", "encoding", "reason"),
    [
        (b"\xff\r\n", "utf-8", "8bit", "not valid utf-8"),
        (b"x\r\n", "x-unknown", "8bit", "unknown"),
        (b"=ZZ\r\n", "utf-8", "quoted-printable", "not valid quoted-printable"),
        (b"YQ=\r\n", "utf-8", "base64", "not valid base64"),
        (b"YQ==YQ==\r\n", "utf-8", "base64", "not valid base64"),
        (b"x\r\n", "utf-8", "x-uuencode", "not valid x-uuencode"),
    ],
)
def test_what_does_not_decode_exactly_can_be_read_but_not_edited(
    data: bytes, name: str, encoding: str, reason: str
) -> None:
    made, part = single(data, name, encoding)
    before = made.content
    assert not part.editable
    assert part.text
    part.text = part.text
    with pytest.raises(TextPartError, match=reason):
        part.text += "x"
    assert made.content is before


def test_signed_parts_can_be_read_but_not_edited() -> None:
    made = message(
        b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nsigned\r\n--b\r\n"
        b"Content-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n"
    )
    (part,) = made.text_parts()
    assert part.text == "signed"
    assert not part.editable
    with pytest.raises(TextPartError, match="signed"):
        part.text = "forged"


def test_spans_are_checked() -> None:
    _, part = single(b"hello\r\n")
    for spans in ([(0, 2, "x"), (1, 3, "y")], [(-1, 0, "")], [(3, 2, "x")], [(0, 99, "x")]):
        with pytest.raises(ValueError, match="stretch"):
            part.replace(spans)
    part.replace([(3, 5, "B"), (0, 0, "1"), (0, 3, "A")])
    assert part.text == "1AB\n"


def test_line_ends_in_new_text_become_crlf() -> None:
    made, part = single(b"hello\r\n")
    part.text = "a\r\nb\rc\n"
    assert made.body == b"a\r\nb\r\nc\r\n"
    assert part.text == "a\nb\nc\n"


def test_the_header_of_a_part_is_read_only() -> None:
    _, part = single(b"hello\r\n")
    assert part.headers.get("Content-Transfer-Encoding") == "8bit"
    with pytest.raises(MessageSealedError):
        part.headers.add("X", "1")


def defective(content: bytes) -> bool:
    """Whether Python's parser complains, or reads a mailbox's `From ` line as part of a header."""
    parsed = email.message_from_bytes(content, policy=email.policy.compat32)
    return bool(parsed.get_unixfrom()) or any(part.defects for part in parsed.walk())


def leaves(content: bytes) -> list[bytes]:
    parsed = email.message_from_bytes(content, policy=email.policy.compat32)
    found = []
    for part in parsed.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            found.append(payload if isinstance(payload, bytes) else b"")
    return found


def test_edits_of_real_messages_change_one_part_and_nothing_else(mail_corpus: Path) -> None:
    edited = 0
    for path in sorted(mail_corpus.rglob("*")):
        content = re.sub(
            rb"(?<!\r)\n|\r(?!\n)", b"\r\n", path.read_bytes() if path.is_file() else b""
        )
        content = content.replace(b"\0", b"")
        for index, part in enumerate(message(content).text_parts()):
            made = message(content)
            part = made.text_parts()[index]
            part.text = part.text
            assert made.content is content
            if not part.editable:
                continue
            middle, name = len(part.text) // 2, part.charset
            wanted = part.text[:middle] + "<inserted>" + part.text[middle:]
            part.text = wanted
            assert part.text in (wanted, wanted + "\n")
            again = message(made.content).text_parts()
            assert [one.text for one in again] == [one.text for one in made.text_parts()]
            if defective(content) or not middle:
                continue  # so broken that Python finds other parts than we do
            if part.charset != name:
                continue  # UTF-7, which shifts: it has become UTF-8
            before, after = leaves(content), leaves(made.content)
            assert len(before) == len(after), path
            different = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
            assert len(different) == 1, path
            ((old, new),) = different
            old, new = old.rstrip(b"\r\n"), new.rstrip(b"\r\n")
            assert re.sub(rb"(\x1b\(B)?<inserted>(\x1b\$B)?", b"", new) == old, path
            edited += 1
    assert edited > 250
