"""The queue as a person sees and changes it, whether the gateway runs or not.

Reading opens every shard's database beside its owner. A change is made by the owner: by the
worker that holds the shard, asked over its control socket, or by the command itself where nobody
holds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import apsw

from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.process.control import ControlError, request
from gateway.queue.dispatch import Dispatcher
from gateway.queue.settle import Settler
from gateway.smtp.ingress import Ingress
from gateway.spool import queue_id
from gateway.spool.shard import Shard
from gateway.spool.shard_file import ShardBusyError, SpoolError
from gateway.spool.spool import Spool, shard_numbers

Change = Literal["retry", "hold", "release", "drop"]
CHANGES: tuple[Change, ...] = get_args(Change)

HELD_BY_HAND = "held by hand"

_COLUMNS = (
    "d.id, d.number, d.recipient, m.sender, m.stream, m.size, m.received, d.lane, d.priority,"
    " d.due, d.held, d.attempts, d.reply, m.copy"
)
_FROM = "FROM deliveries d JOIN messages m ON m.copy = d.copy"

log = logging.getLogger("gateway.queue")


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient of one message in the queue.

    `state` is `held`, `active` (an attempt is due or under way) or `deferred`. `due` is when the
    next attempt is made, in seconds since the epoch.
    """

    id: str
    number: int
    recipient: str
    sender: str
    stream: str
    size: int
    received: float
    lane: str
    priority: int
    state: str
    due: float | None
    held: str | None
    attempts: int
    reply: str
    shard: int
    copy: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of the queue is meant: all that meets every condition given.

    Attributes:
        ids: queue ids.
        sender, recipient, stream, lane: exact values, compared without case.
        domain: the recipients' domain.
        state: `held`, `active` or `deferred`.
    """

    ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    stream: str | None = None
    lane: str | None = None
    state: str | None = None

    def where(self, now: float) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values.

        Raises:
            ValueError: an id is no queue id.
        """
        terms: list[str] = ["1"]
        values: list[Any] = []
        if self.ids:
            terms.append(f"d.id IN ({','.join('?' * len(self.ids))})")
            values += [queue_id.from_text(text) for text in self.ids]
        for column, value in (
            ("m.sender", self.sender),
            ("d.recipient", self.recipient),
            ("m.stream", self.stream),
            ("d.lane", self.lane),
        ):
            if value is not None:
                terms.append(f"lower({column})=lower(?)")
                values.append(value)
        if self.domain is not None:
            terms.append("lower(substr(d.recipient, -1 - length(?))) = '@' || lower(?)")
            values += [self.domain, self.domain]
        if self.state == "held":
            terms.append("d.held IS NOT NULL")
        elif self.state == "deferred":
            terms.append("d.due>?")
            values.append(now)
        elif self.state == "active":
            terms.append("d.held IS NULL AND (d.due IS NULL OR d.due<=?)")
            values.append(now)
        return " AND ".join(terms), values


@dataclass(frozen=True, slots=True)
class Changed:
    """How many recipients a change was made for, and how many were being delivered just then."""

    changed: int
    busy: int


@dataclass(frozen=True, slots=True)
class LaneStats:
    """The queue of one lane."""

    lane: str
    active: int
    deferred: int
    held: int
    octets: int
    oldest: float


# Reading.


def read(folder: Path, selection: Selection, limit: int | None = None) -> Iterator[Row]:
    """The rows of the queue, shard by shard, oldest first in each.

    Raises:
        ValueError: an id is no queue id.
        SpoolError: a shard cannot be read.
    """
    now = time.time()
    where, values = selection.where(now)
    left = -1 if limit is None else limit
    for number in shard_numbers(folder):
        with _Reader(folder, number) as db:
            sql = f"SELECT {_COLUMNS} {_FROM} WHERE {where} ORDER BY d.id, d.number LIMIT ?"
            for columns in db.execute(sql, (*values, left)):
                left -= 1
                yield _row(columns, now, number)
        if left == 0:
            return


