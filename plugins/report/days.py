"""Days of a time zone, in Python and in SQL. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, tzinfo
from zoneinfo import ZoneInfo

_DAY = 86_400


def zone_of(name: str) -> tzinfo:
    """The time zone of that name.

    Raises:
        ZoneInfoNotFoundError, ValueError, OSError: there is none.
    """
    # A system without a database of time zones knows this one too.
    return UTC if name == "UTC" else ZoneInfo(name)


def day_start(day: date, zone: tzinfo) -> float:
    """When a day begins, in seconds since the epoch."""
    return datetime.combine(day, time(), zone).timestamp()


def day_of(moment: float, zone: tzinfo) -> date:
    """The day of a time in seconds since the epoch."""
    return datetime.fromtimestamp(moment, zone).date()


def day_expression(column: str, zone: tzinfo, start: float, end: float) -> str:
    """SQL for the day, as YYYY-MM-DD, of the seconds since the epoch in a column.

    SQLite knows no time zones, and a function of ours for each row would take most of the time
    that a report takes; so the changes of the clock between `start` and `end` are written out.
    """
    changes = list(_changes(zone, int(start), int(end) + 1))
    offset = str(_offset(zone, int(end) + 1))
    if changes:
        cases = " ".join(f"WHEN {column}<{moment} THEN {before}" for moment, before in changes)
        offset = f"CASE {cases} ELSE {offset} END"
    return f"date({column}+{offset}, 'unixepoch')"


def _changes(zone: tzinfo, start: int, end: int) -> Iterator[tuple[int, int]]:
    """When the clock is set forward or back, and the offset up to then."""
    for moment in range(start, end, _DAY):
        low, high = moment, min(moment + _DAY, end)
        before = _offset(zone, low)
        if before == _offset(zone, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if _offset(zone, middle) == before:
                low = middle
            else:
                high = middle
        yield high, before


def _offset(zone: tzinfo, moment: int) -> int:
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0
