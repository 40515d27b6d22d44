"""The header and MIME scanner: what nobody changes stays as it was, and changes stay in place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from fuzz import seeds
from fuzz.target import Target, law
from gateway.mail import header_text
from gateway.mail.headers import Field, Headers, split
from gateway.mail.message import Client, Message
from gateway.mail.mime import MAX_DEPTH, MAX_PARTS, Part, scan
from gateway.mail.text_part import TextPartError
from gateway.smtp.content import flaw

_MARK = "[fuzzed]"
_NAMES = ("subject", "from", "to", "content-type", "received", "x-none", "")


def check_header(data: bytes) -> None:
    """Reads a header, and changes it and back.

    Raises:
        BrokenLawError: octets were lost, or a field is not what was written.
    """
    header, blank, body = split(data)
    law(header + blank + body == data, "the pieces are not the message")
    headers = Headers(header)
    fields = list(headers)
    law(b"".join(field.raw for field in fields) == header, "the fields are not the header")
    for field in fields:
        # Bare ones are refused before anybody reads the header; encoded words may encode anything.
        odd = re.search(rb"\r(?!\n)|(?<!\r)\n|=\?", field.raw)
        law(odd or not set("\r\n") & set(field.value), "a line end in a value")
    _check_fields(fields)
    for name in _NAMES:
        values = headers.get_all(name)
        law(headers.get(name) == (values[0] if values else None), "the first of all")
        law((name in headers) == bool(values), "whether there is one")
        law(len(values) == len(headers.fields(name)), "as many values as fields")
    law(headers.raw == header, "reading changed it")
    if header.endswith(b"\r\n"):
        headers.prepend("X-Fuzz", "ü" * 50)
        law(headers.get("x-fuzz") == "ü" * 50, "what was written is not what is read")
        law(headers.raw.endswith(header), "prepending changed what was there")
        headers.delete("x-fuzz", 0)
        law(headers.raw == header, "deleting left something")


def _check_fields(fields: Sequence[Field]) -> None:
    for field in fields[:10]:
        start = field.raw[: field.raw.index(b":") + 1]
        with suppress(ValueError):
            body = header_text.replace(start, field.body, [(0, 0, _MARK)])
            value = Headers(start + body + b"\r\n").get(field.name)
            law(value is not None and _MARK in value, "what was put in is not there")


def check_mime(data: bytes) -> None:
    """Scans a message, and changes each of its texts.

    Raises:
        BrokenLawError: octets changed that are not of the text.
    """
    header, _, body = split(data)
    root = scan(body, Headers(header))
    parts = root.walk()
    law(len(parts) <= MAX_PARTS + 1, "too many parts")
    for part in parts:
        law(part.depth <= MAX_DEPTH + 1, "too deep")
        _check_places(part, len(body))
        law(isinstance(part.filename, str | None), "a file's name is no text")
    message = Message("0H3K5M7P9R1T3", "a@example.com", Client("127.0.0.1"))
    message.receive(data)
    law(message.content == data, "the message is not what came")
    for text in message.text_parts():
        text.text.encode()
    count = len(message.text_parts())
    for index in range(min(count, 5)):
        _check_change(data, index, count)


def _check_places(part: Part, size: int) -> None:
    law(0 <= part.header_start <= part.header_end <= part.start <= size, "a part begins badly")
    law(part.start <= part.end <= size, "a part ends badly")
    place = part.start
    for child in part.children:
        law(place <= child.header_start and child.end <= part.end, "a part is not in its place")
        place = child.end


def _check_change(data: bytes, index: int, count: int) -> None:
    message = Message("0H3K5M7P9R1T3", "a@example.com", Client("127.0.0.1"))
    message.receive(data)
    part = message.text_parts()[index]
    if not part.editable:
        return
    before = part.text
    with suppress(TextPartError):
        part.replace([(len(before), len(before), _MARK)])
    if not part.changed:
        law(message.content == data, "a change that was refused changed something")
        return
    new = message.content
    if flaw(data, 998) is not None:
        return  # It would have been refused.
    law(flaw(new, 998) is None, "a change made a flaw")
    again = Message("0H3K5M7P9R1T3", "a@example.com", Client("127.0.0.1"))
    again.receive(new)
    texts = again.text_parts()
    law(len(texts) == count, "a change made or lost a part")
    # A message ends with a line end, or gets one.
    text = texts[index].text
    law(text in (before + _MARK, before + _MARK + "\n"), "the text is not what was written")


def header() -> Target:
    """Header fields, encoded words and addresses."""
    tokens = [
        *(
            b"\r\n ",
            b"\r\n\t",
            b"\r\n\r\n",
            b": ",
            b"=?utf-8?q?",
            b"=?iso-2022-jp?B?",
            b"?=",
            b"=?",
        ),
        *(b"\x1b$B", b"\x1b(B", b"Subject: ", b"From: ", b"<a@b.c>", b'"', b"(", b")", b"\\", b";"),
        *(b"=?us-ascii*en?q?", b"group:", b",", b"\xe5\xae\x9b", b"=?utf-8?b?44G+?= =?utf-8?b?"),
    ]
    return Target("header", check_header, seeds.messages(), tokens)


def mime() -> Target:
    """Parts, transfer encodings and charsets."""
    tokens = [
        *(b"Content-Type: multipart/mixed; boundary=", b"Content-Type: text/plain; charset="),
        *(b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"x-uuencode", b"8bit"),
        *(
            b"\r\n--",
            b"--\r\n",
            b"\r\n\r\n",
            b"=\r\n",
            b"=E5",
            b"=3D",
            b"\x1b$B",
            b"\x1b(J",
            b"+AG",
        ),
        *(b"utf-7", b"iso-2022-jp", b"utf-16", b"shift_jis", b"us-ascii", b"x-unknown", b"hz"),
        *(b"boundary*0=", b"boundary*1*=utf-8''", b"message/rfc822", b"multipart/signed", b'"'),
        *(b"format=flowed; delsp=yes", b"Content-Disposition: attachment", b"text/html", b"\t"),
    ]
    return Target("mime", check_mime, seeds.messages(), tokens)