def _row(columns: Sequence[Any], now: float, shard: int) -> Row:
    id_, number, recipient, sender, stream, size, received, lane, priority = columns[:9]
    due, held, attempts, reply, copy = columns[9:]
    state = (
        "held" if held is not None else "deferred" if due is not None and due > now else "active"
    )
    return Row(
        id=queue_id.to_text(id_),
        number=number,
        recipient=recipient,
        sender=sender,
        stream=stream,
        size=size,
        received=received,
        lane=lane,
        priority=priority,
        state=state,
        due=due,
        held=held,
        attempts=attempts,
        reply=reply,
        shard=shard,
        copy=copy,
    )


def read_content(folder: Path, row: Row) -> bytes | None:
    """The message of a row as it will go out; None if it has left the queue meanwhile.

    Raises:
        SpoolError: the shard cannot be read.
    """
    with _Reader(folder, row.shard) as db:
        found = db.execute("SELECT content FROM messages WHERE copy=?", (row.copy,)).fetchone()
        return None if found is None else bytes(found[0])


def read_stats(folder: Path) -> list[LaneStats]:
    """The queue by lane, the longest first.

    Raises:
        SpoolError: a shard cannot be read.
    """
    now = time.time()
    lanes: dict[str, list[Any]] = {}
    sql = (
        "SELECT d.lane, sum(d.held IS NULL AND (d.due IS NULL OR d.due<=?)),"
        " sum(coalesce(d.due>?, 0)), sum(d.held IS NOT NULL), sum(m.size), min(m.received)"
        f" {_FROM} GROUP BY d.lane"
    )
    for number in shard_numbers(folder):
        with _Reader(folder, number) as db:
            for lane, *counts, oldest in db.execute(sql, (now, now)):
                known = lanes.setdefault(lane, [0, 0, 0, 0, oldest])
                for place, count in enumerate(counts):
                    known[place] += count
                known[4] = min(known[4], oldest)
    stats = [LaneStats(lane, *numbers) for lane, numbers in lanes.items()]
    return sorted(stats, key=lambda lane: -(lane.active + lane.deferred + lane.held))


class _Reader:
    def __init__(self, folder: Path, number: int) -> None:
        self._path = folder / f"{number:04d}.db"

    def __enter__(self) -> apsw.Connection:
        try:
            self._db = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(10_000)
        except apsw.Error as error:
            raise SpoolError(f"{self._path} cannot be read: {error}") from error
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._db.close(True)
        if isinstance(error, apsw.Error):
            raise SpoolError(f"{self._path} cannot be read: {error}") from error


# Changing.


async def change(folder: Path, name: Change, selection: Selection) -> Changed:
    """Makes a change, shard by shard, through whoever owns each.

    Raises:
        ValueError: an id is no queue id.
        SpoolError: a shard cannot be read or written.
        ControlError: the worker that owns a shard does not answer.
    """
    selection.where(0)
    total = Changed(0, 0)
    for number in shard_numbers(folder):
        done = await _change_shard(folder, number, name, selection)
        total = Changed(total.changed + done.changed, total.busy + done.busy)
    return total


async def _change_shard(folder: Path, number: int, name: Change, selection: Selection) -> Changed:
    while True:
        try:
            shard = Shard.claim(folder, number, "")
        except ShardBusyError:
            owner = (folder / f"{number:04d}.lock").read_text()
            if not owner:
                await asyncio.sleep(0.1)  # another command has it, for a moment
                continue
            reply = await asyncio.to_thread(
                request,
                Path(owner),
                {"command": name, "shard": number, "selection": asdict(selection)},
                timeout=60.0,
            )
            return Changed(reply["changed"], reply["busy"])
        try:
            return await apply(shard, name, selection, lambda rows: set())
        finally:
            await shard.drain()
            shard.close()


