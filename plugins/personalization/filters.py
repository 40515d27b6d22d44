"""The filters and tests that templates have. Pure.

A filter gets the rendering, the value and its arguments, and returns a value, or None where there
is none; a test returns whether. None of them reaches anything besides its arguments. Only those in
`RAW_FILTERS` and `RAW_TESTS` get values that are missing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from plugins.personalization.lists import LIST_FILTERS, attribute_of, items_of
from plugins.personalization.localization import EXACT, MAX_DIGITS, parse_number
from plugins.personalization.operators import COMPARISONS, Number, number, whole
from plugins.personalization.rendering import Missing, Rendering, Safe, escape

Filter = Callable[..., Any]
Test = Callable[..., bool]

_WIDEST = 1000
_MOST_TRIMMED = 20
_STEPS_OF_LOCALIZATION = 20


# Missing values.


def _default(rendering: Rendering, value: Any, other: Any = "", false: bool = False) -> Any:
    if _is_none(rendering, value) or value == "" or (false and not value):
        return other
    return value


def _is_none(rendering: Rendering, value: Any) -> bool:
    return value is None or type(value) is Missing


# Text.


def _of_text(change: Callable[[str], str]) -> Filter:
    def apply(rendering: Rendering, value: Any) -> str:
        return change(rendering.text(value))

    return apply


def _trim(rendering: Rendering, value: Any, characters: Any = None) -> str:
    if characters is not None and len(characters) > _MOST_TRIMMED:
        raise ValueError(f"at most {_MOST_TRIMMED} characters can be named for trim")
    return str.strip(rendering.text(value), characters)


def _replace(rendering: Rendering, value: Any, old: Any, new: Any) -> str:
    text, old, new = rendering.text(value), rendering.text(old), rendering.text(new)
    if not old:
        raise ValueError("replace needs a text that is to be replaced")
    rendering.check_length(len(text) + str.count(text, old) * max(len(new) - len(old), 0))
    return str.replace(text, old, new)


def _truncate(
    rendering: Rendering, value: Any, length: Any = 255, killwords: Any = False, end: Any = "..."
) -> str:
    text, mark, size = rendering.text(value), rendering.text(end), whole(length)
    if len(text) <= size:
        return text
    kept = text[: max(size - len(mark), 0)]
    if not killwords and " " in kept:
        kept = kept[: kept.rindex(" ")]
    return kept + mark


def _width(text: str) -> int:
    """How many columns a text takes where letters have one width; kanji and kana take two."""
    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
        if not unicodedata.combining(character)
    )


def _justify(pad: Callable[[str, int], str]) -> Filter:
    def justify(rendering: Rendering, value: Any, width: Any) -> str:
        text, width = rendering.text(value), whole(width)
        if width > _WIDEST:
            raise ValueError(f"a width is at most {_WIDEST}")
        rendering.spend(len(text))
        return pad(text, max(width - _width(text), 0))

    return justify


def _quote(rendering: Rendering, value: Any) -> str:
    text = rendering.text(value)
    rendering.spend(len(text))
    return quote(text, safe="/")


def _with_breaks(text: str) -> Safe:
    return Safe(escape(text).replace("\n", "<br>\n"))


# Lists: what needs other filters and tests.


def _map(
    rendering: Rendering,
    value: Any,
    name: Any = "",
    *arguments: Any,
    attribute: Any = None,
    default: Any = None,
) -> list[Any]:
    items = items_of(rendering, value)
    if attribute is not None:
        found = [attribute_of(item, attribute) for item in items]
        if default is not None:
            return [default if type(one) is Missing else one for one in found]
        return [rendering.need(one) for one in found]
    apply = FILTERS.get(name) or RAW_FILTERS.get(name)
    if apply is None:
        raise ValueError(f"there is no filter {name!s:.40} for map")
    return [apply(rendering, item, *arguments) for item in items]


def _pick(wanted: bool, by_attribute: bool) -> Filter:
    """`select`, `reject`, `selectattr` and `rejectattr`."""

    def pick(rendering: Rendering, value: Any, *arguments: Any) -> list[Any]:
        path = arguments[0] if by_attribute else None
        name, *more = (arguments[1:] if by_attribute else arguments) or ("",)
        if name and name not in TESTS and name not in RAW_TESTS:
            raise ValueError(f"there is no test {name!s:.40}")

        def passes(subject: Any) -> bool:
            if not name:
                return bool(subject)
            if name in RAW_TESTS:
                return RAW_TESTS[name](rendering, subject, *more)
            return TESTS[name](rendering, rendering.need(subject), *more)

        return [
            item
            for item in items_of(rendering, value)
            if passes(attribute_of(item, path) if by_attribute else item) is wanted
        ]

    return pick


# Numbers.


def _round(rendering: Rendering, value: Any, digits: Any = 0) -> Decimal:
    digits = whole(digits)
    if digits > MAX_DIGITS:
        raise ValueError(f"a number has at most {MAX_DIGITS} digits after the point")
    found = Decimal(number(value))
    return found.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, EXACT)


def _converted(convert: Callable[[Number], Number]) -> Filter:
    def apply(rendering: Rendering, value: Any, default: Any = None) -> Any:
        if default is not None and parse_number(value) is None:
            return default
        return convert(number(value))

    return apply


def _localized(method: str) -> Filter:
    def write(rendering: Rendering, value: Any, *arguments: Any, **named: Any) -> str:
        rendering.spend(_STEPS_OF_LOCALIZATION)
        text: str = getattr(rendering.localization, method)(value, *arguments, **named)
        return text

    return write


FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        **LIST_FILTERS,
        "abs": lambda rendering, value: abs(number(value)),
        "capitalize": _of_text(str.capitalize),
        "center": _justify(lambda text, room: " " * (room // 2) + text + " " * (room - room // 2)),
        "currency": _localized("write_currency"),
        "date": _localized("write_date"),
        "datetime": _localized("write_datetime"),
        "e": _of_text(escape),
        "escape": _of_text(escape),
        "float": _converted(Decimal),
        "int": _converted(int),
        "ljust": _justify(lambda text, room: text + " " * room),
        "lower": _of_text(str.lower),
        "map": _map,
        "nl2br": _of_text(_with_breaks),
        "number": _localized("write_number"),
        "percent": _localized("write_percent"),
        "reject": _pick(wanted=False, by_attribute=False),
        "rejectattr": _pick(wanted=False, by_attribute=True),
        "replace": _replace,
        "rjust": _justify(lambda text, room: " " * room + text),
        "round": _round,
        "select": _pick(wanted=True, by_attribute=False),
        "selectattr": _pick(wanted=True, by_attribute=True),
        "string": _of_text(str),
        "time": _localized("write_time"),
        "title": _of_text(str.title),
        "trim": _trim,
        "truncate": _truncate,
        "upper": _of_text(str.upper),
        "urlencode": _quote,
    }
)
RAW_FILTERS: Mapping[str, Filter] = MappingProxyType({"d": _default, "default": _default})

TESTS: Mapping[str, Test] = MappingProxyType(
    {
        **COMPARISONS,
        "boolean": lambda rendering, value: isinstance(value, bool),
        "divisibleby": lambda rendering, value, other: number(value) % number(other) == 0,
        "equalto": COMPARISONS["eq"],
        "even": lambda rendering, value: number(value) % 2 == 0,
        "false": lambda rendering, value: value is False,
        "ge": COMPARISONS["gteq"],
        "greaterthan": COMPARISONS["gt"],
        "iterable": lambda rendering, value: isinstance(value, list | dict),
        "le": COMPARISONS["lteq"],
        "lessthan": COMPARISONS["lt"],
        "mapping": lambda rendering, value: isinstance(value, dict),
        "number": lambda rendering, value: parse_number(value) is not None,
        "odd": lambda rendering, value: number(value) % 2 == 1,
        "sequence": lambda rendering, value: isinstance(value, list),
        "string": lambda rendering, value: isinstance(value, str),
        "true": lambda rendering, value: value is True,
    }
)
RAW_TESTS: Mapping[str, Test] = MappingProxyType(
    {
        "defined": lambda rendering, value: not _is_none(rendering, value),
        "none": _is_none,
        "undefined": _is_none,
    }
)
