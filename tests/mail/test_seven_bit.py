"""8-bit messages in 7 bits: readers decode the same, and what was 7-bit keeps its bytes."""

from __future__ import annotations

import email
import email.errors
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail import transfer_encoding
from gateway.mail.headers import Headers, split
from gateway.mail.mime import Part, scan
from gateway.mail.seven_bit import seven_bit

GERMAN = "Grüße aus dem Norden, wo es regnet, und 100 % Spaß =)\r\n" * 3
JAPANESE = "こんにちは、世界。\r\n" * 3


def _converted(content: bytes, *, alike: bool = True) -> bytes:
    """The message in 7 bits; readers decode from it what they decoded before.

    Without `alike`, it is one that the standard library reads in a way of its own.
    """
    new = seven_bit(content)
    assert new is not None
    assert new.isascii()
    assert not alike or _leaves(new) == _leaves(content)
    assert _decoded(new) == _decoded(content)
    assert seven_bit(new) is new
    return new


def _leaves(content: bytes) -> list[tuple[str, Any]]:
    """Types and octets of all parts, as the standard library reads them."""
    return [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in email.message_from_bytes(content).walk()
        if not part.is_multipart()
    ]


def _decoded(content: bytes) -> list[tuple[str, bytes]]:
    """The same, as we read them."""
    header, _, body = split(content)
    parts = scan(body, Headers(header)).walk()
    return [(part.content_type, _octets(body, part)) for part in parts if not part.children]


def _octets(body: bytes, part: Part) -> bytes:
    return transfer_encoding.decode(body[part.start : part.end], part.transfer_encoding)[0]


def _message(*fields: str, body: str = GERMAN, charset: str = "utf-8") -> bytes:
    lines = "".join(f"{field}\r\n" for field in ("Subject: x", "MIME-Version: 1.0", *fields))
    return lines.encode() + b"\r\n" + body.encode(charset)


def _multipart(*parts: str, fields: str = "", boundary: str = "b") -> str:
    """A multipart's header fields and body, as a part or after a message's other fields."""
    inside = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return (
        f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n{fields}\r\n'
        f"{inside}--{boundary}--\r\n"
    )


def _mixed(*parts: str, fields: str = "") -> bytes:
    return f"Subject: x\r\nMIME-Version: 1.0\r\n{_multipart(*parts, fields=fields)}".encode()


TEXT = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
PLAIN = "Content-Type: text/plain\r\nX-Odd:  as   it is\r\n\r\nplain =20 \r\n"


def test_what_is_7_bit_stays_the_same_object() -> None:
    for content in (b"", b"\r\n", b"Subject: x\r\n\r\nx", _mixed(PLAIN, fields="X: y\r\n")):
        assert seven_bit(content) is content


def test_western_text_becomes_quoted_printable() -> None:
    new = _converted(_message("Content-Type: text/plain; charset=utf-8", "X-Odd:   kept "))
    assert new.startswith(
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"X-Odd:   kept \r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"Gr=C3=BC=C3=9Fe aus dem Norden, wo es regnet, und 100 % Spa=C3=9F =3D)\r\n"
    )


def test_japanese_text_becomes_base64() -> None:
    content = _message("Content-Transfer-Encoding: 8bit", "X: y", body=JAPANESE)
    new = _converted(content)
    assert b"\r\nContent-Transfer-Encoding: base64\r\nX: y\r\n\r\n44GT" in new
    assert new.endswith(b"\r\n")
    assert max(map(len, new.split(b"\r\n"))) <= 76


def test_files_become_base64() -> None:
    content = _mixed(
        "Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\nPNG ä", PLAIN
    )
    new = _converted(content)
    assert (
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nUE5HIMOk\r\n--b"
        in (new)
    )
    assert PLAIN.encode() in new


def test_an_old_message_without_mime_becomes_one() -> None:
    new = _converted(b"Subject: x\r\n\r\nK\xf6ln\r\n")
    assert new == (
        b"Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n"
        b"K=F6ln\r\n"
    )
    assert _converted(b"\r\nK\xf6ln\r\n").endswith(b"\r\n\r\nK=F6ln\r\n")


def test_only_the_parts_that_need_it_change() -> None:
    content = _mixed(PLAIN, TEXT + GERMAN, PLAIN, fields="Content-Transfer-Encoding: 8bit\r\n")
    new = _converted(content)
    before, after = content.split(b"\r\n--b\r\n"), new.split(b"\r\n--b\r\n")
    assert after[0] == before[0].replace(b"8bit", b"7bit")
    assert (after[1], after[3]) == (before[1], before[3])
    assert after[2].startswith(
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC"
    )


