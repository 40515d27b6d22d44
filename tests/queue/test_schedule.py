from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.queue.schedule import RetryPolicy, next_attempt

RECEIVED = 1_790_000_000.0
SLACK = 1e-6
"""A double holds the seconds since the epoch to about a quarter of a microsecond."""

policies = st.builds(
    RetryPolicy,
    schedule=st.lists(st.floats(1, 86_400), min_size=1, max_size=8).map(tuple),
    jitter=st.floats(0, 0.5),
    lifetime=st.floats(60, 30 * 86_400),
)
fractions = st.floats(0, 1)
STEADY = RetryPolicy(schedule=(300.0, 900.0, 1800.0), jitter=0.0, lifetime=86_400.0)


@pytest.mark.parametrize(
    ("attempts", "interval"), [(1, 300), (2, 900), (3, 1800), (4, 1800), (1000, 1800)]
)
def test_follows_the_schedule_and_repeats_its_last_interval(attempts: int, interval: int) -> None:
    assert next_attempt(RECEIVED + 10, RECEIVED, attempts, STEADY, 0.5) == RECEIVED + 10 + interval


@pytest.mark.parametrize(("random", "factor"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_jitter_spreads_to_both_sides(random: float, factor: float) -> None:
    policy = RetryPolicy(schedule=(1000.0,), jitter=0.1, lifetime=86_400.0)
    assert next_attempt(RECEIVED, RECEIVED, 1, policy, random) == pytest.approx(
        RECEIVED + 1000 * factor, abs=SLACK
    )


def test_the_last_attempt_is_at_the_end_and_then_it_is_over() -> None:
    end = RECEIVED + STEADY.lifetime
    assert next_attempt(end - 1, RECEIVED, 50, STEADY, 0.5) == end
    assert next_attempt(end, RECEIVED, 51, STEADY, 0.5) is None
    assert next_attempt(end + 5, RECEIVED, 51, STEADY, 0.5) is None


@given(policies, st.floats(-86_400, 40 * 86_400), st.integers(1, 10_000), fractions)
def test_never_early_never_late_never_past_the_end(
    policy: RetryPolicy, age: float, attempts: int, random: float
) -> None:
    now = RECEIVED + age
    end = RECEIVED + policy.lifetime
    at = next_attempt(now, RECEIVED, attempts, policy, random)
    if at is None:
        assert now >= end
        return
    interval = policy.schedule[min(attempts, len(policy.schedule)) - 1]
    assert now < at <= end
    assert at <= now + interval * (1 + policy.jitter) + SLACK
    if at != end:
        assert at >= now + interval * (1 - policy.jitter) - SLACK


@given(policies, st.integers(1, 20), fractions, fractions)
def test_more_randomness_never_means_earlier(
    policy: RetryPolicy, attempts: int, one: float, other: float
) -> None:
    early, late = (
        next_attempt(RECEIVED, RECEIVED, attempts, policy, random)
        for random in sorted((one, other))
    )
    assert early is not None
    assert late is not None
    assert early <= late


@given(policies, st.data())
def test_a_message_that_never_gets_through_is_tried_until_its_end(
    policy: RetryPolicy, data: st.DataObject
) -> None:
    policy = RetryPolicy(policy.schedule, policy.jitter, min(policy.lifetime, 200.0))
    times = [RECEIVED]
    while True:
        random = data.draw(fractions)
        at = next_attempt(times[-1], RECEIVED, len(times), policy, random)
        if at is None:
            break
        assert at > times[-1]
        times.append(at)
    assert times[-1] == RECEIVED + policy.lifetime


def test_the_schedule_starts_after_the_first_attempt() -> None:
    with pytest.raises(ValueError, match="after the first"):
        next_attempt(RECEIVED, RECEIVED, 0, STEADY, 0.5)


@pytest.mark.parametrize(
    ("schedule", "jitter", "lifetime", "text"),
    [
        ((), 0.1, 60.0, "schedule"),
        ((300.0, 0.0), 0.1, 60.0, "schedule"),
        ((float("nan"),), 0.1, 60.0, "schedule"),
        ((300.0,), 1.0, 60.0, "jitter"),
        ((300.0,), -0.1, 60.0, "jitter"),
        ((300.0,), 0.1, 0.0, "lifetime"),
        ((300.0,), 0.1, float("nan"), "lifetime"),
    ],
)
def test_a_policy_without_sense_is_refused(
    schedule: tuple[float, ...], jitter: float, lifetime: float, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        RetryPolicy(schedule, jitter, lifetime)
