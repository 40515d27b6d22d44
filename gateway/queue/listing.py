"""What is in the queue, read from every shard's database beside its owner."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw

from gateway.spool import queue_id
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import shard_numbers

COLUMNS = (
    "d.id, d.number, d.recipient, m.sender, m.stream, m.size, m.received, d.lane, d.priority,"
    " d.due, d.held, d.attempts, d.reply, m.copy"
)
FROM = "FROM deliveries d JOIN messages m ON m.copy = d.copy"


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
class LaneStats:
    """The queue of one lane."""

    lane: str
    active: int
    deferred: int
    held: int
    octets: int
    oldest: float


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
        with ShardReader(folder, number) as db:
            sql = f"SELECT {COLUMNS} {FROM} WHERE {where} ORDER BY d.id, d.number LIMIT ?"
            for columns in db.execute(sql, (*values, left)):
                left -= 1
                yield row_of(columns, now, number)
        if left == 0:
            return


def row_of(columns: Sequence[Any], now: float, shard: int) -> Row:
    """A row from `COLUMNS` of the shard of that number."""
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
    with ShardReader(folder, row.shard) as db:
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
        f" {FROM} GROUP BY d.lane"
    )
    for number in shard_numbers(folder):
        with ShardReader(folder, number) as db:
            for lane, *counts, oldest in db.execute(sql, (now, now)):
                known = lanes.setdefault(lane, [0, 0, 0, 0, oldest])
                for place, count in enumerate(counts):
                    known[place] += count
                known[4] = min(known[4], oldest)
    stats = [LaneStats(lane, *numbers) for lane, numbers in lanes.items()]
    return sorted(stats, key=lambda lane: -(lane.active + lane.deferred + lane.held))


class ShardReader:
    """A shard's database, opened to be read while others write it.

    Raises (in `with`):
        SpoolError: it cannot be read.
    """

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