def test_containers_of_what_did_not_change_keep_their_bytes() -> None:
    eight = "Content-Transfer-Encoding: 8bit\r\n"
    old = _multipart(PLAIN, fields=eight, boundary="c")
    new = _converted(_mixed(old, TEXT + GERMAN, fields=eight))
    assert old.encode() in new
    assert new.count(b"8bit") == 1


def test_a_message_inside_is_converted_inside() -> None:
    inner = f"From: b@example.com\r\n{TEXT}{JAPANESE}"
    part = f"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{inner}"
    new = _converted(_mixed(PLAIN, part))
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nFrom: b@" in new
    assert b"Content-Transfer-Encoding: base64\r\nMIME-Version: 1.0\r\n\r\n44GT" in new


def test_a_message_is_a_message_inside() -> None:
    new = _converted(_message("Content-Type: message/rfc822", body=f"{TEXT}{GERMAN}"))
    assert b"Content-Type: message/rfc822\r\n\r\nContent-Type: text/plain" in new


@pytest.mark.parametrize("kind", ["global", "global-headers", "global-delivery-status"])
def test_an_internationalized_message_inside_is_encoded(kind: str) -> None:
    fields = f"Content-Type: message/{kind}\r\nContent-Transfer-Encoding: 8bit\r\n"
    part = f"{fields}\r\nTo: ä@b\r\n\r\n"
    new = _converted(_mixed(PLAIN, part), alike=False)
    assert b"Content-Transfer-Encoding: base64\r\n\r\nVG86" in new


def test_quoted_printable_with_8_bit_octets_is_completed() -> None:
    field = "Content-Transfer-Encoding: Quoted-Printable"
    new = _converted(_message(field, body="K=C3=B6ln, Köln =\r\nx\r\n"))
    assert new == _message(field, body="K=C3=B6ln, K=C3=B6ln x\r\n")


def test_an_encoding_that_is_named_twice_is_named_once() -> None:
    fields = ["Content-Transfer-Encoding: 8bit", "X: y", "content-transfer-encoding: 7bit"]
    new = _converted(_message(*fields))
    assert split(new)[0].lower().count(b"content-transfer-encoding") == 1


@pytest.mark.parametrize(
    "end", ["", "\r\n", "\r\n\r\n", " ", "\t\r\n", "=", " \r\n \r\n", "x" * 80]
)
@pytest.mark.parametrize("text", [GERMAN, JAPANESE])
def test_the_end_of_a_message_stays(text: str, end: str) -> None:
    new = _converted(_message(body=text + end))
    assert new.endswith(b"\r\n")
    _converted(_mixed(TEXT + text + end, TEXT + text + end))
    # Not even the last delimiter is there.
    _converted(_mixed(TEXT + text + end).removesuffix(b"\r\n--b--\r\n"), alike=False)


def test_no_line_that_is_broken_off_ends_the_part() -> None:
    text = "ä" + "x" * 69 + "--b\r\n"
    assert b"=\r\n--b" in transfer_encoding.encode(text.encode(), "quoted-printable")
    new = _converted(_mixed(TEXT + text))
    assert b"Content-Transfer-Encoding: base64" in new


@pytest.mark.parametrize(
    "content",
    [
        _message("X-Name: Jürgen"),
        _message("X-Name: Jürgen", body="plain\r\n"),
        _mixed("Content-Type: text/plain; name=ä\r\n\r\nplain\r\n"),
        _mixed(f"Content-Type: text/plain; name=ä\r\n\r\n{GERMAN}"),
        _mixed(f"Content-Type: message/rfc822\r\n\r\nSubject: ä\r\n\r\n{GERMAN}"),
        _message("Content-Type: multipart/mixed", body=f"--b\r\n\r\n{GERMAN}\r\n--b--\r\n"),
        _message("Content-Type: multipart/mixed; boundary=c", body=f"--b\r\n\r\n{GERMAN}\r\n"),
        _mixed(TEXT + GERMAN).replace(b"multipart/mixed", b"multipart/signed"),
        _mixed(_multipart(TEXT + GERMAN, boundary="c")).replace(b"mixed", b"encrypted", 1),
        _mixed(TEXT + GERMAN, fields="Content-Transfer-Encoding: base64\r\n"),
        _mixed(TEXT + GERMAN, fields="Content-Transfer-Encoding: quoted-printable\r\n"),
        _mixed(PLAIN).replace(b"\r\n--b\r\n", b"\r\npre\xe4mble\r\n--b\r\n", 1),
        _mixed(PLAIN) + "epilögue\r\n".encode(),
        _mixed(TEXT + GERMAN) + "epilögue\r\n".encode(),
        _message("Content-Transfer-Encoding: base64", body="QUJD\r\nä\r\n"),
        _message("Content-Transfer-Encoding: quoted-printable", body="=zz ä\r\n"),
        _message("Content-Transfer-Encoding: x-uuencode"),
        _mixed(f"Content-Type: message/delivery-status\r\n\r\n{GERMAN}"),
        _mixed(f"Content-Type: message/partial\r\n\r\n{GERMAN}"),
        _mixed(GERMAN),
        _mixed(f"Content-Type: text/plain\r\n{GERMAN}"),
        "Subject: x\r\nno header field, Köln\r\n".encode(),
        "Köln\r\n".encode(),
        _mixed(*[TEXT + "x"] * 1100, TEXT + "ä"),
    ],
)
def test_what_cannot_be_said_in_7_bits(content: bytes) -> None:
    assert not content.isascii()
    assert seven_bit(content) is None


