from __future__ import annotations

import email
import email.policy
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.headers import Field, Headers, MessageSealedError, split

RAW = (
    b"Received: from a\r\n\tby b\r\n"
    b"subject: =?iso-2022-jp?B?GyRCLSEbKEI=?=\r\n"
    b"To: Alice <alice@example.com>\r\n"
    b"X-Odd : spaced\r\n"
    b"RECEIVED:from c\r\n"
)
PIECES = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"a", b"X-B: c\r\n", b" d\r\n", b"\xff", b"\0"]
    )
).map(b"".join)
# Text that a header can carry: no control characters, and no white space at its ends.
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(' \t=?_éあ😀<>@,"()'),
    max_size=200,
).map(lambda text: re.sub(r"^\s+|\s+$", "", text))


@pytest.mark.parametrize(
    ("content", "header", "separator"),
    [
        (b"", b"", b""),
        (b"\r\nbody", b"", b"\r\n"),
        (b"A: b\r\n\r\nbody", b"A: b\r\n", b"\r\n"),
        (b"A: b\r\n c\r\n\r\n", b"A: b\r\n c\r\n", b"\r\n"),
        (b"A: b\r\n \r\n\r\nbody", b"A: b\r\n \r\n", b"\r\n"),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"A: b", b"A: b", b""),
        (b"A : b\r\n\r\n", b"A : b\r\n", b"\r\n"),
        (b"A: b\r\nnot a field\r\n\r\nx", b"A: b\r\n", b""),
        (b"A: b\r\n: x\r\n\r\nx", b"A: b\r\n", b""),
        (b"hello\r\n\r\nx", b"", b""),
        (b" A: b\r\n\r\nx", b"", b""),
        (b"From a@b Mon\r\nA: b\r\n\r\n", b"", b""),
    ],
)
def test_split(content: bytes, header: bytes, separator: bytes) -> None:
    assert split(content) == (header, separator, content[len(header) + len(separator) :])


@given(PIECES)
@example(b"A: b\r\n\r\n\r\n")
def test_split_and_join_gives_the_same_octets(content: bytes) -> None:
    header, separator, body = split(content)
    assert header + separator + body == content
    headers = Headers(header)
    assert b"".join(field.raw for field in headers) == header
    assert headers.raw == header
    assert all(b":" in field.raw for field in headers)
    # Splitting again finds the same header: nothing of the body can slip into it.
    assert not header.endswith(b"\r\n") or split(header + b"\r\n" + body)[0] == header


