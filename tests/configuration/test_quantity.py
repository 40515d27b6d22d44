from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.configuration.quantity import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("4h", 14400),
        ("5d", 432000),
        ("2w", 1209600),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("30 S", 30),
        ("7", 7),
        (7, 7),
        (0.5, 0.5),
        (0, 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("50MiB", 50 << 20),
        ("10MB", 10_000_000),
        ("64KiB", 65536),
        ("1gib", 1 << 30),
        ("2 kB", 2000),
        ("1.5KiB", 1536),
        ("100", 100),
        ("100b", 100),
        (100, 100),
    ],
)
def test_sizes(text: object, octets: int) -> None:
    size = parse_size(text)
    assert size == octets
    assert isinstance(size, int)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-5s",
        -5,
        "5 s s",
        "1e3s",
        "٣s",
        True,
        None,
        [],
        "5x",
        "nan",
        float("nan"),
        float("inf"),
        "9" * 400,
    ],
)
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(text)
    with pytest.raises(ValueError, match="expected"):
        parse_size(text)


def test_half_an_octet_is_none() -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size("0.3KiB")


@given(st.integers(0, 10**9))
def test_units_are_factors(number: int) -> None:
    assert parse_duration(f"{number}m") == 60 * parse_duration(number)
    assert parse_size(f"{number}KiB") == 1024 * parse_size(number)
