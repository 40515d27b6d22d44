"""The breaker: when a plugin that fails is not asked, and when it is again."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.hooks.breaker import (
    CALM,
    FAULTS,
    LONGEST_PAUSE,
    MOST_FAULTS,
    SHORTEST_PAUSE,
    Breaker,
)

TIMEOUT = 10.0


def _opened(at: float = 100.0) -> Breaker:
    breaker = Breaker()
    for number in range(FAULTS):
        assert breaker.fail(at, at, "KeyError") is (number == FAULTS - 1)
    return breaker


def _trial(breaker: Breaker, now: float) -> float:
    assert breaker.allows(now, TIMEOUT)
    return now


def test_it_is_closed_to_begin_with() -> None:
    breaker = Breaker()
    assert breaker.state(0.0) == "closed"
    assert breaker.allows(0.0, TIMEOUT)
    assert (breaker.faults_in_a_row, breaker.opened_at, breaker.reason) == (0, None, "")


def test_faults_in_a_row_open_it() -> None:
    breaker = _opened(100.0)
    assert breaker.state(100.0) == "open"
    assert not breaker.allows(100.9, TIMEOUT)
    assert breaker.opened_at == 100.0
    assert breaker.retry_at == 100.0 + SHORTEST_PAUSE
    assert breaker.reason == "KeyError"
    assert breaker.faults_in_a_row == FAULTS


def test_a_success_between_faults_begins_anew() -> None:
    breaker = Breaker()
    for number in range(FAULTS * 10):
        assert not breaker.fail(number, number, "bad mail")
        if number % (FAULTS - 1) == 0:
            assert not breaker.succeed(number, number)
            assert breaker.faults_in_a_row == 0
    assert breaker.state(1000.0) == "closed"


def test_after_the_pause_one_call_is_the_trial_and_closes_it() -> None:
    breaker = _opened(100.0)
    assert breaker.state(101.0) == "half-open"
    started = _trial(breaker, 101.0)
    assert breaker.state(101.0) == "half-open"
    assert not breaker.allows(101.5, TIMEOUT)
    assert breaker.succeed(started, 102.0)
    assert breaker.state(102.0) == "closed"
    assert breaker.faults_in_a_row == 0
    assert breaker.allows(102.0, TIMEOUT)


def test_the_pause_doubles_while_trials_fail_and_begins_anew_when_one_does_not() -> None:
    breaker = _opened(0.0)
    pauses = []
    now = 0.0
    for _ in range(8):
        pauses.append(breaker.retry_at - now)
        now = _trial(breaker, breaker.retry_at)
        assert not breaker.fail(now, now, "still gone")
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert breaker.faults_in_a_row == FAULTS + 8
    now = _trial(breaker, breaker.retry_at)
    assert breaker.succeed(now, now)
    for _ in range(FAULTS * 2):
        breaker.fail(now, now, "gone again")
    assert breaker.retry_at - now == SHORTEST_PAUSE


def test_a_trial_that_never_ends_has_failed() -> None:
    breaker = _opened(0.0)
    started = _trial(breaker, 1.0)
    assert not breaker.allows(1.0 + TIMEOUT, TIMEOUT)
    late = 1.0 + TIMEOUT + 0.1
    assert not breaker.allows(late, TIMEOUT)
    assert (breaker.state(late), breaker.retry_at) == ("open", late + 2.0)
    assert not breaker.succeed(started, late + 1.0)
    assert breaker.state(late + 1.0) == "open"
    assert breaker.allows(late + 2.0, TIMEOUT)


def test_a_trial_without_a_result_leaves_the_place_to_the_next_call() -> None:
    breaker = _opened(0.0)
    started = _trial(breaker, 1.0)
    breaker.withdraw(started)
    assert breaker.state(1.1) == "half-open"
    started = _trial(breaker, 1.1)
    assert breaker.succeed(started, 1.2)


def test_whoever_withdraws_something_else_does_not_end_the_trial() -> None:
    breaker = _opened(0.0)
    breaker.withdraw(0.0)
    started = _trial(breaker, 1.0)
    breaker.withdraw(0.5)
    assert not breaker.allows(1.1, TIMEOUT)
    assert breaker.succeed(started, 1.2)


def test_calls_that_were_under_way_when_it_opened_tell_nothing() -> None:
    breaker = _opened(100.0)
    assert breaker.is_stale(99.0)
    assert not breaker.succeed(99.0, 100.5)
    assert not breaker.fail(99.0, 100.5, "late")
    assert (breaker.state(100.5), breaker.retry_at) == ("open", 101.0)
    started = _trial(breaker, 101.0)
    assert not breaker.is_stale(started)
    assert not breaker.succeed(99.0, 101.5)
    assert not breaker.fail(99.0, 101.5, "late")
    assert breaker.succeed(started, 102.0)
    for _ in range(FAULTS * 10):
        assert breaker.is_stale(99.0)
        assert not breaker.fail(99.0, 103.0, "of before")
    assert breaker.state(103.0) == "closed"
    assert breaker.faults_in_a_row == 0


def test_who_opens_it_in_vain_needs_ever_more_faults_until_it_was_calm() -> None:
    breaker, now, needed = Breaker(), 0.0, []
    for _ in range(12):
        count = 1
        while not breaker.fail(now, now, "bad mail"):
            count += 1
        needed.append(count)
        now = _trial(breaker, breaker.retry_at)
        assert breaker.succeed(now, now)
    assert needed[:4] == [FAULTS, FAULTS * 2, FAULTS * 4, FAULTS * 8]
    assert needed[-1] == MOST_FAULTS
    now += CALM
    for number in range(FAULTS):
        assert breaker.fail(now, now, "gone") is (number == FAULTS - 1)


@pytest.mark.parametrize("bad", [0.1, 0.5, 0.8])
def test_a_flood_of_bad_mail_among_good_does_not_keep_it_open(bad: float) -> None:
    """An hour of two messages a second, of which a part makes the plugin raise."""
    assert sorted(_refused(bad, seed) for seed in range(5))[2] < 0.1


def test_a_plugin_that_is_out_of_order_is_hardly_asked() -> None:
    assert _refused(1.0, 0) > 0.98


def _refused(bad: float, seed: int) -> float:
    chance = random.Random(seed)
    breaker, messages, refused = Breaker(), 7200, 0
    for number in range(messages):
        now = number / 2
        if not breaker.allows(now, TIMEOUT):
            refused += 1
        elif chance.random() < bad:
            breaker.fail(now, now, "bad mail")
        else:
            breaker.succeed(now, now)
    return refused / messages


class Life(RuleBasedStateMachine):
    """Any calls, ending in any order, while time goes on."""

    @initialize()
    def begin(self) -> None:
        self.breaker = Breaker()
        self.now = 0.0
        self.running: list[float] = []
        self.trial: float | None = None
        self.row = 0

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 5.0, TIMEOUT + 1.0, LONGEST_PAUSE, CALM]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        state = self.breaker.state(self.now)
        allowed = self.breaker.allows(self.now, TIMEOUT)
        if state == "closed":
            assert allowed
        elif state == "open":
            assert not allowed
        if allowed:
            if state == "half-open":
                lost = self.trial is None or self.now > self.trial + TIMEOUT
                assert lost, "two trials at a time"
                self.trial = self.now
                assert self.breaker.state(self.now) == "half-open"
            self.running.append(self.now)
            # No two calls begin at one time.
            self.now += 0.001

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(["succeed", "fail", "withdraw"]))
    def end(self, data: st.DataObject, end: str) -> None:
        started = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        before = self.breaker.state(self.now)
        stale = self.breaker.is_stale(started)
        if end == "succeed":
            closed = self.breaker.succeed(started, self.now)
            assert closed == (before != "closed" and not stale)
            assert (self.breaker.state(self.now) == "closed") == (before == "closed" or closed)
        elif end == "fail":
            opened = self.breaker.fail(started, self.now, "bad")
            assert opened == (before == "closed" and self.breaker.state(self.now) != "closed")
            if opened:
                assert self.breaker.retry_at == self.now + SHORTEST_PAUSE
        else:
            self.breaker.withdraw(started)
            assert (self.breaker.state(self.now) == "closed") == (before == "closed")
        if started == self.trial:
            self.trial = None
        self.now += 0.001

    @invariant()
    def is_sound(self) -> None:
        breaker = self.breaker
        state = breaker.state(self.now)
        assert (state == "closed") == (breaker.opened_at is None)
        assert breaker.faults_in_a_row >= (0 if state == "closed" else FAULTS)
        if breaker.opened_at is not None:
            pause = breaker.retry_at - breaker.opened_at
            assert SHORTEST_PAUSE - 1e-6 <= pause <= LONGEST_PAUSE + 1e-6
            assert breaker.reason

    def teardown(self) -> None:
        """Whatever has happened: a plugin that works again is asked again."""
        if not hasattr(self, "breaker"):
            return
        now = self.now + LONGEST_PAUSE + TIMEOUT + 1.0
        if not self.breaker.allows(now, TIMEOUT):
            now = self.breaker.retry_at  # a trial that was lost
            assert self.breaker.allows(now, TIMEOUT)
        self.breaker.succeed(now, now)
        assert self.breaker.state(now) == "closed"


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestLife: Any = Life.TestCase


@given(st.lists(st.booleans(), max_size=200))
@settings(deadline=None)
def test_calls_one_after_the_other(results: list[bool]) -> None:
    """In the order of a plain function's calls: opens at the fifth in a row, and not before."""
    breaker, now, row = Breaker(), 0.0, 0
    for good in results:
        now += 0.01
        if good:
            breaker.succeed(now, now)
            row = 0
        else:
            row += 1
            assert breaker.fail(now, now, "bad") is (row == FAULTS)
        if row == FAULTS:
            return
        assert breaker.faults_in_a_row == row