def test_corpus_splits_and_joins_to_the_same_octets(mail_corpus: Path) -> None:
    count = 0
    for path in sorted(mail_corpus.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        content = re.sub(rb"(?<!\r)\n", b"\r\n", path.read_bytes())
        header, separator, body = split(content)
        assert header + separator + body == content
        headers = Headers(header)
        assert b"".join(field.raw for field in headers) == header
        for field in headers:
            assert field.value == field.value.strip()
            name = field.name
            assert [one.raw for one in Headers(header).fields(name)] == [
                one.raw for one in headers.fields(name)
            ]
        count += 1
    assert count > 300


def test_lookups_do_not_depend_on_whether_the_header_was_split() -> None:
    for split_first in (False, True):
        headers = Headers(RAW)
        if split_first:
            assert len(headers) == 5
        assert headers.get("Subject") == "①"
        assert headers.get("SUBJECT") == "①"
        assert headers.get("x-odd") == "spaced"
        assert headers.get("X-Od") is None
        assert headers.get("X", "none") == "none"
        assert "to" in headers
        assert "T" not in headers
        assert 1 not in headers
        assert headers.get_all("received") == ["from a\tby b", "from c"]
        assert [field.raw for field in headers.fields("Received")] == [
            b"Received: from a\r\n\tby b\r\n",
            b"RECEIVED:from c\r\n",
        ]
        assert headers.fields("none") == []
        assert headers.get("é") is None


def test_field() -> None:
    field = Field(b"Subject : a\r\n b\r\n")
    assert (field.name, field.lower, field.body) == ("Subject", b"subject", b" a\r\n b")
    assert field.value == "a b"
    assert Field(b"X").body == b""
    assert Field(b"X: y").body == b" y"


def test_changes_keep_every_other_octet() -> None:
    headers = Headers(RAW)
    headers.add("X-New", "1")
    headers.prepend("X-Top", b"2")
    assert headers.raw == b"X-Top: 2\r\n" + RAW + b"X-New: 1\r\n"
    headers.change("SUBJECT", "new")
    assert headers.raw == b"X-Top: 2\r\n" + RAW.replace(
        b"=?iso-2022-jp?B?GyRCLSEbKEI=?=", b"new"
    ) + (b"X-New: 1\r\n")
    headers.change("received", b"from d", occurrence=1)
    assert headers.get_all("Received") == ["from a\tby b", "from d"]
    headers.change("received", "from e", occurrence=2)
    assert headers.get_all("Received") == ["from a\tby b", "from d", "from e"]
    headers.insert(0, "A", "first")
    headers.insert(2, "B", "third")
    headers.insert(99, "C", "last")
    assert [field.name for field in headers][:3] == ["A", "X-Top", "B"]
    assert [field.name for field in headers][-1] == "C"
    assert headers.delete("received", 1) == 1
    assert headers.delete("received", 7) == 0
    assert headers.delete("received", -1) == 0
    assert headers.delete("Received") == 2
    assert headers.delete("Received") == 0
    assert "Received" not in headers
    for name in ("A", "X-Top", "B", "X-New", "C"):
        assert headers.delete(name) == 1
    assert headers.raw == b"subject: new\r\nTo: Alice <alice@example.com>\r\nX-Odd : spaced\r\n"


def test_adding_after_a_field_without_line_end() -> None:
    for split_first in (False, True):
        headers = Headers(b"A: b")
        if split_first:
            len(headers)
        headers.add("C", "d")
        assert headers.raw == b"A: b\r\nC: d\r\n"
    headers = Headers(b"A: b")
    headers.insert(0, "C", "d")
    assert headers.raw == b"C: d\r\nA: b\r\n"


def test_splice_changes_only_the_octets_named() -> None:
    headers = Headers(b"A:b; c=d\r\n\te\r\nA: x\r\n")
    headers.splice("a", 5, 6, b"long")
    assert headers.raw == b"A:b; c=long\r\n\te\r\nA: x\r\n"
    with pytest.raises(ValueError, match="line end"):
        headers.splice("a", 0, 0, b"\r\n")
    with pytest.raises(ValueError, match="no field"):
        headers.splice("b", 0, 0, b"x")


def test_replace_changes_one_field_and_no_other() -> None:
    raw = b"A: one\r\n \xff\r\nB: x\r\nA : two {{x}}\r\na:three\r\nC: y"
    for split_first in (False, True):
        headers = Headers(raw)
        if split_first:
            assert len(headers) == 5
        state = headers.state()
        headers.replace("a", [(4, 9, "words")], occurrence=1)
        assert headers.raw == raw.replace(b"{{x}}", b"words")
        assert headers.get_all("A")[1] == "two words"
        headers.replace("A", [(5, 5, "!")], occurrence=2)
        headers.replace("C", [(0, 1, "z")])
        assert headers.raw == raw.replace(b"{{x}}", b"words").replace(b"ee", b"ee!")[:-1] + b"z"
        headers.restore(state)
        assert headers.raw == raw


@pytest.mark.parametrize(("name", "occurrence"), [("X", 0), ("Received", 2), ("Received", -1)])
def test_replace_in_a_field_that_is_not_there(name: str, occurrence: int) -> None:
    for split_first in (False, True):
        headers = Headers(RAW)
        if split_first:
            assert len(headers) == 5
        with pytest.raises(ValueError, match=f"no field {name}"):
            headers.replace(name, [(0, 0, "x")], occurrence)
        assert headers.raw == RAW


def test_copies_are_independent() -> None:
    headers = Headers(RAW)
    copy = headers.copy()
    copy.add("X", "1")
    headers.prepend("Y", "2")
    assert copy.raw == RAW + b"X: 1\r\n"
    assert headers.raw == b"Y: 2\r\n" + RAW
    state = headers.state()
    headers.delete("To")
    headers.restore(state)
    assert headers.raw == b"Y: 2\r\n" + RAW
    assert headers.get("To") == "Alice <alice@example.com>"


def test_sealed() -> None:
    headers = Headers(RAW)
    headers.seal()
    headers.prepend("DKIM-Signature", b"v=1;\r\n\ta=rsa-sha256")
    assert headers.raw == b"DKIM-Signature: v=1;\r\n\ta=rsa-sha256\r\n" + RAW
    for copy in (headers, headers.copy()):
        with pytest.raises(MessageSealedError):
            copy.add("X", "1")
        with pytest.raises(MessageSealedError):
            copy.insert(0, "X", "1")
        with pytest.raises(MessageSealedError):
            copy.change("To", "1")
        with pytest.raises(MessageSealedError):
            copy.delete("To")
        with pytest.raises(MessageSealedError):
            copy.splice("To", 0, 0, b"1")
        with pytest.raises(MessageSealedError):
            copy.replace("Subject", [])


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "é", "a\x00", "a\n"])
def test_names_that_are_refused(name: str) -> None:
    for change in (Headers.add, Headers.prepend, Headers.change):
        with pytest.raises(ValueError):
            change(Headers(RAW), name, "x")


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nB: c",
        "a\nB: c",
        "a\rb",
        "a\x00",
        "\x1b",
        "a\x7f",
        "a\r\n b",
        "\ud800",
        b"a\r\nB: c",
        b"a\nb",
        b"a\rb",
        b"a\0",
        b"a\r\n",
        b"a\r\n \r\n b",
        b"a\r\n ",
        b"a\r\n\r\n b",
    ],
)
def test_values_that_are_refused(value: str | bytes) -> None:
    headers = Headers(RAW)
    with pytest.raises(ValueError):
        headers.add("X", value)
    with pytest.raises(ValueError):
        headers.change("To", value)
    assert headers.raw == RAW


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (b"a", b"X: a\r\n"),
        (b" a", b"X: a\r\n"),
        (b"\ta\r\n  b", b"X:\ta\r\n  b\r\n"),
        (b"\r\n a", b"X:\r\n a\r\n"),
        (b"", b"X:\r\n"),
        (b"\xff", b"X: \xff\r\n"),
        ("", b"X:\r\n"),
        ("a\tb", b"X: a\tb\r\n"),
        ("  a  ", b"X: a\r\n"),
    ],
)
def test_values(value: str | bytes, raw: bytes) -> None:
    headers = Headers()
    headers.add("X", value)
    assert headers.raw == raw


