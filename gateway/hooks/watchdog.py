"""Interrupts plugin code that runs past its time and does not yield to the event loop.

A timer signal looks every `INTERVAL` seconds whether the hook that runs in the main thread is
late, and raises `HookTimeoutError` inside it. A signal also ends a blocking system call such as
`time.sleep`. Arming costs one assignment, so every call of every hook is guarded.
"""

from __future__ import annotations

import asyncio
import signal
import time
from types import FrameType
from typing import Any

INTERVAL = 0.1
NEVER = float("inf")


class HookTimeoutError(BaseException):
    """A hook ran past its timeout. No `Exception`: a plugin must not catch it by accident."""


class Watchdog:
    """Knows what runs now and until when it may.

    Attributes:
        deadline: when the plain function that runs now is late (monotonic seconds).
        tasks: when each task that is inside a coroutine of a plugin is late.
    """

    def __init__(self) -> None:
        self.deadline = NEVER
        self.tasks: dict[asyncio.Task[Any], float] = {}

    def start(self) -> None:
        """Arms the timer. Only in the main thread, which the event loop must run in."""
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)

    def stop(self) -> None:
        """Disarms the timer."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now > self.deadline:
            self.deadline = NEVER
            raise HookTimeoutError
        if not self.tasks:
            return
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return
        if task is not None and now > self.tasks.get(task, NEVER):
            # The loop cannot cancel a coroutine that never yields.
            self.tasks[task] = NEVER
            raise HookTimeoutError
