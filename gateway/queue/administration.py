"""The queue as a person changes it, whether the gateway runs or not.

Commands look for the mail themselves and hand its keys, some hundred at a time, to the owner of
each shard: to the worker that holds it, over its control socket. Where nobody holds it, they do.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.delivery.connections import Connections
from gateway.events import EVERYTHING
from gateway.hooks.chain import Chain
from gateway.process.control import ControlError, request
from gateway.queue.change import NAMES, Change, Changed, Key, Name, apply, submit
from gateway.queue.dispatch import Dispatcher
from gateway.queue.listing import Skipped, survey
from gateway.queue.pauses import Pause, Pauses, add_pause, remove_pauses
from gateway.queue.selection import Selection
from gateway.queue.settle import Settler
from gateway.smtp.ingress import Ingress
from gateway.spool.shard import Shard
from gateway.spool.shard_file import ShardBusyError, SpoolError
from gateway.spool.spool import Spool

BATCH = 100
"""Recipients that are changed in one write: a few milliseconds of a worker's time."""

OWNER_SECONDS = 15.0
"""How long a shard may be without an owner that answers, as when processes are replaced."""

BUSY_SECONDS = 10.0
BUSY_INTERVAL = 0.25
"""How long, and how often, a pause comes back to what was being delivered."""

REQUEST_SECONDS = 60.0

RESCAN_SECONDS = 0.2
RESCAN_SHARE = 20
"""A worker looks through its whole queue that often at most, and for a twentieth of its time."""

Advance = Callable[[Changed], None]
"""Told what was done, batch by batch."""

_Note = Callable[[int, Changed, Iterable[Sequence[int]]], None]
"""Told what was done in a shard, and who was being delivered."""


async def change(
    folder: Path,
    what: Change | Name,
    selection: Selection,
    advance: Advance = lambda done: None,
    skipped: Skipped = None,
) -> Changed:
    """Makes a change to what is selected; a name alone stands for a change without details.

    Raises:
        SpoolError: a shard cannot be read or written.
        ControlError: the worker that owns a shard does not answer.
    """
    what = Change(what) if isinstance(what, str) else what
    found = await asyncio.to_thread(survey, folder, selection, what.narrow, skipped)
    done, _ = await perform(folder, what, found.keys, advance)
    return done


async def perform(
    folder: Path, what: Change, keys: Mapping[int, array[int]], advance: Advance = lambda done: None
) -> tuple[Changed, dict[int, array[int]]]:
    """Makes a change to recipients, given by their keys as in a `Survey`.

    Returns the counts, and the keys of those that were being delivered.

    Raises:
        SpoolError, ControlError: as `change`; what is in other shards has been changed.
    """
    counts: list[Changed] = []
    busy: dict[int, array[int]] = {}

    def note(shard: int, done: Changed, delivering: Iterable[Sequence[int]]) -> None:
        counts.append(done)
        for key in delivering:
            busy.setdefault(shard, array("q")).extend(key)
        advance(done)

    shards = [_change_shard(folder, shard, what, some, note) for shard, some in keys.items()]
    for end in await asyncio.gather(*shards, return_exceptions=True):
        if end is not None:
            raise end
    return sum(counts, Changed()), busy


async def _change_shard(
    folder: Path, number: int, what: Change, keys: array[int], note: _Note
) -> None:
    place = 0
    # A shard that has run empty is removed; to claim it would make it anew.
    while place < len(keys) and (folder / f"{number:04d}.db").exists():
        reached = await _reach(folder, number, what, _batch(keys, place))
        if isinstance(reached, Shard):
            await _change_here(reached, folder, what, keys[place:], note)
            return
        delivering = reached.pop("delivering")
        note(number, Changed(**reached), delivering)
        place += 2 * BATCH


