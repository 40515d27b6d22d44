"""From the spool to the next hop: due → route → admit → source → deliver → settle.

A lane's mail is attempted by runners, tasks that take entry after entry while the lane has any.
What an attempt made of each recipient is settled in one transaction with its events, and with the
report to the sender where one is due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway.attempt import Delivery, Disposition, Outcome, Route, Source, Times
from gateway.delivery.connections import Connections
from gateway.delivery.route import Router
from gateway.events import Event, Interest
from gateway.hooks.actions import Delay, Quarantine, Reject
from gateway.hooks.chain import Chain, Copy
from gateway.queue.lane import Bounds, Lane, Window
from gateway.queue.placement import entries_of, parts_of
from gateway.queue.settle import Settler, event_of
from gateway.spool.queue_entry import Entry, Placed, Settlement
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool

CONTENT_IN_MEMORY = 128 << 10
"""Octets up to which a message that has just come is kept in memory until its first attempt."""

DEFECT_DELAY = 300.0
"""Seconds until delivery is tried again after a defect in this program."""

log = logging.getLogger("gateway.dispatch")


class Dispatcher:
    """Delivers what is in this worker's spool.

    Args:
        spool: the shards that this worker owns.
        chain, router, connections, settler: what an attempt passes.
        hostname: the EHLO name where no plugin chooses one.
        priority_of: the priority (0 to 2) of a stream.
        events: which events observers want.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        chain: Chain,
        router: Router,
        connections: Connections,
        settler: Settler,
        bounds: Bounds,
        hostname: str,
        priority_of: Callable[[str], int],
        events: Interest,
        clock: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._chain = chain
        self._router = router
        self._connections = connections
        self._settler = settler
        self._bounds = bounds
        self._hostname = hostname
        self._priority_of = priority_of
        self._events = events
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._starved: dict[str, Lane] = {}
        self._hungry: dict[tuple[str, int], Lane] = {}
        self._in_memory = 0
        self._octets = 0
        self._runners: set[asyncio.Task[None]] = set()
        self._scanned: dict[Shard, float] = {}
        self._withdrawn: set[tuple[int, int]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False

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
            new = [*events, *_accepted(placed, received, self._events)]
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
        entries = entries_of(copies, shard, received, self._router.lane, self._priority_of)
        return [self._placed(entry, copy, received) for copy, entry in entries]

    def _placed(self, entry: Entry, copy: Copy, received: float) -> Placed:
        if copy.held is not None:
            return Placed(entry, held=copy.held)
        if copy.delay > 0:
            return Placed(entry, due=received + copy.delay)
        lane = self._lane(entry.lane)
        if self._room(lane.windows[entry.priority]) < len(entry.items) or not lane.reserve(entry):
            return Placed(entry, due=received)
        self._in_memory += len(entry.items)
        return Placed(entry)

    def _room(self, window: Window) -> int:
        """How many more recipients of a window may be in memory."""
        bounds, known = self._bounds, len(window.known)
        return max(
            min(bounds.window - known, bounds.memory - self._in_memory), bounds.share - known
        )

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
                size = entry.envelope.size
                if size > CONTENT_IN_MEMORY or self._octets + size > self._bounds.octets:
                    entry.content = None
                else:
                    self._octets += size
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
        self._in_memory -= len(entry.items)
        if not self._stopping:
            self._refill(lane, entry.priority)
            if lane.waiting:
                self._run(lane)
            if self._hungry and self._in_memory < self._bounds.memory // 2:
                self._feed()
        if lane.is_empty:
            self._lanes.pop(entry.lane, None)

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, self._bounds.window)
        return lane

    # In: mail that waits on disk.

    def adopt(self, shards: Iterable[Shard]) -> None:
        """Starts to dispatch what is in shards that this worker has just taken."""
        for shard in shards:
            self._scanned[shard] = -1.0
        self._scan()

    def release(self, shards: Iterable[Shard]) -> None:
        """Forgets shards that were given up."""
        for shard in shards:
            self._scanned.pop(shard, None)

    def _expect(self, entry: Entry, due: float) -> None:
        """Mail is on disk that becomes due then, or has become due while it was written."""
        if due > self._clock():
            self._wake(due)
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

    def _wake(self, due: float) -> None:
        delay = max(0.0, due - self._clock())
        at = asyncio.get_running_loop().time() + delay
        if self._timer is None or self._timer.cancelled() or at < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(at, self._scan)

    def _scan(self) -> None:
        self._timer = None
        if self._stopping:
            return
        try:
            self._look()
        except Exception:
            log.exception("the queue cannot be looked through")
            self._wake(self._clock() + DEFECT_DELAY)

    def _look(self) -> None:
        """Finds lanes whose mail has become due, and when to look again."""
        now = self._clock()
        touched: set[tuple[str, int]] = set()
        following: list[float] = []
        for shard, after in self._scanned.items():
            touched.update(shard.due_lanes(after, now))
            self._scanned[shard] = now
            due = shard.next_due(now)
            if due is not None:
                following.append(due)
        for name, priority in touched:
            self._load(name, priority)
        if following:
            self._wake(min(following))

    def _refill(self, lane: Lane, priority: int) -> None:
        """Loads mail of a lane from disk when its window has run half empty."""
        window = lane.windows[priority]
        if not window.backlog or len(window.known) > self._bounds.window // 2:
            return
        free = self._room(window)
        if free <= 0:
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
                    self._in_memory += len(items)
        window.backlog = backlog

    def _feed(self) -> None:
        """Loads what could not be loaded while memory was full."""
        for (name, priority), lane in list(self._hungry.items()):
            if self._in_memory >= self._bounds.memory:
                return
            del self._hungry[name, priority]
            self._refill(lane, priority)
            self._run(lane)

    # Attempts.

    def _run(self, lane: Lane) -> None:
        if self._stopping or lane.runners >= self._bounds.runners_per_lane or not lane.waiting:
            return
        if len(self._runners) >= self._bounds.runners:
            self._starved[lane.name] = lane
            return
        lane.runners += 1
        task = asyncio.get_running_loop().create_task(self._runner(lane))
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
            while not self._stopping and (entry := lane.take()) is not None:
                try:
                    await self._attempt(entry)
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

    def _content_of(self, entry: Entry) -> bytes | None:
        content, entry.content = entry.content, None
        if content is None:
            return entry.shard.content(entry.envelope.copy)
        self._octets -= len(content)
        return content

    async def _attempt(self, entry: Entry) -> None:
        settler = self._settler
        times = Times(active=self._clock())
        envelope = entry.envelope
        content = self._content_of(entry)
        if content is None:
            self._settle(settler.hold(entry, "damaged on disk: its checksum does not fit"))
            return
        delivery = Delivery(
            message_id=envelope.queue_id,
            sender=envelope.sender,
            recipients=[item.recipient for item in entry.items],
            client=envelope.client,
            stream=envelope.stream,
            received=envelope.received,
            attempts=min(item.attempts for item in entry.items),
            content=content,
            notes=envelope.notes,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
        )
        chain = self._chain
        route: Route | None = None
        source: Source | None = None
        answer: Route | Source | Delay | Quarantine | Reject | Outcome | None
        answer = await chain.route(delivery) if chain.steps["route"] else None
        stage = "route"
        if answer is None:
            answer = await self._router.route(delivery.domain)
        if isinstance(answer, Route):
            route = answer
            stage = "admit"
            answer = chain.admit(delivery) if chain.steps["admit"] else None
            if answer is None:
                stage = "source"
                answer = chain.source(delivery) if chain.steps["source"] else None
        if isinstance(answer, Delay):
            reason = answer.reason or f"{stage}: later"
            if settler.has_time(entry):
                self._settle(settler.postpone(entry, answer.seconds, reason))
                return
            answer = Outcome(Disposition.DEFERRED, 0, "4.4.7", reason, stage=stage)
        if isinstance(answer, Quarantine):
            self._settle(settler.hold(entry, answer.reason))
            return
        if isinstance(answer, Reject):
            refused = Outcome(
                Disposition.FAILED, answer.code, answer.status, answer.text, stage=stage
            )
            outcomes = [refused] * len(entry.items)
        elif isinstance(answer, Outcome):
            outcomes = [answer] * len(entry.items)
        else:
            source = answer if isinstance(answer, Source) else Source(None, self._hostname)
            assert route is not None
            outcomes = await self._connections.deliver(delivery, route, source, times)
        times.done = self._clock()
        settlement, reports = settler.conclude(entry, delivery, route, source, outcomes, times)
        if reports:
            settlement.reports = self._place(entry.shard, reports, times.done)
        self._settle(settlement)

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
            self._in_memory -= len(found)
            self._octets -= sum(len(entry.content or b"") for entry in emptied)
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
        for shard in self._scanned:
            self._scanned[shard] = -1.0
        self._scan()

    # The end.

    async def stop(self, limit: float) -> None:
        """Starts no more attempts; waits up to `limit` seconds for those that run."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._runners:
            await asyncio.wait(self._runners, timeout=limit)
        for task in self._runners:
            task.cancel()
        if self._runners:
            await asyncio.wait(self._runners)


def _accepted(placed: Iterable[Placed], received: float, interest: Interest) -> Iterator[Event]:
    accepted = "accepted" in interest
    for item in placed:
        for row in item.entry.items:
            envelope = item.entry.envelope
            if accepted:
                yield event_of("accepted", received, envelope, row.recipient)
            if item.held is not None:
                yield event_of("held", received, envelope, row.recipient, reason=item.held)
