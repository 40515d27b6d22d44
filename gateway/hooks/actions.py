"""What a hook may answer: frozen values, named as in the milter protocol where it has the name."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_DELAY = 1e9
"""Seconds; no mail waits for thirty years."""

_STATUS = re.compile(r"^[245]\.\d{1,3}\.\d{1,3}$")


def _check_reply(code: int, status: str, text: str, first_digit: int) -> None:
    if type(code) is not int or code // 100 != first_digit or not 100 <= code <= 599:
        raise ValueError(f"reply code {code} must start with {first_digit}")
    if not _STATUS.match(status) or int(status[0]) != first_digit:
        raise ValueError(f"enhanced status {status!r} must look like {first_digit}.x.y (RFC 3463)")
    if not text or not all(" " <= character != "\x7f" for character in text):
        raise ValueError(f"reply text {text!r} must be one line without control characters")


def _on_one_line(reason: str) -> str:
    """A reason without line ends and control characters.

    Raises:
        TypeError: it is no text.
    """
    if type(reason) is not str:
        raise TypeError(f"the reason {reason!r} is no text")
    if reason.isprintable():
        return reason
    return " ".join("".join([one if one.isprintable() else " " for one in reason]).split())


@dataclass(frozen=True, slots=True)
class Accept:
    """Ends this stage: what comes later in the chain is not asked, the mail goes on."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuses for good: the client gets `code` (5xx) and keeps its mail.

    Raises:
        ValueError: the code is not 5xx, the status not 5.x.y (RFC 3463) or the text not one line.
    """

    text: str
    code: int = 550
    status: str = "5.7.1"

    def __post_init__(self) -> None:
        _check_reply(self.code, self.status, self.text, 5)


@dataclass(frozen=True, slots=True)
class Tempfail:
    """Refuses for now: the client gets `code` (4xx) and tries again later.

    Raises:
        ValueError: the code is not 4xx, the status not 4.x.y (RFC 3463) or the text not one line.
    """

    text: str
    code: int = 451
    status: str = "4.7.1"

    def __post_init__(self) -> None:
        _check_reply(self.code, self.status, self.text, 4)


@dataclass(frozen=True, slots=True)
class Discard:
    """Says yes to the client and delivers nothing; the reason goes to the log and the events."""

    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", _on_one_line(self.reason))


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Accepts the message and holds it in the queue until a person releases or drops it."""

    reason: str

    def __post_init__(self) -> None:
        # A person has to know why. And '' would look as if nobody held the message.
        object.__setattr__(self, "reason", _on_one_line(self.reason) or "(no reason given)")


@dataclass(frozen=True, slots=True)
class Delay:
    """Delivers not before `seconds` from now.

    With `lane`, all mail of the delivery's lane has to wait, and is not asked about before; that
    counts in the stages `source` and `admit` only.
    """

    seconds: float
    reason: str = ""
    lane: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < LONGEST_DELAY:
            raise ValueError(f"a delay of {self.seconds} seconds is not in the future")
        object.__setattr__(self, "reason", _on_one_line(self.reason))


Action = Accept | Reject | Tempfail | Discard | Quarantine | Delay
