"""What of a plugin's context works in its threads too."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import cast

from gateway.events import Event
from gateway.hooks.plugin import Context
from gateway.limits import Allowance, Cell, Lease, Limits, Take

Emit = Callable[[Event], asyncio.Future[None]]


def for_threads(context: Context) -> Context:
    """The context of a blocking plugin; to be made on the event loop of the process."""
    loop = asyncio.get_running_loop()
    return replace(
        context,
        emit=ThreadEmit(context.emit, loop, context.log),
        limits=ThreadLimits(context.limits),
    )


class ThreadEmit:
    """`emit` for threads.

    On the event loop, as in what `http` serves, it is as always. In a thread it returns at once,
    and what it returns is a `concurrent.futures.Future`: who has to be sure that the event is on
    disk waits with `result()`, and gets what went wrong as an exception. It is logged as well.
    """

    def __init__(self, emit: Emit, loop: asyncio.AbstractEventLoop, log: logging.Logger) -> None:
        self._emit = emit
        self._loop = loop
        self._log = log
        self._home = threading.get_ident()

    def __call__(self, event: Event) -> asyncio.Future[None]:
        """Puts an event into the outbox.

        Raises:
            RuntimeError: the process has ended.
        """
        if threading.get_ident() == self._home:
            return self._emit(event)
        written: Future[None] = Future()
        self._loop.call_soon_threadsafe(self._pass_on, event, written)
        return cast("asyncio.Future[None]", written)

    def _pass_on(self, event: Event, written: Future[None]) -> None:
        try:
            writing = self._emit(event)
        except Exception as error:
            self._log.error("the event %s is lost: %s", event.type, error)
            _end(written, error)
            return

        def done(_: asyncio.Future[None]) -> None:
            if writing.cancelled():
                written.cancel()
            else:
                _end(written, writing.exception())

        writing.add_done_callback(done)


def _end(future: Future[None], error: BaseException | None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class ThreadLimits(Limits):
    """`limits` for several threads: they come in one after the other.

    The file is opened a second time. Locks on it belong to the open file, so that the threads and
    the event loop shut each other out as processes do.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits.path, places=limits.places)
        # Not held for long, and never while a plugin's own code runs but that of `change`.
        self._one = threading.RLock()

    def open(self) -> None:
        """As in Limits."""
        with self._one:
            super().open()

    def take(self, takes: Sequence[Take], now: float) -> float:
        """As in Limits."""
        with self._one:
            return super().take(takes, now)

    def rates(self, prefix: str, now: float) -> list[Allowance]:
        """As in Limits."""
        with self._one:
            return super().rates(prefix, now)

    def lease(self, ceilings: Mapping[str, int]) -> Lease | None:
        """As in Limits."""
        with self._one:
            lease = super().lease(ceilings)
        return None if lease is None else ThreadLease(lease, self._one)

    def leased(self, key: str) -> int:
        """As in Limits."""
        with self._one:
            return super().leased(key)

    def leases(self, prefix: str) -> dict[str, int]:
        """As in Limits."""
        with self._one:
            return super().leases(prefix)

    def read(self, key: str, now: float) -> Cell | None:
        """As in Limits."""
        with self._one:
            return super().read(key, now)

    def change(
        self, key: str, now: float, change: Callable[[Cell | None], tuple[float, float, str]]
    ) -> Cell:
        """As in Limits."""
        with self._one:
            return super().change(key, now, change)

    def remove(self, key: str) -> None:
        """As in Limits."""
        with self._one:
            super().remove(key)

    def cells(self, prefix: str, now: float) -> list[Cell]:
        """As in Limits."""
        with self._one:
            return super().cells(prefix, now)

    def close(self) -> None:
        """As in Limits."""
        with self._one:
            super().close()


class ThreadLease(Lease):
    """A lease that any thread may release."""

    def __init__(self, lease: Lease, one: threading.RLock) -> None:
        super().__init__(lease._leases, lease._places)
        lease._places = ()
        self._one = one

    def release(self) -> None:
        """Gives it back. Once is enough; more does no harm."""
        with self._one:
            super().release()
