"""When mail is to go out: HOLDFOR and HOLDUNTIL (RFC 4865), and a header field for both. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_INTERVAL = re.compile(r"[1-9][0-9]{0,8}")
_ISO_8601 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:[.,]\d{1,6})?)?) ?(Z|[+-]\d\d(?::?[0-5]\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
# Names of zones that RFC 5322 does not have mean different times in different places.
_RFC_5322 = re.compile(
    r"(?:(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ?, ?)?"
    r"(\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [1-9]\d{3} \d\d:\d\d(?::\d\d)?"
    r"(?: (?:[+-]\d\d[0-5]\d|UTC?|GMT|[ECMP][DS]T))?)(?: ?\([^()]*\))?",
    re.ASCII | re.IGNORECASE,
)
_LEAP_SECOND = re.compile(r"(\d\d:\d\d):60\b")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class FutureReleaseError(ValueError):
    """A time that mail cannot be kept until. The text says why, on one line."""


def advertisement(now: float, longest: float) -> str:
    """The EHLO keyword FUTURERELEASE, with how long and until when mail may be kept.

    Args:
        now: seconds since the epoch.
        longest: seconds.
    """
    return f"FUTURERELEASE {int(longest)} {_text(now + longest)}"


def after_interval(value: str | None, now: float, longest: float) -> float:
    """When HOLDFOR lets mail go, in seconds since the epoch.

    Raises:
        FutureReleaseError: it is no number of seconds, or more than `longest`.
    """
    if value is None or not _INTERVAL.fullmatch(value):
        raise FutureReleaseError("HOLDFOR takes a number of seconds, from 1 to 999999999")
    return _within(now + int(value), now, longest)


def at_date_time(value: str | None, now: float, longest: float) -> float:
    """When HOLDUNTIL lets mail go, in seconds since the epoch; 0.0 if that time is past.

    Raises:
        FutureReleaseError: it is no time with a zone (RFC 3339), or more than `longest` away.
    """
    match = _ISO_8601.fullmatch(value or "")
    moment = _from_iso_8601(match) if match is not None and match[3] else None
    if moment is None:
        raise FutureReleaseError("HOLDUNTIL takes a time as RFC 3339 has it: 2030-01-31T09:00:00Z")
    return _within(moment.timestamp(), now, longest)


def from_field(value: str, now: float, longest: float) -> float:
    """When a header field lets mail go, in seconds since the epoch; 0.0 if that time is past.

    It holds a date as in RFC 5322 or ISO 8601, in UTC where it names no zone.

    Raises:
        FutureReleaseError: it holds something else, or a time more than `longest` away.
    """
    text = " ".join(value.split())
    moment: datetime | None = None
    if (match := _ISO_8601.fullmatch(text)) is not None:
        moment = _from_iso_8601(match)
    elif (match := _RFC_5322.fullmatch(text)) is not None:
        moment = _from_rfc_5322(match)
    if moment is None:
        raise FutureReleaseError(
            "expected a date such as Thu, 31 Jan 2030 09:00:00 +0900 or 2030-01-31T09:00:00+09:00"
        )
    return _within(moment.timestamp(), now, longest)


def _within(moment: float, now: float, longest: float) -> float:
    if moment <= now:
        return 0.0
    if moment > now + longest:
        raise FutureReleaseError(
            f"mail is kept until {_text(now + longest)} at the latest"
            if longest
            else "mail is not kept for later here"
        )
    return moment


def _from_iso_8601(match: re.Match[str]) -> datetime | None:
    day, time, zone = match.groups()
    try:
        time = _LEAP_SECOND.sub(r"\1:59", time or "00:00")
        return datetime.fromisoformat(f"{day}T{time}{(zone or 'Z').upper()}")
    except ValueError:
        return None


def _from_rfc_5322(match: re.Match[str]) -> datetime | None:
    weekday, text = match.groups()
    try:
        moment = parsedate_to_datetime(_LEAP_SECOND.sub(r"\1:59", text))
    except ValueError:
        return None
    if weekday is not None and _DAYS[moment.weekday()] != weekday.lower():
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _text(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
