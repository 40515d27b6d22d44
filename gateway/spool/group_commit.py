"""Group commit: a SQLite database that one process owns, and many write at the same time.

Whatever waits is written in one transaction. A commit is a large part of the work for a message, so
it waits a moment for others that are on their way; who is alone does not wait.

Statements run in the event loop's thread, which is a few microseconds each. COMMIT waits for the
disk: where that is quick it runs there too, and otherwise in a thread. (A thread that ran the
statements would wait for the interpreter's lock after each of them.)

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
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import apsw

from gateway.spool.expectation import Expectation
from gateway.spool.shard_file import (
    VERSION,
    ShardBusyError,
    SpoolError,
    open_database,
    reason_of,
    renewed_lock,
)

COMMIT_DELAY = 0.002
"""Seconds that a commit waits for what else is on its way."""
CHECKPOINT_PAGES = 4000
BATCH_BYTES = 16 << 20
REOPEN_SECONDS = 1.0

QUICK_COMMIT = 0.001
"""Seconds up to which a commit, on average, does not leave the event loop's thread."""
COMMITS_AVERAGED = 16
THREADS_SECONDS = 5.0
"""How long commits run in the thread until it is seen whether the disk is quick again."""

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


def _concerns_it_alone(error: Exception, write: _Write) -> bool:
    """Whether a write is wrong itself, and neither the disk nor the others are.

    One about accepted mail is kept until the disk works. If what it changes lies on a damaged page
    that is never, and it must not keep all others waiting. New mail that meets such a page says
    that the file is not fit to take any.
    """
    if isinstance(error, apsw.CorruptError) and write.ids is None:
        return True
    return isinstance(error, _DEFECTS) or not isinstance(error, apsw.Error | OSError)


