from __future__ import annotations

import email
import email.policy
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.headers import Headers, split
from gateway.mail.mime import (
    MAX_DEPTH,
    MAX_PARTS,
    Part,
    decode_parameters,
    parse_parameters,
    scan,
)


def scanned(content: bytes) -> tuple[bytes, Part]:
    header, _, body = split(content)
    return body, scan(body, Headers(header))


def shape(part: Part) -> object:
    """Nested lists of content types."""
    return [part.content_type, *map(shape, part.children)] if part.children else part.content_type


def multipart(boundary: bytes, *parts: bytes, kind: bytes = b"mixed") -> bytes:
    start = b'Content-Type: multipart/%b; boundary="%b"\r\n\r\n' % (kind, boundary)
    inner = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
    return start + inner + b"--%b--\r\n" % boundary


TEXT = b"Content-Type: text/plain\r\n\r\nhello"
HTML = (
    b"Content-Type: TEXT/HTML; Charset=UTF-8\r\nContent-Transfer-Encoding: Base64\r\n\r\naGk=\r\n"
)
PNG = (
    b"Content-Type: image/png\r\nContent-Disposition: Attachment; filename*=utf-8''%E3%81%82.png"
    b"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA"
)


def test_parts_are_spans() -> None:
    content = b"MIME-Version: 1.0\r\n" + multipart(
        b"mix", multipart(b"alt", TEXT, HTML, kind=b"alternative"), PNG
    )
    body, root = scanned(content)
    assert shape(root) == [
        "multipart/mixed",
        ["multipart/alternative", "text/plain", "text/html"],
        "image/png",
    ]
    plain, html = root.children[0].children
    png = root.children[1]
    assert body[plain.start : plain.end] == b"hello"
    assert body[plain.header_start : plain.header_end] == b"Content-Type: text/plain\r\n"
    assert (plain.charset, plain.transfer_encoding, plain.disposition) == (None, "7bit", None)
    assert body[html.start : html.end] == b"aGk=\r\n"
    assert (html.charset, html.transfer_encoding, html.depth) == ("utf-8", "base64", 2)
    assert (png.disposition, png.filename) == ("attachment", "あ.png")
    assert png.is_attachment
    assert not html.is_attachment
    assert (root.depth, root.start, root.end) == (0, 0, len(body))


def test_message_without_mime_is_plain_text() -> None:
    _, root = scanned(b"Subject: x\r\n\r\nhello\r\n")
    assert (root.content_type, root.charset, root.children) == ("text/plain", None, [])


@pytest.mark.parametrize(
    ("field", "content_type"),
    [
        (b"text/html", "text/html"),
        (b" Text / Html ;x=y", "text/html"),
        (b"\r\n\ttext/html;\r\n\tcharset=x", "text/html"),
        (b"text", "text/plain"),
        (b"", "text/plain"),
        (b";;;", "text/plain"),
        (b"multipart/mixed", "multipart/mixed"),
        (b'multipart/mixed; boundary=""', "multipart/mixed"),
    ],
)
def test_content_types(field: bytes, content_type: str) -> None:
    _, root = scanned(b"Content-Type: " + field + b"\r\n\r\n--\r\n\r\nx\r\n----\r\n")
    assert root.content_type == content_type
    assert root.children == []


def test_missing_end_boundaries() -> None:
    inner = multipart(b"in", TEXT).removesuffix(b"--in--\r\n")
    body, root = scanned(multipart(b"out", inner, HTML).removesuffix(b"--out--\r\n"))
    assert shape(root) == ["multipart/mixed", ["multipart/mixed", "text/plain"], "text/html"]
    assert body[slice(root.children[0].children[0].start, root.children[0].children[0].end)] == (
        b"hello\r\n"
    )
    assert root.children[1].end == len(body)


def test_boundaries_that_begin_alike() -> None:
    _, root = scanned(multipart(b"b", multipart(b"bb", TEXT), b"\r\n--b x\r\n--bbb\r\n--b-", HTML))
    assert shape(root) == [
        "multipart/mixed",
        ["multipart/mixed", "text/plain"],
        "text/plain",
        "text/html",
    ]


