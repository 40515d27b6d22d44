"""How long a place is left alone that did not let us in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.attempt import Disposition, Outcome
from gateway.delivery.failures import Failures

BUSY = Outcome(Disposition.DEFERRED, 421, "4.7.0", "too many", "connect", "mx[192.0.2.1]:25")


def _pauses(took: float, count: int, *, slow: bool = False) -> list[float]:
    """How long a place is left alone after each of some failures, one after the other."""
    failures, now, pauses = Failures(), 1000.0, []
    for _ in range(count):
        began = now
        failures.begin("place", began)
        now += took
        failures.add("place", BUSY, began, now, slow=slow)
        seconds = 0.0
        while failures.reason("place", now + seconds) is not None:
            seconds += 0.5
        pauses.append(seconds)
        now += seconds
    return pauses


def test_nothing_is_known_of_a_new_place() -> None:
    assert Failures().reason("place", 0.0) is None


def test_who_refuses_at_once_is_asked_again_soon() -> None:
    assert _pauses(0.01, 7) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_who_keeps_us_waiting_is_left_alone_for_long() -> None:
    assert _pauses(30.0, 7) == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_what_must_not_be_tried_often_counts_as_slow() -> None:
    assert _pauses(0.01, 2, slow=True) == [30.0, 60.0]


def test_a_black_hole_that_begins_to_refuse_is_asked_again_soon() -> None:
    failures = Failures()
    failures.add("place", BUSY, 0.0, 30.0)
    failures.add("place", BUSY, 60.0, 60.1)
    assert failures.reason("place", 90.0) is not None
    assert failures.reason("place", 90.2) is None


def test_the_reason_is_told_without_a_reply_of_its_own() -> None:
    failures = Failures()
    failures.add("place", BUSY, 10.0, 10.1)
    reason = failures.reason("place", 10.6)
    assert reason is not None
    assert (reason.disposition, reason.code, reason.status) == (Disposition.DEFERRED, 0, "4.7.0")
    assert (reason.stage, reason.relay) == ("connect", "mx[192.0.2.1]:25")
    assert reason.text == "421 4.7.0 too many (0 s ago; left alone for another 0 s)"


def test_one_attempt_after_the_pause_is_made_alone() -> None:
    failures = Failures()
    failures.add("place", BUSY, 0.0, 30.0)
    assert failures.reason("place", 59.9) is not None
    assert failures.reason("place", 60.0) is None
    failures.begin("place", 60.0)
    assert failures.reason("place", 60.1) is not None
    # It never ended; somebody else may.
    assert failures.reason("place", 90.0) is None


def test_attempts_at_the_same_time_count_as_one() -> None:
    failures = Failures()
    for began in range(20):
        failures.add("place", BUSY, float(began), began + 30.0)
    assert failures.reason("place", 49.0 + 29.9) is not None
    assert failures.reason("place", 49.0 + 30.0) is None


def test_success_is_forgiveness() -> None:
    failures = Failures()
    for began in (0.0, 100.0, 300.0):
        failures.add("place", BUSY, began, began + 30.0)
    failures.forget("place")
    assert failures.reason("place", 331.0) is None
    failures.add("place", BUSY, 340.0, 370.0)
    assert failures.reason("place", 400.0) is None


def test_places_are_apart() -> None:
    failures = Failures()
    failures.add("one", BUSY, 0.0, 0.1)
    assert failures.reason("two", 0.2) is None
    failures.forget("two")
    failures.begin("two", 0.2)
    assert failures.reason("one", 0.2) is not None


def test_the_oldest_places_make_room() -> None:
    failures = Failures()
    for number in range(10_001):
        failures.add(number, BUSY, 0.0, 0.1)
    assert failures.reason(0, 0.2) is None
    assert failures.reason(1, 0.2) is not None
    assert failures.reason(10_000, 0.2) is not None


@given(
    st.lists(
        st.tuples(st.floats(0, 400), st.floats(0, 40), st.booleans(), st.booleans()), max_size=30
    )
)
def test_no_place_is_left_alone_for_ever(history: list[tuple[float, float, bool, bool]]) -> None:
    failures, now = Failures(), 0.0
    for wait, took, slow, good in history:
        now += wait
        began = now
        failures.begin("place", began)
        now += took
        if good:
            failures.forget("place")
            assert failures.reason("place", now) is None
        else:
            failures.add("place", BUSY, began, now, slow=slow)
            assert failures.reason("place", now) is not None
        assert failures.reason("place", now + 600.0) is None
