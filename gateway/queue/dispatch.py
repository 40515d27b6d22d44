"""From the spool to the next hop: due → route → admit → source → deliver → settle.

A lane's mail is attempted by runners, tasks that take entry after entry while the lane has any.
What an attempt made of each recipient is settled in one transaction with its events, and with the
report to the sender where one is due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from gateway.delivery.connections import Busy
from gateway.events import Event, Interest
from gateway.hooks.chain import Copy
from gateway.queue.alarm_clock import DEFECT_DELAY, AlarmClock
from gateway.queue.courier import Courier, Later, Settled, is_sound
from gateway.queue.lane import PRIORITIES, Bounds, Lane
from gateway.queue.memory import Load, Memory
from gateway.queue.pauses import Pauses
from gateway.queue.placement import claimant_of, entries_of, held_apart, parts_of
from gateway.queue.settle import Settler, events_of
from gateway.spool.held_reason import DAMAGED
from gateway.spool.queue_entry import Entry, Item, Placed, Settlement
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool

ENTRY_PATIENCE = 5.0
LANE_PATIENCE = 60.0
"""Seconds that one entry, and a whole lane, wait in memory; what waits longer does so on disk."""

CLOCK_TICK = 0.001
"""The loop's clock counts milliseconds."""

log = logging.getLogger("gateway.dispatch")