def test_inner_multipart_with_the_boundary_of_the_outer() -> None:
    _, root = scanned(multipart(b"b", multipart(b"b", TEXT), HTML))
    assert shape(root) == ["multipart/mixed", ["multipart/mixed", "text/plain"], "text/html"]


def test_delimiters_with_white_space_and_without_header() -> None:
    content = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b \t\r\n\r\nx\r\n--b\r\n"
    )
    content += b"no header\r\n--b\r\n--b\r\nX: y\r\n--b-- \r\nepilogue\r\n--b\r\nnot read\r\n"
    body, root = scanned(content)
    assert [body[part.start : part.end] for part in root.children] == [b"x", b"no header", b"", b""]


def test_boundary_that_looks_like_a_field() -> None:
    _, root = scanned(multipart(b"a:b", b"X: y", TEXT))
    assert shape(root) == ["multipart/mixed", "text/plain", "text/plain"]


def test_digest_and_embedded_messages() -> None:
    message = b"Subject: in\r\n" + multipart(b"in", TEXT)
    body, root = scanned(
        multipart(b"out", b"\r\n" + message, TEXT, kind=b"digest").replace(
            b"--out\r\nContent-Type: text/plain", b"--out\r\nContent-Type: text/plain; x=y"
        )
    )
    assert shape(root) == [
        "multipart/digest",
        ["message/rfc822", ["multipart/mixed", "text/plain"]],
        "text/plain",
    ]
    container, plain = root.children
    assert not container.embedded
    assert container.children[0].embedded
    inner = container.children[0].children[0]
    assert inner.embedded
    assert body[inner.start : inner.end] == b"hello"
    assert not plain.embedded


def test_encoded_message_is_opaque() -> None:
    part = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nQTogYg=="
    _, root = scanned(multipart(b"b", part))
    assert shape(root) == ["multipart/mixed", "message/rfc822"]


@pytest.mark.parametrize("kind", [b"signed", b"encrypted"])
def test_signed_and_encrypted_parts_are_protected(kind: bytes) -> None:
    _, root = scanned(multipart(b"o", multipart(b"i", multipart(b"j", TEXT), kind=kind), TEXT))
    protected = {id(part) for part in root.walk() if part.protected}
    inside = root.children[0].walk()[1:]
    assert protected == {id(part) for part in inside}
    assert len(inside) == 2


def test_depth_is_bounded() -> None:
    content = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(1000)
    )
    _, root = scanned(content + TEXT)
    assert max(part.depth for part in root.walk()) == MAX_DEPTH
    _, root = scanned(b"Content-Type: message/rfc822\r\n\r\n" * 1000 + TEXT)
    assert max(part.depth for part in root.walk()) == MAX_DEPTH


def test_number_of_parts_is_bounded_and_the_last_is_protected() -> None:
    body, root = scanned(multipart(b"b", *[TEXT] * (MAX_PARTS + 500)))
    parts = root.walk()
    assert len(parts) == MAX_PARTS + 1
    assert "1000 parts" in parts[-1].protected
    assert parts[-1].end == len(body)
    assert not parts[-2].protected


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"text/plain; charset=utf-8", {"charset": "utf-8"}),
        (b'a; Charset = "utf-8" ; x=y', {"charset": "utf-8", "x": "y"}),
        (b'a; x="a;b\\"c"; y=z', {"x": 'a;b"c', "y": "z"}),
        (b"a; charset=us-ascii (plain); x=y", {"charset": "us-ascii", "x": "y"}),
        (b"a; filename=my file.txt; x=y", {"filename": "my file.txt", "x": "y"}),
        (b"a; filename==?utf-8?B?44GC?=", {"filename": "あ"}),
        (b'a; filename="=?utf-8?B?44GC?="', {"filename": "あ"}),
        (b"a; filename*=utf-8'ja'%E3%81%82", {"filename": "あ"}),
        (b"a; filename*=iso-2022-jp''%1B$B$%22%1B%28B", {"filename": "あ"}),
        (b"a; f*1=b; f*0=a; f*2=c; f*4=x", {"f": "abc"}),
        (b"a; f*0*=utf-8''%E3%81; f*1*=%82; f*2=\"%41\"", {"f": "あ%41"}),
        (b"a; f=x; f*=utf-8''y", {"f": "y"}),
        (b"a; f=x; f=y", {"f": "x"}),
        (b"a; f*1=b", {}),
        (b"a; f*=x-unknown''%E3%81%82", {"f": "あ"}),
        (b'a; x="open', {"x": "open"}),
        (b'a; x="fol\r\n\tded"', {"x": "fol\tded"}),
        (b"a;;; =x; y; z=", {"z": ""}),
    ],
)
def test_parameters(body: bytes, values: dict[str, str]) -> None:
    assert decode_parameters(parse_parameters(body)) == values


