"""What operators do in templates: exact numbers, and no surprise from a number that is text. Pure.

Values come from CSV files too, where every number is text: a text that is a number counts as one
wherever its neighbour is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import ROUND_FLOOR, Decimal
from types import MappingProxyType
from typing import Any

from plugins.personalization.localization import EXACT, MAX_DIGITS, parse_date, parse_number
from plugins.personalization.rendering import Rendering

Number = int | Decimal
Operator = Callable[[Rendering, Any, Any], Any]

_LARGEST = 10**MAX_DIGITS


def number(value: Any) -> Number:
    """A number as it is, or the one that a text stands for.

    Raises:
        ValueError: it is none.
    """
    found = parse_number(value)
    if found is None:
        raise ValueError("a number is needed here, such as 1234.50; texts are joined with ~")
    return found


def whole(value: Any) -> int:
    """A number that is whole and not negative.

    Raises:
        ValueError: it is none.
    """
    found = number(value)
    if found != int(found) or found < 0:
        raise ValueError("a whole number is needed here")
    return int(found)


def _bounded(value: Number) -> Number:
    if not -_LARGEST < value < _LARGEST:
        raise ValueError(f"a number gets more than {MAX_DIGITS} digits")
    return value


def _floor_divide(left: Number, right: Number) -> Decimal:
    return EXACT.divide(left, right).to_integral_value(ROUND_FLOOR)


def _modulo(left: Number, right: Number) -> Decimal:
    return EXACT.subtract(left, EXACT.multiply(_floor_divide(left, right), right))


def _calculate(
    whole: Callable[[int, int], Number], decimal: Callable[[Number, Number], Decimal]
) -> Operator:
    def calculate(rendering: Rendering, left: Any, right: Any) -> Number:
        one, other = number(rendering.need(left)), number(rendering.need(right))
        if isinstance(one, int) and isinstance(other, int):
            return _bounded(whole(one, other))
        return _bounded(decimal(one, other))

    return calculate


ARITHMETIC: Mapping[str, Operator] = MappingProxyType(
    {
        "+": _calculate(lambda one, other: one + other, EXACT.add),
        "-": _calculate(lambda one, other: one - other, EXACT.subtract),
        "*": _calculate(lambda one, other: one * other, EXACT.multiply),
        "/": _calculate(EXACT.divide, EXACT.divide),
        "//": _calculate(lambda one, other: one // other, _floor_divide),
        "%": _calculate(lambda one, other: one % other, _modulo),
    }
)


def negate(rendering: Rendering, value: Any) -> Number:
    """The number with the other sign."""
    return -number(rendering.need(value))


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Two values in forms that can be compared."""
    if isinstance(left, str) and isinstance(right, str):
        return left, right
    if isinstance(left, date) or isinstance(right, date):
        first, second = parse_date(left), parse_date(right)
        if first is None or second is None:
            return left, right
        if isinstance(first, datetime) and isinstance(second, datetime):
            return first, second
        return _day(first), _day(second)
    one, other = parse_number(left), parse_number(right)
    if one is not None and other is not None:
        return one, other
    return left, right


def _day(value: date) -> date:
    return value.date() if isinstance(value, datetime) else value


def equal(rendering: Rendering, left: Any, right: Any) -> bool:
    """Whether two values are the same; a text that is a number equals that number."""
    left, right = rendering.need(left), rendering.need(right)
    if isinstance(left, list | dict) or isinstance(right, list | dict):
        raise ValueError("lists and mappings cannot be compared")
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    rendering.spend(len(left) >> 6 if isinstance(left, str) else 0)
    one, other = _alike(left, right)
    return bool(one == other)


def order(rendering: Rendering, left: Any, right: Any) -> int:
    """-1, 0 or 1: the first value is less than, the same as, or greater than the second."""
    one, other = _alike(rendering.need(left), rendering.need(right))
    numbers = isinstance(one, int | Decimal) and isinstance(other, int | Decimal)
    texts = isinstance(one, str) and isinstance(other, str)
    dates = isinstance(one, date) and type(one) is type(other)
    if not (numbers or texts or dates) or isinstance(one, bool) or isinstance(other, bool):
        raise ValueError("these two cannot be compared: one is no number, or no date")
    rendering.spend(len(one) >> 6 if texts else 0)
    try:
        return int(one > other) - int(one < other)
    except TypeError:
        raise ValueError("a time with a zone cannot be compared with one without") from None


def contains(rendering: Rendering, item: Any, whole: Any) -> bool:
    """Whether a value is in a list, a key in a mapping, or a text in a text."""
    item, whole = rendering.need(item), rendering.need(whole)
    if isinstance(whole, str):
        rendering.spend(len(whole) >> 4)
        return rendering.text(item) in whole
    if isinstance(whole, dict):
        return isinstance(item, str) and item in whole
    items = rendering.items(whole)
    rendering.spend(len(items))
    return any(
        equal(rendering, item, one) for one in items if not isinstance(one, list | dict | None)
    )


COMPARISONS: Mapping[str, Operator] = MappingProxyType(
    {
        "eq": equal,
        "ne": lambda rendering, one, other: not equal(rendering, one, other),
        "lt": lambda rendering, one, other: order(rendering, one, other) < 0,
        "lteq": lambda rendering, one, other: order(rendering, one, other) <= 0,
        "gt": lambda rendering, one, other: order(rendering, one, other) > 0,
        "gteq": lambda rendering, one, other: order(rendering, one, other) >= 0,
        "in": contains,
        "notin": lambda rendering, one, other: not contains(rendering, one, other),
    }
)
