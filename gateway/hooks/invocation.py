"""One call of a hook: its time limit, what it counts, and what is a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import suppress
from time import monotonic
from types import coroutine
from typing import Any

from gateway.hooks.step import Step
from gateway.hooks.watchdog import NEVER, HookTimeoutError, Watchdog


def call(step: Step, subject: Any, watchdog: Watchdog) -> Any:
    """Calls a plain function and returns its answer.

    Raises:
        Fault: it raised, ran late or answered what its stage does not know.
    """
    started = monotonic()
    try:
        watchdog.deadline = started + step.timeout
        try:
            answer = step.call(subject)
        finally:
            watchdog.deadline = NEVER
    except (Exception, HookTimeoutError) as error:
        raise step.fault(error) from None
    finally:
        step.calls += 1
        step.seconds += monotonic() - started
    return answer if answer is None else step.check(answer)


async def run(step: Step, subject: Any, watchdog: Watchdog) -> Any:
    """Calls a plain function or a coroutine function and returns its answer.

    A coroutine runs up to where it first has to wait as a plain function does. Most never wait, and
    then they cost neither a timer nor an entry in the watchdog's table.

    Raises:
        Fault: as in `call`.
    """
    if not step.is_async:
        return call(step, subject, watchdog)
    started = monotonic()
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
    except (Exception, HookTimeoutError) as error:
        if running is not None:
            # The signal may have come when it had just begun to wait, for what nobody knows now.
            with suppress(Exception):
                running.close()
        raise step.fault(error) from None
    finally:
        step.calls += 1
        step.seconds += monotonic() - started
    return answer if answer is None else step.check(answer)


async def _within(
    running: Coroutine[Any, Any, Any], awaited: Any, deadline: float, watchdog: Watchdog
) -> Any:
    """Goes on with a coroutine that waits, up to a deadline in monotonic seconds."""
    task = asyncio.current_task()
    assert task is not None
    watchdog.tasks[task] = deadline
    try:
        # Both asyncio's loop and uvloop count time as `monotonic` does.
        async with asyncio.timeout_at(deadline):
            return await _resumed(running, awaited)
    finally:
        del watchdog.tasks[task]


@coroutine
def _resumed(running: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    """Goes on with a coroutine that has yielded `awaited`, as if it had been awaited from here."""
    while True:
        try:
            yield awaited
        except BaseException as error:
            try:
                awaited = running.throw(error)
            except StopIteration as end:
                return end.value
        else:
            return (yield from running)


async def run_apart(step: Step, subject: Any) -> Any:
    """Calls a plain function in a thread. One that is late goes on there, and is not listened to.

    Raises:
        Fault: as in `call`.
    """
    started = monotonic()
    try:
        async with asyncio.timeout(step.timeout):
            answer = await asyncio.to_thread(step.call, subject)
    except Exception as error:
        raise step.fault(error) from None
    finally:
        step.calls += 1
        step.seconds += monotonic() - started
    return answer if answer is None else step.check(answer)