class GroupCommit(ABC):
    """A database that is written by group commit.

    Attributes:
        expected: what may come soon.
        failure: why the disk cannot be written now; None while it can.
        full: whether that is because the disk has no room.
        commits: how many were made; commit_seconds: how long they took.
    """

    def __init__(self, path: Path, number: int, lock: int) -> None:
        self.path = path
        self.number = number
        self.expected = Expectation()
        self.failure: str | None = None
        self._lock = lock
        self.full = False
        self._pending: list[_Write] = []
        self._awaited = 0  # of those pending, which somebody waits for
        self._flush_scheduled = False
        self._delay: asyncio.TimerHandle | None = None
        self._before: int | None = None  # those that were awaited when the delay began
        self._writing: list[_Write] | None = None
        self._withdrawn: list[int] = []
        self._log_path = path.with_suffix(".db-wal")
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
        self.commits = 0
        self.commit_seconds = 0.0
        self._commit_average = 0.0
        self._threads_until = 0.0
        self._thread = threading.Thread(
            target=self._commit_batches, name=f"commit-{number:04d}", daemon=True
        )
        self._thread.start()

    @abstractmethod
    def withdraw(self, db: apsw.Connection, number: int) -> None:
        """Deletes what was refused and may have reached the disk all the same."""

    def _open(self) -> apsw.Connection:
        db = open_database(self.path)
        db.set_wal_hook(self._note_wal)
        self._files = self._identify_files()
        return db

    def _open_reader(self) -> apsw.Connection:
        reader = apsw.Connection(os.fspath(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        reader.set_busy_timeout(10_000)
        reader.pragma("schema_version")  # opens all of its files, see `_rescue`
        return reader

    def _identify_files(self) -> tuple[tuple[int, int], ...]:
        stats = (self.path.stat(), self._log_path.stat())
        return tuple((stat.st_dev, stat.st_ino) for stat in stats)

    def _check_files(self) -> None:
        """What is written into a file that somebody has deleted or moved away is lost.

        Raises:
            OSError: that has happened.
        """
        if self._identify_files() != self._files:
            raise FileNotFoundError(errno.ENOENT, "the database was replaced")

    # Writing.

    def submit(
        self,
        apply: Callable[[apsw.Connection], None],
        done: Done,
        size: int,
        ids: tuple[int, ...] | None,
    ) -> None:
        """Makes a change in the next transaction.

        Args:
            apply: executes the statements.
            done: told when they are on the disk, or that they will not be.
            size: octets that the change brings, so that a transaction does not grow too large.
            ids: what `withdraw` must delete if the write fails; None for a write that has to be
                made in any case, and waits until the disk works.
        """
        self._pending.append(_Write(apply, done, size, ids))
        self._awaited += ids is not None
        self._idle.clear()
        if self._writing is None and self._db is not None:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._flush_scheduled:
            return
        if self.expected.is_met(self._awaited):
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        elif self._delay is None:
            self._before = self._awaited
            self._delay = self._loop.call_later(COMMIT_DELAY, self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        before, self._before = self._before, None
        db = self._db
        if db is None or self._writing is not None or not self._pending:
            return
        self.expected.learn(self._awaited, before)
        batch: list[_Write] = []
        size = 0
        while len(batch) < len(self._pending) and size < BATCH_BYTES:
            size += self._pending[len(batch)].size
            batch.append(self._pending[len(batch)])
        del self._pending[: len(batch)]
        self._awaited = sum(write.ids is not None for write in self._pending)
        try:
            self._apply(db, batch)
        except Exception as error:
            self._fail(batch, error)
            return
        if not batch:
            self._ready(batch, None)
            return
        self._writing = batch
        if self._loop.time() < self._threads_until:
            self._commits.put((db, batch))
        else:
            self._commit_here(db, batch)

    def _commit_here(self, db: apsw.Connection, batch: list[_Write]) -> None:
        """Commits in the event loop's thread: where an fsync takes less than a millisecond, that
        is less work, and less waiting, than handing it over and back.
        """
        started = perf_counter()
        error: Exception | None = None
        try:
            db.execute("COMMIT")
            self._check_files()
        except Exception as raised:
            error = raised
        seconds = self._note_commit(started)
        self._commit_average += (seconds - self._commit_average) / COMMITS_AVERAGED
        if self._commit_average > QUICK_COMMIT:
            self._threads_until = self._loop.time() + THREADS_SECONDS
            self._commit_average = 0.0
        self._committed(batch, error)
        if error is None and self._wal_pages > CHECKPOINT_PAGES:
            self._commits.put((db, []))
        else:
            self._ready(batch, error)

    def _apply(self, db: apsw.Connection, batch: list[_Write]) -> None:
        """Runs the batch's statements in a transaction, without a write that is broken itself."""
        while batch:
            db.execute("BEGIN IMMEDIATE")
            for write in batch:
                try:
                    write.apply(db)
                except Exception as error:
                    if not _concerns_it_alone(error, write):
                        raise
                    log.exception("shard %04d: a write cannot be made", self.number)
                    db.execute("ROLLBACK")
                    batch.remove(write)
                    _answer(write, SpoolError(repr(error)))
                    break
            else:
                return

    def _commit_batches(self) -> None:
        """The commit thread: takes transactions that are ready and waits for the disk.

        An empty batch has been committed; only the checkpoint is left to do.
        """
        while (job := self._commits.get()) is not None:
            db, batch = job
            error: Exception | None = None
            if batch:
                started = perf_counter()
                try:
                    db.execute("COMMIT")
                    self._check_files()
                except Exception as raised:
                    error = raised
                self._note_commit(started)
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

    def _note_commit(self, started: float) -> float:
        """Counts a commit, of which there is one at a time; returns how long it took."""
        seconds = perf_counter() - started
        self.commits += 1
        self.commit_seconds += seconds
        return seconds

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
            self._schedule_flush()
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
        self._awaited = 0
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
                    self.withdraw(db, number)
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

    # The end.

    @property
    def is_written(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._pending and self._writing is None

    async def drain(self) -> None:
        """Returns when everything that was submitted is written."""
        await self._idle.wait()

    def close(self, remove: bool = False) -> None:
        """Gives the shard up; `remove` deletes its files. Call `drain` first."""
        self._closed = True
        if self._delay is not None:
            self._delay.cancel()
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