class Dispatcher:
    """Delivers what is in this worker's spool.

    Args:
        spool: the shards that this worker owns.
        courier: makes the attempts.
        settler: writes what became of them.
        pauses: which mail waits until a person lets it go.
        lane_of: the lane of a domain.
        priority_of: the priority (0 to 2) of a stream.
        events: which events observers want.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        courier: Courier,
        settler: Settler,
        pauses: Pauses,
        bounds: Bounds,
        lane_of: Callable[[str], str],
        priority_of: Callable[[str], int],
        events: Interest,
        clock: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._loop = asyncio.get_running_loop()
        self._courier = courier
        self._settler = settler
        self._pauses = pauses
        self._bounds = bounds
        self._lane_of = lane_of
        self._priority_of = priority_of
        self._events = events
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._starved: dict[str, Lane] = {}
        self._hungry: dict[tuple[str, int], Lane] = {}
        self._memory = Memory(bounds)
        self._runners: set[asyncio.Task[None]] = set()
        self._alarm = AlarmClock(self._load, clock)
        self._withdrawn: set[tuple[int, int]] = set()
        self._stopping = False

    @property
    def load(self) -> Load:
        """What there is to do now."""
        return self._memory.load(lanes=len(self._lanes), attempts=len(self._runners))

    # In: new mail.

    def accept(
        self,
        copies: Sequence[Copy],
        received: float,
        events: Sequence[Event],
        done: Callable[[SpoolError | None], None],
    ) -> None:
        """Puts a message's copies into the spool; `done` follows when they are safe on disk.

        Whatever becomes of the client meanwhile, mail that is safe is dispatched.
        """
        shard = self._spool.home
        placed = self._place(shard, copies, received)
        if not placed and not (events and self._events):
            done(None)
            return
        if self._events:
            new = [*events, *events_of(placed, received, self._events)]
            events = [event for event in new if event.type in self._events]
        elif events:
            events = ()

        def written(error: SpoolError | None) -> None:
            if error is None:
                done(None)
                self._offer(placed)
            else:
                self._forget(placed)
                done(error)

        shard.append(placed, events, written)

    def _place(self, shard: Shard, copies: Sequence[Copy], received: float) -> list[Placed]:
        entries = entries_of(copies, shard, received, self._lane_of, self._priority_of)
        if self._pauses:
            entries = held_apart(entries, self._pauses.reason_for)
        return [self._placed(entry, copy, received) for copy, entry in entries]

    def _placed(self, entry: Entry, copy: Copy, received: float) -> Placed:
        if copy.held is not None:
            return Placed(entry, held=copy.held)
        due = max(received + copy.delay, entry.envelope.release)
        if due > received:
            return Placed(entry, due=due)
        lane = self._lane(entry.lane)
        if lane.due > received:
            return Placed(entry, due=lane.due)
        if self._memory.room(lane.windows[entry.priority]) < len(entry.items) or not lane.reserve(
            entry
        ):
            return Placed(entry, due=received)
        self._memory.recipients += len(entry.items)
        return Placed(entry)

    def _offer(self, placed: Iterable[Placed]) -> None:
        for item in placed:
            entry = item.entry
            if item.held is not None:
                entry.content = None
                log.warning("%s: held: %s", entry.envelope.queue_id, item.held)
            elif item.due is not None:
                entry.content = None
                self._expect(entry, item.due)
            else:
                assert entry.content is not None
                self._memory.keep(entry, entry.content)
                lane = self._lanes[entry.lane]
                lane.windows[entry.priority].waiting.append(entry)
                self._run(lane)

    def _forget(self, placed: Iterable[Placed]) -> None:
        for item in placed:
            if item.due is None and item.held is None:
                self._leave(item.entry)

    def _leave(self, entry: Entry) -> None:
        """An entry is no longer in memory."""
        lane = self._lanes[entry.lane]
        lane.forget(entry)
        self._memory.recipients -= len(entry.items)
        if not self._stopping:
            self._refill(lane, entry.priority)
            if lane.waiting:
                self._run(lane)
            if self._hungry and self._memory.is_half_empty:
                self._feed()
        self._tidy(lane)

    def _tidy(self, lane: Lane) -> None:
        """Forgets a lane that holds nothing any more."""
        if lane.is_empty and self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, self._bounds.window)
        return lane

    # In: mail that waits on disk.

    def adopt(self, shards: Sequence[Shard]) -> None:
        """Starts to dispatch what is in shards that this worker has just taken."""
        self._settler.custody.adopt(shards)
        self._alarm.adopt(shards)

    def release(self, shards: Iterable[Shard]) -> None:
        """Forgets shards that were given up."""
        self._alarm.release(shards)

    def _expect(self, entry: Entry, due: float) -> None:
        """Mail is on disk that becomes due then, or has become due while it was written."""
        if due > self._clock():
            self._alarm.set(due)
        else:
            self._load(entry.lane, entry.priority)

    def _load(self, name: str, priority: int) -> None:
        """Mail of a lane waits on disk and is due."""
        lane = self._lane(name)
        lane.windows[priority].backlog = True
        self._refill(lane, priority)
        # Not one alone: it may meet a hop that keeps it waiting.
        for _ in range(min(lane.waiting, self._bounds.runners_per_lane)):
            self._run(lane)

    def _refill(self, lane: Lane, priority: int) -> None:
        """Loads mail of a lane from disk when its window has run half empty."""
        window = lane.windows[priority]
        if lane.due or not window.backlog or len(window.known) > self._bounds.window // 2:
            return
        if (free := self._memory.room(window)) <= 0:
            self._hungry[lane.name, priority] = lane
            return
        now = self._clock()
        backlog = False
        for shard in self._spool.shards:
            if free <= 0:
                backlog = True
                break
            known = window.known | self._withdrawn if self._withdrawn else window.known
            entries, more = shard.load(lane.name, priority, now, known, free)
            backlog = backlog or more
            for loaded in entries:
                for items in parts_of(loaded.items):
                    entry = Entry(shard, loaded.envelope, lane.name, priority, items)
                    window.known.update([(entry.envelope.id, item.number) for item in items])
                    window.waiting.append(entry)
                    free -= len(items)
                    self._memory.recipients += len(items)
        window.backlog = backlog

    def _feed(self) -> None:
        """Loads what could not be loaded while memory was full."""
        for (name, priority), lane in list(self._hungry.items()):
            if self._memory.is_full:
                return
            del self._hungry[name, priority]
            self._refill(lane, priority)
            self._run(lane)

    # Attempts.

    def _run(self, lane: Lane) -> None:
        if self._stopping or lane.runners >= self._bounds.runners_per_lane or not lane.waiting:
            return
        if lane.paused_until or lane.crowded_until:
            now = self._loop.time() + CLOCK_TICK
            if now < lane.paused_until:
                if lane.due:
                    self._clear(lane)
                return
            if lane.runners and now < lane.crowded_until:
                return
        if len(self._runners) >= self._bounds.runners:
            self._starved[lane.name] = lane
            return
        lane.runners += 1
        task = self._loop.create_task(self._runner(lane))
        self._runners.add(task)
        task.add_done_callback(self._runner_ended)

    def _runner_ended(self, task: asyncio.Task[None]) -> None:
        self._runners.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("an attempt broke off", exc_info=task.exception())
        while self._starved and len(self._runners) < self._bounds.runners:
            name = next(iter(self._starved))
            self._run(self._starved.pop(name))

    async def _runner(self, lane: Lane) -> None:
        try:
            going = True
            while going and not self._stopping:
                if lane.paused_until and lane.paused_until > self._loop.time() + CLOCK_TICK:
                    break
                entry = lane.take()
                if entry is None:
                    break
                try:
                    going = await self._attempt(lane, entry)
                except Exception:
                    # A defect of ours must neither lose the entry nor stop the lane.
                    log.exception("%s: the attempt broke off", entry.envelope.queue_id)
                    self._settle(self._settler.postpone(entry, DEFECT_DELAY, "internal error"))
                if len(self._runners) > self._bounds.runners // 2 and self._starved:
                    break
        finally:
            lane.runners -= 1
            if lane.waiting and not self._stopping:
                self._run(lane)
            self._tidy(lane)

    async def _attempt(self, lane: Lane, entry: Entry) -> bool:
        """Makes an attempt; False if this runner cannot go on with the lane."""
        if self._pauses and self._hold_paused(entry):
            return True
        content = self._memory.drop(entry) or entry.shard.content(entry.envelope.copy)
        if content is None or not (isinstance(content, bytes) or await is_sound(content)):
            reason = f"{DAMAGED}its checksum does not fit"
            self._settle(self._settler.hold(entry, reason))
            return True
        result = await self._courier.attempt(entry, content, lane.put_back)
        if isinstance(result, Settled):
            settlement = result.settlement
            if result.reports:
                settlement.reports = self._place(entry.shard, result.reports, self._clock())
            self._settle(settlement)
            return True
        self._memory.keep(entry, content)
        if isinstance(result, Busy):
            lane.put_back(entry)
            if lane.runners > 1:
                # The others go on with the connections that there are.
                lane.crowded_until = self._loop.time() + result.seconds
                self._loop.call_later(result.seconds, self._run, lane)
            else:
                self._pause(lane, result.seconds)
            return False
        if result.lane:
            lane.put_back(entry)
            self._pause(lane, result.seconds, result.reason)
            return False
        return self._park(lane, entry, result)

    def _hold_paused(self, entry: Entry) -> bool:
        """Holds recipients that were paused after they had been placed; True if all were."""
        if claimant_of(entry.lane) is not None:
            return False
        reasons: dict[str, list[Item]] = {}
        for item in entry.items:
            reason = self._pauses.reason_for(entry.envelope, entry.lane, item.recipient)
            if reason is not None:
                reasons.setdefault(reason, []).append(item)
        for reason, items in reasons.items():
            entry.items = [item for item in entry.items if item not in items]
            self._settle(self._settler.hold(replace(entry, items=items, content=None), reason))
        if not entry.items:
            self._memory.drop(entry)
        return not entry.items

    # Waiting without an attempt.

    def _park(self, lane: Lane, entry: Entry, later: Later) -> bool:
        """Keeps one entry waiting: in memory if it is not for long, and there are not many."""
        if later.seconds > ENTRY_PATIENCE:
            self._settle(self._settler.postpone(entry, later.seconds, later.reason))
            return True
        if lane.parked >= self._bounds.runners_per_lane:
            lane.put_back(entry)
            self._pause(lane, later.seconds)
            return False
        lane.parked += 1
        self._loop.call_later(later.seconds, self._unpark, lane, entry)
        return True

    def _unpark(self, lane: Lane, entry: Entry) -> None:
        lane.parked -= 1
        if not self._stopping:
            lane.put_back(entry)
            self._run(lane)

    def _pause(self, lane: Lane, seconds: float, reason: str = "") -> None:
        """Makes a lane wait. If it is for long, its mail waits on disk, not in memory."""
        until = self._loop.time() + seconds
        if until > lane.paused_until:
            lane.paused_until = until
            self._loop.call_at(until, self._resume, lane)
            if seconds > LANE_PATIENCE:
                lane.due, lane.reason = self._clock() + seconds, reason
        if lane.due:
            self._clear(lane)

    def _clear(self, lane: Lane) -> None:
        """Moves what waits in a lane to disk until the lane's time has come."""
        for entry in lane.empty():
            self._memory.drop(entry)
            left = lane.due - self._clock()
            self._settle(self._settler.postpone(entry, left, lane.reason))

    def _resume(self, lane: Lane) -> None:
        if self._stopping or self._loop.time() + CLOCK_TICK < lane.paused_until:
            return
        lane.due = lane.paused_until = 0.0
        for priority in range(PRIORITIES):
            self._refill(lane, priority)
        for _ in range(min(lane.waiting, self._bounds.runners_per_lane)):
            self._run(lane)
        self._tidy(lane)

    def _settle(self, settlement: Settlement) -> None:
        def written(error: SpoolError | None) -> None:
            self._leave(settlement.entry)
            for due in {due for _, due, _, _ in settlement.deferred if due is not None}:
                self._expect(settlement.entry, due)
            if error is None:
                self._offer(settlement.reports)
            else:
                self._forget(settlement.reports)

        settlement.entry.shard.settle(settlement, written)

    # By hand.

    def withdraw(self, rows: set[tuple[int, int]]) -> set[tuple[int, int]]:
        """Takes rows (id, number) out of memory; returns those that are being attempted now."""
        busy: set[tuple[int, int]] = set()
        for lane in list(self._lanes.values()):
            found, emptied = lane.withdraw(rows)
            self._memory.recipients -= len(found)
            for entry in emptied:
                self._memory.drop(entry)
            for window in lane.windows:
                busy |= rows & window.known
            if lane.is_empty:
                del self._lanes[lane.name]
        # On disk they are as they were until the change is written.
        self._withdrawn |= rows - busy
        return busy

    def rescan(self) -> None:
        """Looks at the whole queue again, after a change by hand."""
        self._withdrawn.clear()
        self._alarm.look_again()

    # The end.

    async def stop(self, limit: float) -> None:
        """Starts no more attempts; waits up to `limit` seconds for those that run."""
        self._stopping = True
        self._alarm.stop()
        if self._runners:
            await asyncio.wait(self._runners, timeout=limit)
        for task in self._runners:
            task.cancel()
        if self._runners:
            await asyncio.wait(self._runners)
