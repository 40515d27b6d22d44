"""One call of a hook: its time limit, what it counts, and what is a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import suppress
from time import monotonic
from types import coroutine
from typing import Any

from gateway.hooks.replica import replica_of
from gateway.hooks.step import Fault, Step
from gateway.hooks.thread_pool import NoThreadError, ThreadPool
from gateway.hooks.watchdog import NEVER, HookTimeoutError, Watchdog

TIDY_SECONDS = 5.0
"""How long a coroutine that is late may go on after it was cancelled, to tidy up."""

CLOCK_SECONDS = 0.01
"""How much too early a timer may come: those of uvloop count whole milliseconds."""


def call(step: Step, subject: Any, watchdog: Watchdog) -> Any:
    """Calls a plain function and returns its answer.

    Raises:
        Unasked: the plugin's breaker is open.
        Fault: it raised, ran late or answered what its stage does not know.
    """
    started = monotonic()
    if step.breaker.faults_in_a_row:
        step.ask_breaker(started)
    try:
        watchdog.deadline = started + step.timeout
        try:
            answer = step.call(subject)
        finally:
            watchdog.deadline = NEVER
        if answer is not None:
            step.check(answer)
    except KeyboardInterrupt:
        step.breaker.withdraw(started)
        raise
    except BaseException as error:
        # Whatever it is, SystemExit too: it must not end the worker.
        raise _failed(step, error, started) from None
    ended = monotonic()
    step.timing.add(ended - started)
    if step.breaker.faults_in_a_row:
        step.succeeded(started, ended)
    return answer


async def run(step: Step, subject: Any, watchdog: Watchdog) -> Any:
    """Calls a plain function or a coroutine function and returns its answer.

    A coroutine runs up to where it first has to wait as a plain function does. Most never wait, and
    then they cost neither a timer nor an entry in the watchdog's table.

    Raises:
        Unasked, Fault: as in `call`.
    """
    if not step.is_async:
        if step.pool is not None:
            return await run_apart(step, subject, step.pool)
        return call(step, subject, watchdog)
    started = monotonic()
    if step.breaker.faults_in_a_row:
        step.ask_breaker(started)
    deadline = started + step.timeout
    running: Coroutine[Any, Any, Any] | None = None
    try:
        running = step.call(subject)
        try:
            watchdog.deadline = deadline
            try:
                awaited = running.send(None)
            finally:
                watchdog.deadline = NEVER
        except StopIteration as end:
            answer = end.value
        else:
            answer = await _within(running, awaited, deadline, watchdog)
        if answer is not None:
            step.check(answer)
    except BaseException as error:
        if _comes_from_outside(error):
            _withdraw(step, started)
            raise
        if running is not None:
            # The signal may have come when it had just begun to wait, for what nobody knows now.
            with suppress(Exception):
                running.close()
        raise _failed(step, error, started) from None
    ended = monotonic()
    step.timing.add(ended - started)
    if step.breaker.faults_in_a_row:
        step.succeeded(started, ended)
    return answer


def _failed(step: Step, error: BaseException, started: float) -> Fault:
    now = monotonic()
    step.timing.add(now - started)
    return step.failed(error, started, now)


def _withdraw(step: Step, started: float) -> None:
    step.timing.add(monotonic() - started)
    step.breaker.withdraw(started)


def _comes_from_outside(error: BaseException) -> bool:
    """Whether a task is ended by others, as when its client has gone, and not by the plugin."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)


async def _within(
    running: Coroutine[Any, Any, Any], awaited: Any, deadline: float, watchdog: Watchdog
) -> Any:
    """Goes on with a coroutine that waits, up to a deadline in monotonic seconds.

    Raises:
        HookTimeoutError: that has passed.
    """
    task = asyncio.current_task()
    assert task is not None
    watchdog.tasks[task] = deadline
    try:
        # Both asyncio's loop and uvloop count time as `monotonic` does.
        async with asyncio.timeout_at(deadline) as limit:
            return await _resumed(running, awaited, deadline, task)
    except TimeoutError:
        if limit.expired():
            raise HookTimeoutError from None
        raise
    finally:
        del watchdog.tasks[task]


@coroutine
def _resumed(
    running: Coroutine[Any, Any, Any], awaited: Any, deadline: float, task: asyncio.Task[Any]
) -> Generator[Any, Any, Any]:
    """Goes on with a coroutine that has yielded `awaited`, as if it had been awaited from here.

    One that is cancelled because it is late, and goes on waiting, is left behind after a while.

    Raises:
        HookTimeoutError: it was left behind.
    """
    last_call: _LastCall | None = None
    try:
        while True:
            try:
                yield awaited
            except BaseException as error:
                if last_call is not None and last_call.was_made:
                    task.uncancel()
                    raise HookTimeoutError from None
                if last_call is None and monotonic() >= deadline - CLOCK_SECONDS:
                    last_call = _LastCall(task)
                awaited = running.throw(error)
            else:
                awaited = running.send(None)
    except StopIteration as end:
        return end.value
    finally:
        if last_call is not None:
            last_call.timer.cancel()


class _LastCall:
    """Wakes a task once more, `TIDY_SECONDS` after it was late."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.was_made = False
        self.timer = task.get_loop().call_later(TIDY_SECONDS, self._make)

    def _make(self) -> None:
        self.was_made = True
        self._task.cancel()


async def run_apart(step: Step, subject: Any, pool: ThreadPool) -> Any:
    """Calls a plain function in a thread, with a replica of its subject.

    What it changed is taken over if it has answered in time. One that is late is interrupted, and
    whatever it still does, the subject stays as it is.

    Raises:
        Unasked, Fault: as in `call`; or all threads were at work all the time.
    """
    started = monotonic()
    if step.breaker.faults_in_a_row:
        step.ask_breaker(started)
    try:
        replica = replica_of(subject, step.wholes)
        answer = await pool.run(step.call, replica.subject, timeout=step.timeout)
        if answer is not None:
            step.check(answer)
        replica.adopt()
    except BaseException as error:
        if _comes_from_outside(error):
            _withdraw(step, started)
            raise
        raise _failed_apart(step, error, started) from None
    ended = monotonic()
    step.timing.add(ended - started)
    if step.breaker.faults_in_a_row:
        step.succeeded(started, ended)
    return answer


def wait_apart(step: Step, subject: Any, pool: ThreadPool) -> Any:
    """As `run_apart`, for who cannot await: everything else waits meanwhile.

    Raises:
        Unasked, Fault: as in `run_apart`.
    """
    started = monotonic()
    if step.breaker.faults_in_a_row:
        step.ask_breaker(started)
    try:
        replica = replica_of(subject, step.wholes)
        answer = pool.wait(step.call, replica.subject, timeout=step.timeout)
        if answer is not None:
            step.check(answer)
        replica.adopt()
    except KeyboardInterrupt:
        step.breaker.withdraw(started)
        raise
    except BaseException as error:
        raise _failed_apart(step, error, started) from None
    ended = monotonic()
    step.timing.add(ended - started)
    if step.breaker.faults_in_a_row:
        step.succeeded(started, ended)
    return answer


def _failed_apart(step: Step, error: BaseException, started: float) -> Fault:
    if isinstance(error, NoThreadError):
        error = Fault(str(error))
    return _failed(step, error, started)
