"""Hours, days and months of the calendar in a time zone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

Period = Literal["hour", "day", "month"]
PERIODS: tuple[Period, ...] = ("hour", "day", "month")


@dataclass(frozen=True, slots=True)
class Window:
    """An hour, a day or a month: from `start` to before `end`, in seconds since the epoch."""

    period: Period
    start: int
    end: int


def zone_of(name: str) -> tzinfo:
    """The time zone of that name.

    Raises:
        ZoneInfoNotFoundError, ValueError, OSError: there is none.
    """
    # A system without a database of time zones knows this one too.
    return UTC if name == "UTC" else ZoneInfo(name)


def window_of(period: Period, moment: float, zone: tzinfo) -> Window:
    """The window that a time in seconds since the epoch lies in."""
    # A fraction could be rounded up to the next second.
    second = int(moment)
    here = datetime.fromtimestamp(second, zone)
    if period == "hour":
        # Of an hour that the clock shows twice, each is an hour.
        start = second - here.minute * 60 - here.second
        return Window(period, start, start + 3600)
    day = datetime(here.year, here.month, here.day, tzinfo=zone)
    if period == "day":
        following = day + timedelta(days=1)
    else:
        day = day.replace(day=1)
        following = (day + timedelta(days=31)).replace(day=1)
    return Window(period, int(day.timestamp()), int(following.timestamp()))


def end_text(window: Window, zone: tzinfo) -> str:
    """When a window ends, as people write it: `2026-12-01 00:00 JST`."""
    end = datetime.fromtimestamp(window.end, zone)
    # Zones without letters of their own are named by their offset.
    name = end.tzname() or ""
    return f"{end:%Y-%m-%d %H:%M} {name if name.isalpha() else f'{end:%z}'}"
