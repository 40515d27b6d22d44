"""Which worker a new connection goes to."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.process.balance import PATIENCE, TOLERANCE, Balance, octets


def balances(workers: int) -> list[Balance]:
    """All workers' views of one memory, each with no connection."""
    memory = memoryview(bytearray(octets(workers)))
    views = [Balance(memory, workers, index) for index in range(workers)]
    for view in views:
        view.enter(0)
    return views


def test_it_goes_to_the_one_with_the_fewest() -> None:
    first, second, third = balances(3)
    first.note(2)
    second.note(1)
    assert first.lightest(0.0) == 2
    assert second.lightest(0.0) == 2
    assert third.lightest(0.0) is None


def test_it_stays_where_no_other_has_fewer() -> None:
    first, second = balances(2)
    assert first.lightest(0.0) is None
    first.note(3)
    second.note(3)
    assert first.lightest(0.0) is None


def test_what_is_on_its_way_counts_for_who_gets_it() -> None:
    first, second = balances(2)
    first.note(1)
    assert first.lightest(0.0) == 1
    number = first.next_number(1)
    first.gave(1, number, 0.0)
    assert first.lightest(0.0) is None
    second.note(1)
    second.took(0, number)
    assert first.lightest(0.0) is None
    second.note(0)
    assert first.lightest(0.0) == 1


def test_sessions_may_begin_in_another_order_than_they_came() -> None:
    first, second = balances(2)
    first.note(5)
    for _ in range(3):
        first.gave(1, first.next_number(1), 0.0)
    second.took(0, 3)
    second.took(0, 1)
    assert first.lightest(0.0) == 1
    second.note(5)
    assert first.lightest(0.0) is None


def test_what_the_process_before_lost_is_not_waited_for() -> None:
    first, second = balances(2)
    first.note(9)
    first.gave(1, 1, 0.0)
    second.leave()
    assert first.lightest(1.0) is None
    second.enter(0)
    assert first.lightest(1.0) == 1
    # That it comes after all does no harm.
    second.took(0, 1)
    first.gave(1, 2, 1.0)
    assert first.lightest(2.0) is None
    second.took(0, 2)
    assert first.lightest(2.0) == 1


def test_who_has_left_gets_none_and_gives_none() -> None:
    first, second, third = balances(3)
    for view in (first, second, third):
        view.note(4)
    second.leave()
    third.note(9)
    assert third.lightest(0.0) == 0
    first.leave()
    assert third.lightest(0.0) is None
    assert first.lightest(0.0) is None


def test_who_does_not_begin_with_what_it_was_given_gets_no_more() -> None:
    first, second, third = balances(3)
    first.note(9)
    third.note(5)
    first.gave(1, 1, 100.0)
    first.gave(1, 2, 100.0 + PATIENCE / 2)
    assert first.lightest(100.0 + PATIENCE / 2) == 1
    # It may be stuck, and then whoever is given to it waits as well.
    assert first.lightest(100.1 + PATIENCE) == 2
    second.took(0, 1)
    assert first.lightest(100.0 + PATIENCE) == 1
    assert first.lightest(101.0 + PATIENCE) == 2
    second.took(0, 2)
    assert first.lightest(101.0 + PATIENCE) == 1


@pytest.mark.parametrize("many", [TOLERANCE, 100, 1000])
def test_of_many_a_small_difference_is_left(many: int) -> None:
    first, second = balances(2)
    first.note(many)
    second.note(many - many // TOLERANCE)
    assert first.lightest(0.0) is None
    second.note(many - many // TOLERANCE - 1)
    assert first.lightest(0.0) == 1


def test_alone_there_is_nobody() -> None:
    [alone] = balances(1)
    alone.note(100)
    assert alone.lightest(0.0) is None


@given(
    st.integers(2, 9).flatmap(
        lambda workers: st.tuples(
            st.just(workers),
            st.lists(st.tuples(st.integers(0, workers - 1), st.booleans()), max_size=60),
        )
    )
)
def test_whoever_they_come_to_all_get_about_as_many(
    case: tuple[int, list[tuple[int, bool]]],
) -> None:
    """Connections come to any worker; a worker begins with what it was given now or later."""
    workers, arrivals = case
    views = balances(workers)
    counts = [0] * workers
    waiting: deque[tuple[int, int, int]] = deque()

    def begin(giver: int, taker: int, number: int) -> None:
        counts[taker] += 1
        views[taker].note(counts[taker])
        views[taker].took(giver, number)

    for worker, now in arrivals:
        chosen = views[worker].lightest(0.0)
        if chosen is None:
            counts[worker] += 1
            views[worker].note(counts[worker])
        else:
            number = views[worker].next_number(chosen)
            views[worker].gave(chosen, number, 0.0)
            waiting.append((worker, chosen, number))
        while now and waiting:
            begin(*waiting.popleft())
    while waiting:
        begin(*waiting.popleft())
    assert sum(counts) == len(arrivals)
    if all(now for _, now in arrivals):
        assert max(counts) - min(counts) <= 1 + max(counts) // TOLERANCE
