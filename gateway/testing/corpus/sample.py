"""One message of the corpus, and the pieces that many of them are made of. Pure."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from quopri import encodestring

AUTHOR = "Aiko Mori <news@example.com>"
DATE = "Sat, 14 Nov 2026 09:30:00 +0900"


@dataclass(frozen=True, slots=True)
class Sample:
    """A message as a client sends it.

    Attributes:
        name: what it shows, such as `iso-2022-jp`; unique in the corpus.
        content: header, blank line and body, with lines that end in CRLF.
        sender: the address in MAIL, '' for the null path.
        recipients: those in RCPT.
        smtputf8: whether MAIL says SMTPUTF8 (RFC 6531).
    """

    name: str
    content: bytes
    sender: str = "news@example.com"
    recipients: tuple[str, ...] = ("ada@example.net",)
    smtputf8: bool = False


def octets(piece: str | bytes) -> bytes:
    """Text in UTF-8 with CRLF at the end of each line; octets as they are."""
    if isinstance(piece, bytes):
        return piece
    return piece.replace("\r\n", "\n").replace("\n", "\r\n").encode()


def header(*fields: str | bytes, subject: str | bytes = "A letter") -> bytes:
    """A usual header, with `fields` below it."""
    usual = (
        f"From: {AUTHOR}",
        "To: Ada <ada@example.net>",
        b"Subject: " + octets(subject),
        f"Date: {DATE}",
        "Message-ID: <letter@example.com>",
    )
    return b"".join(octets(field) + b"\r\n" for field in (*usual, *fields))


def message(body: str | bytes, *fields: str | bytes, subject: str | bytes = "A letter") -> bytes:
    """A usual header with `fields`, a blank line and a body."""
    return header(*fields, subject=subject) + b"\r\n" + octets(body)


def mime(
    body: str | bytes,
    content_type: str,
    encoding: str = "7bit",
    *fields: str,
    subject: str | bytes = "A letter",
) -> bytes:
    """A message with MIME fields (RFC 2045)."""
    return message(
        body,
        "MIME-Version: 1.0",
        f"Content-Type: {content_type}",
        f"Content-Transfer-Encoding: {encoding}",
        *fields,
        subject=subject,
    )


def part(body: str | bytes, content_type: str, encoding: str = "7bit", *fields: str) -> bytes:
    """A part of a multipart, from its header to before its delimiter."""
    own = (f"Content-Type: {content_type}", f"Content-Transfer-Encoding: {encoding}", *fields)
    return octets("".join(f"{field}\n" for field in own)) + b"\r\n" + octets(body)


def multipart(subtype: str, boundary: str, *parts: bytes, parameters: str = "") -> bytes:
    """A message of several parts (RFC 2046 5.1)."""
    return message(
        joined(boundary, *parts),
        "MIME-Version: 1.0",
        f'Content-Type: multipart/{subtype}; boundary="{boundary}"{parameters}',
    )


def nested(subtype: str, boundary: str, *parts: bytes) -> bytes:
    """A multipart that is a part."""
    head = octets(f'Content-Type: multipart/{subtype}; boundary="{boundary}"\n\n')
    return head + joined(boundary, *parts)


def joined(boundary: str, *parts: bytes) -> bytes:
    """Parts between their delimiters."""
    delimiter = b"--" + boundary.encode()
    pieces = [delimiter + b"\r\n" + one + b"\r\n" for one in parts]
    return b"".join(pieces) + delimiter + b"--\r\n"


def base64(content: str | bytes, width: int = 76) -> str:
    """Base64 in lines of a width, the last with its line end."""
    text = b64encode(octets(content)).decode()
    return "".join(f"{text[start : start + width]}\n" for start in range(0, len(text), width))


def quoted_printable(content: str | bytes) -> str:
    """Quoted-printable, with line ends as they are."""
    return encodestring(octets(content).replace(b"\r\n", b"\n")).decode()