def test_parameters_know_their_place() -> None:
    body = b' text/plain;\r\n x="a b"; charset=utf-8 (c); name=f g '
    assert [(one.name, body[one.start : one.end]) for one in parse_parameters(body)] == [
        ("x", b"a b"),
        ("charset", b"utf-8"),
        ("name", b"f g"),
    ]


LINES = st.lists(
    st.sampled_from(
        [
            b"",
            b"--a",
            b"--b",
            b"--a--",
            b"--b--",
            b"--",
            b"--a:b",
            b"text",
            b"X: y",
            b" fold",
            b"\0\xff",
            b"Content-Type: multipart/mixed; boundary=a",
            b"Content-Type: multipart/signed; boundary=b",
            b"Content-Type: multipart/digest; boundary=a:b",
            b"Content-Type: message/rfc822",
        ]
    ),
    max_size=60,
)


@given(LINES)
@example([b"--a", b"Content-Type: multipart/signed; boundary=b", b"--b", b"--a"])
def test_spans_are_nested_and_in_order(lines: list[bytes]) -> None:
    body, root = scanned(b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + b"\r\n".join(lines))
    for part in root.walk():
        assert part.header_start <= part.header_end <= part.start <= part.end <= len(body)
        assert body[part.header_end : part.start] in (b"", b"\r\n")
        end = part.start
        for child in part.children:
            assert end <= child.header_start
            assert child.end <= part.end
            assert child.depth == part.depth + 1
            end = child.end


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("x", "y"), ("part_1", "part_2"), ("x", "xy"), ("xy", "x"), ("z" * 99, "z")],
)
def test_boundaries_that_begin_alike_are_told_apart(outer: str, inner: str) -> None:
    lines = [
        f"Content-Type: multipart/mixed; boundary={outer}\r\n\r\n--{outer}",
        f"Content-Type: multipart/alternative; boundary={inner}\r\n\r\n--{inner}",
        f"\r\none\r\n--{outer[:-1]}?\r\n--{inner}",
        f"\r\ntwo\r\n--{inner}--\r\n--{inner}no\r\n--{outer}",
        f"\r\nthree\r\n--{inner}no\r\n--{outer}--\r\n--{outer}",
    ]
    body, root = scanned("\r\n".join(lines).encode())
    leaves = [body[part.start : part.end] for part in root.walk() if not part.children]
    assert leaves == [
        b"\r\n".join((b"one", f"--{outer[:-1]}?".encode())),
        b"two",
        b"\r\n".join((b"three", f"--{inner}no".encode())),
    ]


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_scanning_never_raises(body: bytes, field: bytes) -> None:
    root = scan(body, Headers(b"Content-Type: multipart/x; boundary=" + field + b"\r\n"))
    for part in root.walk():
        assert (part.params, part.charset, part.filename, part.disposition) is not None
        assert part.transfer_encoding


def test_corpus_has_the_leaves_that_python_finds(mail_corpus: Path) -> None:
    """On messages that are well formed the standard library's parser sees the same parts."""
    compared = 0
    for path in sorted(mail_corpus.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        content = re.sub(rb"(?<!\r)\n", b"\r\n", path.read_bytes())
        body, root = scanned(content)
        parts = root.walk()
        assert all(part.start <= part.end <= len(body) for part in parts)
        parsed = email.message_from_bytes(content, policy=email.policy.compat32)
        expected = list(parsed.walk())
        if any(part.defects for part in expected):
            continue
        try:
            types = [part.get_content_type() for part in expected]
        except (LookupError, UnicodeError):
            continue
        if [part.content_type for part in parts] == types:
            compared += 1
    assert compared > 200
