"""Threads of blocking plugins: how many, in which order, and what becomes of those that hang."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from textwrap import dedent
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hooks.thread_pool import MOST_ALIVE, NoThreadError, ThreadPool
from gateway.hooks.watchdog import HookTimeoutError

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
LONG = 30.0


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool("test", 2)
    yield pool
    pool.close()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


async def _until_async(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


class Spin:
    """A function that never ends by itself, and tells of its thread."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.turns = 0

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        while True:
            self.turns += 1

    @property
    def has_ended(self) -> bool:
        """Whether it began, and its thread has gone."""
        return self.thread is not None and not self.thread.is_alive()


# Jobs.


@LOOPS
def test_a_function_runs_in_a_thread(new_loop: Any) -> None:
    async def main() -> None:
        pool = ThreadPool("plugin site", 1)
        assert await pool.run(divmod, 7, 2, timeout=LONG) == (3, 1)
        thread = await pool.run(threading.current_thread, timeout=LONG)
        assert thread is not threading.current_thread()
        assert (thread.name, thread.daemon) == ("plugin site 1", True)
        assert await pool.run(threading.current_thread, timeout=LONG) is thread
        pool.close()
        thread.join(LONG)
        assert not thread.is_alive()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    "error", [KeyError("x"), SystemExit(1), KeyboardInterrupt(), StopAsyncIteration()]
)
async def test_what_it_raises_comes_out(pool: ThreadPool, error: BaseException) -> None:
    def function() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await pool.run(function, timeout=LONG)
    assert caught.value is error
    with pytest.raises(type(error)):
        pool.wait(function, timeout=LONG)
    assert await pool.run(int, timeout=LONG) == 0


VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="")


async def test_it_sees_the_context_and_does_not_change_it(pool: ThreadPool) -> None:
    def function() -> str:
        value = VARIABLE.get()
        VARIABLE.set("in the thread")
        return value

    VARIABLE.set("outside")
    assert await pool.run(function, timeout=LONG) == "outside"
    assert pool.wait(function, timeout=LONG) == "outside"
    assert VARIABLE.get() == "outside"


@pytest.mark.parametrize("threads", [1, 3])
async def test_no_more_at_a_time_than_threads_and_in_order(threads: int) -> None:
    pool = ThreadPool("test", threads)
    gate = threading.Event()
    begun: list[int] = []

    def function(number: int) -> int:
        begun.append(number)
        gate.wait(LONG)
        return number

    running = [asyncio.create_task(pool.run(function, n, timeout=LONG)) for n in range(12)]
    await _until_async(lambda: len(begun) == threads)
    await asyncio.sleep(0.02)
    assert sorted(begun) == list(range(threads))
    assert pool.busy == threads
    gate.set()
    assert await asyncio.gather(*running) == list(range(12))
    assert sorted(begun) == list(range(12))
    assert threads > 1 or begun == list(range(12))
    assert pool.busy == 0
    pool.close()


@given(
    threads=st.integers(1, 4),
    seconds=st.lists(st.sampled_from([0.0, 0.0005, 0.002]), max_size=30),
    cancelled=st.sets(st.integers(0, 29)),
)
@settings(max_examples=30, deadline=None)
def test_every_job_is_done_once_whoever_is_cancelled(
    threads: int, seconds: list[float], cancelled: set[int]
) -> None:
    done: list[int] = []
    at_once: list[int] = []
    working: set[int] = set()

    def function(number: int) -> int:
        working.add(number)
        at_once.append(len(working))
        time.sleep(seconds[number])
        working.remove(number)
        done.append(number)
        return number

    async def main() -> None:
        pool = ThreadPool("test", threads)
        tasks = [
            asyncio.create_task(pool.run(function, n, timeout=LONG)) for n in range(len(seconds))
        ]
        await asyncio.sleep(0)
        for number in cancelled:
            if number < len(tasks):
                tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number not in cancelled:
                assert result == number
        await _until_async(lambda: pool.busy == 0)
        assert await pool.run(int, timeout=LONG) == 0
        pool.close()

    asyncio.run(main())
    assert len(done) == len(set(done))
    assert {n for n in range(len(seconds)) if n not in cancelled} <= set(done)
    assert max(at_once, default=0) <= threads


# Threads that are late.


