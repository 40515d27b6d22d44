"""Whether it is worth waiting for messages that are on their way."""

from __future__ import annotations

import pytest

from gateway.spool.expectation import Expectation


def _waits(expected: Expectation, commits: int, *, brings: int) -> int:
    """Makes commits of one client each, and returns how many waited; each wait `brings` more."""
    waits = 0
    for _ in range(commits):
        if expected.is_met(1):
            expected.learn(1, None)
        else:
            waits += 1
            expected.learn(1 + brings, 1)
    return waits


@pytest.mark.parametrize(("messages", "here"), [(0, 1), (1, 1), (3, 3), (3, 4)])
def test_when_all_are_there(messages: int, here: int) -> None:
    assert Expectation(messages).is_met(here)


@pytest.mark.parametrize(("messages", "here"), [(2, 1), (0, 0), (1, 0)])
def test_when_they_are_not(messages: int, here: int) -> None:
    assert not Expectation(messages).is_met(here)


def test_clients_that_dawdle_delay_few_commits() -> None:
    expected = Expectation(500)
    assert _waits(expected, 100, brings=0) <= 6
    # Of many, less than one of a hundred.
    assert 1 <= _waits(expected, 10_000, brings=0) <= 50


def test_a_wait_that_brings_others_is_worth_it() -> None:
    assert _waits(Expectation(5), 1000, brings=3) == 1000


def test_company_is_noticed_without_a_wait() -> None:
    expected = Expectation(5)
    _waits(expected, 100, brings=0)
    assert expected.is_met(2)
    expected.learn(2, None)
    assert not expected.is_met(2)


def test_what_nobody_waits_for_says_nothing() -> None:
    expected = Expectation(5)
    for _ in range(10):
        expected.learn(0, 0)
    assert not expected.is_met(1)
