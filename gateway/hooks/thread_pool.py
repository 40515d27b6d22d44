"""Threads for functions that block, of which none can hang for good.

Everything about a pool is decided in the thread that runs the event loop: a thread has one place,
its mailbox, where it waits for its next job, and gets that only after the loop has heard of the end
of the one before. So a thread that is late is known to be at that job and at no other, and can be
interrupted. It never gets another job.

The threads are daemons: none of them keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import logging
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from gateway.hooks.watchdog import HookTimeoutError

MOST_ALIVE = 4
"""Threads, late ones too, that may be alive for each one that may be at work."""

LOOK_AGAIN = 0.02
"""Seconds until it is looked again whether a thread can be interrupted."""


class NoThreadError(Exception):
    """There was no thread for a job. The text says why."""


class _Job:
    """A function on its way through a pool; `result` is its answer, or what it raised."""

    __slots__ = ("context", "function", "future", "loop", "result", "thread", "timer", "told")

    def __init__(
        self,
        function: Callable[[], Any],
        loop: asyncio.AbstractEventLoop | None,
        told: Callable[[], None],
    ) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.loop = loop
        self.told = told
        self.future: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.thread: _Thread | None = None
        self.result: tuple[Any, BaseException | None] | None = None

    def end(self, answer: Any, error: BaseException | None) -> None:
        """Sets the result, if there is none yet, and wakes who waits for it."""
        if self.result is not None:
            return
        self.result = answer, error
        if self.timer is not None:
            self.timer.cancel()
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


_Report = tuple["_Thread", _Job, Any, BaseException | None]


class _Thread(threading.Thread):
    """Does one job after the other, as its mailbox brings them, until that brings None."""

    def __init__(self, name: str, reports: SimpleQueue[_Report]) -> None:
        super().__init__(name=name, daemon=True)
        self.mailbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._reports = reports

    def run(self) -> None:
        """Works. An interruption ends it, wherever it is."""
        with suppress(HookTimeoutError):
            while (job := self.mailbox.get()) is not None:
                answer: Any = None
                error: BaseException | None = None
                try:
                    answer = job.context.run(job.function)
                except BaseException as raised:
                    error = raised
                self._reports.put((self, job, answer, error))
                if job.loop is not None:
                    with suppress(RuntimeError):  # the loop is closed
                        job.loop.call_soon_threadsafe(job.told)
                del job, answer, error


class ThreadPool:
    """Up to `threads` threads at work, made when they are needed.

    All methods are for the thread that runs the event loop.

    Args:
        name: what the threads are called after.
        threads: how many jobs are done at a time.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._idle: list[_Thread] = []
        self._busy: dict[_Thread, _Job] = {}
        self._late: set[_Thread] = set()
        self._waiting: deque[_Job] = deque()
        self._reports: SimpleQueue[_Report] = SimpleQueue()
        self._made = 0
        weakref.finalize(self, _dismiss, self._idle)

    @property
    def busy(self) -> int:
        """How many threads are at work, and not late."""
        return len(self._busy)

    @property
    def late(self) -> int:
        """How many threads are still at what nobody waits for any more."""
        self._forget_ended()
        return len(self._late)

    async def run(
        self, function: Callable[..., Any], *arguments: Any, timeout: float | None
    ) -> Any:
        """What a function answers, called in a thread with a copy of the current context.

        It is interrupted after `timeout` seconds, of which it may have waited some for a thread;
        so it is, too, if whoever awaits this is cancelled. None: it may take as long as it wants.

        Raises:
            HookTimeoutError: it was late.
            NoThreadError: none was free in time, or all that there may be hang.
            BaseException: whatever the function raised.
        """
        loop = asyncio.get_running_loop()
        job = self._job(function, arguments, loop)
        job.future = loop.create_future()
        if timeout is not None:
            job.timer = loop.call_later(timeout, self._expire, job, timeout)
        self._waiting.append(job)
        self._take_reports()
        self._assign()
        await job.future
        return _outcome(job)

    def wait(self, function: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        """As `run`, for who cannot await; it has the next thread that is free.

        Raises:
            HookTimeoutError, NoThreadError, BaseException: as in `run`.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        end = monotonic() + timeout
        job = self._job(function, arguments, loop)
        self._waiting.appendleft(job)
        self._take_reports()
        self._assign()
        while job.result is None:
            try:
                self._take(self._reports.get(timeout=max(0.0, end - monotonic())))
            except Empty:
                self._expire(job, timeout)
        return _outcome(job)

    def close(self) -> None:
        """Ends all threads; those at work are interrupted. What is run later makes new ones."""
        self._take_reports()
        for job in self._waiting:
            job.end(None, NoThreadError("the plugin has been stopped"))
        self._waiting.clear()
        for job in list(self._busy.values()):
            self._abandon(job)
            job.end(None, NoThreadError("the plugin has been stopped"))
        _dismiss(self._idle)

    def _job(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop | None,
    ) -> _Job:
        return _Job(functools.partial(function, *arguments), loop, self._take_reports)

    # Reports of threads.

    def _take_reports(self) -> None:
        while True:
            try:
                report = self._reports.get_nowait()
            except Empty:
                return
            self._take(report)

    def _take(self, report: _Report) -> None:
        thread, job, answer, error = report
        if self._busy.pop(thread, None) is not None:
            self._idle.append(thread)
        else:
            self._late.discard(thread)
            thread.mailbox.put(None)
        job.end(answer, error)
        self._assign()

    # Jobs for threads.

    def _assign(self) -> None:
        """Gives jobs that wait to threads that are free."""
        while self._waiting:
            job = self._waiting[0]
            if job.future is not None and job.future.done():
                self._waiting.popleft()  # whoever waited for it was cancelled
                job.end(None, None)
                continue
            try:
                thread = self._free_thread()
            except NoThreadError as error:
                self._waiting.popleft()
                job.end(None, error)
                continue
            if thread is None:
                return
            self._waiting.popleft()
            job.thread = thread
            self._busy[thread] = job
            thread.mailbox.put(job)

    def _free_thread(self) -> _Thread | None:
        """A thread that waits, or a new one; None if all are at work.

        Raises:
            NoThreadError: all that there may be hang, or the system makes no more.
        """
        if self._idle:
            return self._idle.pop()
        if len(self._busy) >= self._threads:
            for job in list(self._busy.values()):
                if job.loop is not None and job.loop.is_closed():
                    self._abandon(job)  # nobody looks whether it is late
            if len(self._busy) >= self._threads:
                return None
        self._forget_ended()
        if len(self._busy) + len(self._late) >= self._threads * MOST_ALIVE:
            if self._busy:
                return None
            raise NoThreadError(f"all of its {len(self._late)} threads hang")
        self._made += 1
        thread = _Thread(f"{self._name} {self._made}", self._reports)
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThreadError(f"no thread can be started: {error}") from None
        return thread

    # Jobs that are late.

    def _forget_ended(self) -> None:
        """Late threads that an interruption has ended, perhaps before they could report it."""
        self._late = {one for one in self._late if one.is_alive()}

    def _expire(self, job: _Job, timeout: float) -> None:
        self._take_reports()
        if job.result is not None:
            return
        if job.thread is None:
            self._waiting.remove(job)
            text = f"waited {timeout:g} s for one of its {self._threads} threads"
            job.end(None, NoThreadError(text))
            return
        self._abandon(job)
        job.end(None, HookTimeoutError())
        self._assign()

    def _abandon(self, job: _Job) -> None:
        thread = job.thread
        assert thread is not None
        self._busy.pop(thread, None)
        self._late.add(thread)
        self._interrupt(thread, job.loop)

    def _interrupt(self, thread: _Thread, loop: asyncio.AbstractEventLoop | None) -> None:
        """Raises HookTimeoutError in a thread that is late.

        It is still at its job, or has ended it and waits for None: nothing else can be hit. What
        the thread does in C is not interrupted before it returns.
        """
        if thread not in self._late or thread.ident is None or not thread.is_alive():
            return
        if loop is not None and not loop.is_closed() and _is_logging(thread.ident):
            loop.call_later(LOOK_AGAIN, self._interrupt, thread, loop)
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(HookTimeoutError)
        )
        thread.mailbox.put(None)


def _outcome(job: _Job) -> Any:
    assert job.result is not None
    answer, error = job.result
    if error is not None:
        raise error
    return answer


def _is_logging(ident: int) -> bool:
    """Whether a thread may hold a lock of the log, which everybody would wait for then."""
    frame = sys._current_frames().get(ident)
    while frame is not None:
        if frame.f_globals is vars(logging):
            return True
        frame = frame.f_back
    return False


def _dismiss(idle: list[_Thread]) -> None:
    """Ends threads that wait."""
    while idle:
        idle.pop().mailbox.put(None)
