"""The bytes between DATA and the final dot: what SMTP may carry, and our trace field. Pure."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from gateway.mail.message import Client

_UNSAFE = re.compile(r"[^A-Za-z0-9.:_\[\]-]")


def unstuff(stuffed: bytes) -> bytes:
    """Takes the transparency dots out (RFC 5321 4.5.2).

    `stuffed` begins with the CRLF of the line before the content, which stays off, and ends with
    the CRLF of its last line.
    """
    if b"\r\n." in stuffed:
        stuffed = stuffed.replace(b"\r\n.", b"\r\n")
    return stuffed[2:]


def flaw(content: bytes, line_length: int) -> str | None:
    """Why SMTP cannot carry these bytes; None if it can.

    A bare CR or LF ends a line for some servers and not for others, which lets a message smuggle
    another one in; RFC 5321 2.3.8 forbids both, and NUL in 4.5.2.

    Args:
        content: the message.
        line_length: the longest line allowed, in octets without its CRLF (998 in RFC 5321).
    """
    lines = content.count(b"\r\n")
    if content.count(b"\n") != lines:
        return "bare LF in the message (RFC 5321 2.3.8)"
    if content.count(b"\r") != lines:
        return "bare CR in the message (RFC 5321 2.3.8)"
    if b"\0" in content:
        return "NUL in the message (RFC 5321 4.5.2)"
    position = 0
    end = len(content)
    span = line_length + 2
    # From each line end, the last line end within reach; no step is longer than a line may be.
    while end - position > line_length:
        found = content.rfind(b"\n", position, position + span)
        if found < 0:
            return f"a line is longer than {line_length} octets (RFC 5321 4.5.3.1.6)"
        position = found + 1
    return None


def received_field(
    client: Client, hostname: str, queue_id: str, recipient: str | None, now: float
) -> bytes:
    """The Received field that we put on top (RFC 5321 4.4), with its CRLF.

    Args:
        client: who handed the message over.
        hostname: our name.
        queue_id: the id of the message.
        recipient: the recipient if there is exactly one; several stay unnamed.
        now: seconds since the epoch.
    """
    protocol = "ESMTP" if client.esmtp else "SMTP"
    if client.esmtp:
        protocol += ("S" if client.tls else "") + ("A" if client.user else "")
    address = f"IPv6:{client.address}" if ":" in client.address else client.address
    tls = f"\r\n\t(using {client.tls})" if client.tls else ""
    target = ""
    if recipient is not None and recipient.isascii() and len(recipient) < 200:
        target = f"\r\n\tfor <{recipient}>"
    return (
        f"Received: from {_UNSAFE.sub('?', client.helo)[:255] or 'unknown'} ([{address}])\r\n"
        f"\tby {hostname} with {protocol}{tls} id {queue_id}{target};\r\n"
        f"\t{_date(int(now))}\r\n"
    ).encode("ascii")


@lru_cache(maxsize=4)
def _date(now: int) -> str:
    return formatdate(now, localtime=True)
