"""What a person does with mail in the queue, and how the owner of a shard writes it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import apsw

from gateway.events import Interest
from gateway.mail.message import Client, Recipient
from gateway.queue.pauses import HELD_BY_A_PAUSE, Pauses, mark
from gateway.queue.selection import STATES, Where
from gateway.queue.settle import event_of
from gateway.spool.held_reason import BY_HAND
from gateway.spool.queue_entry import Envelope, Item, envelope_of, item_of, parameters_of
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError

Name = Literal["retry", "hold", "release", "drop", "reroute"]
NAMES: tuple[Name, ...] = get_args(Name)

Key = tuple[int, int]
"""A recipient in a shard: queue id and number."""

_PAST = {
    "retry": "to be retried",
    "hold": "held",
    "release": "released",
    "drop": "dropped",
    "reroute": "rerouted",
}
_EVENTS = {"hold": "held", "release": "released", "drop": "dropped"}

_COLUMNS = (
    "d.id, d.number, d.copy, d.lane, d.recipient, d.parameters, d.due, d.held, d.attempts,"
    f" {STATES['deferred']}, coalesce(m.received, 0), coalesce(m.sender, ''),"
    " coalesce(m.stream, ''), coalesce(m.size, 0), m.envelope"
)
_OF_KEYS = (
    "FROM json_each(?2) k CROSS JOIN deliveries d"
    " ON d.id = k.value->>0 AND d.number = k.value->>1"
    " LEFT JOIN messages m ON m.copy = d.copy"
)

log = logging.getLogger("gateway.queue")


@dataclass(frozen=True, slots=True)
class Change:
    """What is done with mail.

    Attributes:
        name: `retry` makes deferred mail due now; `hold` keeps mail until it is `release`d; `drop`
            deletes it, and nobody gets a report; `reroute` sends it another way.
        reason: `hold`: why, for people.
        pause: `hold`: only what is not held yet, for this pause. `release`: only what this pause
            holds. 0: by hand.
        scheduled: `retry`: mail that waits for its time, instead of deferred mail.
        via, pool: `reroute`: the next hops in order, or the pool of addresses to send from; neither
            is as if nobody had said anything.
    """

    name: Name
    reason: str = BY_HAND
    pause: int = 0
    scheduled: bool = False
    via: tuple[str, ...] = ()
    pool: str | None = None

    def narrow(self, where: Where) -> Where:
        """A condition, and that this can be done."""
        if self.name == "retry":
            return where.also(STATES["scheduled" if self.scheduled else "deferred"])
        if self.name == "hold" and self.pause:
            return where.also("d.held IS NULL")
        if self.name == "hold":
            return where.also("(d.held IS NULL OR d.held GLOB {})", HELD_BY_A_PAUSE)
        if self.name == "release" and self.pause:
            begins = mark(self.pause)
            return where.also("substr(d.held || ' ', 1, {})={}", len(begins), begins)
        if self.name == "release":
            return where.also(STATES["held"])
        return where


@dataclass(frozen=True, slots=True)
class Changed:
    """How many recipients a change was made for.

    `busy` were left alone because they were being delivered just then, and `paused` because a pause
    is in force that holds them.
    """

    changed: int = 0
    busy: int = 0
    paused: int = 0

    def __add__(self, other: Changed) -> Changed:
        return Changed(
            self.changed + other.changed, self.busy + other.busy, self.paused + other.paused
        )


@dataclass(slots=True, eq=False)
class _Row:
    """A recipient, and what its columns are to be."""

    envelope: Envelope
    item: Item
    lane: str
    parameters: str | None
    due: float | None
    held: str | None
    is_deferred: bool
    is_damaged: bool

    @property
    def key(self) -> Key:
        return self.envelope.id, self.item.number


async def apply(
    shard: Shard,
    change: Change,
    keys: Sequence[Key],
    *,
    withdraw: Callable[[set[Key]], set[Key]],
    pauses: Pauses,
    events: Interest,
) -> tuple[Changed, set[Key]]:
    """Makes a change in a shard that this process owns.

    Args:
        shard: where the recipients are.
        change: what is done.
        keys: to whom; those that are gone, or to whom it cannot be done any more, are left out.
        withdraw: takes rows out of memory; returns those that are being delivered now.
        pauses: what must not be released.
        events: which events observers want.

    Returns the counts, and who was being delivered.

    Raises:
        SpoolError: the change cannot be written.
    """
    now = time.time()
    rows = _find(shard, change, keys, now)
    busy: set[Key] = set()
    if change.name in ("hold", "drop", "reroute"):
        busy = withdraw({row.key for row in rows})
        rows = [row for row in rows if row.key not in busy]
    changed: list[_Row] = []
    paused: list[_Row] = []
    for row in rows:
        if change.name == "release" and _is_paused(row, pauses):
            paused.append(row)
        elif _make(change, row, now):
            changed.append(row)
    if changed or paused:
        await _write(shard, change, changed, paused, events, now)
        past = _PAST[change.name]
        for row in changed:
            log.info(
                "%s: to=<%s>, %s by hand", row.envelope.queue_id, row.item.recipient.address, past
            )
    return Changed(len(changed), len(busy), len(paused)), busy


def _find(shard: Shard, change: Change, keys: Sequence[Key], now: float) -> list[_Row]:
    where = change.narrow(Where("1", [now, json.dumps(keys)], message=True))
    sql = f"SELECT {_COLUMNS} {_OF_KEYS} WHERE {where.text}"
    return [_row(columns) for columns in shard.query(sql, where.values)]


def _row(columns: Sequence[Any]) -> _Row:
    id_, number, copy, lane, recipient, parameters, due, held, attempts, deferred = columns[:10]
    received, sender, stream, size, text = columns[10:]
    is_damaged = False
    try:
        envelope = envelope_of(copy, id_, received, sender, stream, size, text)
        item = item_of(number, recipient, parameters, attempts)
    except (ValueError, TypeError, KeyError, AttributeError):
        # It can be dropped, and held: what is damaged must not be in the way.
        is_damaged = True
        envelope = Envelope(id_, copy, received, sender, stream, size, Client(""))
        item = Item(number, Recipient(recipient), attempts)
    return _Row(envelope, item, lane, parameters, due, held, bool(deferred), is_damaged)


def _is_paused(row: _Row, pauses: Pauses) -> bool:
    """Whether a pause keeps a row from being released; it is held for that pause then."""
    reason = pauses.reason_for(row.envelope, row.lane, row.item.recipient) if pauses else None
    if reason is not None:
        row.held = reason
    return reason is not None


def _make(change: Change, row: _Row, now: float) -> bool:
    """Makes a change of the columns of a row; False if it cannot be made."""
    if change.name == "retry":
        row.due = now
    elif change.name == "hold":
        row.due, row.held = None, change.reason
    elif change.name == "release":
        row.due, row.held = max(now, row.envelope.release), None
    elif change.name == "reroute":
        if row.is_damaged:
            return False
        item = row.item
        if change.via or not change.pool:
            item.via = change.via
            item.home = item.home or row.lane
            # Another way is another lane: that of its domain may be paused.
            row.lane = f"via {','.join(change.via)}" if change.via else item.home
            item.home = item.home if change.via else ""
        if change.pool:
            item.recipient.notes["pool"] = change.pool
        elif not change.via:
            item.recipient.notes.pop("pool", None)
        row.parameters = parameters_of(item)
        if row.held is None and (row.due is None or row.is_deferred):
            row.due = now
    return True


async def _write(
    shard: Shard,
    change: Change,
    changed: Sequence[_Row],
    paused: Sequence[_Row],
    events: Interest,
    now: float,
) -> None:
    def write(db: apsw.Connection) -> None:
        for row in changed:
            _WRITES[change.name](db, row)
            kind = _EVENTS.get(change.name)
            if kind is not None and kind in events:
                reason = row.held if change.pause and row.held is not None else "by hand"
                event = event_of(kind, now, row.envelope, row.item.recipient, reason=reason)
                shard.insert_event(db, event)
        for row in paused:
            _hold(db, row)

    error = await submit(shard, write)
    if error is not None:
        # What was taken out of memory is in no index: without a time it would wait for ever.
        keys = [row.key for row in changed]
        await submit(shard, lambda db: _make_due(db, keys, now))
        raise error


async def submit(shard: Shard, write: Callable[[apsw.Connection], None]) -> SpoolError | None:
    """Makes a write; returns when it is on disk with all before it, or why it cannot be made."""
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()

    def written(error: SpoolError | None) -> None:
        if not done.done():  # who asked may have given up
            done.set_result(error)

    shard.change(write, written)
    return await done


# Where a row is not taken out of memory first, an attempt may have changed it meanwhile.


def _retry(db: apsw.Connection, row: _Row) -> None:
    sql = "UPDATE deliveries SET due=? WHERE id=? AND number=? AND due IS NOT NULL"
    db.execute(sql, (row.due, *row.key))


def _hold(db: apsw.Connection, row: _Row) -> None:
    sql = "UPDATE deliveries SET due=NULL, held=? WHERE id=? AND number=?"
    db.execute(sql, (row.held, *row.key))


def _release(db: apsw.Connection, row: _Row) -> None:
    sql = "UPDATE deliveries SET due=?, held=NULL WHERE id=? AND number=? AND held IS NOT NULL"
    db.execute(sql, (row.due, *row.key))


def _reroute(db: apsw.Connection, row: _Row) -> None:
    sql = "UPDATE deliveries SET parameters=?, lane=?, due=? WHERE id=? AND number=?"
    db.execute(sql, (row.parameters, row.lane, row.due, *row.key))


def _drop(db: apsw.Connection, row: _Row) -> None:
    id_, copy = row.envelope.id, row.envelope.copy
    db.execute("DELETE FROM deliveries WHERE id=? AND number=?", row.key)
    db.execute(
        "DELETE FROM messages WHERE copy=? AND NOT EXISTS"
        " (SELECT 1 FROM deliveries WHERE id=? AND copy=?)",
        (copy, id_, copy),
    )


_WRITES: dict[Name, Callable[[apsw.Connection, _Row], None]] = {
    "retry": _retry,
    "hold": _hold,
    "release": _release,
    "drop": _drop,
    "reroute": _reroute,
}


def _make_due(db: apsw.Connection, keys: Sequence[Key], now: float) -> None:
    for key in keys:
        db.execute(
            "UPDATE deliveries SET due=? WHERE id=? AND number=? AND due IS NULL AND held IS NULL",
            (now, *key),
        )
