"""What is in the queue, read from every shard's database beside its owner.

Reading goes on in short steps, from key to key: a long read would keep the owner's log from being
written back.
"""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import apsw

from gateway.events import Event
from gateway.mail.address import domain_of
from gateway.mail.large_content import LARGE
from gateway.queue.selection import (
    ADDRESS,
    CAMPAIGN,
    NEVER_TRIED,
    STATES,
    USER,
    Selection,
    Where,
    in_network,
)
from gateway.spool import queue_id
from gateway.spool.queue_entry import Envelope, envelope_of
from gateway.spool.shard_file import (
    SpoolError,
    UnreadableShard,
    damage_to,
    is_missing,
    open_to_read,
)
from gateway.spool.spool import shard_numbers

STEP = 2000
"""Recipients that one read looks at."""

Skipped = list[UnreadableShard] | None
"""Takes the shards that are damaged so that they cannot be read; None: the first is an error."""

State = Literal["active", "deferred", "scheduled", "held"]

_ROWS = "FROM deliveries d"
# A row whose message is missing is damaged; who looks for it has to find it.
_WITH_MESSAGES = f"{_ROWS} LEFT JOIN messages m ON m.copy = d.copy"

_COLUMNS = (
    "d.id, d.number, d.recipient, coalesce(m.sender, ''), coalesce(m.stream, ''),"
    " coalesce(m.size, 0), coalesce(m.received, 0), d.lane, d.priority, d.due, d.held, d.attempts,"
    f" d.reply, d.copy, d.parameters, m.envelope, {NEVER_TRIED}"
)

GROUPS = {
    "lane": "d.lane",
    "campaign": f"coalesce({CAMPAIGN}, '')",
    "stream": "coalesce(m.stream, '')",
    "client": f"coalesce({USER}, {ADDRESS}, '')",
    "sender_domain": "domain_of(coalesce(m.sender, ''))",
}
"""By what the queue can be counted; a client is a user, or an address where there was no login."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient of one message in the queue.

    `state` is `held`, `active` (an attempt is due or under way), `deferred`, or `scheduled` (not
    tried yet, because its time has not come). `due` is when the next attempt is made, in seconds
    since the epoch. `via` and `pool` are where a person sent it instead.
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
    state: State
    due: float | None
    held: str | None
    attempts: int
    reply: str
    campaign: str | None
    client: str
    user: str | None
    via: tuple[str, ...]
    pool: str | None
    shard: int
    copy: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class GroupStats:
    """A part of the queue: how many recipients are in each state, octets, and the oldest arrival.

    `name` is a lane, a campaign, and so on; it is empty where there is none.
    """

    name: str
    active: int
    deferred: int
    scheduled: int
    held: int
    octets: int
    oldest: float

    @property
    def recipients(self) -> int:
        """How many there are in all."""
        return self.active + self.deferred + self.scheduled + self.held


@dataclass(slots=True)
class Survey:
    """What a change would be made to.

    Attributes:
        messages: how many.
        lanes: how many recipients of them are in each lane.
        keys: the recipients by shard: id, number, id, number, and so on.
    """

    messages: int = 0
    lanes: Counter[str] = field(default_factory=Counter)
    keys: dict[int, array[int]] = field(default_factory=dict)

    @property
    def recipients(self) -> int:
        """How many there are."""
        return self.lanes.total()


def read(
    folder: Path, selection: Selection, limit: int | None = None, skipped: Skipped = None
) -> Iterator[Row]:
    """The rows of the queue, shard by shard, oldest first in each.

    Raises:
        SpoolError: a shard cannot be read.
    """
    now = time.time()
    left = limit
    query = f"SELECT {_COLUMNS} {_WITH_MESSAGES} WHERE {{}} ORDER BY d.id, d.number"
    for number, rows in _read(folder, query, selection, selection.where(now), skipped):
        for columns in rows[:left]:
            yield row_of(columns, now, number)
        if left is not None:
            left -= len(rows[:left])
            if not left:
                return


def row_of(columns: Sequence[Any], now: float, shard: int) -> Row:
    """A row from `_COLUMNS` of the shard of that number."""
    id_, number, recipient, sender, stream, size, received, lane, priority, due, held = columns[:11]
    attempts, reply, copy, parameters, envelope, never_tried = columns[11:]
    state: State = "active"
    if held is not None:
        state = "held"
    elif due is not None and due > now:
        state = "scheduled" if never_tried else "deferred"
    said, wanted = _object(envelope), _object(parameters)
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
        campaign=said.get("notes", {}).get("campaign"),
        client=said.get("address", ""),
        user=said.get("user"),
        via=tuple(wanted.get("via", ())),
        pool=wanted.get("notes", {}).get("pool"),
        shard=shard,
        copy=copy,
    )


def _object(text: str | None) -> dict[str, Any]:
    """A JSON object; an empty one for none, and for one that is damaged."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_content(folder: Path, row: Row) -> bytes | None:
    """The message of a row as it will go out; None if it has left the queue meanwhile.

    Raises:
        SpoolError: the shard cannot be read.
    """
    with _reading(folder, row) as db:
        if db is None:
            return None
        # What is deleted meanwhile is seen whole, as in one moment.
        db.execute("BEGIN")
        found = db.execute("SELECT content FROM messages WHERE copy=?", (row.copy,)).fetchone()
        if found is None:
            return None
        if row.size <= LARGE or found[0]:
            return bytes(found[0])
        parts = db.execute("SELECT octets FROM parts WHERE copy=? ORDER BY number", (row.copy,))
        return b"".join([octets for (octets,) in parts])


