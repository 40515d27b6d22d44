"""Durations by bucket."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hooks.histogram import BOUNDS, Histogram

DURATIONS = st.floats(min_value=0.0, max_value=100.0)


def test_the_bounds_rise_from_microseconds_to_half_a_minute() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert (BOUNDS[0], BOUNDS[-1]) == (1e-05, 30.0)


@given(st.lists(st.one_of(DURATIONS, st.sampled_from(BOUNDS))))
@settings(deadline=None)
def test_each_duration_is_in_the_first_bucket_that_it_is_not_too_long_for(
    durations: list[float],
) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    assert histogram.calls == len(durations)
    assert histogram.seconds == pytest.approx(sum(durations))
    assert len(histogram.counts) == len(BOUNDS) + 1
    for number, bound in enumerate((*BOUNDS, math.inf)):
        assert sum(histogram.counts[: number + 1]) == sum(one <= bound for one in durations)
