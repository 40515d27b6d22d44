"""Queue ids are unique, sortable and survive the way through text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool import queue_id


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_text_and_back(number: int) -> None:
    text = queue_id.to_text(number)
    assert len(text) == 13
    assert queue_id.from_text(text) == number
    assert queue_id.from_text(text.lower()) == number


@given(st.integers(min_value=0, max_value=2**63 - 1), st.integers(min_value=0, max_value=2**63 - 1))
def test_text_sorts_as_numbers(one: int, other: int) -> None:
    assert (one < other) == (queue_id.to_text(one) < queue_id.to_text(other))


def test_ids_grow_even_when_the_clock_stands_or_goes_back() -> None:
    last = 0
    for now in (1_790_000_000.0, 1_790_000_000.0, 1_700_000_100.0, 1_790_000_001.0):
        number = queue_id.make(now, 7, last)
        assert number > last
        assert number & ((1 << queue_id.SHARD_BITS) - 1) == 7
        last = number


@pytest.mark.parametrize(
    "text", ["", "short", "ILOUILOUILOUI", "Z" * 13, "0" * 12, "日本語日本語日本語日本語日"]
)
def test_no_queue_id(text: str) -> None:
    with pytest.raises(ValueError, match="no queue id"):
        queue_id.from_text(text)
