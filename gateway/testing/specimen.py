"""Messages to test with: the same octets each time."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypedDict, Unpack

from gateway.hooks import Client, Headers, Message
from gateway.mail import transfer_encoding

SENDER = "sender@example.com"
RECIPIENT = "recipient@example.net"
"""The addresses of messages for which a test names none."""

DATE = "Mon, 01 Jun 2026 12:00:00 +0000"
MESSAGE_ID = "<1@example.com>"
QUEUE_ID = "0HARVVT700001"

Encoding = Literal["7bit", "8bit", "quoted-printable", "base64"]
Attachment = tuple[str, bytes] | tuple[str, bytes, str]
"""A file: its name, its octets, and its type (`application/octet-stream` where it is left out)."""

_LONGEST_LINE = 998
_WORD = 33
"""Octets in an encoded word, so that lines have at most 76 characters (RFC 2047 2)."""


class Writing(TypedDict, total=False):
    """How a message is written; see `mail`."""

    html: str | None
    subject: str
    headers: Mapping[str, str | bytes | None] | Sequence[tuple[str, str | bytes]]
    charset: str
    encoding: Encoding | None
    attachments: Sequence[Attachment]
    raw: bytes | None


def mail(
    text: str | None = "Hello",
    *,
    html: str | None = None,
    subject: str = "Hello",
    sender: str = SENDER,
    to: str | Sequence[str] = RECIPIENT,
    headers: Mapping[str, str | bytes | None] | Sequence[tuple[str, str | bytes]] = (),
    charset: str = "utf-8",
    encoding: Encoding | None = None,
    attachments: Sequence[Attachment] = (),
    raw: bytes | None = None,
) -> bytes:
    r"""The octets of a message; equal arguments give equal octets.

    Its Date, Message-ID and boundaries are always the same. Lines end in CRLF.

    Args:
        text: the plain text, lines separated by `\n`; None for a message without it.
        html: a version in HTML; with `text` the two are `multipart/alternative`.
        subject: its Subject.
        sender: the address in From.
        to: the addresses in To.
        headers: further fields. One that is there already is replaced, or left out if it is None.
            `str` is encoded (RFC 2047), `bytes` are taken as they are.
        charset: how texts and the subject are encoded, such as `iso-2022-jp`.
        encoding: the Content-Transfer-Encoding of texts; None: 7bit if that is possible, otherwise
            quoted-printable.
        attachments: files, as `(name, octets)` or `(name, octets, type)`.
        raw: the body as it is, instead of texts and attachments; its Content-Type belongs into
            `headers`.

    Raises:
        UnicodeEncodeError: a text does not fit the charset.
        ValueError: a text does not fit the encoding, or a header field is none.
    """
    header = Headers()
    header.add("From", sender or "MAILER-DAEMON@example.com")
    header.add("To", to if isinstance(to, str) else ", ".join(to))
    header.add("Subject", _subject(subject, charset))
    header.add("Date", DATE)
    header.add("Message-ID", MESSAGE_ID)
    if raw is not None:
        body = raw
    else:
        header.add("MIME-Version", "1.0")
        described, body = _body(text, html, charset, encoding, attachments)
        for name, value in described:
            header.add(name, value)
    for name, given in headers.items() if isinstance(headers, Mapping) else headers:
        if isinstance(headers, Mapping):
            if given is None:
                header.delete(name)
                continue
            if name in header:
                header.change(name, given)
                continue
        header.add(name, given or "")
    return header.raw + b"\r\n" + body


def message(
    text: str | None = "Hello",
    *,
    content: bytes | None = None,
    sender: str = SENDER,
    to: str | Sequence[str] = RECIPIENT,
    client: str | Client = "127.0.0.1",
    user: str | None = None,
    stream: str = "default",
    **writing: Unpack[Writing],
) -> Message:
    """A message as hooks get it, to call one directly: octets by `mail`, and an envelope.

    Args:
        text: its text, as in `mail`.
        content: all of its octets, instead.
        sender: who sends it, in the envelope and in From.
        to: who receives it, in the envelope and in To.
        client: who gives it to the gateway; an IP address, or all of it.
        user: who that is logged in as.
        stream: the stream that it belongs to.
        writing: further arguments of `mail`.
    """
    who = client
    if not isinstance(who, Client):
        who = Client(who, helo="client.example.org", esmtp=True, user=user)
    new = Message(QUEUE_ID, sender, who, stream)
    new.content = mail(text, sender=sender, to=to, **writing) if content is None else content
    for address in [to] if isinstance(to, str) else to:
        new.add_recipient(address)
    return new


def _subject(text: str, charset: str) -> str | bytes:
    """A subject in a charset of its own; UTF-8 is what a header field takes by itself."""
    if text.isascii() or charset.lower() == "utf-8":
        return text
    words: list[str] = []
    for character in text:
        if words and len((words[-1] + character).encode(charset)) <= _WORD:
            words[-1] += character
        else:
            words.append(character)
    name = charset.encode()
    encoded = (base64.b64encode(word.encode(charset)) for word in words)
    return b"\r\n ".join(b"=?%b?B?%b?=" % (name, word) for word in encoded)


Described = list[tuple[str, str | bytes]]
"""Fields that describe a part."""


def _body(
    text: str | None,
    html: str | None,
    charset: str,
    encoding: Encoding | None,
    attachments: Sequence[Attachment],
) -> tuple[Described, bytes]:
    parts = [
        _text(value, kind, charset, encoding)
        for kind, value in (("plain", text), ("html", html))
        if value is not None
    ]
    if len(parts) > 1:
        parts = [_multipart("alternative", parts)]
    parts += [_attachment(*attachment) for attachment in attachments]
    if not parts:
        parts = [_text("", "plain", charset, encoding)]
    return parts[0] if len(parts) == 1 and not attachments else _multipart("mixed", parts)


def _text(text: str, kind: str, charset: str, encoding: Encoding | None) -> tuple[Described, bytes]:
    lines = text.replace("\r\n", "\n")
    lines += "" if lines.endswith("\n") else "\n"
    octets = lines.replace("\n", "\r\n").encode(charset)
    plain = octets.isascii() and all(len(one) <= _LONGEST_LINE for one in octets.split(b"\r\n"))
    encoding = encoding or ("7bit" if plain else "quoted-printable")
    if encoding == "7bit" and not octets.isascii():
        raise ValueError(f"the text in {charset} does not fit 7bit: {text[:40]!r}")
    if encoding in ("quoted-printable", "base64"):
        octets = transfer_encoding.encode(octets, encoding)
    described: Described = [
        ("Content-Type", f"text/{kind}; charset={charset}"),
        ("Content-Transfer-Encoding", encoding),
    ]
    return described, octets


def _attachment(
    name: str, octets: bytes, kind: str = "application/octet-stream"
) -> tuple[Described, bytes]:
    described: Described = [
        ("Content-Type", kind.encode()),
        ("Content-Transfer-Encoding", "base64"),
        ("Content-Disposition", b'attachment; filename="%b"' % name.encode()),
    ]
    return described, transfer_encoding.encode(octets, "base64")


def _multipart(kind: str, parts: Sequence[tuple[Described, bytes]]) -> tuple[Described, bytes]:
    boundary = b"=_" + kind.encode()
    body = b"".join(_delimited(boundary, parts)) + b"--%b--\r\n" % boundary
    return [("Content-Type", b'multipart/%b; boundary="%b"' % (kind.encode(), boundary))], body


def _delimited(boundary: bytes, parts: Sequence[tuple[Described, bytes]]) -> Iterator[bytes]:
    for described, octets in parts:
        header = Headers()
        for name, value in described:
            header.add(name, value)
        # The line end before a delimiter belongs to it (RFC 2046 5.1.1).
        yield b"--%b\r\n%b\r\n%b\r\n" % (boundary, header.raw, octets)
