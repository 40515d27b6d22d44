"""The laws of the cell rate algorithm, on a clock of the tests'."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.gcra import adapted, arrive, available
from gateway.limits.rate import Rate

NOW = 40_000_000.0


@dataclass
class Bucket:
    """What a record keeps, of one rate."""

    rate: Rate
    arrival: float = -math.inf

    def take(self, now: float, amount: float = 1.0) -> float:
        rate = self.rate
        wait, arrival = arrive(self.arrival, now, rate.interval, rate.burst, amount)
        if not wait:
            self.arrival = arrival
        return wait

    def available(self, now: float) -> float:
        return available(self.arrival, now, self.rate.interval, self.rate.burst)


RATES = st.builds(
    Rate,
    st.floats(0.01, 100_000),
    st.sampled_from([0.5, 1.0, 30.0, 60.0, 3600.0, 86400.0]),
    st.floats(1, 500),
)
STEPS = st.lists(
    st.tuples(st.floats(0, 20), st.one_of(st.just(1.0), st.floats(0, 2000))), max_size=60
)


@given(RATES, STEPS)
def test_no_window_has_more_than_the_rate_and_the_burst(
    rate: Rate, steps: list[tuple[float, float]]
) -> None:
    bucket, now = Bucket(rate), NOW
    taken: list[tuple[float, float]] = []
    for intervals, amount in steps:
        now += intervals * rate.interval
        if not bucket.take(now, amount):
            taken.append((now, amount))
    for first, (begin, _) in enumerate(taken):
        total = 0.0
        for end, amount in taken[first:]:
            total += amount
            bound = (end - begin) / rate.interval + max(rate.burst, amount)
            # A microsecond too early is not too early, and times are some nanoseconds apart.
            assert total <= bound + (1e-6 + 2e-8 * (total + 2)) / rate.interval + 1e-6


@given(RATES, STEPS)
def test_who_waits_as_long_as_told_is_served_and_not_much_before(
    rate: Rate, steps: list[tuple[float, float]]
) -> None:
    bucket, now = Bucket(rate), NOW
    for intervals, amount in steps:
        now += intervals * rate.interval
        wait = bucket.take(now, amount)
        if wait:
            assert wait > 0
            if wait > 1e-4:
                assert bucket.take(now + wait * 0.98, amount) > 0
            now += wait + 1e-8
            assert bucket.take(now, amount) == 0


@given(RATES, STEPS)
def test_what_is_available_can_be_taken_and_no_more(
    rate: Rate, steps: list[tuple[float, float]]
) -> None:
    bucket, now = Bucket(rate), NOW
    for intervals, amount in steps:
        now += intervals * rate.interval
        bucket.take(now, amount)
    free = bucket.available(now)
    assert free <= rate.burst
    slack = 1e-6 * rate.burst + 2e-6 / rate.interval
    if free - slack > 0:
        assert bucket.take(now, free - slack) == 0
    elif free + slack < 1:
        assert bucket.take(now) > 0


@given(
    st.sampled_from(["1/s", "10/s", "1000/s", "60/m", "5000/h", "10/30s"]),
    st.lists(st.floats(0, 0.05), min_size=50, max_size=400),
)
def test_a_saturated_rate_is_reached_by_those_who_come_a_little_late(
    text: str, lateness: list[float]
) -> None:
    rate = Rate.parse(text)
    bucket, now, taken = Bucket(rate), NOW, 0
    for late in lateness:
        while wait := bucket.take(now):
            now += wait + late
        taken += 1
    assert taken >= (now - NOW) * rate.count / rate.seconds * 0.9999 - 1e-6


def test_a_burst_of_one_is_one_by_one() -> None:
    bucket = Bucket(Rate(10, 1))
    assert bucket.take(NOW) == 0
    assert bucket.take(NOW) == pytest.approx(0.1)
    assert bucket.take(NOW + 0.05) == pytest.approx(0.05)
    assert bucket.take(NOW + 0.1) == 0
    assert bucket.take(NOW + 100) == 0
    assert bucket.take(NOW + 100) == pytest.approx(0.1)


def test_an_amount_above_the_burst_waits_for_all_that_is_owed_and_then_owes_more() -> None:
    bucket = Bucket(Rate(10, 1, 5))
    assert bucket.take(NOW, 100) == 0
    assert bucket.available(NOW) == pytest.approx(-95)
    assert bucket.take(NOW, 1) == pytest.approx(9.6)
    assert bucket.take(NOW, 100) == pytest.approx(10)
    assert bucket.take(NOW + 10, 100) == 0


@given(RATES, RATES, st.floats(1, 1000), st.floats(2, 1e9))
def test_who_adapts_owes_as_many(before: Rate, after: Rate, amount: float, back: float) -> None:
    bucket = Bucket(before)
    assert bucket.take(NOW, amount) == 0
    for now in (NOW, NOW + 0.5 * before.interval, NOW - 0.01, NOW - back):
        owed = (bucket.arrival - max(now, NOW)) / before.interval
        arrival = adapted(bucket.arrival, NOW, before.interval, now, after.interval)
        slack = 1e-6 / before.interval + 1e-6 / after.interval
        assert (arrival - now) / after.interval == pytest.approx(owed, rel=1e-6, abs=slack)


def test_who_owes_nothing_owes_nothing_at_another_rate() -> None:
    assert adapted(NOW - 5, NOW - 6, 1, NOW, 100) == NOW
    assert adapted(NOW + 2000, NOW + 3000, 1, NOW, 100) == NOW


@given(RATES, st.floats(1, 1000), st.floats(0, 1))
def test_processes_that_read_the_clock_out_of_order_gain_nothing(
    rate: Rate, amount: float, back: float
) -> None:
    bucket = Bucket(rate)
    assert bucket.take(NOW, amount) == 0
    assert bucket.available(NOW - back) <= bucket.available(NOW)


@pytest.mark.parametrize("arrival", [math.nan, math.inf, -math.inf])
def test_what_is_no_time_owes_nothing(arrival: float) -> None:
    assert arrive(arrival, NOW, 1, 1, 1) == (0.0, NOW + 1)
    assert adapted(arrival, NOW, 1, NOW, 2) == NOW


@pytest.mark.parametrize("pace", [0.0, math.nan, -1.0, math.inf])
def test_what_is_no_pace_owes_nothing(pace: float) -> None:
    assert adapted(NOW + 5, NOW, pace, NOW, 1) == NOW
