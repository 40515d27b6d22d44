"""Takes events to the disk, with bounds on how many wait and for how long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.hooks import Event

MOST_PENDING = 10_000
LONGEST_WAIT = 1.0
"""Seconds that somebody who clicked waits at most for the disk."""
LONGEST_CONFIRMATION = 8.0
"""Seconds after which it is said that something could not be saved."""
_COMPLAIN_EVERY = 10.0

Emit = Callable[[Event], asyncio.Future[None]]


class Recorder:
    """Emits events, and knows which have not reached the disk yet."""

    def __init__(self, emit: Emit, log: logging.Logger) -> None:
        self._emit = emit
        self._log = log
        self._pending = 0
        self._lost = 0
        self._complained = float("-inf")

    @property
    def pending(self) -> int:
        """How many events are on their way to the disk."""
        return self._pending

    async def record(self, event: Event) -> None:
        """Returns when the event is on disk, or does not get there soon; never raises."""
        future = self.submit(event)
        if future is not None and not future.done():
            # Not wait_for: it would cancel what others wait for.
            await asyncio.wait((future,), timeout=LONGEST_WAIT)

    async def confirm(self, event: Event) -> bool:
        """Returns whether the event is on disk; False may also mean that it will be later."""
        future = self.submit(event)
        if future is None:
            return False
        if not future.done():
            await asyncio.wait((future,), timeout=LONGEST_CONFIRMATION)
        return future.done() and not future.cancelled() and future.exception() is None

    def submit(self, event: Event) -> asyncio.Future[None] | None:
        """Emits the event; None if that is impossible or too many wait already."""
        if self._pending >= MOST_PENDING:
            self._complain(f"{self._pending} events wait for the disk")
            return None
        try:
            future = self._emit(event)
        except Exception as error:
            self._complain(repr(error))
            return None
        self._pending += 1
        if future.done():
            self._settled(future)
        else:
            future.add_done_callback(self._settled)
        return future

    def _settled(self, future: asyncio.Future[None]) -> None:
        self._pending -= 1
        if future.cancelled():
            self._complain("the process ends")
        elif (error := future.exception()) is not None:
            self._complain(repr(error))

    def _complain(self, reason: str) -> None:
        self._lost += 1
        now = asyncio.get_running_loop().time()
        if now - self._complained >= _COMPLAIN_EVERY:
            self._complained = now
            self._log.error("events that could not be recorded: %d; %s", self._lost, reason)
            self._lost = 0
