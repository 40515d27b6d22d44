"""Tells when mail that waits on disk becomes due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from gateway.spool.shard import Shard

DEFECT_DELAY = 300.0
"""Seconds until the queue is looked through again after a defect in this program."""

log = logging.getLogger("gateway.dispatch")


class AlarmClock:
    """Looks into shards when something in them becomes due, and not before.

    Args:
        due: told lane and priority of what has become due.
        clock: seconds since the epoch.
    """

    def __init__(self, due: Callable[[str, int], None], clock: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = due
        self._clock = clock
        self._scanned: dict[Shard, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0
        self._stopped = False

    def adopt(self, shards: Iterable[Shard]) -> None:
        """Shards that this worker has just taken are looked into from now on."""
        for shard in shards:
            self._scanned[shard] = -1.0
        self._scan()

    def release(self, shards: Iterable[Shard]) -> None:
        """Shards that were given up are not."""
        for shard in shards:
            self._scanned.pop(shard, None)

    def look_again(self) -> None:
        """Everything that is due is told once more."""
        for shard in self._scanned:
            self._scanned[shard] = -1.0
        self._scan()

    def set(self, due: float) -> None:
        """Something on disk becomes due then, in seconds since the epoch."""
        at = self._loop.time() + max(0.0, due - self._clock())
        # A timer that is due at once cannot be asked when that is: uvloop's is none.
        if self._timer is None or at < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._at = at
            self._timer = self._loop.call_at(at, self._scan)

    def stop(self) -> None:
        """Nothing is told any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _scan(self) -> None:
        self._timer = None
        if self._stopped:
            return
        self._look()

    def _look(self) -> None:
        now = self._clock()
        touched: set[tuple[str, int]] = set()
        following: list[float] = []
        for shard, after in self._scanned.items():
            try:
                touched.update(shard.due_lanes(after, now))
                due = shard.next_due(now)
            except Exception:
                # A shard that is damaged must not keep up the mail in the others.
                log.exception("shard %04d cannot be looked through", shard.number)
                following.append(now + DEFECT_DELAY)
                continue
            self._scanned[shard] = now
            if due is not None:
                following.append(due)
        for lane, priority in touched:
            try:
                self._due(lane, priority)
            except Exception:
                log.exception("the mail of the lane %s cannot be read", lane)
                self._scanned = dict.fromkeys(self._scanned, -1.0)
                following.append(now + DEFECT_DELAY)
        if following:
            self.set(min(following))
