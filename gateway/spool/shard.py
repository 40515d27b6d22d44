"""A shard of the spool: the mail in one SQLite database that one process owns.

The owner holds an exclusive lock on a file beside the database; the kernel drops it when the
process dies.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from gateway.events import Event
from gateway.mail.large_content import LARGE, Content, Pieces
from gateway.spool import queue_id
from gateway.spool.group_commit import Done, GroupCommit
from gateway.spool.held_reason import DAMAGED
from gateway.spool.queue_entry import (
    Entry,
    Envelope,
    Placed,
    Settlement,
    envelope_of,
    item_of,
    parameters_of,
)
from gateway.spool.shard_file import (
    SpoolError,
    lock,
    reason_of,
)
from gateway.spool.stored_content import StoredContent
from gateway.spool.suspects import Key, Suspects, forget

_INSERT_MESSAGE = "INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?)"
_INSERT_PART = "INSERT INTO parts VALUES (?,?,?)"
_SELECT_PART = "SELECT octets FROM parts WHERE copy=? AND number=?"
_INSERT_DELIVERY = (
    "INSERT INTO deliveries (id,number,copy,lane,priority,recipient,parameters,due,held)"
    " VALUES (?,?,?,?,?,?,?,?,?)"
)
_DELETE_DELIVERY = "DELETE FROM deliveries WHERE id=? AND number=?"
_DELETE_COPY = (
    "DELETE FROM messages WHERE copy=? AND NOT EXISTS"
    " (SELECT 1 FROM deliveries WHERE id=? AND copy=?)"
)
_DEFER = "UPDATE deliveries SET due=?, held=?, attempts=?, reply=? WHERE id=? AND number=?"
_WARN = "UPDATE deliveries SET parameters=? WHERE id=? AND number=?"
_DELETE_COPIES = "DELETE FROM messages WHERE copy IN (SELECT copy FROM deliveries WHERE id=?)"
_INSERT_EVENT = "INSERT INTO events VALUES (?,?)"

_TEXTS = (
    ("deliveries", "id", ("recipient", "parameters")),
    ("messages", "copy", ("sender", "stream", "envelope")),
)
"""Columns of a damaged entry that people read, with their tables and the column to find them by."""

log = logging.getLogger("gateway.spool")


class Shard(GroupCommit):
    """An owned shard.

    Attributes:
        suspects: mail that may have ended the process of an owner; None where nobody looks.
    """

    def __init__(self, path: Path, number: int, lock: int) -> None:
        super().__init__(path, number, lock)
        self._last_id = 0
        self._last_event = 0
        self.suspects: Suspects | None = None

    @classmethod
    def claim(cls, folder: Path, number: int, owner: str) -> Shard:
        """Takes the shard `number` in `folder`, making it if it is not there.

        `owner` is written into the lock file, for commands that look for the owner.

        Raises:
            ShardBusyError: another process owns it.
            SpoolError: the files cannot be made, opened or read.
        """
        descriptor = lock(folder / f"{number:04d}.lock", owner)
        try:
            return cls(folder / f"{number:04d}.db", number, descriptor)
        except (apsw.Error, OSError) as error:
            os.close(descriptor)
            raise SpoolError(f"{folder / f'{number:04d}.db'}: {reason_of(error)}") from error
        except BaseException:
            os.close(descriptor)
            raise

    # Ids.

    def next_id(self, now: float) -> int:
        """An id that no other message has or will have."""
        self._last_id = queue_id.make(now, self.number, self._last_id)
        return self._last_id

    # Writing.

    def append(self, placed: Sequence[Placed], events: Sequence[Event], done: Done) -> None:
        """Writes new mail; `done` follows the fsync that makes it safe.

        With an error, nothing of it is in the spool.
        """
        if self.failure is not None:
            done(SpoolError(self.failure, self.full))
            return
        size = sum(len(item.entry.content or b"") for item in placed)
        ids = tuple({item.entry.envelope.id for item in placed})
        self.submit(lambda db: self._insert(db, placed, events), done, size, ids)

    def settle(self, settlement: Settlement, done: Done) -> None:
        """Writes what became of accepted mail: outcome, events and reports in one transaction.

        While the disk fails the write waits, and is made when the disk works again.
        """
        suspects = self.suspects
        if suspects is not None and suspects.known:
            done = _also(partial(suspects.settled, settlement.entry), done)
        self.submit(lambda db: self._settle(db, settlement), done, 0, None)

    def withdraw(self, db: apsw.Connection, number: int) -> None:
        """Deletes a message that was refused and may have reached the disk all the same.

        The client keeps it and sends it again.
        """
        db.execute(_DELETE_COPIES, (number,))
        db.execute("DELETE FROM deliveries WHERE id=?", (number,))

    def change(self, write: Callable[[apsw.Connection], None], done: Done) -> None:
        """Makes a change that a person asked for; waits like `settle`."""
        self.submit(write, done, 0, None)

    def _insert(
        self, db: apsw.Connection, placed: Iterable[Placed], events: Iterable[Event]
    ) -> None:
        copies = set()
        for item in placed:
            entry = item.entry
            envelope = entry.envelope
            if envelope.copy not in copies:
                copies.add(envelope.copy)
                assert entry.content is not None
                content = entry.content
                if len(content) > LARGE:
                    checksum, content = _insert_parts(db, envelope.copy, content), b""
                else:
                    content = bytes(content)  # as a rule it is that
                    checksum = zlib.crc32(content)
                db.execute(
                    _INSERT_MESSAGE,
                    (
                        envelope.copy,
                        envelope.id,
                        envelope.received,
                        envelope.sender,
                        envelope.stream,
                        envelope.size,
                        checksum,
                        envelope.to_json(),
                        content,
                    ),
                )
            for row in entry.items:
                db.execute(
                    _INSERT_DELIVERY,
                    (
                        envelope.id,
                        row.number,
                        envelope.copy,
                        entry.lane,
                        entry.priority,
                        row.recipient.address,
                        parameters_of(row),
                        item.due,
                        item.held,
                    ),
                )
        for event in events:
            self.insert_event(db, event)

    def insert_event(self, db: apsw.Connection, event: Event) -> None:
        """Adds an event to the outbox, within a write."""
        self._last_event = queue_id.make(event.time, self.number, self._last_event)
        db.execute(_INSERT_EVENT, (self._last_event, event.to_json()))

    def _settle(self, db: apsw.Connection, settlement: Settlement) -> None:
        envelope = settlement.entry.envelope
        for item in settlement.done:
            db.execute(_DELETE_DELIVERY, (envelope.id, item.number))
        for item, due, held, reply in settlement.deferred:
            db.execute(_DEFER, (due, held, item.attempts, reply, envelope.id, item.number))
        for item in settlement.warned:
            db.execute(_WARN, (parameters_of(item), envelope.id, item.number))
        if settlement.done:
            db.execute(_DELETE_COPY, (envelope.copy, envelope.id, envelope.copy))
        for report in settlement.reports:
            # A write that is made again may have reached the disk before the error did.
            self.withdraw(db, report.entry.envelope.id)
        self._insert(db, settlement.reports, settlement.events)

    # Reading: its own connection, so that a commit in progress does not hold it up.

    def recover(self) -> None:
        """Makes due what a former owner held in memory. Before anything else is asked.

        Raises:
            SpoolError: the disk failed.
        """
        assert self._db is not None
        try:
            with self._db as db:
                db.execute("UPDATE deliveries SET due=0 WHERE due IS NULL AND held IS NULL")
                for sql in ("SELECT max(id) FROM messages", "SELECT max(copy) FROM messages"):
                    self._last_id = max(self._last_id, db.execute(sql).get or 0)
                self._last_event = db.execute("SELECT max(number) FROM events").get or 0
        except apsw.Error as error:
            raise SpoolError(reason_of(error)) from error

    def due_lanes(self, after: float, until: float) -> list[tuple[str, int]]:
        """Lane and priority of what became due in the span of time (after, until]."""
        sql = "SELECT DISTINCT lane, priority FROM deliveries WHERE due>? AND due<=?"
        return list(self._reader.execute(sql, (after, until)))

    def next_due(self, after: float) -> float | None:
        """When the next delivery after that time becomes due."""
        sql = "SELECT min(due) FROM deliveries WHERE due>?"
        due: float | None = self._reader.execute(sql, (after,)).get
        return due

    def load(
        self, lane: str, priority: int, until: float, known: set[tuple[int, int]], limit: int
    ) -> tuple[list[Entry], bool]:
        """Entries of a lane that are due, oldest first, without the `known` (id, number).

        Returns them and whether more may be there.
        """
        # Text as octets: where it is damaged and no UTF-8 any more, one row is, and not all.
        sql = (
            "SELECT id, number, copy, CAST(recipient AS BLOB), CAST(parameters AS BLOB), attempts"
            " FROM deliveries WHERE lane=? AND priority=? AND due<=? ORDER BY due LIMIT ?"
        )
        entries: dict[int, Entry] = {}
        count = seen = 0
        for id_, number, copy, recipient, parameters, attempts in self._reader.execute(
            sql, (lane, priority, until, limit + len(known))
        ):
            seen += 1
            if (id_, number) in known:
                continue
            if count == limit:
                break
            try:
                text = None if parameters is None else parameters.decode()
                item = item_of(number, recipient.decode(), text, attempts)
                entry = entries.get(copy)
                if entry is None:
                    entry = Entry(self, self._envelope(copy), lane, priority, [])
                if entry.envelope.id != id_:
                    raise ValueError("its message is another one's")
            except (ValueError, TypeError, KeyError, AttributeError, apsw.CorruptError) as error:
                self._set_aside(id_, number, copy, error)
                continue
            entries[copy] = entry
            entry.items.append(item)
            count += 1
        return list(entries.values()), seen == limit + len(known) or count == limit

    def _envelope(self, copy: int) -> Envelope:
        row = self._reader.execute(
            "SELECT id, received, sender, stream, size, envelope FROM messages WHERE copy=?",
            (copy,),
        ).fetchone()
        if row is None:
            raise ValueError("its message is missing")
        return envelope_of(copy, *row)

    def _set_aside(self, id_: int, number: int, copy: int, error: Exception) -> None:
        """Holds a row that cannot be read for a person; it must not stop the others."""
        reason = f"{DAMAGED}{error}"
        log.error("%s: held: %s", queue_id.to_text(id_), reason)

        def hold(db: apsw.Connection) -> None:
            sql = "UPDATE deliveries SET due=NULL, held=? WHERE id=? AND number=?"
            db.execute(sql, (reason, id_, number))
            for (table, key, columns), value in zip(_TEXTS, (id_, copy), strict=True):
                _make_readable(db, table, key, value, columns)

        self.change(hold, lambda error: None)

    def query(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Rows that a query finds."""
        return list(self._reader.execute(sql, values))

    def waits(self, key: Key) -> bool:
        """Whether a recipient is in the queue, and not held.

        Raises:
            SpoolError: the disk failed.
        """
        sql = "SELECT 1 FROM deliveries WHERE id=? AND number=? AND held IS NULL"
        try:
            return self._reader.execute(sql, key).get is not None
        except apsw.Error as error:
            raise SpoolError(reason_of(error)) from error

    def content(self, copy: int) -> Content | None:
        """A copy's content; None if it is gone or damaged. If it is large, reading it tells."""
        try:
            row = self._reader.execute(
                "SELECT content, checksum, size FROM messages WHERE copy=?", (copy,)
            ).fetchone()
        except apsw.CorruptError:
            return None
        if row is None:
            return None
        content, checksum, size = row
        if size > LARGE and not content:
            return StoredContent(partial(self._part, copy), size, checksum)
        if zlib.crc32(content) != checksum:
            return None
        whole: bytes = content
        return whole

    def _part(self, copy: int, number: int) -> bytes | None:
        # A statement that has come to its end holds no lock on the log.
        try:
            rows: list[Any] = self._reader.execute(_SELECT_PART, (copy, number)).fetchall()
        except apsw.CorruptError:
            return None
        return rows[0][0] if rows else None

    def has_events(self, until: int) -> bool:
        """Whether the outbox has an event up to that number."""
        sql = "SELECT EXISTS (SELECT 1 FROM events WHERE number<=?)"
        return bool(self._reader.execute(sql, (until,)).get)

    def is_empty(self) -> bool:
        """Whether there is neither mail nor an event left."""
        return (
            self.is_written  # a commit that has not ended cannot be seen yet
            and not self._reader.execute(
                "SELECT EXISTS (SELECT 1 FROM deliveries) OR EXISTS (SELECT 1 FROM events)"
            ).get
        )

    def close(self, remove: bool = False) -> None:
        """Gives the shard up, in good order; `remove` deletes its files. Call `drain` first."""
        if remove or self.suspects is not None:
            forget(self.path)
        super().close(remove)