async def _reach(
    folder: Path, number: int, what: Change, keys: Sequence[Key]
) -> Shard | dict[str, Any]:
    """The shard, where nobody holds it; otherwise what its owner says of the change."""
    message = {"command": "change", "shard": number, "change": asdict(what), "keys": keys}
    failed = ""
    end = time.monotonic() + OWNER_SECONDS
    while True:
        try:
            return Shard.claim(folder, number, "")
        except ShardBusyError:
            owner = _owner(folder, number)
        try:
            if owner:  # otherwise it is another command, for a moment
                reply = await asyncio.to_thread(
                    request, Path(owner), message, timeout=REQUEST_SECONDS
                )
                if not reply.pop("moved", False):
                    return reply
        except ControlError as error:
            # An owner that was killed leaves the shard to another one.
            if owner == failed and not _has_ended(error):
                raise
            failed = owner
        if time.monotonic() > end:
            raise ControlError(f"shard {number:04d} has no owner that answers")
        await asyncio.sleep(0.1)


def _owner(folder: Path, number: int) -> str:
    """The control socket of a shard's owner; '' if that is a command."""
    try:
        return (folder / f"{number:04d}.lock").read_text()
    except FileNotFoundError:
        return ""  # the shard is gone


async def _change_here(
    shard: Shard, folder: Path, what: Change, keys: array[int], note: _Note
) -> None:
    pauses = Pauses(folder, time.time)
    try:
        for place in range(0, len(keys), 2 * BATCH):
            done, _ = await apply(
                shard,
                what,
                _batch(keys, place),
                withdraw=lambda rows: set(),
                pauses=pauses,
                events=EVERYTHING,
            )
            note(shard.number, done, ())
    finally:
        await shard.drain()
        shard.close()


def _batch(keys: array[int], place: int) -> list[Key]:
    end = place + 2 * BATCH
    return list(zip(keys[place:end:2], keys[place + 1 : end : 2], strict=True))


def _has_ended(error: ControlError) -> bool:
    """Whether nobody serves the socket any more."""
    return isinstance(error.__context__, FileNotFoundError | ConnectionRefusedError)


