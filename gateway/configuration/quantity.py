"""Durations and sizes as people write them: `30s`, `5d`, `50MiB`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OCTETS = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII)


def parse_duration(value: Any) -> float:
    """Reads `30s`, `5m`, `4h`, `5d`, `2w` or a number of seconds.

    Raises:
        ValueError: it is none of these.
    """
    return _parse(value, _SECONDS, "s", "a duration, for example 30s, 5m, 4h or 5d")


def parse_size(value: Any) -> int:
    """Reads `50MiB` (1024), `10MB` (1000), `64KiB` or a number of octets.

    Raises:
        ValueError: it is none of these, or no whole number of octets.
    """
    expected = "a size, for example 50MiB, 64KiB or a number of octets"
    octets = _parse(value, _OCTETS, "b", expected)
    if octets != int(octets):
        raise ValueError(f"expected {expected}")
    return int(octets)


def _parse(
    value: Any, units: dict[str, float] | dict[str, int], plain: str, expected: str
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected {expected}")
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None or len(match[1]) > 15:
        raise ValueError(f"expected {expected}")
    factor = units.get(match[2].lower() or plain)
    if factor is None:
        raise ValueError(f'unknown unit "{match[2]}"; expected {expected}')
    return float(match[1]) * factor


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than nothing, for example 30s")
    return value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)? ?(ms|s|m|h|d|w)?$"},
            ]
        }
    ),
]
"""Seconds."""

Time = Annotated[Duration, AfterValidator(_positive)]
"""Seconds, more than none."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)? ?([KMG]i?)?[Bb]?$"},
            ]
        }
    ),
]
"""Octets."""
