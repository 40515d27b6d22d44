"""Rates as people write them."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from gateway.limits import Rate, RateField, Take


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [
        ("100/s", 100, 1),
        ("60/m", 60, 60),
        ("5000/h", 5000, 3600),
        ("20000/d", 20000, 86400),
        ("10/30s", 10, 30),
        ("1.5/s", 1.5, 1),
        (" 3 / 2 M ", 3, 120),
        ("1/0.5h", 1, 1800),
    ],
)
def test_rates(text: str, count: float, seconds: float) -> None:
    rate = Rate.parse(text)
    assert (rate.count, rate.seconds) == (count, seconds)
    assert rate.interval == pytest.approx(seconds / count)
    assert rate.burst == pytest.approx(1 + 0.05 * count / seconds)


@pytest.mark.parametrize(
    "text",
    ["", "100", "/s", "100/", "-1/s", "1e3/s", "100/x", "100/ss", "٣/s", "1/s/s", "9" * 25 + "/s"],
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a rate, for example 100/s, 60/m"):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["0/s", "0.0/h", "5/0s"])
def test_a_rate_of_nothing_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="would let nothing through"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("100/s", "100/s"),
        ("60/60s", "60/m"),
        ("10/30s", "10/30s"),
        ("5000/h", "5000/h"),
        ("20000/24h", "20000/d"),
        ("7/14d", "7/14d"),
        ("0.5/1.5s", "0.5/1.5s"),
        ("5000000000/d", "5000000000/d"),
    ],
)
def test_a_rate_is_written_shortly(text: str, written: str) -> None:
    assert str(Rate.parse(text)) == written


NUMBERS = st.one_of(
    st.integers(1, 999_999_999).map(str),
    st.decimals("0.001", 99999, places=3).map(lambda number: f"{number:f}"),
)


@given(NUMBERS, st.one_of(st.just(""), NUMBERS), st.sampled_from("smhd"))
def test_what_is_written_reads_the_same(count: str, number: str, unit: str) -> None:
    rate = Rate.parse(f"{count}/{number}{unit}")
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    ("count", "seconds", "burst"),
    [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (math.inf, 1, 1), (1, math.nan, 1), (1, 1, 0.5)],
)
def test_a_rate_of_nonsense(count: float, seconds: float, burst: float) -> None:
    with pytest.raises(ValueError):
        Rate(count, seconds, burst)


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf])
def test_an_amount_of_nonsense(amount: float) -> None:
    with pytest.raises(ValueError, match="cannot be taken"):
        Take("key", Rate(1, 1), amount)


class Config(BaseModel):
    rate: RateField = Field(Rate.parse("3/s"), json_schema_extra={"default": "3/s"})
    other: RateField | None = None


def test_a_rate_in_a_configuration() -> None:
    config = Config.model_validate({"rate": "100/s"})
    assert config.rate == Rate.parse("100/s")
    assert Config.model_validate({"rate": config.rate}) == config
    assert json.loads(config.model_dump_json()) == {"rate": "100/s", "other": None}
    assert Config().rate.count == 3


@pytest.mark.parametrize("value", ["fast", 100, True, None, ["1/s"], {"count": 1}])
def test_what_is_no_rate_in_a_configuration(value: object) -> None:
    with pytest.raises(ValidationError, match="expected a rate, for example 100/s"):
        Config.model_validate({"rate": value})


def test_the_schema_of_a_rate() -> None:
    schema = Config.model_json_schema()["properties"]["rate"]
    assert schema["type"] == "string"
    assert "100/s" in schema["examples"]
    assert schema["default"] == "3/s"