def read_envelope(folder: Path, row: Row) -> Envelope | None:
    """What is known of a row's message besides its content; None if it is gone, or damaged.

    Raises:
        SpoolError: the shard cannot be read.
    """
    with _reading(folder, row) as db:
        if db is None:
            return None
        sql = "SELECT copy, id, received, sender, stream, size, envelope FROM messages WHERE copy=?"
        columns = db.execute(sql, (row.copy,)).fetchone()
    try:
        return None if columns is None else envelope_of(*columns)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def read_events(folder: Path, id: str) -> Iterator[Event]:  # noqa: A002 - the word of everyone
    """The events about a message that are still in the outbox, oldest first in each shard.

    Raises:
        SpoolError: a shard cannot be read.
    """
    for number in shard_numbers(folder):
        db = _open(folder, number)
        if db is None:
            continue
        with closing(db):
            sql = "SELECT event FROM events WHERE instr(event, ?) ORDER BY number"
            try:
                texts = db.execute(sql, (f'"message_id":"{id}"',)).fetchall()
            except apsw.Error as error:
                if is_missing(folder / f"{number:04d}.db"):
                    continue
                raise _unreadable(folder, number, error) from error
        for (text,) in texts:
            try:
                event = Event.from_json(str(text))
            except ValueError:
                continue  # damaged; the service process says so
            if event.message_id == id:
                yield event


def read_stats(folder: Path, by: str = "lane", skipped: Skipped = None) -> list[GroupStats]:
    """The queue by one of `GROUPS`, the longest part first.

    Raises:
        SpoolError: a shard cannot be read.
    """
    now = time.time()
    counts = ", ".join(f"sum(coalesce({condition}, 0))" for condition in STATES.values())
    query = (
        f"SELECT {GROUPS[by]}, {counts}, sum(coalesce(m.size, 0)), min(coalesce(m.received, 0))"
        f" {_WITH_MESSAGES} WHERE {{}} GROUP BY 1"
    )
    groups: dict[str, list[Any]] = {}
    every = Where("1", [now], message=True)
    for _, rows in _read(folder, query, Selection(), every, skipped):
        for name, *numbers in rows:
            known = groups.setdefault(name, [0, 0, 0, 0, 0, numbers[-1]])
            known[:5] = map(sum, zip(known[:5], numbers[:5], strict=True))
            known[5] = min(known[5], numbers[5])
    stats = [GroupStats(name, *numbers) for name, numbers in groups.items()]
    return sorted(stats, key=lambda group: (-group.recipients, group.name))