@LOOPS
def test_a_thread_that_spins_is_stopped_and_replaced(new_loop: Any) -> None:
    async def main() -> None:
        pool, spin = ThreadPool("test", 1), Spin()
        with pytest.raises(HookTimeoutError):
            await pool.run(spin, timeout=0.1)
        assert await pool.run(int, timeout=LONG) == 0
        await _until_async(lambda: spin.has_ended)
        turns = spin.turns
        await asyncio.sleep(0.05)
        assert spin.turns == turns
        assert pool.late == 0
        pool.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def test_a_thread_that_hangs_keeps_no_place(pool: ThreadPool) -> None:
    gate = threading.Event()
    results = await asyncio.gather(
        *(pool.run(gate.wait, LONG, timeout=0.1) for _ in range(2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [HookTimeoutError] * 2
    assert (pool.busy, pool.late) == (0, 2)
    assert await pool.run(int, timeout=LONG) == 0
    gate.set()
    await _until_async(lambda: pool.late == 0)


async def test_when_all_threads_hang_calls_fail_at_once(pool: ThreadPool) -> None:
    gate = threading.Event()
    most = 2 * MOST_ALIVE
    for _ in range(MOST_ALIVE):
        await asyncio.gather(
            *(pool.run(gate.wait, LONG, timeout=0.05) for _ in range(2)), return_exceptions=True
        )
    assert pool.late == most
    before = threading.active_count()
    started = time.monotonic()
    for _ in range(10):
        with pytest.raises(NoThreadError, match=f"all of its {most} threads hang"):
            await pool.run(int, timeout=LONG)
    with pytest.raises(NoThreadError):
        pool.wait(int, timeout=LONG)
    assert time.monotonic() - started < LONG / 2
    assert threading.active_count() == before
    gate.set()
    await _until_async(lambda: pool.late == 0)
    assert await pool.run(int, timeout=LONG) == 0


async def test_who_waits_for_a_thread_does_so_within_its_time() -> None:
    pool, gate = ThreadPool("test", 1), threading.Event()
    busy = asyncio.create_task(pool.run(gate.wait, LONG, timeout=LONG))
    await asyncio.sleep(0)
    with pytest.raises(NoThreadError, match=r"waited 0\.05 s for one of its 1 threads"):
        await pool.run(int, timeout=0.05)
    gate.set()
    assert await busy is True
    assert await pool.run(int, timeout=LONG) == 0
    pool.close()


async def test_those_that_wait_get_the_thread_that_replaces_a_late_one() -> None:
    pool, gate = ThreadPool("test", 1), threading.Event()
    late = asyncio.create_task(pool.run(gate.wait, LONG, timeout=0.1))
    await asyncio.sleep(0)
    assert await pool.run(int, timeout=LONG) == 0
    with pytest.raises(HookTimeoutError):
        await late
    gate.set()
    pool.close()


async def test_a_thread_whose_caller_has_gone_ends_in_time_or_is_stopped(pool: ThreadPool) -> None:
    spin = Spin()
    running = asyncio.create_task(pool.run(spin, timeout=0.2))
    await _until_async(lambda: spin.turns > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pool.busy == 1
    await _until_async(lambda: spin.has_ended)
    assert pool.busy == 0


async def test_an_answer_that_has_come_is_taken_though_the_loop_was_late(pool: ThreadPool) -> None:
    running = asyncio.create_task(pool.run(int, timeout=0.05))
    await asyncio.sleep(0)
    time.sleep(0.2)
    assert await running == 0


async def test_only_the_late_thread_is_interrupted(pool: ThreadPool) -> None:
    """Threads that end their jobs just in time, or just too late, and go on with others."""
    interrupted = []

    def function(seconds: float) -> str:
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
        except HookTimeoutError:
            interrupted.append(seconds)
            raise
        return "done"

    for number in range(150):
        timeout = 0.003 + number % 7 * 0.0005
        late = pool.run(function, 0.004, timeout=timeout)
        other = pool.run(function, 0.0005, timeout=LONG)
        results = await asyncio.gather(late, other, return_exceptions=True)
        assert results[0] == "done" or isinstance(results[0], HookTimeoutError)
        assert results[1] == "done"
    assert set(interrupted) <= {0.004}
    await _until_async(lambda: pool.late == 0)


async def test_no_thread_is_interrupted_while_it_logs(pool: ThreadPool) -> None:
    """It would keep the log's lock for ever."""

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            spin = time.monotonic() + 0.3
            while time.monotonic() < spin:
                pass
            emitted.append(record.getMessage())

    emitted: list[str] = []
    handler, log = Slow(), logging.Logger("test")
    log.addHandler(handler)
    with pytest.raises(HookTimeoutError):
        await pool.run(log.info, "slow", timeout=0.05)
    await _until_async(lambda: pool.late == 0)
    assert emitted == ["slow"]
    assert handler.lock is not None
    assert handler.lock.acquire(timeout=LONG)
    handler.lock.release()


# Waiting.


def test_waiting_without_a_loop(pool: ThreadPool) -> None:
    assert pool.wait(divmod, 7, 2, timeout=LONG) == (3, 1)
    spin = Spin()
    with pytest.raises(HookTimeoutError):
        pool.wait(spin, timeout=0.1)
    _until(lambda: spin.has_ended)
    assert pool.wait(int, timeout=LONG) == 0


async def test_waiting_goes_before_others_and_lets_them_go_on() -> None:
    pool, order = ThreadPool("test", 1), []

    def function(name: str) -> str:
        time.sleep(0.02)
        order.append(name)
        return name

    running = [asyncio.create_task(pool.run(function, n, timeout=LONG)) for n in ("a", "b", "c")]
    await asyncio.sleep(0)
    assert pool.wait(function, "now", timeout=LONG) == "now"
    assert await asyncio.gather(*running) == ["a", "b", "c"]
    assert order == ["a", "now", "b", "c"]
    pool.close()


async def test_waiting_for_a_thread_ends_too() -> None:
    pool, gate = ThreadPool("test", 1), threading.Event()
    running = asyncio.create_task(pool.run(gate.wait, LONG, timeout=LONG))
    await asyncio.sleep(0)
    with pytest.raises(NoThreadError, match="waited"):
        pool.wait(int, timeout=0.05)
    gate.set()
    assert await running is True
    pool.close()


# Ends.


async def test_closing_ends_what_runs_and_what_waits() -> None:
    pool, spin = ThreadPool("test", 1), Spin()
    running = [asyncio.create_task(pool.run(one, timeout=LONG)) for one in (spin, int)]
    await _until_async(lambda: spin.turns > 0)
    pool.close()
    for one in running:
        with pytest.raises(NoThreadError, match="the plugin has been stopped"):
            await one
    await _until_async(lambda: spin.has_ended)
    assert await pool.run(int, timeout=LONG) == 0
    pool.close()


async def test_a_pool_that_is_forgotten_ends_its_threads() -> None:
    pool = ThreadPool("test", 1)
    thread = await pool.run(threading.current_thread, timeout=LONG)
    del pool
    gc.collect()
    thread.join(LONG)
    assert not thread.is_alive()


@pytest.mark.parametrize("ends", [True, False])
def test_a_loop_that_is_closed_leaves_no_place_taken(ends: bool) -> None:
    pool, gate = ThreadPool("test", 1), threading.Event()

    async def begin() -> None:
        running = asyncio.create_task(pool.run(gate.wait, LONG, timeout=LONG))
        await asyncio.sleep(0)
        running.cancel()

    async def again() -> int:
        result: int = await pool.run(int, timeout=LONG)
        return result

    asyncio.run(begin())
    if ends:
        gate.set()
    assert asyncio.run(again()) == 0
    gate.set()
    pool.close()
    assert pool.busy == 0


HANGS = {
    "sleeps": "time.sleep(600)",
    "spins": "while True: pass",
    "catches everything": """while True:
                try:
                    time.sleep(0.01)
                except BaseException:
                    pass""",
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_thread_that_hangs_keeps_no_process_from_ending(hang: str) -> None:
    program = dedent("""
        import asyncio, time
        from gateway.hooks.thread_pool import ThreadPool
        from gateway.hooks.watchdog import HookTimeoutError

        def hang():
            HANG

        async def main():
            pool = ThreadPool("test", 2)
            print(await pool.run(int, timeout=10))
            try:
                await pool.run(hang, timeout=0.2)
            except HookTimeoutError:
                print("late")
            running = asyncio.create_task(pool.run(hang, timeout=600))
            await asyncio.sleep(0.05)

        asyncio.run(main())
        print("end")
    """).replace("HANG", HANGS[hang])
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (ended.returncode, ended.stdout.split()) == (0, ["0", "late", "end"]), ended.stderr
    assert "Traceback" not in ended.stderr
