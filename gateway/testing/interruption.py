"""Ends hooks that never yield, also where a test runner has a timer of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from gateway.hooks.watchdog import Watchdog


@contextmanager
def interrupting(watchdog: Watchdog) -> Iterator[None]:
    """Has the watchdog interrupt hooks that are late, as long as the block runs.

    There is one timer signal in a process. Whoever uses it, such as a test runner that limits the
    time of a test, is called at its time all the same, and has it back afterwards. Outside of the
    main thread nothing is interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGALRM)
    remaining, interval = signal.getitimer(signal.ITIMER_REAL)
    due = monotonic() + remaining if remaining else float("inf")
    watchdog.start()
    own = signal.getsignal(signal.SIGALRM)

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal due
        if monotonic() >= due and callable(previous):
            due = float("inf")
            previous(number, frame)
        if callable(own):
            own(number, frame)

    signal.signal(signal.SIGALRM, look)
    try:
        yield
    finally:
        watchdog.stop()
        signal.signal(signal.SIGALRM, previous)
        if due < float("inf"):
            signal.setitimer(signal.ITIMER_REAL, max(0.001, due - monotonic()), interval)