@given(st.text(max_size=40) | st.binary(max_size=40) | PIECES, st.sampled_from(["X", "To"]))
def test_no_value_breaks_out_of_its_field(value: str | bytes, name: str) -> None:
    headers = Headers(b"A: b\r\n")
    try:
        headers.add(name, value)
    except ValueError:
        assert headers.raw == b"A: b\r\n"
        return
    headers.add("C", "d")
    found = Headers(split(headers.raw + b"\r\nbody")[0])
    assert [field.name for field in found] == ["A", name, "C"]


@given(TEXT)
@example("=?utf-8?q?x?=")
@example("a =?utf-8?q?x?= é")
@example("x" * 1200 + " é")
@example("é" * 300)
@example("a  b " * 40 + "c")
@example("é" + " " * 100 + "é")
def test_text_comes_back(text: str) -> None:
    headers = Headers()
    headers.add("Subject", text)
    raw = headers.raw
    assert raw.isascii()
    assert headers.get("Subject") == text
    assert Headers(raw).get("Subject") == text
    lines = raw.split(b"\r\n")
    assert all(line.strip() for line in lines[:-1])
    assert max(map(len, lines)) <= 998
    for word in re.findall(rb"=\?utf-8\?b\?([^?]*)\?=", raw):
        assert len(word) <= 63
        email.base64mime.decode(word.decode()).decode()  # type: ignore[attr-defined]


