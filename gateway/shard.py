"""A shard of the spool: one SQLite database that one process owns, written by group commit.

The owner holds an exclusive lock on a file beside the database; the kernel drops it when the
process dies. Everything that waits is written in one transaction. Statements run in the event
loop's thread, which is a few microseconds each; only COMMIT, which waits for the disk, runs in a
thread. (A thread that ran the statements would wait for the interpreter's lock after each of them.)

After a storage error the handle is never used again: what waited to be accepted fails, what was
done with accepted mail is kept in memory and written as soon as a new handle works.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from gateway import queue_id
from gateway.events import Event
from gateway.queue_entry import (
    Entry,
    Envelope,
    Item,
    Placed,
    Settlement,
    envelope_of,
    parameters_of,
    recipient_of,
)
from gateway.shard_file import (
    VERSION,
    ShardBusyError,
    SpoolError,
    lock,
    open_database,
    reason_of,
    renewed_lock,
)

CHECKPOINT_PAGES = 4000
BATCH_BYTES = 16 << 20
REOPEN_SECONDS = 1.0

_INSERT_MESSAGE = "INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?)"
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
_DELETE_COPIES = "DELETE FROM messages WHERE copy IN (SELECT copy FROM deliveries WHERE id=?)"
_INSERT_EVENT = "INSERT INTO events VALUES (?,?)"

_DEFECTS = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)
"""What SQLite says to a write that is wrong itself; all else is about the disk."""

log = logging.getLogger("gateway.spool")


Done = Callable[[SpoolError | None], None]
"""Called in the event loop when a write is on the disk, or with why it is not."""


@dataclass(slots=True)
class _Write:
    apply: Callable[[apsw.Connection], None]
    done: Done
    size: int
    ids: tuple[int, ...] | None
    """Queue ids that must not exist if the write fails; None for a write that is kept."""


def _answer(write: _Write, error: SpoolError | None) -> None:
    """Tells one write how it ended; a defect in who waits for it must not reach the others."""
    try:
        write.done(error)
    except Exception:
        log.exception("the end of a write could not be handled")


class Shard:
    """An owned shard.

    Attributes:
        failure: why the disk cannot be written now; None while it can.
        full: whether that is because the disk has no room.
    """

    def __init__(self, path: Path, number: int, lock: int) -> None:
        self.path = path
        self.number = number
        self.failure: str | None = None
        self._lock = lock
        self._last_id = 0
        self._last_event = 0
        self.full = False
        self._pending: list[_Write] = []
        self._flush_scheduled = False
        self._writing: list[_Write] | None = None
        self._withdrawn: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._reopen: asyncio.TimerHandle | None = None
        self._db: apsw.Connection | None = self._open()
        self._reader = self._open_reader()
        self._commits: queue.SimpleQueue[tuple[apsw.Connection, list[_Write]] | None] = (
            queue.SimpleQueue()
        )
        self._wal_pages = 0
        self._thread = threading.Thread(
            target=self._commit_batches, name=f"commit-{number:04d}", daemon=True
        )
        self._thread.start()

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

    def _open(self) -> apsw.Connection:
        db = open_database(self.path)
        db.set_wal_hook(self._note_wal)
        self._files = self._identify_files()
        return db

    def _open_reader(self) -> apsw.Connection:
        reader = apsw.Connection(os.fspath(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        reader.pragma("schema_version")  # opens all of its files, see `_rescue`
        return reader

    def _identify_files(self) -> tuple[tuple[int, int], ...]:
        stats = (path.stat() for path in (self.path, self.path.with_suffix(".db-wal")))
        return tuple((stat.st_dev, stat.st_ino) for stat in stats)

    def _check_files(self) -> None:
        """What is written into a file that somebody has deleted or moved away is lost.

        Raises:
            OSError: that has happened.
        """
        if self._identify_files() != self._files:
            raise FileNotFoundError(errno.ENOENT, "the database was replaced")

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
        self._submit(lambda db: self._insert(db, placed, events), done, size, ids)

    def settle(self, settlement: Settlement, done: Done) -> None:
        """Writes what became of accepted mail: outcome, events and reports in one transaction.

        While the disk fails the write waits, and is made when the disk works again.
        """
        self._submit(lambda db: self._settle(db, settlement), done, 0, None)

    def change(self, write: Callable[[apsw.Connection], None], done: Done) -> None:
        """Makes a change that a person asked for; waits like `settle`."""
        self._submit(write, done, 0, None)

    def _submit(
        self,
        apply: Callable[[apsw.Connection], None],
        done: Done,
        size: int,
        ids: tuple[int, ...] | None,
    ) -> None:
        self._pending.append(_Write(apply, done, size, ids))
        self._idle.clear()
        if self._writing is None and not self._flush_scheduled and self._db is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

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
                db.execute(
                    _INSERT_MESSAGE,
                    (
                        envelope.copy,
                        envelope.id,
                        envelope.received,
                        envelope.sender,
                        envelope.stream,
                        envelope.size,
                        zlib.crc32(entry.content),
                        envelope.to_json(),
                        entry.content,
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
                        parameters_of(row.recipient),
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
        if settlement.done:
            db.execute(_DELETE_COPY, (envelope.copy, envelope.id, envelope.copy))
        self._insert(db, settlement.reports, settlement.events)

    def _flush(self) -> None:
        self._flush_scheduled = False
        db = self._db
        if db is None or self._writing is not None or not self._pending:
            return
        batch: list[_Write] = []
        size = 0
        while len(batch) < len(self._pending) and size < BATCH_BYTES:
            size += self._pending[len(batch)].size
            batch.append(self._pending[len(batch)])
        del self._pending[: len(batch)]
        try:
            self._apply(db, batch)
        except Exception as error:
            self._fail(batch, error)
            return
        if not batch:
            self._ready(batch, None)
            return
        self._writing = batch
        self._commits.put((db, batch))

    def _apply(self, db: apsw.Connection, batch: list[_Write]) -> None:
        """Runs the batch's statements in a transaction, without a write that is broken itself."""
        while batch:
            db.execute("BEGIN IMMEDIATE")
            for write in batch:
                try:
                    write.apply(db)
                except Exception as error:
                    if isinstance(error, apsw.Error | OSError) and not isinstance(error, _DEFECTS):
                        raise
                    log.exception("shard %04d: a write cannot be made", self.number)
                    db.execute("ROLLBACK")
                    batch.remove(write)
                    _answer(write, SpoolError(repr(error)))
                    break
            else:
                return

    def _commit_batches(self) -> None:
        """The commit thread: takes transactions that are ready and waits for the disk."""
        while (job := self._commits.get()) is not None:
            db, batch = job
            error: Exception | None = None
            try:
                db.execute("COMMIT")
                self._check_files()
            except Exception as raised:
                error = raised
            # The loop is gone only when the process is about to be.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._committed, batch, error)
            if error is None and self._wal_pages > CHECKPOINT_PAGES:
                try:
                    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                except apsw.Error as raised:
                    error = raised
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ready, batch, error)

    def _note_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return 0

    def _committed(self, batch: list[_Write], error: Exception | None) -> None:
        if error is not None:
            return  # `_ready` follows and handles it
        for write in batch:
            _answer(write, None)
        batch.clear()

    def _ready(self, batch: list[_Write], error: Exception | None) -> None:
        self._writing = None
        if error is not None:
            self._fail(batch, error)
        elif self._pending:
            self._flush()
        else:
            self._idle.set()

    # When the disk fails.

    def _fail(self, batch: list[_Write], error: Exception) -> None:
        self.failure = reason_of(error)
        self.full = isinstance(error, apsw.FullError) or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        )
        log.error("shard %04d cannot be written: %s", self.number, self.failure)
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(apsw.Error):
                db.close()
        kept: list[_Write] = []
        for write in [*batch, *self._pending]:
            if write.ids is not None:
                self._withdrawn += write.ids
                _answer(write, SpoolError(self.failure, self.full))
            else:
                kept.append(write)
        self._pending = kept
        if not self._closed and self._reopen is None:
            self._reopen = self._loop.call_later(REOPEN_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._reopen = None
        db: apsw.Connection | None = None
        try:
            self._lock = renewed_lock(self._lock, self.path.with_suffix(".lock"))
            deleted = not self.path.exists()
            if deleted:
                for suffix in (".db-wal", ".db-shm"):
                    self.path.with_suffix(suffix).unlink(missing_ok=True)
            db = self._open()
            if deleted:
                self._rescue(db)
            # What was refused may have reached the disk before the error did; the client keeps
            # it and sends it again. The write also shows that there is room again.
            with db:
                for number in self._withdrawn:
                    db.execute(_DELETE_COPIES, (number,))
                    db.execute("DELETE FROM deliveries WHERE id=?", (number,))
                db.pragma("user_version", VERSION)
            reader = self._open_reader()
        except (apsw.Error, OSError, SpoolError, ShardBusyError) as error:
            if db is not None:
                with contextlib.suppress(apsw.Error):
                    db.close()
            self.failure = reason_of(error)
            self._reopen = self._loop.call_later(REOPEN_SECONDS, self._try_again)
            return
        with contextlib.suppress(apsw.Error):
            self._reader.close()
        self._reader = reader
        self._withdrawn.clear()
        self._db = db
        self.failure = None
        self.full = False
        log.warning("shard %04d can be written again", self.number)
        self._flush()
        if not self._pending and self._writing is None:
            self._idle.set()

    def _rescue(self, db: apsw.Connection) -> None:
        """Copies what is still open here into a new file: a deleted file lives until it is closed.

        Raises:
            apsw.Error: that is not possible.
        """
        log.error("%s was deleted: what it held is written again", self.path)
        try:
            with db.backup("main", self._reader, "main") as backup:
                backup.step()
        except apsw.Error:
            # An empty file would pass for an empty queue at the next try.
            self.path.unlink()
            raise

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
        sql = (
            "SELECT id, number, copy, recipient, parameters, attempts FROM deliveries"
            " WHERE lane=? AND priority=? AND due<=? ORDER BY due LIMIT ?"
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
            entry = entries.get(copy)
            if entry is None:
                envelope = self._envelope(copy)
                if envelope is None:
                    log.error("%s: its message is missing", queue_id.to_text(id_))
                    continue
                entry = entries[copy] = Entry(self, envelope, lane, priority, [])
            entry.items.append(Item(number, recipient_of(recipient, parameters), attempts))
            count += 1
        return list(entries.values()), seen == limit + len(known) or count == limit

    def _envelope(self, copy: int) -> Envelope | None:
        row = self._reader.execute(
            "SELECT id, received, sender, stream, size, envelope FROM messages WHERE copy=?",
            (copy,),
        ).fetchone()
        return None if row is None else envelope_of(copy, *row)

    def query(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Rows that a query finds."""
        return list(self._reader.execute(sql, values))

    def content(self, copy: int) -> bytes | None:
        """The bytes of a copy; None if they are gone or damaged."""
        row = self._reader.execute(
            "SELECT content, checksum FROM messages WHERE copy=?", (copy,)
        ).fetchone()
        if row is None or zlib.crc32(row[0]) != row[1]:
            return None
        content: bytes = row[0]
        return content

    def has_events(self, until: int) -> bool:
        """Whether the outbox has an event up to that number."""
        sql = "SELECT EXISTS (SELECT 1 FROM events WHERE number<=?)"
        return bool(self._reader.execute(sql, (until,)).get)

    def is_empty(self) -> bool:
        """Whether there is neither mail nor an event left."""
        return (
            not self._pending
            and self._writing is None  # a commit that has not ended cannot be seen yet
            and not self._reader.execute(
                "SELECT EXISTS (SELECT 1 FROM deliveries) OR EXISTS (SELECT 1 FROM events)"
            ).get
        )

    # The end.

    async def drain(self) -> None:
        """Returns when everything that was submitted is written."""
        await self._idle.wait()

    def close(self, remove: bool = False) -> None:
        """Gives the shard up; `remove` deletes its files. Call `drain` first."""
        self._closed = True
        if self._reopen is not None:
            self._reopen.cancel()
        self._commits.put(None)
        self._thread.join()
        with contextlib.suppress(apsw.Error):
            self._reader.close()
        if self._db is not None:
            with contextlib.suppress(apsw.Error):
                self._db.close()
        if remove:
            for suffix in (".db", ".db-wal", ".db-shm", ".lock"):
                self.path.with_suffix(suffix).unlink(missing_ok=True)
        os.close(self._lock)