async def pause(
    folder: Path,
    selection: Selection,
    reason: str,
    advance: Advance = lambda done: None,
    skipped: Skipped = None,
) -> tuple[Pause, Changed]:
    """Keeps what is selected in the queue, what is there and what comes, until `resume`.

    First the pause is put in force in all workers, then what is there is held: mail that comes in
    between has met the pause, or is found.

    Raises:
        ValueError: the selection is not one for a pause.
        SpoolError, ControlError: as `change`; the pause is in force where workers answer.
    """
    made = add_pause(folder, selection, reason, time.time())
    untold = await _tell_pauses(folder)
    what = Change("hold", made.held, made.id)
    found = await asyncio.to_thread(survey, folder, selection, what.narrow, skipped)
    total, busy = await perform(folder, what, found.keys, advance)
    end = time.monotonic() + BUSY_SECONDS
    while busy and time.monotonic() < end:
        await asyncio.sleep(BUSY_INTERVAL)
        again, busy = await perform(folder, what, busy)
        total += again
    if untold:
        raise ControlError(f"pause {made.id} is not in force everywhere yet: {untold[0]}")
    return made, Changed(total.changed, sum(len(keys) for keys in busy.values()) // 2)


async def resume(
    folder: Path,
    pauses: Sequence[int],
    advance: Advance = lambda done: None,
    skipped: Skipped = None,
) -> Changed:
    """Ends pauses and lets go what they hold, all but what another pause is about.

    Raises:
        SpoolError, ControlError: as `change`; asked again, it goes on.
    """
    remove_pauses(folder, pauses)
    untold = await _tell_pauses(folder)
    total = Changed()
    for number in pauses:
        what = Change("release", pause=number)
        total += await change(folder, what, Selection(), advance, skipped)
    if untold:
        raise ControlError(f"not all workers know yet that it has ended: {untold[0]}")
    return total


async def _tell_pauses(folder: Path) -> list[BaseException]:
    """Lets all workers read the pauses; returns the errors of those that could not."""
    asked = [
        asyncio.to_thread(request, path, {"command": "pauses"}, timeout=REQUEST_SECONDS)
        for path in _sockets(folder)
    ]
    ends = await asyncio.gather(*asked, return_exceptions=True)
    return [
        end
        for end in ends
        if isinstance(end, BaseException)
        and not (isinstance(end, ControlError) and _has_ended(end))
    ]


class QueueService:
    """Answers, in a worker, what commands ask of the mail that it holds.

    `connections` are told when a person wants mail to be tried again.
    """

    def __init__(
        self,
        spool: Spool,
        dispatcher: Dispatcher,
        settler: Settler,
        ingress: Ingress,
        chain: Chain,
        pauses: Pauses,
        connections: Connections,
    ) -> None:
        self._spool = spool
        self._connections = connections
        self._dispatcher = dispatcher
        self._settler = settler
        self._ingress = ingress
        self._chain = chain
        self._pauses = pauses
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._rescan_from = 0.0
        self._rescan_timer: asyncio.TimerHandle | None = None

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request.

        Raises:
            ControlError: the request is not understood, or cannot be met.
        """
        command = asked.get("command")
        try:
            if command == "stats":
                return self._stats()
            if command == "pauses":
                return await self._read_pauses()
            if command == "change":
                fields = asked["change"]
                what = Change(**{**fields, "via": tuple(fields["via"])})
                if what.name not in NAMES:
                    raise ValueError(f"unknown change {what.name!r}")
                keys = [(int(id_), int(number)) for id_, number in asked["keys"]]
                return await self._change(asked["shard"], what, keys)
        except (KeyError, TypeError, ValueError) as error:
            raise ControlError(f"the request makes no sense: {error!r}") from error
        except SpoolError as error:
            raise ControlError(str(error)) from error
        raise ControlError(f"unknown command {command!r}")

    async def _read_pauses(self) -> dict[str, Any]:
        """Puts the pauses in force; what was placed before is on disk when this returns."""
        self._pauses.reload()
        await asyncio.gather(*[submit(shard, lambda db: None) for shard in self._spool.shards])
        return {}

    async def _change(self, number: int, what: Change, keys: Sequence[Key]) -> dict[str, Any]:
        for shard in self._spool.shards:
            if shard.number == number:
                break
        else:
            return {"moved": True}
        # Whoever asked may give up; the change is made to its end.
        task = asyncio.create_task(self._apply(shard, what, keys))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        done, busy = await asyncio.shield(task)
        return {**asdict(done), "delivering": sorted(busy)}

    async def _apply(
        self, shard: Shard, what: Change, keys: Sequence[Key]
    ) -> tuple[Changed, set[Key]]:
        async with self._changing:
            if what.name == "retry":
                self._connections.retry()
            try:
                return await apply(
                    shard,
                    what,
                    keys,
                    withdraw=self._dispatcher.withdraw,
                    pauses=self._pauses,
                    events=self._chain.interest,
                )
            finally:
                self._rescan()

    def _rescan(self) -> None:
        """Lets the dispatcher look again: at once, or soon if it has just done so.

        It looks through all that is due, and a large change comes in many batches.
        """
        if self._rescan_timer is not None:
            self._rescan_timer.cancel()
            self._rescan_timer = None
        started = time.monotonic()
        if started < self._rescan_from:
            self._rescan_timer = asyncio.get_running_loop().call_later(
                self._rescan_from - started, self._rescan_unless_changing
            )
            return
        self._dispatcher.rescan()
        now = time.monotonic()
        self._rescan_from = now + max(RESCAN_SECONDS, (now - started) * RESCAN_SHARE)

    def _rescan_unless_changing(self) -> None:
        # Rows of a change that is not written yet must stay withdrawn; its end comes here again.
        if not self._changing.locked():
            self._rescan()

    def _stats(self) -> dict[str, Any]:
        return {
            "connections": self._ingress.attendance.connections,
            "accepted": self._ingress.accepted,
            "delivered": self._settler.delivered,
            "deferred": self._settler.deferred,
            "failed": self._settler.failed,
            "storage": self._spool.failure,
            "hooks": [
                {
                    "plugin": step.plugin,
                    "hook": step.hook,
                    "calls": step.calls,
                    "seconds": step.seconds,
                    "faults": step.faults,
                }
                for steps in self._chain.steps.values()
                for step in steps
            ],
        }


def worker_stats(folder: Path) -> list[dict[str, Any]]:
    """What each running worker has counted since its start."""
    stats = []
    for path in _sockets(folder):
        try:
            stats.append(request(path, {"command": "stats"}, timeout=5.0))
        except ControlError:
            continue  # left by a worker that was killed
    return stats


def _sockets(folder: Path) -> list[Path]:
    """The control sockets of workers, of those that were killed too."""
    return sorted(folder.glob("worker-*.sock"))