@given(st.text(st.characters(categories=["L", "N"]), max_size=150), st.text("ab é", max_size=99))
def test_python_reads_the_same(one: str, two: str) -> None:
    text = f"{one} {two} x".strip()
    headers = Headers()
    headers.add("Subject", text)
    parsed = email.message_from_bytes(headers.raw + b"\r\n", policy=email.policy.default)
    assert " ".join(str(parsed["Subject"]).split()) == " ".join(text.split())
    assert all(len(line) <= 78 for line in headers.raw.split(b"\r\n"))


@pytest.mark.parametrize(
    ("value", "names", "addresses"),
    [
        ("山田 太郎 <a@example.com>", ["山田 太郎"], ["a@example.com"]),
        ('"山田, 太郎" <a@example.com>', ["山田, 太郎"], ["a@example.com"]),
        ("山田<a@example.com>, b@example.com", ["山田", ""], ["a@example.com", "b@example.com"]),
        ('"é \\"x\\"" <a@example.com>', ['é "x"'], ["a@example.com"]),
        ('"a, b" <a@example.com>', ["a, b"], ["a@example.com"]),
    ],
)
def test_names_in_address_fields_are_encoded_and_addresses_are_not(
    value: str, names: list[str], addresses: list[str]
) -> None:
    headers = Headers()
    headers.add("To", value)
    assert headers.raw.isascii()
    parsed = email.message_from_bytes(headers.raw + b"\r\n", policy=email.policy.default)
    found = parsed["To"].addresses
    assert [one.display_name for one in found] == names
    assert [one.addr_spec for one in found] == addresses


def test_address_outside_ascii_stays_utf_8() -> None:
    headers = Headers()
    headers.add("To", "田中 <田中@例え.jp>, 山田@例え.jp")
    assert "<田中@例え.jp>, 山田@例え.jp".encode() in headers.raw
    assert headers.get("To") == "田中 <田中@例え.jp>, 山田@例え.jp"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b" =?utf-8?B?44GC?= =?utf-8?B?44GE?=", "あい"),
        (b" =?utf-8?B?44GC?=\r\n =?iso-8859-1?Q?=E9?= x", "あé x"),
        (b" =?utf-8?B?44E=?= =?utf-8?B?gg==?=", "あ"),
        (b" a =?utf-8?Q?b_c=20d?= e", "a b c d e"),
        (b" =?utf-8?Q?b c?=", "b c"),
        (b" =?utf-8*ja?Q?b?=", "b"),
        (b" =?utf-8?B?44GC?", "=?utf-8?B?44GC?"),
        (b" =?x-unknown?B?44GC?= =?utf-8?Q?b?=", "=?x-unknown?B?44GC?= b"),
        (b" =?utf-8?B?4?=", "=?utf-8?B?4?="),
        (b" =?utf-8?B?YWI?=", "ab"),
        (b" \xe3\x81\x82", "あ"),
        (b" \xe9", "é"),
        (b' \x1b$B$"\x1b(B', "あ"),
        (b" =?iso-2022-jp?B?GyRCJCIbKEI=?= =?iso-2022-jp?B?GyRCJCQbKEI=?=", "あい"),
        (b" =?utf-8?Q?=FF?=", "\ufffd"),
    ],
)
def test_decoded_values(body: bytes, value: str) -> None:
    assert Field(b"Subject:" + body + b"\r\n").value == value


@given(st.binary(max_size=60) | PIECES | TEXT.map(str.encode))
def test_reading_a_value_never_raises(body: bytes) -> None:
    assert isinstance(Field(b"Subject: =?utf-8?b?" + body + b"?=\r\n").value, str)
    assert isinstance(Field(b"Subject:" + body).value, str)
