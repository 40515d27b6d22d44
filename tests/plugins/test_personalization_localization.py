from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.personalization.localization import (
    EXACT,
    Localization,
    known_currency,
    parse_date,
    parse_locale,
    parse_number,
)

TOKYO = ZoneInfo("Asia/Tokyo")
JAPANESE, ENGLISH, GERMAN = (Localization(name, TOKYO) for name in ("ja", "en", "de_DE"))
LATE = datetime(2026, 11, 21, 20, 30, tzinfo=UTC)  # the next morning in Tokyo


@pytest.mark.parametrize(
    ("value", "code", "japanese", "english", "german"),
    [
        (Decimal("1234"), "JPY", "￥1,234", "¥1,234", "1.234\xa0¥"),
        ("1234.50", "USD", "$1,234.50", "$1,234.50", "1.234,50\xa0$"),
        (1234.5, "EUR", "€1,234.50", "€1,234.50", "1.234,50\xa0€"),
        ("-5", "EUR", "-€5.00", "-€5.00", "-5,00\xa0€"),
        # Half a coin is rounded up, in decimals: no float is involved.
        ("2.665", "USD", "$2.67", "$2.67", "2,67\xa0$"),
        ("2.675", "USD", "$2.68", "$2.68", "2,68\xa0$"),
        (1.005, "USD", "$1.01", "$1.01", "1,01\xa0$"),
        ("0.5", "JPY", "￥1", "¥1", "1\xa0¥"),
        ("1.2345", "KWD", "KWD1.235", "KWD1.235", "1,235\xa0KWD"),
    ],
)
def test_currencies(value: Any, code: str, japanese: str, english: str, german: str) -> None:
    assert JAPANESE.write_currency(value, code) == japanese
    assert ENGLISH.write_currency(value, code) == english
    assert GERMAN.write_currency(value, code) == german
    assert ENGLISH.write_currency(value, code, locale="de") == german


@given(st.decimals(-(10**28), 10**28, places=2))
def test_no_digit_of_an_amount_is_lost(amount: Decimal) -> None:
    written = ENGLISH.write_currency(str(amount), "USD")
    assert EXACT.create_decimal(written.replace("$", "").replace(",", "")) == amount
    assert parse_number(str(amount)) == amount


def test_a_currency_may_be_configured() -> None:
    assert Localization("en", UTC, "JPY").write_currency(5) == "¥5"
    with pytest.raises(ValueError, match="currency needs a code, such as JPY"):
        ENGLISH.write_currency(5)
    assert known_currency("JPY")
    assert not known_currency("YEN")


@pytest.mark.parametrize(
    ("style", "japanese", "english"),
    [
        ("short", "2026/11/22", "11/22/26"),
        ("medium", "2026/11/22", "Nov 22, 2026"),
        ("long", "2026年11月22日", "November 22, 2026"),
        ("full", "2026年11月22日日曜日", "Sunday, November 22, 2026"),
        ("era", "令和8年11月22日", "令和8年11月22日"),
        ("yyyy/MM/dd", "2026/11/22", "2026/11/22"),
        ("y年M月d日(E)", "2026年11月22日(日)", "2026年11月22日(Sun)"),
    ],
)
def test_dates(style: str, japanese: str, english: str) -> None:
    for value in (LATE, date(2026, 11, 22), "2026-11-22", "2026-11-21T20:30:00Z", "2026/11/22"):
        assert JAPANESE.write_date(value, style) == japanese
        assert ENGLISH.write_date(value, style) == english


def test_times_are_brought_into_the_time_zone() -> None:
    assert JAPANESE.write_time(LATE) == "5:30"
    assert ENGLISH.write_time(LATE) == "5:30 AM"
    assert GERMAN.write_datetime(LATE, "short") == "22.11.26, 05:30"
    assert ENGLISH.write_date(LATE, "yyyy-MM-dd HH:mm Z") == "2026-11-22 05:30 +0900"
    # Without a zone it is in ours already.
    assert ENGLISH.write_datetime("2026-11-21 20:30", "short") == "11/21/26, 8:30 PM"
    assert ENGLISH.write_date("2026-11-21 20:30", "HH:mm Z") == "20:30 +0900"


