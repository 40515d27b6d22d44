"""Days of a time zone, and when they end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Day:
    """A day: its date, and the seconds since the epoch from `start` to before `end`."""

    date: date
    start: float
    end: float

    def __contains__(self, now: float) -> bool:
        return self.start <= now < self.end


def zone_of(name: str) -> tzinfo:
    """The time zone of that name.

    Raises:
        ZoneInfoNotFoundError, ValueError, OSError: there is none.
    """
    # A system without a database of time zones knows this one too.
    return UTC if name == "UTC" else ZoneInfo(name)


def day_at(now: float, zone: tzinfo) -> Day:
    """The day that a time, in seconds since the epoch, is on."""
    today = datetime.fromtimestamp(now, zone).date()
    return Day(today, _midnight(today, zone), _midnight(today + timedelta(days=1), zone))


def _midnight(day: date, zone: tzinfo) -> float:
    return datetime.combine(day, time(), zone).timestamp()


def format_time(moment: float, zone: tzinfo) -> str:
    """A time to the second, as people and programs read it (RFC 3339)."""
    text = datetime.fromtimestamp(moment, zone).isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")
