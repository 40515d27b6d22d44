"""Puts events that plugins make into the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from gateway.events import Event
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool

COMPLAIN_SECONDS = 10.0
"""How often it is logged at most that events cannot be written."""

log = logging.getLogger("gateway.outbox")


class Emitter:
    """Writes events into a spool's first shard.

    Args:
        spool: the shards of this process.
        wanted: whether there is an observer; without one, events are let go.
        open_spool: takes a shard where the process has none yet; None: then it is too early.
        written: called after events have reached the disk.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        wanted: bool,
        open_spool: Callable[[], None] | None = None,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._wanted = wanted
        self._open_spool = open_spool
        self._written = written
        self._failed = 0
        self._quiet_until = 0.0

    def emit(self, event: Event) -> asyncio.Future[None]:
        """Puts an event into the outbox.

        The future is done when the event is on disk, or has a SpoolError if it cannot be written.

        Raises:
            RuntimeError: this process cannot write events yet.
            TypeError: a note is no text.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name, note in event.notes.items():
            if not isinstance(note, str):
                raise TypeError(f"the note {name} is {type(note).__name__}; notes are text")
        if not self._wanted:
            future.set_result(None)
            return future
        if not self._spool.shards:
            if self._open_spool is None:
                raise RuntimeError("events can be emitted when the process is ready, not before")
            try:
                self._open_spool()
            except SpoolError as error:
                self._fail(future, error)
                return future

        def done(error: SpoolError | None) -> None:
            if error is not None:
                self._fail(future, error)
                return
            self._written()
            if not future.done():
                future.set_result(None)

        self._spool.home.append((), (event,), done)
        return future

    def _fail(self, future: asyncio.Future[None], error: SpoolError) -> None:
        self._failed += 1
        now = monotonic()
        if now >= self._quiet_until:
            log.error("events could not be written: %d; %s", self._failed, error)
            self._failed, self._quiet_until = 0, now + COMPLAIN_SECONDS
        if not future.done():
            future.set_exception(error)
            # Who does not wait does not want to hear of it either; the log has it.
            future.exception()


def emit_nothing(event: Event) -> asyncio.Future[None]:
    """Stands for `emit` where no events can be written, as in commands."""
    raise RuntimeError(f"the event {event.type} cannot be emitted here: only by running processes")