async def apply(
    shard: Shard,
    name: Change,
    selection: Selection,
    withdraw: Callable[[set[tuple[int, int]]], set[tuple[int, int]]],
) -> Changed:
    """Makes a change in a shard that this process owns.

    `withdraw` takes rows out of memory and returns those that are being delivered now; these are
    left alone.

    Raises:
        SpoolError: the change cannot be written.
    """
    now = time.time()
    rows = [_row(columns, now, shard.number) for columns in _select(shard, selection, now)]
    wanted = {"retry": ("deferred",), "release": ("held",), "hold": ("active", "deferred")}
    rows = [row for row in rows if name == "drop" or row.state in wanted[name]]
    busy: set[tuple[int, int]] = set()
    if name in ("hold", "drop"):
        busy = withdraw({_key(row) for row in rows})
        rows = [row for row in rows if _key(row) not in busy]
    if rows:
        done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()

        def written(error: SpoolError | None) -> None:
            if not done.done():  # who asked may have given up
                done.set_result(error)

        shard.change(lambda db: _write(shard, db, name, rows, now), written)
        error = await done
        if error is not None:
            raise error
        past = {"retry": "to be retried", "release": "released", "hold": "held", "drop": "dropped"}
        for row in rows:
            log.info("%s: to=<%s>, %s by hand", row.id, row.recipient, past[name])
    return Changed(len(rows), len(busy))


def _select(shard: Shard, selection: Selection, now: float) -> Iterator[Sequence[Any]]:
    where, values = selection.where(now)
    sql = f"SELECT {_COLUMNS} {_FROM} WHERE {where}"
    return iter(shard.query(sql, values))


def _key(row: Row) -> tuple[int, int]:
    return queue_id.from_text(row.id), row.number


def _write(
    shard: Shard, db: apsw.Connection, name: Change, rows: Sequence[Row], now: float
) -> None:
    for row in rows:
        id_, number = _key(row)
        if name == "drop":
            db.execute("DELETE FROM deliveries WHERE id=? AND number=?", (id_, number))
            db.execute(
                "DELETE FROM messages WHERE copy=? AND NOT EXISTS"
                " (SELECT 1 FROM deliveries WHERE id=? AND copy=?)",
                (row.copy, id_, row.copy),
            )
        else:
            due, held = (None, HELD_BY_HAND) if name == "hold" else (now, None)
            db.execute(
                "UPDATE deliveries SET due=?, held=? WHERE id=? AND number=?",
                (due, held, id_, number),
            )
        if name != "retry":
            event = Event(
                type={"drop": "dropped", "hold": "held", "release": "released"}[name],
                time=now,
                message_id=row.id,
                sender=row.sender,
                recipient=row.recipient,
                stream=row.stream,
                reason="by hand",
            )
            shard.insert_event(db, event)


class QueueService:
    """Answers, in a worker, what commands ask of the mail that it holds."""

    def __init__(
        self,
        spool: Spool,
        dispatcher: Dispatcher,
        settler: Settler,
        ingress: Ingress,
        chain: Chain,
    ) -> None:
        self._spool = spool
        self._dispatcher = dispatcher
        self._settler = settler
        self._ingress = ingress
        self._chain = chain
        self._changing = asyncio.Lock()

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request.

        Raises:
            ControlError: the request is not understood, or the shard is not ours any more.
        """
        command = asked.get("command")
        if command == "stats":
            return self._stats()
        if command not in CHANGES:
            raise ControlError(f"unknown command {command!r}")
        for shard in self._spool.shards:
            if shard.number == asked.get("shard"):
                break
        else:
            raise ControlError("the shard has another owner now, please try again")
        try:
            fields = dict(asked["selection"])
            selection = Selection(**{**fields, "ids": tuple(fields.get("ids", ()))})
            async with self._changing:
                try:
                    done = await apply(shard, command, selection, self._dispatcher.withdraw)
                finally:
                    self._dispatcher.rescan()
        except (KeyError, TypeError, ValueError, SpoolError) as error:
            raise ControlError(str(error)) from error
        return asdict(done)

    def _stats(self) -> dict[str, Any]:
        return {
            "connections": self._ingress.connections,
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
    for path in sorted(folder.glob("worker-*.sock")):
        try:
            stats.append(request(path, {"command": "stats"}, timeout=5.0))
        except ControlError:
            continue  # left by a worker that was killed
    return stats
