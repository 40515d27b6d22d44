"""When mail is to go out: HOLDFOR, HOLDUNTIL and the header field, as people and programs write."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.smtp.future_release import (
    FutureReleaseError,
    advertisement,
    after_interval,
    at_date_time,
    from_field,
)

NOW = 1_900_000_000.0  # 2030-03-17T17:46:40Z, a Sunday
AGES = 1e12


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_what_ehlo_says() -> None:
    assert advertisement(NOW + 0.9, 2592000.0) == "FUTURERELEASE 2592000 2030-04-16T17:46:40Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # RFC 5322
        ("Mon, 18 Mar 2030 09:00:00 +0900", "2030-03-18T00:00:00+00:00"),
        ("Mon, 18 Mar 2030 09:00:00 +0900 (JST)", "2030-03-18T00:00:00+00:00"),
        ("Mon,18 Mar 2030 09:00 -0330", "2030-03-18T12:30:00+00:00"),
        ("mon, 18 mar 2030 09:00:00 gmt", "2030-03-18T09:00:00+00:00"),
        ("18 Mar 2030 09:00:00 UT", "2030-03-18T09:00:00+00:00"),
        ("18 Mar 2030 09:00:00 EST", "2030-03-18T14:00:00+00:00"),
        ("18 Mar 2030 09:00:00 -0000", "2030-03-18T09:00:00+00:00"),
        ("18 Mar 2030 09:00:00", "2030-03-18T09:00:00+00:00"),
        ("1 Apr 2030 23:59:60 +0000", "2030-04-01T23:59:59+00:00"),
        ("  Mon,\t18 Mar 2030\r\n\t09:00:00 +0900 ", "2030-03-18T00:00:00+00:00"),
        # ISO 8601
        ("2030-03-18T09:00:00+09:00", "2030-03-18T00:00:00+00:00"),
        ("2030-03-18T09:00:00+0900", "2030-03-18T00:00:00+00:00"),
        ("2030-03-18T09:00+09", "2030-03-18T00:00:00+00:00"),
        ("2030-03-18 09:00 +09:00", "2030-03-18T00:00:00+00:00"),
        ("2030-03-18t09:00:00.25z", "2030-03-18T09:00:00.250000+00:00"),
        ("2030-03-18T09:00:00,5Z", "2030-03-18T09:00:00.500000+00:00"),
        ("2030-03-18T09:00", "2030-03-18T09:00:00+00:00"),
        ("2030-03-18", "2030-03-18T00:00:00+00:00"),
        ("2030-12-31T23:59:60Z", "2030-12-31T23:59:59+00:00"),
    ],
)
def test_a_date_in_a_header_field(text: str, expected: str) -> None:
    assert from_field(text, NOW, AGES) == _time(expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "tomorrow", "in 3 hours", "3600", "1900003600", "+3600", "2030", "2030-03"),
        *("18/03/2030 09:00", "03/18/2030", "2030/03/18 09:00", "18.03.2030 09:00", "09:00"),
        *("2030-02-29", "2030-13-01", "2030-00-10", "2030-03-18T24:00:00Z", "2030-03-18T09:60Z"),
        *("2030-03-18T09:00:61Z", "2030-03-18T09:00:00+25:00", "2030-03-18T09:00:00+09:60"),
        *("2030-03-18T09", "2030-03-18 9:00", "20300318T090000Z", "2030-W12-1", "30-03-18"),
        "Tue, 18 Mar 2030 09:00:00 +0900",  # a Monday: which of the two is meant?
        "18 Mar 2030 09:00:00 JST",  # names of zones that RFC 5322 does not have
        "18 Mar 2030 09:00:00 BST",
        "18 Mar 2030 09:00:00 +9",
        "18 Mar 2030 09:00:00 +0960",
        "18 Mar 2030 25:00:00 +0900",
        "18 Mar 2030 9:00",
        "18 March 2030 09:00:00",
        "Mar 18, 2030 09:00:00",
        "31 Feb 2030 09:00:00",
        "18 Mar 30 09:00:00",
        "18 Mar 0030 09:00:00",
        "2030-03-18T09:00:00Z 2030-03-19T09:00:00Z",
        "2030-03-18T09:00:00Z\0",
        "2030-03-18T09:00:00Z (noon) (or so)",
        "２０３０-03-18T09:00:00Z",
    ],
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(FutureReleaseError, match="expected a date such as"):
        from_field(text, NOW, AGES)


def test_what_is_past_goes_at_once() -> None:
    for text in ("2030-03-17T17:46:40Z", "17 Mar 2030 17:46:40 GMT", "0001-01-01T00:00+23:59"):
        assert from_field(text, NOW, 0.0) == 0.0
    assert at_date_time("1990-01-01T00:00:00Z", NOW, 60.0) == 0.0


def test_what_is_too_far_away() -> None:
    assert from_field("2030-03-17T17:47:40Z", NOW, 60.0) == NOW + 60
    with pytest.raises(FutureReleaseError, match="mail is kept until 2030-03-17T17:47:40Z at the"):
        from_field("2030-03-17T17:47:41Z", NOW, 60.0)
    with pytest.raises(FutureReleaseError, match="at the latest"):
        from_field("9999-12-31T23:59:59-23:59", NOW, 60.0)
    with pytest.raises(FutureReleaseError, match="mail is not kept for later here"):
        from_field("2030-03-17T17:47:41Z", NOW, 0.0)
    with pytest.raises(FutureReleaseError, match="at the latest"):
        after_interval("61", NOW, 60.0)


TIMES = st.datetimes(
    min_value=datetime(2030, 3, 20),  # noqa: DTZ001 - a zone is added
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.builds(
        timezone, st.integers(-23 * 60, 23 * 60).map(lambda minutes: timedelta(minutes=minutes))
    ),
)


@given(TIMES)
def test_every_date_that_a_program_writes_is_understood(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    assert from_field(moment.isoformat(), NOW, AGES) == moment.timestamp()
    assert at_date_time(moment.isoformat(), NOW, AGES) == moment.timestamp()
    assert from_field(moment.astimezone(UTC).isoformat()[:-6], NOW, AGES) == moment.timestamp()
    assert from_field(format_datetime(whole), NOW, AGES) == whole.timestamp()


@given(st.one_of(st.text(), st.from_regex(re.compile(r"[-+:., TZ0-9a-z()]{8,40}", re.ASCII))))
@example("0000-00-00T00:00:00Z")
@example("9999-99-99 99:99:99 +99:59")
@example("99 Feb 1999 99:99:99 +9959")
def test_nothing_but_a_clear_answer(text: str) -> None:
    for read in (from_field, at_date_time, after_interval):
        moment, complaint = 0.0, ""
        try:
            moment = read(text, NOW, AGES)
        except FutureReleaseError as error:
            complaint = str(error)
        assert moment == 0.0 or moment > NOW
        assert complaint.isprintable()


@given(st.integers(1, 999_999_999))
def test_every_interval(seconds: int) -> None:
    assert after_interval(str(seconds), NOW, AGES) == NOW + seconds
