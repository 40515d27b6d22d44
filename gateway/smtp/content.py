"""The bytes between DATA and the final dot: what SMTP may carry, and our trace field. Pure."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from gateway.mail.large_content import Content, Octets
from gateway.mail.line_end import bare_line_end
from gateway.mail.message import Client

_BARE_CR = "bare CR in the message (RFC 5321 2.3.8)"
_BARE = {"CR": _BARE_CR, "LF": "bare LF in the message (RFC 5321 2.3.8)"}
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
    bare = bare_line_end(content)
    if bare is not None:
        return _BARE[bare]
    if b"\0" in content:
        return "NUL in the message (RFC 5321 4.5.2)"
    position = 0
    end = len(content)
    span = line_length + 2
    # From each line end, the last line end within reach; no step is longer than a line may be.
    while end - position > line_length:
        found = content.rfind(b"\n", position, position + span)
        if found < 0:
            return _too_long(line_length)
        position = found + 1
    return None


class LineCheck:
    """As `flaw`, of a message that comes block by block.

    Attributes:
        flaw: the first that was found; None as long as there is none.
    """

    def __init__(self, line_length: int) -> None:
        self.flaw: str | None = None
        self._line_length = line_length
        self._held = b""
        self._begun = 0  # octets of a line whose end has not come yet

    def feed(self, block: Octets) -> None:
        """Looks at a block."""
        if self.flaw is not None:
            return
        octets = b"".join((self._held, block))
        if octets.endswith(b"\r"):
            # Only with the next block it is known what it is.
            octets, self._held = octets[:-1], b"\r"
        else:
            self._held = b""
        first = octets.find(b"\n") + 1
        begun = self._begun + (first or len(octets))
        if begun > self._line_length + (2 if first else 0):
            self.flaw = _too_long(self._line_length)
            return
        self.flaw = flaw(octets[first:] if first else b"", self._line_length)
        self.flaw = self.flaw or flaw(octets[:first] if first else octets, begun)
        self._begun = len(octets) - octets.rfind(b"\n") - 1 if first else begun

    def end(self) -> None:
        """The message ends."""
        if self._held and self.flaw is None:
            self.flaw = _BARE_CR


def flaw_of(content: Content, line_length: int) -> str | None:
    """As `flaw`, of a message of any size."""
    if isinstance(content, bytes):
        return flaw(content, line_length)
    check = LineCheck(line_length)
    for block in content.blocks():
        check.feed(block)
    check.end()
    return check.flaw


def _too_long(line_length: int) -> str:
    return f"a line is longer than {line_length} octets (RFC 5321 4.5.3.1.6)"


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
