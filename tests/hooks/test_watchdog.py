"""The watchdog: hooks that never end are ended, others are left alone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from time import monotonic

import pytest
import uvloop

from gateway.hooks.watchdog import INTERVAL, NEVER, HookTimeoutError, Watchdog


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    watchdog.start()
    yield watchdog
    watchdog.stop()


def _loop_without_end() -> None:
    while True:
        pass


def _catching() -> None:
    try:
        time.sleep(60)
    except Exception:
        return


def test_a_loop_without_end_is_ended(watchdog: Watchdog) -> None:
    watchdog.deadline = monotonic() + 0.05
    with pytest.raises(HookTimeoutError):
        _loop_without_end()
    assert watchdog.deadline == NEVER


def test_a_system_call_that_blocks_is_ended(watchdog: Watchdog) -> None:
    started = monotonic()
    watchdog.deadline = started + 0.05
    with pytest.raises(HookTimeoutError):
        time.sleep(60)
    assert monotonic() - started < 30


def test_a_program_that_a_hook_waits_for_is_left_behind(watchdog: Watchdog) -> None:
    watchdog.deadline = monotonic() + 0.05
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        with pytest.raises(HookTimeoutError):
            sleeping.wait()
        sleeping.kill()


def test_an_exception_handler_of_a_plugin_does_not_catch_it(watchdog: Watchdog) -> None:
    watchdog.deadline = monotonic() + 0.05
    with pytest.raises(HookTimeoutError):
        _catching()


def test_what_is_not_late_is_left_alone(watchdog: Watchdog) -> None:
    watchdog.deadline = monotonic() + 60
    end = monotonic() + 3 * INTERVAL
    while monotonic() < end:
        pass
    watchdog.deadline = NEVER
    while monotonic() < end + 2 * INTERVAL:
        pass


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_only_the_late_task_is_ended(watchdog: Watchdog, new_loop: object) -> None:
    async def late() -> None:
        task = asyncio.current_task()
        assert task is not None
        watchdog.tasks[task] = monotonic() + 0.05
        try:
            while True:
                pass
        finally:
            del watchdog.tasks[task]

    async def busy() -> None:
        end = monotonic() + 3 * INTERVAL
        while monotonic() < end:
            pass

    async def main() -> None:
        waiting = asyncio.create_task(asyncio.sleep(0.5))
        watchdog.tasks[waiting] = monotonic()  # late, but not the one that runs
        with pytest.raises(HookTimeoutError):
            await late()
        await busy()
        await waiting

    with asyncio.Runner(loop_factory=new_loop) as runner:  # type: ignore[arg-type]
        runner.run(main())


def test_it_stops_looking(watchdog: Watchdog) -> None:
    watchdog.deadline = monotonic()
    watchdog.stop()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    time.sleep(2 * INTERVAL)
