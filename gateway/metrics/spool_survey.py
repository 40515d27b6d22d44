"""What waits in the spool, counted in the shards beside their owners: the mail is not kept up."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gateway.metrics.held import by_holder
from gateway.metrics.readings import Readings
from gateway.queue.listing import count_held, read_stats
from gateway.queue.selection import STATES
from gateway.spool.outbox import count_waiting
from gateway.spool.shard_file import UnreadableShard

LEAST_PAUSE = 5.0
"""Seconds between two counts, at least."""

SHARE = 20
"""To count takes a twentieth of the time at most: a queue of a million takes seconds."""

log = logging.getLogger("gateway.metrics")


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted.

    Attributes:
        states: recipients by their state.
        held: recipients that are held, by what holds them.
        lanes: how many lanes have mail.
        oldest: when the oldest mail came, in seconds since the epoch; 0 if there is none.
        waiting: events that wait, by observer.
        octets: of all databases.
        unreadable: the numbers of shards that cannot be read, or not to their end; what was not
            read is not counted.
    """

    states: dict[str, int]
    held: Mapping[str, int]
    lanes: int
    oldest: float
    waiting: dict[str, int]
    octets: int
    unreadable: frozenset[int]


class SpoolSurvey:
    """Counts now and then, in a thread of its own.

    Args:
        folder: the spool.
        reserve: octets that mail may not take from the disk.
        observers: names of those who get events.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        reserve: int,
        observers: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._reserve = reserve
        self._observers = observers
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "spool-survey")
        self._counting: asyncio.Future[None] | None = None
        self._count: Count | None = None
        self._readable = True
        self._next = 0.0

    async def read(self, readings: Readings, timeout: float) -> bool:
        """Adds what is known.

        What takes longer than `timeout` seconds to count is told the next time; until then, it is
        what was counted before. Returns False if the spool cannot be read.
        """
        await self._look(timeout)
        try:
            status = os.statvfs(self._folder)
        except OSError:
            return False
        readings.put("gateway_spool_free_bytes", status.f_bavail * status.f_frsize)
        readings.put("gateway_spool_reserve_bytes", self._reserve)
        count = self._count
        if count is not None:
            age = max(0.0, self._clock() - count.oldest) if count.oldest else 0.0
            for state, recipients in count.states.items():
                readings.put("gateway_queue_recipients", recipients, state)
            for holder, recipients in count.held.items():
                readings.put("gateway_queue_held_recipients", recipients, holder)
            readings.put("gateway_queue_lanes", count.lanes)
            readings.put("gateway_queue_oldest_seconds", age)
            for observer, events in count.waiting.items():
                readings.put("gateway_outbox_events", events, observer)
            readings.put("gateway_spool_bytes", count.octets)
        return self._readable

    @property
    def unreadable(self) -> frozenset[int]:
        """The numbers of shards that could not be read when it was counted last."""
        return frozenset() if self._count is None else self._count.unreadable

    def close(self) -> None:
        """Counts no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self, timeout: float) -> None:
        """Counts if it is time to."""
        counting = self._counting
        if counting is None or counting.done():
            if time.monotonic() < self._next:
                return
            loop = asyncio.get_running_loop()
            counting = self._counting = loop.run_in_executor(self._thread, self._recount)
        await asyncio.wait([counting], timeout=timeout)

    def _recount(self) -> None:
        started = time.monotonic()
        try:
            self._count, self._readable = _count(self._folder, self._observers), True
        except Exception as error:
            log.warning("the spool cannot be counted: %s", error)
            self._count, self._readable = None, False
        ended = time.monotonic()
        self._next = ended + max(LEAST_PAUSE, (ended - started) * SHARE)


def _count(folder: Path, observers: Sequence[str]) -> Count:
    skipped: list[UnreadableShard] = []
    groups = read_stats(folder, skipped=skipped)
    held = any(group.held for group in groups)
    reasons = count_held(folder, "*", skipped) if held else {}
    unreadable = {shard.number for shard in skipped}
    waiting = count_waiting(folder, observers, unreadable)
    # Mail whose message is damaged has no time of arrival.
    known = [group.oldest for group in groups if group.oldest]
    octets = 0
    for path in folder.glob("[0-9][0-9][0-9][0-9].db*"):
        try:
            octets += path.stat().st_size
        except FileNotFoundError:
            continue  # the shard has run empty
    return Count(
        held=by_holder(reasons),
        states={state: sum(getattr(group, state) for group in groups) for state in STATES},
        lanes=len(groups),
        oldest=min(known, default=0.0),
        waiting=waiting,
        octets=octets,
        unreadable=frozenset(unreadable),
    )
