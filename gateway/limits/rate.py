"""Rates as people write them, `100/s` or `5000/h`, and what is taken from one. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(
    r"(?P<count>\d+(?:\.\d+)?) ?/ ?(?P<number>\d+(?:\.\d+)?)? ?(?P<unit>[smhd])",
    re.ASCII | re.IGNORECASE,
)
_EXPECTED = "expected a rate, for example 100/s, 60/m, 5000/h, 20000/d or 10/30s"

TOLERANCE = 0.05
"""Seconds by which a taker may be late without loss: timers are, and several processes share."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds, evenly paced.

    In any window of `t` seconds at most `count * t / seconds + burst` are taken (unless single
    amounts exceed `burst`, which they then stand in for).

    Attributes:
        count: how many, more than none.
        seconds: in how long, more than none.
        burst: how many of them may come at once after a rest, at least 1. 1 is strictly one by one.
        interval: seconds from one to the next.

    Raises:
        ValueError: a number is out of its range.
    """

    count: float
    seconds: float
    burst: float = 1.0
    interval: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (0 < self.count < math.inf and 0 < self.seconds < math.inf):
            raise ValueError(f"{self.count} in {self.seconds} seconds is no rate")
        if not 1 <= self.burst < math.inf:
            raise ValueError(f"a burst of {self.burst} would let nothing through; the least is 1")
        object.__setattr__(self, "interval", self.seconds / self.count)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Reads `100/s`, `60/m`, `5000/h`, `20000/d` or `10/30s`.

        `burst` is one and what the rate gives in 50 ms, so that whoever asks a little late, as
        timers have it, still gets all of the rate.

        Raises:
            ValueError: it is none of these, or zero.
        """
        match = _RATE.fullmatch(text.strip())
        if match is None or max(len(match["count"]), len(match["number"] or "")) > 24:
            raise ValueError(_EXPECTED)
        count = float(match["count"])
        seconds = float(match["number"] or 1) * _UNITS[match["unit"].lower()]
        if not (count and seconds):
            raise ValueError(f"{_EXPECTED}; {text.strip()} would let nothing through")
        return cls(count, seconds, 1 + TOLERANCE * count / seconds)

    def __str__(self) -> str:
        """As `parse` reads it. A `burst` of one's own is not told."""
        unit, factor = "s", 1
        for name, length in _UNITS.items():
            if self.seconds % length == 0:
                unit, factor = name, length
        number = self.seconds / factor
        return f"{_plain(self.count)}/{'' if number == 1 else _plain(number)}{unit}"


@dataclass(frozen=True, slots=True)
class Take:
    """Something to take: `amount` from the rate that is kept under `key`.

    The amount may exceed the rate's burst: it is given once nothing is owed, and what comes next
    waits for longer.

    Raises:
        ValueError: the amount is negative or no number.
    """

    key: str
    rate: Rate
    amount: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf:
            raise ValueError(f"an amount of {self.amount} cannot be taken")


@dataclass(frozen=True, slots=True)
class Allowance:
    """How a rate stands.

    Attributes:
        key: what it is kept under.
        rate: as it was when it was last taken from.
        available: how many may be taken at once now, at most the rate's burst. Below 0 after a
            single amount larger than the burst.
    """

    key: str
    rate: Rate
    available: float


def _plain(number: float) -> str:
    """Decimals without an exponent."""
    text = f"{Decimal(repr(number)):f}"
    return text.removesuffix(".0")


def _parse(value: Any) -> Rate:
    if isinstance(value, Rate):
        return value
    if not isinstance(value, str):
        raise ValueError(_EXPECTED)
    return Rate.parse(value)


RateField = Annotated[
    Rate,
    PlainValidator(_parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\s*\d+(\.\d+)? ?/ ?(\d+(\.\d+)?)? ?[smhdSMHD]\s*$",
            "examples": ["100/s", "60/m", "5000/h", "20000/d", "10/30s"],
        }
    ),
]
"""A rate in a configuration, written as `Rate.parse` reads it.

A field with a default should name it for the schema: `json_schema_extra={"default": "100/s"}`.
"""
