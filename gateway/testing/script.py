"""What a scripted next hop is told to do."""

from __future__ import annotations

from dataclasses import dataclass

EXTENSIONS = (
    "PIPELINING",
    "SIZE 52428800",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "ENHANCEDSTATUSCODES",
)

DEFAULTS = {
    "banner": "220 nexthop.test ESMTP",
    "helo": "250 nexthop.test",
    "starttls": "220 2.0.0 Go ahead",
    "mail": "250 2.1.0 Ok",
    "rcpt": "250 2.1.5 Ok",
    "data": "354 End data with <CR><LF>.<CR><LF>",
    "dot": "250 2.0.0 Ok: queued",
    "rset": "250 2.0.0 Ok",
    "noop": "250 2.0.0 Ok",
    "quit": "221 2.0.0 Bye",
}
"""The answers of a server that likes everything, by stage."""

STAGES = frozenset({*DEFAULTS, "ehlo", "handshake", "auth", "content"})
"""All that an answer can be scripted for."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Closes the connection: in an orderly way (FIN), or with `reset` at once (RST)."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Says nothing more until the client closes or the test ends.

    Without `reads` it does not take in what the client sends either, and nobody sees it close.
    """

    reads: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """Answers `then` after `seconds`."""

    seconds: float
    then: str | Drop | Raw | Trickle


@dataclass(frozen=True, slots=True)
class Raw:
    """Sends bytes as they are, then reads on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Trickle:
    """Sends a reply one byte at a time, each in a packet of its own."""

    reply: str


Answer = str | Drop | Hang | Wait | Raw | Trickle
"""What to do at a stage. A text is a reply such as `550 5.1.1 Unknown`; LF separates its lines."""

Script = Answer | list[Answer]
"""An answer for every time, or a list: one answer for each time, the last one ever after."""
