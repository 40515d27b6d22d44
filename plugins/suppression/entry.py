"""An entry of the list: whom it names, where it holds, why, and until when. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple, get_args

from pydantic import TypeAdapter

from gateway.hooks import Duration
from plugins.suppression.address import normal_domain

Reason = Literal["complaint", "unsubscribe", "manual", "bounce", "invalid"]

REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why somebody gets no mail. If several reasons hold, the first of these is named."""

EVERYWHERE = ""
_SENDER = "sender:"
_STREAM = "stream:"

_LATEST = 253_402_300_799
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_LENGTH = re.compile(r"\d+(?:\.\d+)? ?[a-z]+")
_DURATION: TypeAdapter[float] = TypeAdapter(Duration)
_EXPECTED = "expected a date such as 2031-12-31, a length of time such as 90d, or never"


class Entry(NamedTuple):
    """One row of the list. There is one for each address, scope and reason.

    A tuple, because lists have millions and the database takes tuples.

    Attributes:
        address: whom it names, as `normal_entry` writes it.
        scope: where it holds: '' is everywhere, others as `sender_scope`, `stream_scope` write.
        reason: one of `REASONS`.
        expires: when it ends, seconds since the epoch; None: never.
        added: when it was made.
        source: what made it: `command`, `import`, `event`.
        note: what there is to know about it, on one line.
    """

    address: str
    scope: str
    reason: str
    expires: int | None
    added: int
    source: str
    note: str


# Scopes.


def sender_scope(domain: str) -> str:
    """The scope of mail from an envelope sender with this normal domain; '' without one."""
    return f"{_SENDER}{domain}" if domain else EVERYWHERE


def stream_scope(name: str) -> str:
    """The scope of mail of a stream; '' without one."""
    return f"{_STREAM}{name}" if name else EVERYWHERE


def parse_scope(text: str) -> str:
    """Reads `everywhere`, `sender:shop.example.com` or `stream:bulk`; nothing is everywhere.

    Raises:
        ValueError: it is none of these.
    """
    if text in ("", "everywhere"):
        return EVERYWHERE
    kind, _, name = text.partition(":")
    if kind == "sender" and name:
        return sender_scope(normal_domain(name))
    if kind == "stream" and name and name.isprintable():
        return stream_scope(name)
    raise ValueError(f"{text!r} is no scope; expected everywhere, sender:DOMAIN or stream:NAME")


def format_scope(scope: str) -> str:
    """A scope as `parse_scope` reads it."""
    return scope or "everywhere"


# Reasons, notes and times.


def parse_reason(text: str) -> str:
    """One of `REASONS`.

    Raises:
        ValueError: it is none of them.
    """
    if text not in REASONS:
        raise ValueError(f"{text!r} is no reason; expected {', '.join(REASONS)}")
    return text


def parse_note(text: str) -> str:
    """A text on one line.

    Raises:
        ValueError: it has control characters.
    """
    if not text.isprintable() and re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text):
        raise ValueError(f"{text!r} has control characters; expected one line of text")
    return text


def parse_time(text: str) -> int:
    """Reads a moment in ISO 8601; without an offset it is in local time.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no moment; expected one like 2031-12-31T09:00Z") from None


def parse_expiry(text: str, now: float) -> int | None:
    """When an entry ends, in seconds since the epoch; None for `never` and for nothing.

    A date means the end of that day in local time, a length of time counts from `now`.

    Raises:
        ValueError: it is none of these.
    """
    if text in ("", "never"):
        return None
    try:
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text) + timedelta(days=1)
            return int(datetime(day.year, day.month, day.day).astimezone().timestamp())
        if _LENGTH.fullmatch(text):
            return _writable(now + _DURATION.validate_python(text))
        return parse_time(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no end; {_EXPECTED}") from None


def format_time(seconds: int) -> str:
    """A moment in ISO 8601, UTC: `2031-12-31T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _writable(seconds: float) -> int:
    """A moment that `format_time` can write.

    Raises:
        ValueError: the year has more than four digits.
    """
    if seconds > _LATEST:
        raise ValueError(f"{seconds} is after the year 9999")
    return int(seconds)
