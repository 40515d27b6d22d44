"""Dates, numbers and amounts of money as people of one language write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from datetime import date, datetime, time, tzinfo
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from functools import lru_cache
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_currency

EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
"""How amounts are calculated and rounded: as in bookkeeping, and with room for every digit."""
MAX_DIGITS = 30
"""Digits of a number before the point."""

_DAYS = frozenset(("short", "medium", "long", "full", "era"))
_LONGEST = 100
# Only Unicode has the narrow one; where mail is in an older charset, it would become UTF-8 for it.
_NARROW, _UNBROKEN = "\u202f", "\xa0"
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,4}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})", re.ASCII)
_DAY = re.compile(r"([0-9]{4})[/.]([0-9]{1,2})[/.]([0-9]{1,2})", re.ASCII)
_ERAS = (
    (date(2019, 5, 1), "令和"),
    (date(1989, 1, 8), "平成"),
    (date(1926, 12, 25), "昭和"),
    (date(1912, 7, 30), "大正"),
    (date(1868, 1, 25), "明治"),
)


@lru_cache(maxsize=128)
def parse_locale(name: str) -> Locale:
    """The locale of a name such as `ja`, `en_GB` or `zh-Hant-TW`.

    Raises:
        ValueError: there is none of this name.
    """
    if _LOCALE.fullmatch(name):
        try:
            return Locale.parse(name, sep="-" if "-" in name else "_")
        except (UnknownLocaleError, ValueError):
            pass  # said below, in one way for both
    raise ValueError(f"{name[:40]!r} is no locale; expected a name such as ja, en or en_GB")


def known_currency(code: str) -> bool:
    """Whether ISO 4217 has a currency of this code."""
    return code in get_global("all_currencies")


def parse_number(value: Any) -> int | Decimal | None:
    """A number as it is, or the one that a text such as `1234.50` stands for; else None.

    A float becomes the shortest decimal that it can be read from. NaN, infinity, and numbers of
    very many digits are none.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, int):
        return value if -(10**MAX_DIGITS) < value < 10**MAX_DIGITS else None
    if isinstance(value, Decimal):
        fits = value.is_finite() and -EXACT.prec < value.adjusted() < MAX_DIGITS
        return value if fits and len(value.as_tuple().digits) <= EXACT.prec else None
    if isinstance(value, str) and len(value) <= _LONGEST:
        text = value.strip(" ")
        return Decimal(text) if _NUMBER.fullmatch(text) else None
    return None


def parse_date(value: Any) -> date | None:
    """A date or a date with time as it is, or the one that a text stands for; else None.

    Texts are ISO 8601, or a day such as `2026/4/1`.
    """
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    text = value.strip()
    try:
        if match := _DAY.fullmatch(text):
            return date(int(match[1]), int(match[2]), int(match[3]))
        if len(text) <= len("2026-04-01"):
            return date.fromisoformat(text)
        return datetime.fromisoformat(text)
    except ValueError:
        return None