def _also(then: Callable[[], None], done: Done) -> Done:
    """`done`, and before it what else follows when a write is on the disk."""

    def both(error: SpoolError | None) -> None:
        if error is None:
            then()
        done(error)

    return both


def _insert_parts(db: apsw.Connection, copy: int, content: Content) -> int:
    """Writes large content, and returns its CRC-32."""
    checksum = 0
    blocks = Pieces(content).blocks() if isinstance(content, bytes) else content.blocks()
    for number, block in enumerate(blocks):
        checksum = zlib.crc32(block, checksum)
        db.execute(_INSERT_PART, (copy, number, block))
    return checksum


def _make_readable(
    db: apsw.Connection, table: str, key: str, value: int, columns: Sequence[str]
) -> None:
    """Writes text that is no UTF-8 any more as text with escapes, so that it can be listed."""
    for column in columns:
        query = f"SELECT DISTINCT CAST({column} AS BLOB) FROM {table} WHERE {key}=?"  # noqa: S608
        rows: list[Any] = db.execute(query, (value,)).fetchall()
        for (octets,) in rows:
            readable = None if octets is None else octets.decode(errors="backslashreplace")
            if readable is not None and readable.encode() != octets:
                db.execute(
                    f"UPDATE {table} SET {column}=?"  # noqa: S608
                    f" WHERE {key}=? AND CAST({column} AS BLOB)=?",
                    (readable, value, octets),
                )
