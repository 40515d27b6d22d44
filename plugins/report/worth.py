"""Sums of money, exact. Pure."""

from __future__ import annotations

from decimal import Context, Decimal

# Values have at most 24 digits, so no sum of them is rounded.
_EXACT = Context(prec=100)


def add(one: Decimal, other: Decimal) -> Decimal:
    """The sum of two values."""
    return _EXACT.add(one, other)


def multiplied(value: str, count: int) -> Decimal:
    """A value, '' for none, so many times."""
    return _EXACT.multiply(Decimal(value or "0"), Decimal(count))


def plain(value: Decimal) -> str:
    """A value in digits with a point, never with an exponent."""
    return f"{value:f}"