@pytest.mark.parametrize(
    ("day", "era"),
    [
        ("2019-05-01", "令和元年5月1日"),
        ("2019-04-30", "平成31年4月30日"),
        ("1989-01-07", "昭和64年1月7日"),
        ("1926-12-25", "昭和元年12月25日"),
        ("1912-07-29", "明治45年7月29日"),
    ],
)
def test_japanese_eras(day: str, era: str) -> None:
    assert JAPANESE.write_date(day, "era") == era


def test_numbers_and_percentages() -> None:
    assert ENGLISH.write_number("1234567.8910") == "1,234,567.891"
    assert GERMAN.write_number(1234567.5) == "1.234.567,5"
    assert ENGLISH.write_number("0.125", 2) == "0.13"
    assert ENGLISH.write_number(5, 2) == "5.00"
    assert Localization("hi", UTC).write_number(12345678) == "1,23,45,678"
    assert ENGLISH.write_percent("0.125", 1) == "12.5%"
    assert GERMAN.write_percent("0.125") == "13\xa0%"


def test_no_space_is_written_that_only_unicode_has() -> None:
    french = Localization("fr", TOKYO)
    texts = [
        ENGLISH.write_datetime(LATE, "full"),
        french.write_number(1234567),
        french.write_currency(1234, "EUR"),
        french.write_datetime(LATE, "full"),
    ]
    assert "\u202f" not in "".join(texts)
    assert french.write_number(1234567) == "1\xa0234\xa0567"


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: ENGLISH.write_date("tomorrow"), "no date is here"),
        (lambda: ENGLISH.write_date(5), "no date is here"),
        (lambda: ENGLISH.write_date("2026-02-30"), "no date is here"),
        (lambda: ENGLISH.write_date("2026-04-01", "bogus"), "'bogus' is no style of dates"),
        (lambda: ENGLISH.write_date("2026-04-01", "y" * 101), "is no style of dates"),
        (lambda: ENGLISH.write_date("1800-01-01", "era"), "no era for days before 1868-01-25"),
        (lambda: ENGLISH.write_date("0001-01-01T00:00+14:00"), "no time zone reaches"),
        (lambda: ENGLISH.write_time("2026-04-01"), "a day is here, without a time"),
        (lambda: ENGLISH.write_datetime("2026-04-01"), "a day is here, without a time"),
        (lambda: ENGLISH.write_number("1,5"), "no number is here"),
        (lambda: ENGLISH.write_number(True), "no number is here"),
        (lambda: ENGLISH.write_number(float("nan")), "no number is here"),
        (lambda: ENGLISH.write_number(10**30), "no number is here"),
        (lambda: ENGLISH.write_number(1, 31), "digits is no number from 0 to 30"),
        (lambda: ENGLISH.write_percent(1, "x"), "digits is no number from 0 to 30"),
        (lambda: ENGLISH.write_currency(1, "YEN"), "'YEN' is no currency"),
        (lambda: ENGLISH.write_currency(1, 5), "'5' is no currency"),
        (lambda: ENGLISH.write_currency(1, "JPY", locale="xx_YY"), "'xx_YY' is no locale"),
        (lambda: parse_locale("../../etc/passwd"), "is no locale"),
        (lambda: parse_locale("e" * 999), "is no locale"),
    ],
)
def test_what_cannot_be_written_is_said(call: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call()


@pytest.mark.parametrize("name", ["ja", "ja_JP", "ja-JP", "en-GB", "zh_Hant_TW", "zh-Hant-TW"])
def test_locales_are_written_in_two_ways(name: str) -> None:
    assert parse_locale(name).language == name[:2]


@given(st.integers() | st.floats() | st.text() | st.decimals() | st.booleans() | st.none())
def test_a_number_is_exact_or_none(value: Any) -> None:
    found = parse_number(value)
    if isinstance(value, bool) or value is None:
        assert found is None
    elif found is not None:
        assert Decimal(repr(value) if isinstance(value, float) else value) == found
        assert ENGLISH.write_number(found)


@given(st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=9)))) | st.dates())
def test_dates_are_read_as_they_are_written(value: date) -> None:
    assert parse_date(value.isoformat()) == value
    assert parse_date(value) is value
