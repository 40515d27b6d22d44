"""One call of a hook: a coroutine is driven by hand up to where it waits, and nobody can tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hooks import invocation
from gateway.hooks.actions import Accept, Reject
from gateway.hooks.breaker import FAULTS
from gateway.hooks.invocation import call, run, run_apart, wait_apart
from gateway.hooks.step import Fault, Step, Unasked
from gateway.hooks.thread_pool import ThreadPool
from gateway.hooks.watchdog import NEVER, HookTimeoutError, Watchdog

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
SUBJECT = object()


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    watchdog.start()
    yield watchdog
    watchdog.stop()


def _step(function: Callable[..., Any], timeout: float = 60.0) -> Step:
    return Step(
        plugin="site",
        hook="message",
        call=function,
        is_async=asyncio.iscoroutinefunction(function),
        answers=(Accept,),
        condition=None,
        timeout=timeout,
        on_error="tempfail",
        per_recipient=False,
    )


def _in(new_loop: Any, main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def _is_idle(watchdog: Watchdog) -> bool:
    return watchdog.deadline == NEVER and not watchdog.tasks


# Answers.


async def test_a_coroutine_that_never_waits_is_guarded_as_a_function_is(watchdog: Watchdog) -> None:
    seen = []

    async def hook(subject: object) -> Accept:
        seen.append((subject, watchdog.deadline != NEVER, dict(watchdog.tasks)))
        return Accept()

    step = _step(hook)
    assert await run(step, SUBJECT, watchdog) == Accept()
    assert seen == [(SUBJECT, True, {})]
    assert (step.calls, step.faults) == (1, 0)
    assert _is_idle(watchdog)


async def test_a_plain_function_is_called(watchdog: Watchdog) -> None:
    step = _step(lambda subject: Accept() if subject is SUBJECT else None)
    assert await run(step, SUBJECT, watchdog) == Accept()
    assert call(step, SUBJECT, watchdog) == Accept()
    pool = ThreadPool("test", 1)
    assert await run_apart(step, SUBJECT, pool) == Accept()
    assert wait_apart(step, SUBJECT, pool) == Accept()
    pool.close()
    assert step.calls == 4
    assert _is_idle(watchdog)


@pytest.mark.parametrize("waits", [False, True])
async def test_an_answer_that_the_stage_does_not_know(watchdog: Watchdog, waits: bool) -> None:
    async def hook(_: object) -> Reject:
        if waits:
            await asyncio.sleep(0)
        return Reject("No")

    step = _step(hook)
    with pytest.raises(Fault, match="answered Reject, and may answer None, Accept"):
        await run(step, SUBJECT, watchdog)
    assert (step.calls, step.faults, step.timeouts) == (1, 1, 0)
    assert step.breaker.faults_in_a_row == 1


# What a coroutine may do.

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="before")


async def _sleep_shortly() -> object:
    return await asyncio.sleep(0.001, "slept")


async def _yield_to_others() -> object:
    return await asyncio.sleep(0, "others first")


async def _wait_for_a_future() -> object:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "done")
    return await future


async def _wait_for_what_is_done() -> object:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_result("done already")
    return await future


async def _run_in_a_thread() -> object:
    return await asyncio.to_thread(lambda: "from a thread")


async def _start_tasks() -> object:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
    return [task.result() for task in tasks]


async def _lose_a_task() -> object:
    async def fail() -> None:
        raise KeyError("lost")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(60)
    except ExceptionGroup as errors:
        return repr(errors)
    return None


async def _give_up() -> object:
    try:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)
    except TimeoutError:
        return "gave up"
    return None


async def _give_up_at_once() -> object:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    except TimeoutError:
        return "gave up at once"
    return None


async def _give_up_otherwise() -> object:
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.001)
    except TimeoutError:
        return "waited in vain"
    return None


async def _fail_later() -> object:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, ValueError("later"))
    try:
        return await future
    except ValueError as error:
        return repr(error)


async def _cancel_itself() -> object:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return task.uncancel()
    return None


async def _set_a_variable() -> object:
    value = VARIABLE.get()
    VARIABLE.set("within")
    await asyncio.sleep(0)
    return (value, VARIABLE.get())


ACTS: list[Callable[[], Awaitable[object]]] = [
    *(_sleep_shortly, _yield_to_others, _wait_for_a_future, _wait_for_what_is_done),
    *(_run_in_a_thread, _start_tasks, _lose_a_task, _give_up, _give_up_at_once),
    *(_give_up_otherwise, _fail_later, _cancel_itself, _set_a_variable),
]


@LOOPS
@given(acts=st.lists(st.sampled_from(ACTS), max_size=4), fails=st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_is_as_if_the_coroutine_were_awaited(
    new_loop: object, acts: list[Callable[[], Awaitable[object]]], fails: bool
) -> None:
    async def hook(trace: list[object]) -> Accept:
        trace.append(asyncio.current_task())
        for act in acts:
            done = await act()
            trace.append(done)
        trace.append(asyncio.current_task())
        if fails:
            raise LookupError("at the end")
        return Accept()

    async def awaited(trace: list[object]) -> str:
        try:
            return repr(await hook(trace))
        except LookupError as error:
            return f"plugin site failed in message: raised LookupError: {error}"

    async def driven(trace: list[object]) -> str:
        try:
            return repr(await run(_step(hook), trace, idle))
        except Fault as fault:
            return str(fault)

    async def trial(way: Callable[[list[object]], Awaitable[str]]) -> list[object]:
        trace: list[object] = []
        end = await way(trace)
        task = asyncio.current_task()
        assert task is not None
        assert (trace[0], trace[-1] if len(trace) > len(acts) + 1 else task) == (task, task)
        return [*trace[1 : len(acts) + 1], end, VARIABLE.get(), task.cancelling()]

    idle = Watchdog()
    assert _in(new_loop, trial(driven)) == _in(new_loop, trial(awaited))
    assert _is_idle(idle)


# Cancellation.


@LOOPS
@pytest.mark.parametrize("waits", [1, 2, 3])
def test_a_client_that_goes_ends_the_hook(new_loop: object, waits: int) -> None:
    watchdog = Watchdog()
    ends: list[str] = []

    async def hook(reached: asyncio.Event) -> None:
        try:
            for _ in range(waits - 1):
                await asyncio.sleep(0)
            reached.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ends.append("tidy")

    async def main() -> None:
        reached = asyncio.Event()
        step = _step(hook)
        task = asyncio.create_task(run(step, reached, watchdog))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert (step.calls, step.faults) == (1, 0)

    _in(new_loop, main())
    assert ends == ["tidy"]
    assert _is_idle(watchdog)


@LOOPS
def test_a_hook_may_go_on_after_a_cancellation(new_loop: object) -> None:
    watchdog = Watchdog()

    async def hook(reached: asyncio.Event) -> Accept:
        for _ in range(2):
            try:
                reached.set()
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
        return Accept()

    async def main() -> None:
        reached = asyncio.Event()
        task = asyncio.create_task(run(_step(hook), reached, watchdog))
        for _ in range(2):
            await reached.wait()
            reached.clear()
            task.cancel()
            while not reached.is_set() and not task.done():
                await asyncio.sleep(0)
        assert await task == Accept()

    _in(new_loop, main())


# Being late.


@LOOPS
@pytest.mark.parametrize("waits", [0, 1, 2])
def test_a_coroutine_that_waits_for_ever(new_loop: object, waits: int) -> None:
    watchdog = Watchdog()
    ends: list[str] = []

    async def hook(_: object) -> None:
        try:
            for _ in range(waits):
                await asyncio.sleep(0)
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ends.append("tidy")

    async def main() -> None:
        step = _step(hook, timeout=0.05)
        with pytest.raises(Fault, match=r"ran longer than 0\.05 s"):
            await run(step, SUBJECT, watchdog)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert step.faults == 1
        assert step.seconds >= 0.04  # the timers of uvloop count whole milliseconds

    _in(new_loop, main())
    assert ends == ["tidy"]
    assert _is_idle(watchdog)


@LOOPS
@pytest.mark.parametrize("waits", [0, 1, 2])
@pytest.mark.parametrize("busy", [lambda: time.sleep(60), lambda: sum(range(1000))])
def test_a_coroutine_that_stops_the_worker(
    watchdog: Watchdog, new_loop: object, waits: int, busy: Callable[[], object]
) -> None:
    async def hook(_: object) -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        while True:
            try:
                busy()
            except Exception:
                raise AssertionError("a plugin must not catch it by accident") from None

    async def main() -> None:
        step = _step(hook, timeout=0.2)
        started = time.monotonic()
        with pytest.raises(Fault, match=r"ran longer than 0\.2 s"):
            await run(step, SUBJECT, watchdog)
        assert time.monotonic() - started < 30
        await asyncio.sleep(0.2)  # the signal goes on, and finds nothing to interrupt

    _in(new_loop, main())
    assert _is_idle(watchdog)


@LOOPS
def test_time_before_the_first_wait_counts_once(new_loop: object) -> None:
    watchdog = Watchdog()  # not armed: only the event loop's timer can end it

    async def main() -> None:
        loop = asyncio.get_running_loop()
        time.sleep(0.1)  # others took their time before, in the same turn of the loop

        async def hook(_: object) -> None:
            time.sleep(0.1)
            await asyncio.sleep(60)

        step = _step(hook, timeout=0.3)
        started = time.monotonic()
        with pytest.raises(Fault, match="ran longer"):
            await run(step, SUBJECT, watchdog)
        assert 0.29 <= time.monotonic() - started < 30
        assert abs(loop.time() - time.monotonic()) < 10

    _in(new_loop, main())


async def test_the_limit_is_the_same_after_a_wait(watchdog: Watchdog) -> None:
    async def hook(_: object) -> None:
        latest = time.monotonic() + 60
        time.sleep(0.01)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert watchdog.tasks[task] <= latest

    await run(_step(hook), SUBJECT, watchdog)


@pytest.mark.parametrize("tidy", [True, False])
async def test_a_signal_as_soon_as_the_coroutine_waits(tidy: bool) -> None:
    ended = []

    class Waiting:
        """A coroutine whose first step is interrupted when it has just been made."""

        def send(self, _: None) -> None:
            raise HookTimeoutError

        def close(self) -> None:
            ended.append("closed")
            if not tidy:
                raise RuntimeError("coroutine ignored GeneratorExit")

    watchdog = Watchdog()
    step = _step(lambda _: Waiting())
    step.is_async = True
    with pytest.raises(Fault, match="ran longer"):
        await run(step, SUBJECT, watchdog)
    assert ended == ["closed"]
    assert _is_idle(watchdog)


@LOOPS
def test_a_late_coroutine_that_does_not_let_itself_be_cancelled(
    new_loop: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invocation, "TIDY_SECONDS", 0.1)
    watchdog = Watchdog()
    cancelled: list[str] = []

    async def hook(_: object) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append("goes on")

    async def main() -> None:
        step = _step(hook, timeout=0.05)
        task = asyncio.current_task()
        assert task is not None
        for count in (1, 2):
            with pytest.raises(Fault, match=r"ran longer than 0\.05 s"):
                await run(step, SUBJECT, watchdog)
            assert task.cancelling() == 0
            assert (step.timeouts, len(cancelled)) == (count, count)
        await asyncio.sleep(0.2)
        assert len(cancelled) == 2

    _in(new_loop, main())
    assert _is_idle(watchdog)


@LOOPS
def test_a_late_coroutine_has_some_time_to_tidy_up(
    new_loop: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invocation, "TIDY_SECONDS", 0.3)
    watchdog = Watchdog()
    ends: list[str] = []

    async def hook(_: object) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ends.append("tidy")

    async def main() -> None:
        with pytest.raises(Fault, match="ran longer"):
            await run(_step(hook, timeout=0.05), SUBJECT, watchdog)
        assert ends == ["tidy"]
        await asyncio.sleep(0.4)  # no second call comes after its end

    _in(new_loop, main())


async def test_others_run_while_a_coroutine_waits(watchdog: Watchdog) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    order: list[int] = []

    async def hook(number: int) -> None:
        await gates[number].wait()
        order.append(number)
        if number:
            gates[number - 1].set()

    step = _step(hook)
    tasks = [asyncio.create_task(run(step, number, watchdog)) for number in range(3)]
    await asyncio.sleep(0)
    assert len(watchdog.tasks) == 3
    gates[2].set()
    await asyncio.gather(*tasks)
    assert order == [2, 1, 0]
    assert step.calls == 3
    assert _is_idle(watchdog)


# What a plugin raises, and who ends a task.


class _TextlessError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


RAISED = [
    (ValueError("two\nlines"), "raised ValueError: two lines"),
    (ValueError("x" * 10_000), "raised ValueError: x{500}$"),
    (_TextlessError(), r"raised _TextlessError: \(it has no text\)"),
    (SystemExit(3), "raised SystemExit: 3"),
    (TimeoutError("the database"), "raised TimeoutError: the database"),
    (asyncio.CancelledError("a task of its own"), "raised CancelledError: a task of its own"),
]


@pytest.mark.parametrize(("error", "said"), RAISED)
async def test_whatever_a_function_raises_is_a_fault(
    watchdog: Watchdog, error: BaseException, said: str
) -> None:
    def hook(_: object) -> None:
        raise error

    step = _step(hook)
    pool = ThreadPool("test", 1)
    with pytest.raises(Fault, match=said):
        call(step, SUBJECT, watchdog)
    with pytest.raises(Fault, match=said):
        await run_apart(step, SUBJECT, pool)
    with pytest.raises(Fault, match=said):
        wait_apart(step, SUBJECT, pool)
    pool.close()
    assert (step.calls, step.faults, step.timeouts) == (3, 3, 0)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("error", "said"), RAISED)
async def test_whatever_a_coroutine_raises_is_a_fault(
    watchdog: Watchdog, error: BaseException, said: str, waits: bool
) -> None:
    async def hook(_: object) -> None:
        if waits:
            await asyncio.sleep(0)
        raise error

    step = _step(hook)
    with pytest.raises(Fault, match=said):
        await run(step, SUBJECT, watchdog)
    assert (step.faults, step.timeouts) == (1, 0)
    assert _is_idle(watchdog)


async def test_a_task_of_a_plugin_that_was_cancelled_is_a_fault(watchdog: Watchdog) -> None:
    async def hook(_: object) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(Fault, match="raised CancelledError"):
        await run(_step(hook), SUBJECT, watchdog)


# The breaker.


def _failing(step: Step, error: str | None) -> None:
    def hook(_: object) -> None:
        if error is not None:
            raise ValueError(error)

    step.call = hook


def _open(step: Step, watchdog: Watchdog) -> None:
    _failing(step, "gone")
    for _ in range(FAULTS):
        with pytest.raises(Fault):
            call(step, SUBJECT, watchdog)


def _end_pause(step: Step) -> None:
    step.breaker.retry_at = 0.0


def test_a_plugin_that_fails_in_a_row_is_not_asked(watchdog: Watchdog) -> None:
    step = _step(lambda _: None)
    _open(step, watchdog)
    _failing(step, None)
    for _ in range(3):
        with pytest.raises(Unasked) as caught:
            call(step, SUBJECT, watchdog)
    assert str(caught.value) == (
        "plugin site is not asked in message: it failed 5 times in a row, last: raised ValueError: "
        "gone; again in 1 s"
    )
    assert (step.calls, step.faults, step.skipped) == (FAULTS, FAULTS, 3)
    _end_pause(step)
    assert call(step, SUBJECT, watchdog) is None
    assert call(step, SUBJECT, watchdog) is None
    assert (step.calls, step.skipped) == (FAULTS + 2, 3)


async def test_the_breaker_stands_before_each_kind_of_call(watchdog: Watchdog) -> None:
    async def coroutine(_: object) -> None:
        raise AssertionError("it must not be asked")

    step = _step(coroutine)
    pool = ThreadPool("test", 1)
    _open(step, watchdog)
    step.call = coroutine
    for unasked in (run(step, SUBJECT, watchdog), run_apart(step, SUBJECT, pool)):
        with pytest.raises(Unasked):
            await unasked
    with pytest.raises(Unasked):
        wait_apart(step, SUBJECT, pool)
    assert pool.busy == 0


def test_opening_and_closing_is_logged_once(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    step = _step(lambda _: None)
    _open(step, watchdog)
    opened = "plugin site failed in message 5 times in a row: it is not asked for 1 s (on_error: "
    failed = "plugin site failed in message: raised ValueError: gone (on_error: tempfail)"
    said = [record.getMessage() for record in caplog.records]
    assert said[:-1] == [failed] * FAULTS
    assert said[-1].startswith(opened)
    caplog.clear()
    for _ in range(100):
        with pytest.raises(Unasked):
            call(step, SUBJECT, watchdog)
    assert caplog.records == []
    _failing(step, None)
    _end_pause(step)
    for _ in range(3):
        call(step, SUBJECT, watchdog)
    assert [record.getMessage() for record in caplog.records] == [
        "plugin site works again in message"
    ]


async def test_calls_that_were_under_way_are_not_logged_one_by_one(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    gone = asyncio.Event()

    async def hook(_: object) -> None:
        await gone.wait()
        raise ConnectionError("gone")

    step = _step(hook)
    calls = [asyncio.create_task(run(step, SUBJECT, watchdog)) for _ in range(100)]
    await asyncio.sleep(0)
    gone.set()
    faults = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(fault, Fault) for fault in faults)
    assert (step.faults, step.breaker.faults_in_a_row) == (100, FAULTS)
    assert len(caplog.records) == FAULTS + 1


async def test_one_trial_at_a_time(watchdog: Watchdog) -> None:
    gate = asyncio.Event()

    async def hook(_: object) -> None:
        await gate.wait()

    step = _step(hook)
    _open(step, watchdog)
    step.call = hook
    _end_pause(step)
    trial = asyncio.create_task(run(step, SUBJECT, watchdog))
    await asyncio.sleep(0)
    with pytest.raises(Unasked, match="a call is on trial now"):
        await run(step, SUBJECT, watchdog)
    gate.set()
    await trial
    await run(step, SUBJECT, watchdog)


async def test_a_trial_whose_client_goes_leaves_it_to_the_next(watchdog: Watchdog) -> None:
    async def hook(_: object) -> None:
        await asyncio.sleep(60)

    step = _step(hook)
    _open(step, watchdog)
    step.call = hook
    _end_pause(step)
    trial = asyncio.create_task(run(step, SUBJECT, watchdog))
    await asyncio.sleep(0)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    step.is_async = False
    _failing(step, None)
    assert call(step, SUBJECT, watchdog) is None
    assert step.breaker.faults_in_a_row == 0


async def test_the_hooks_of_a_plugin_share_its_breaker(watchdog: Watchdog) -> None:
    step, other = _step(lambda _: None), _step(lambda _: None)
    other.breaker = step.breaker
    _open(step, watchdog)
    with pytest.raises(Unasked):
        call(other, SUBJECT, watchdog)
    assert (step.skipped, other.skipped) == (0, 1)


def test_calls_are_timed(watchdog: Watchdog) -> None:
    step = _step(lambda _: time.sleep(0.02))
    for _ in range(3):
        call(step, SUBJECT, watchdog)
    assert (step.calls, sum(step.timing.counts)) == (3, 3)
    assert 0.06 <= step.seconds == step.timing.seconds
