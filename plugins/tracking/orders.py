"""Which conversions were recorded, on disk, so that one that comes again is known."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import apsw

from gateway.hooks import Event
from plugins.tracking.recording import Recorder

MOST_RUNNING = 1_000

_BUSY_MILLISECONDS = 5_000
_FORGET_EVERY = 3600.0

Outcome = Literal["recorded", "known", "failed"]


class Orders:
    """Records each conversion once.

    The event goes to the disk first and the order second: a crash between the two makes one event
    too many, the other way round would lose it.

    Args:
        path: the file of orders; it is made if there is none.
        remember: seconds after which an order is forgotten.
        recorder: takes the events.
        clock: seconds since the epoch.
        log: where it is said that the file cannot be written.

    Raises:
        ValueError: the file cannot be used; the text names it and says why.
    """

    def __init__(
        self,
        path: Path,
        remember: float,
        recorder: Recorder,
        clock: Callable[[], float],
        log: logging.Logger,
    ) -> None:
        self._path = path
        self._remember = remember
        self._recorder = recorder
        self._clock = clock
        self._log = log
        self._forgot = float("-inf")
        self._running: dict[bytes, asyncio.Future[Outcome]] = {}
        try:
            self._db = apsw.Connection(os.fspath(path))
            self._db.set_busy_timeout(_BUSY_MILLISECONDS)
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", "FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS orders (key BLOB PRIMARY KEY, time REAL NOT NULL) "
                "WITHOUT ROWID; CREATE INDEX IF NOT EXISTS orders_time ON orders (time)"
            )
        except apsw.Error as error:
            raise ValueError(f"{path}: the file of orders cannot be used: {error}") from None
        # The disk may be slow, and clicks do not wait for it.
        self._thread = ThreadPoolExecutor(1, "orders")

    async def record(self, key: bytes, event: Event) -> Outcome:
        """Records a conversion unless it is known.

        Args:
            key: what identifies it.
            event: what is emitted if it is new.
        """
        running = self._running.get(key)
        if running is not None:
            outcome = await asyncio.shield(running)
            return "known" if outcome == "recorded" else outcome
        if len(self._running) >= MOST_RUNNING:
            return "failed"
        loop = asyncio.get_running_loop()
        running = self._running[key] = loop.create_future()
        outcome = "failed"
        try:
            if await loop.run_in_executor(self._thread, self._knows, key):
                outcome = "known"
            elif await self._recorder.confirm(event):
                outcome = "recorded"
                await loop.run_in_executor(self._thread, self._add, key)
        except apsw.Error as error:
            self._log.error("%s cannot be used: %s", self._path, error)
        finally:
            del self._running[key]
            running.set_result(outcome)
        return outcome

    def _knows(self, key: bytes) -> bool:
        return self._db.execute("SELECT 1 FROM orders WHERE key=?", (key,)).fetchone() is not None

    def _add(self, key: bytes) -> None:
        now = self._clock()
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO orders VALUES (?, ?)", (key, now))
            if abs(now - self._forgot) >= _FORGET_EVERY:
                self._forgot = now
                self._db.execute("DELETE FROM orders WHERE time < ?", (now - self._remember,))

    async def close(self) -> None:
        """Closes the file, after what is being written."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown(wait=False)