def test_a_signed_part_beside_an_8_bit_one_keeps_its_bytes() -> None:
    signed = _multipart(PLAIN, boundary="c").replace("mixed", "signed")
    new = _converted(_mixed(signed, TEXT + GERMAN))
    assert signed.encode() in new


def test_a_signature_that_is_all_of_a_part_is_a_file() -> None:
    _converted(_message("Content-Type: application/pkcs7-mime", body="\x01ÿ\x02"))


WORDS = [b"\r\n", b"--", b"-", b"=", b" ", b"\t", b"x" * 40, b"K\xc3\xb6ln", b"\xe3\x81\x82", b"."]
LINES = st.lists(st.sampled_from([*WORDS, b"\xff", b"text"]), max_size=12).map(b"".join)
ENCODINGS = [
    b"",
    *(b"Content-Transfer-Encoding: %b\r\n" % e for e in (b"8bit", b"7BIT", b"binary")),
]
TYPES = [b"", *(b"Content-Type: %b\r\n" % t for t in (b"text/html; charset=utf-8", b"a/b; c=d"))]


def _leaf(kind: bytes, encoding: bytes, content: bytes) -> bytes:
    return kind + encoding + b"\r\n" + content


def _inside(children: list[bytes], encoding: bytes, number: int) -> bytes:
    boundary = b"=_%d" % number
    parts = b"".join(b"--%b\r\n%b\r\n" % (boundary, child) for child in children)
    header = b'Content-Type: multipart/mixed; boundary="%b"\r\n' % boundary + encoding
    return header + b"\r\n" + parts + b"--%b--\r\n" % boundary


def _embedded(child: bytes, encoding: bytes) -> bytes:
    return b"Content-Type: message/rfc822\r\n" + encoding + b"\r\nSubject: in\r\n" + child


PARTS = st.recursive(
    st.builds(_leaf, st.sampled_from(TYPES), st.sampled_from(ENCODINGS), LINES),
    lambda inner: (
        st.builds(
            _inside,
            st.lists(inner, min_size=1, max_size=3),
            st.sampled_from(ENCODINGS),
            st.integers(0, 10**9),
        )
        | st.builds(_embedded, inner, st.sampled_from(ENCODINGS))
    ),
    max_leaves=6,
)


@given(PARTS)
@example(_leaf(b"", b"", b"\xff"))
@example(_inside([_leaf(b"", b"", b"\xff"), _leaf(b"", b"", b"\xff\r\n")], b"", 1))
def test_any_tree_of_parts_is_read_as_before(part: bytes) -> None:
    new = _converted(b"Subject: x\r\n" + part)
    before = [octets for _, octets in _decoded(b"Subject: x\r\n" + part) if octets.isascii()]
    assert all(octets in new for octets in before)


@given(st.binary(max_size=300))
def test_nothing_is_a_surprise(octets: bytes) -> None:
    for content in (octets, b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n" + octets):
        new = seven_bit(content)
        assert new is None or new.isascii()
        if new is not None:
            assert [kind for kind, _ in _decoded(new)] == [kind for kind, _ in _decoded(content)]


def test_real_messages_are_read_as_before(mail_corpus: Path) -> None:
    converted = 0
    for path in sorted(mail_corpus.rglob("*")):
        if not path.is_file() or path.name == "README.md":
            continue
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        content = content.replace(b"\n", b"\r\n")
        new = seven_bit(content)
        if new is None or new is content:
            assert (new is None) != content.isascii()
            continue
        converted += 1
        assert new.isascii()
        assert _decoded(new) == _decoded(content), path
        if not _is_torn(email.message_from_bytes(content)):
            assert _leaves(new) == _leaves(content), path
    assert converted >= 10


def _is_torn(message: Message) -> bool:
    """Whether the standard library ends the header at another place than we do."""
    return any(
        isinstance(defect, email.errors.MissingHeaderBodySeparatorDefect)
        for defect in message.defects
    )