def survey(
    folder: Path,
    selection: Selection,
    narrow: Callable[[Where], Where] = lambda where: where,
    skipped: Skipped = None,
) -> Survey:
    """What is selected, and meets a further condition. Of a shard that is skipped it has nothing.

    Raises:
        SpoolError: a shard cannot be read.
    """
    parts: dict[int, Survey] = {}
    where = narrow(selection.where(time.time()))
    source = _WITH_MESSAGES if where.message else _ROWS
    query = f"SELECT d.id, d.number, d.lane {source} WHERE {{}} ORDER BY d.id, d.number"
    last = None
    for shard, rows in _read(folder, query, selection, where, skipped):
        found = parts.setdefault(shard, Survey())
        keys = found.keys.setdefault(shard, array("q"))
        for id_, number, lane in rows:
            keys.extend((id_, number))
            found.lanes[lane] += 1
            found.messages += id_ != last
            last = id_
    total = Survey()
    unreadable = {one.number for one in skipped or ()}
    for shard, found in parts.items():
        if shard not in unreadable:
            total.messages += found.messages
            total.lanes.update(found.lanes)
            total.keys |= found.keys
    return total


def count_held(folder: Path, pattern: str, skipped: Skipped = None) -> Counter[str]:
    """How many recipients are held for each reason that fits a pattern, as GLOB of SQLite.

    Raises:
        SpoolError: a shard cannot be read.
    """
    where = Where("1", [0.0], message=False).also("d.held GLOB {}", pattern)
    query = f"SELECT d.held, count(*) {_ROWS} WHERE {{}} GROUP BY 1"
    reasons: Counter[str] = Counter()
    for _, rows in _read(folder, query, Selection(), where, skipped):
        reasons.update(dict(rows))
    return reasons


def _read(
    folder: Path, query: str, selection: Selection, where: Where, skipped: Skipped
) -> Iterator[tuple[int, list[Any]]]:
    """What a query finds in each shard, step by step; {} in it stands for the condition."""
    for number in shard_numbers(folder):
        db = _open(folder, number)
        if db is None:
            continue
        with closing(db):
            steps = _steps(db, where) if not selection.ids else iter([where])
            while True:
                # Nothing is open while the caller works: it may take any time.
                try:
                    step = next(steps, None)
                    if step is None:
                        break
                    rows = db.execute(query.format(step.text), step.values).fetchall()
                except apsw.Error as error:
                    path = folder / f"{number:04d}.db"
                    if not is_missing(path):
                        _skip(damage_to(path, error), skipped)
                    break
                if rows:
                    yield number, rows


def _skip(shard: UnreadableShard, skipped: Skipped) -> None:
    if skipped is None:
        raise SpoolError(str(shard))
    if shard not in skipped:
        skipped.append(shard)


def _steps(db: apsw.Connection, where: Where) -> Iterator[Where]:
    """A condition, cut into spans of keys."""
    sql = (
        "SELECT id, number FROM deliveries WHERE (id, number)>(?, ?)"
        " ORDER BY id, number LIMIT 1 OFFSET ?"
    )
    after: tuple[int, int] | None = (-1, -1)
    while after is not None:
        last: tuple[int, int] | None = db.execute(sql, (*after, STEP - 1)).fetchone()
        step = where.also("(d.id, d.number)>({}, {})", *after)
        yield step if last is None else step.also("(d.id, d.number)<=({}, {})", *last)
        after = last


def _open(folder: Path, number: int) -> apsw.Connection | None:
    """A shard to be read while others write it; None if it has run empty and is gone.

    Raises:
        SpoolError: it cannot be opened.
    """
    path = folder / f"{number:04d}.db"
    try:
        db = open_to_read(path)
    except apsw.Error as error:
        if not path.exists():
            return None
        raise _unreadable(folder, number, error) from error
    db.create_scalar_function("domain_of", domain_of, 1, deterministic=True)
    db.create_scalar_function("in_network", in_network, 2, deterministic=True)
    return db


@contextmanager
def _reading(folder: Path, row: Row) -> Iterator[apsw.Connection | None]:
    """The shard of a row; None if it is gone.

    Raises:
        SpoolError: the shard, or what is read of it, cannot be read.
    """
    db = _open(folder, row.shard)
    with nullcontext() if db is None else closing(db):
        try:
            yield db
        except apsw.Error as error:
            raise _unreadable(folder, row.shard, error) from error


def _unreadable(folder: Path, number: int, error: apsw.Error) -> SpoolError:
    return SpoolError(f"{folder / f'{number:04d}.db'} cannot be read: {error}")
