"""When a key signs: instants, and the gaps that keys leave between them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

_EXPECTED = (
    "expected a date such as 2026-12-01 (midnight in UTC), or a time with its zone such as "
    "2026-12-01T09:00:00+09:00"
)


_SOON = 30 * 86400.0


@dataclass(frozen=True, slots=True, order=True)
class Validity:
    """A span of time, from `start` until just before `end`, in seconds since the epoch."""

    start: float = -math.inf
    end: float = math.inf

    def __contains__(self, now: float) -> bool:
        return self.start <= now < self.end


def parse_instant(value: Any) -> float:
    """Reads a date, or a time with its zone, as YAML gives it; seconds since the epoch.

    Raises:
        ValueError: it is neither, or a time without a zone.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if ":" in value else date.fromisoformat(value)
        except ValueError:
            raise ValueError(_EXPECTED) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone; {_EXPECTED}")
        return value.timestamp()
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC).timestamp()
    raise ValueError(_EXPECTED)


def instant_text(instant: float) -> str:
    """Writes an instant as people read it, in UTC."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def gaps(validities: Iterable[Validity]) -> list[Validity]:
    """The spans between the first start and the last end that none of these covers."""
    found = []
    reach: float | None = None
    for validity in sorted(validities):
        if reach is not None and validity.start > reach:
            found.append(Validity(reach, validity.start))
        reach = validity.end if reach is None else max(reach, validity.end)
    return found


def warning(use: object, validities: Iterable[Validity], now: float) -> str | None:
    """What a person should know of keys at a time: that none signs, or that soon none will.

    Args:
        use: what the keys are for; its `str` is in words.
        validities: when each of them signs, without gaps between them.
        now: seconds since the epoch.
    """
    spans = list(validities)
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    if now >= end:
        return f"{use} is missing since {instant_text(end)}"
    if now < start:
        return f"{use} is missing until {instant_text(start)}"
    if end - now <= _SOON:
        return f"{use} will be missing from {instant_text(end)} on; add the key that follows"
    return None
