"""The queue as a person changes it, whether the gateway runs or not.

A change is made by the owner of each shard: by the worker that holds it, asked over its control
socket, or by the command itself where nobody holds it.
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
from gateway.queue.listing import COLUMNS, FROM, Row, Selection, ShardReader, row_of
from gateway.queue.settle import Settler
from gateway.smtp.ingress import Ingress
from gateway.spool import queue_id
from gateway.spool.shard import Shard
from gateway.spool.shard_file import ShardBusyError, SpoolError
from gateway.spool.spool import Spool, shard_numbers

Change = Literal["retry", "hold", "release", "drop"]
CHANGES: tuple[Change, ...] = get_args(Change)

HELD_BY_HAND = "held by hand"

log = logging.getLogger("gateway.queue")


@dataclass(frozen=True, slots=True)
class Changed:
    """How many recipients a change was made for, and how many were being delivered just then."""

    changed: int
    busy: int


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
    with ShardReader(folder, number) as db:
        if not db.execute("SELECT EXISTS (SELECT 1 FROM deliveries)").get:
            return Changed(0, 0)  # events only: its owner may be no worker, and answers nobody
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
    rows = [row_of(columns, now, shard.number) for columns in _select(shard, selection, now)]
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
    sql = f"SELECT {COLUMNS} {FROM} WHERE {where}"
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