class Localization:
    """A language with its customs, a time zone, and perhaps the currency that amounts are in.

    All methods raise ValueError, with a text for the writer of the template, where a value or a
    format cannot be used. A `locale` given to them counts instead of their own.
    """

    def __init__(self, locale: str, timezone: tzinfo, currency: str | None = None) -> None:
        self._locale = parse_locale(locale)
        self._timezone = timezone
        self._currency = currency
        # Prices and days come again and again, within a message and from one to the next.
        self._number = lru_cache(maxsize=4096)(_number)
        self._day = lru_cache(maxsize=1024)(_day)

    def write_date(self, value: Any, style: str = "medium", locale: str | None = None) -> str:
        """A day: `short`, `medium`, `long`, `full`, `era` (令和8年11月21日), or a pattern (UTS 35).

        A time with a zone is brought into that of the configuration; one without is in it.
        """
        moment = self._moment(value)
        language = self._chosen(locale)
        if not isinstance(moment, datetime):
            return self._day(moment, style, language)
        if style in _DAYS:
            return self._day(moment.date(), style, language)
        return self.write_datetime(moment, style, locale)

    def write_time(self, value: Any, style: str = "short", locale: str | None = None) -> str:
        """The time of a day: `short`, `medium`, `long`, `full` or a pattern."""
        moment, language = self._datetime(value), self._chosen(locale)
        return _formatted(style, lambda: format_time(moment, style, self._timezone, language))

    def write_datetime(self, value: Any, style: str = "medium", locale: str | None = None) -> str:
        """Day and time: `short`, `medium`, `long`, `full` or a pattern."""
        moment, language = self._datetime(value), self._chosen(locale)
        return _formatted(style, lambda: format_datetime(moment, style, self._timezone, language))

    def write_number(self, value: Any, digits: Any = None, locale: str | None = None) -> str:
        """A number with separators; with `digits`, so many after the point."""
        return self._number("decimal", _amount(value), _digits(digits), self._chosen(locale))

    def write_percent(self, value: Any, digits: Any = 0, locale: str | None = None) -> str:
        """A share as a percentage: 0.15 is 15%."""
        return self._number("percent", _amount(value), _digits(digits), self._chosen(locale))

    def write_currency(self, value: Any, code: Any = None, locale: str | None = None) -> str:
        """An amount of money, rounded to the coins that the currency has."""
        code = self._currency if code is None else code
        if code is None:
            raise ValueError("currency needs a code, such as JPY")
        if not isinstance(code, str) or not known_currency(code):
            raise ValueError(f"{str(code)[:20]!r} is no currency; expected a code such as JPY")
        return self._number(code, _amount(value), None, self._chosen(locale))

    def _chosen(self, locale: str | None) -> Locale:
        return self._locale if locale is None else parse_locale(str(locale))

    def _moment(self, value: Any) -> date:
        moment = parse_date(value)
        if moment is None:
            raise ValueError("no date is here; expected one such as 2026-04-01")
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            return moment
        try:
            return moment.astimezone(self._timezone)
        except OverflowError:
            raise ValueError("no time zone reaches to this date") from None

    def _datetime(self, value: Any) -> datetime:
        moment = self._moment(value)
        if not isinstance(moment, datetime):
            raise ValueError("a day is here, without a time")
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=self._timezone)


def _digits(digits: Any) -> int | None:
    if digits is None or (isinstance(digits, int) and 0 <= digits <= MAX_DIGITS):
        return digits
    raise ValueError(f"digits is no number from 0 to {MAX_DIGITS}")


def _amount(value: Any) -> Decimal:
    number = parse_number(value)
    if number is None:
        raise ValueError("no number is here; expected one such as 1234.50")
    return Decimal(number)


def _number(kind: str, value: Decimal, digits: int | None, locale: Locale) -> str:
    """A number: `decimal`, `percent`, or the code of a currency."""
    with localcontext(EXACT):
        if kind not in ("decimal", "percent"):
            return format_currency(value, kind, locale=locale).replace(_NARROW, _UNBROKEN)
        formats = locale.decimal_formats if kind == "decimal" else locale.percent_formats
        pattern = copy(formats[None])
        if digits is not None:
            pattern.frac_prec = digits, digits
        text: str = pattern.apply(value, locale, decimal_quantization=digits is not None)
        return text.replace(_NARROW, _UNBROKEN)


def _day(day: date, style: str, locale: Locale) -> str:
    if style == "era":
        return _era(day)
    if style in _DAYS:
        return format_date(day, style, locale)
    moment = datetime.combine(day, time())
    return _formatted(style, lambda: format_datetime(moment, style, None, locale))


def _era(day: date) -> str:
    """A day as the Japanese calendar counts it: 令和8年11月21日."""
    for first, name in _ERAS:
        if day >= first:
            year = day.year - first.year + 1
            return f"{name}{'元' if year == 1 else year}年{day.month}月{day.day}日"
    raise ValueError(f"there is no era for days before {_ERAS[-1][0]}")


def _formatted(style: str, write: Callable[[], str]) -> str:
    if len(style) <= _LONGEST:
        try:
            return write().replace(_NARROW, " ")
        except (ValueError, LookupError, TypeError, AttributeError, NotImplementedError):
            pass  # whatever Babel makes of a pattern that is none
    raise ValueError(
        f"{style[:40]!r} is no style of dates; expected short, long or such as yyyy-MM-dd"
    )
