"""A wall clock that tests move."""

from __future__ import annotations

import time
from collections.abc import Callable

START = 1780315200.0
"""1 June 2026, 12:00 UTC."""


class Clock:
    """The wall clock of a gateway under test: it stands still until the test moves it.

    Given to a gateway it is its plugins' `context.clock` too. What waits for a time, such as
    deferred mail, comes due when the clock is moved past it, without sleeping. Timeouts of hooks
    and of the network are not measured by it.

        gateway.clock.move(3600)

    Args:
        start: what it shows first, in seconds since the epoch; None: it runs as the system's does.
    """

    def __init__(self, start: float | None = START) -> None:
        self._start = start
        self._moved = 0.0
        self._listeners: list[Callable[[float], None]] = []

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return (time.time() if self._start is None else self._start) + self._moved

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self()

    def move(self, seconds: float) -> None:
        """Moves the clock forward.

        Raises:
            ValueError: that would be back.
        """
        if not seconds >= 0:
            raise ValueError(f"a clock only moves forward, not by {seconds} seconds")
        self._moved += seconds
        for listener in list(self._listeners):
            listener(seconds)

    def listen(self, listener: Callable[[float], None]) -> None:
        """Tells `listener` by how many seconds the clock was moved, each time."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[float], None]) -> None:
        """Tells `listener` no more."""
        self._listeners.remove(listener)

    def __repr__(self) -> str:
        return f"<Clock {self():.3f}>"
