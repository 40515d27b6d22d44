"""The list's database: one SQLite file that all processes share.

Readers never wait for writers (WAL), and a change is seen by the next look-up of every process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

FILE_NAME = "suppression.db"
APPLICATION_ID = 0x53555050
VERSION = 1

CACHE_KIB = 8192
"""Of the pages of a large list, those that every look-up passes take less. More would only be a
copy of what the system keeps in its own cache, and mapping the file would count as ours too."""

WAIT_SECONDS = 5.0
"""How long a writer waits for another one."""
_RETRY_SECONDS = 0.001

# An address with its entries is one place in the tree. `root` is the address that this is a
# spelling of (`taro@…` of `taro+news@…`), where it is another one. `marks` holds a number that
# every change of a pattern raises, and whether there ever was an entry for a stream, so that
# look-ups need not ask for either.
_SCHEMA = """
CREATE TABLE entries (
    address TEXT NOT NULL,
    scope TEXT NOT NULL,
    reason TEXT NOT NULL,
    expires INTEGER,
    added INTEGER NOT NULL,
    source TEXT NOT NULL,
    note TEXT NOT NULL,
    root TEXT,
    PRIMARY KEY (address, scope, reason)
) STRICT, WITHOUT ROWID;
CREATE INDEX roots ON entries (root) WHERE root IS NOT NULL;
CREATE INDEX patterns ON entries (address) WHERE instr(address, '*');
CREATE TABLE incidents (
    address TEXT NOT NULL,
    kind TEXT NOT NULL,
    event TEXT NOT NULL,
    time REAL NOT NULL,
    counted INTEGER NOT NULL,
    PRIMARY KEY (address, kind, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX incident_times ON incidents (time);
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO marks VALUES ('patterns', 0), ('streams', 0);
CREATE TRIGGER pattern_added AFTER INSERT ON entries WHEN instr(new.address, '*')
    BEGIN UPDATE marks SET value = value + 1 WHERE name = 'patterns'; END;
CREATE TRIGGER pattern_changed AFTER UPDATE ON entries WHEN instr(new.address, '*')
    BEGIN UPDATE marks SET value = value + 1 WHERE name = 'patterns'; END;
CREATE TRIGGER pattern_removed AFTER DELETE ON entries WHEN instr(old.address, '*')
    BEGIN UPDATE marks SET value = value + 1 WHERE name = 'patterns'; END;
CREATE TRIGGER stream_added AFTER INSERT ON entries WHEN new.scope GLOB 'stream:*'
    BEGIN UPDATE marks SET value = 1 WHERE name = 'streams' AND value = 0; END;
"""


class DatabaseError(Exception):
    """The database cannot be used; the text names the file and says why."""


def open_to_write(path: Path) -> apsw.Connection:
    """Opens the database, and makes it where there is none. Several processes may do so at once.

    Raises:
        DatabaseError: it cannot be opened or made, is damaged, or is of another version.
    """
    try:
        # SQLite would make it readable for others.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except (OSError, apsw.Error) as error:
        raise _described(path, error) from error
    try:
        db.set_busy_handler(_patience())
        _use_wal(db)
        db.pragma("synchronous", "full")
        db.pragma("cache_size", -CACHE_KIB)
        db.execute("BEGIN IMMEDIATE")
        if db.pragma("application_id") == 0 and not db.pragma("schema_version"):
            db.execute(_SCHEMA)
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", VERSION)
        db.execute("COMMIT")
        _check_version(path, db)
    except apsw.Error as error:
        db.close()
        raise _described(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: Path) -> apsw.Connection:
    """Opens a database that is there, to be asked only.

    Raises:
        DatabaseError: it cannot be opened, is damaged, or is of another version.
    """
    try:
        db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise _described(path, error) from error
    try:
        # Only the closing of the last connection, or a recovery, ever makes a reader wait.
        db.set_busy_timeout(1000)
        db.pragma("cache_size", -CACHE_KIB)
        db.pragma("query_only", 1)
        _check_version(path, db)
    except apsw.Error as error:
        db.close()
        raise _described(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def open_empty() -> apsw.Connection:
    """A database without entries, in memory: what there is to read where none was made yet."""
    db = apsw.Connection(":memory:")
    db.execute(_SCHEMA)
    return db


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """A transaction that writes; it is undone if its block raises.

    Raises:
        DatabaseError: another one wrote for longer than could be waited, or the disk failed.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    except apsw.Error as error:
        raise DatabaseError(f"{db.filename} cannot be written: {error}") from error


def read(db: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The rows that a query finds, one after the other.

    Raises:
        DatabaseError: the database cannot be read.
    """
    try:
        yield from db.execute(sql, values)
    except apsw.Error as error:
        raise DatabaseError(f"{db.filename} cannot be read: {error}") from error


def identify(path: Path) -> tuple[int, int]:
    """Which file that is. One that was replaced lives on for those who have it open.

    Raises:
        DatabaseError: there is none.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _described(path, error) from error
    return status.st_dev, status.st_ino


def _use_wal(db: apsw.Connection) -> None:
    """Two that do this at once can lock each other out, and SQLite then does not ask to wait."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            db.pragma("journal_mode", "wal")
            return
        except apsw.BusyError:
            if time.monotonic() > end:
                raise
            time.sleep(_RETRY_SECONDS)


def _patience() -> Callable[[int], bool]:
    """A busy handler that asks every millisecond.

    SQLite's own waits ever longer, up to 100 ms, and would miss the gaps that an import leaves.
    """
    end = 0.0

    def wait(tries: int) -> bool:
        nonlocal end
        now = time.monotonic()
        if not tries:
            end = now + WAIT_SECONDS
        if now > end:
            return False
        time.sleep(_RETRY_SECONDS)
        return True

    return wait


def _check_version(path: Path, db: apsw.Connection) -> None:
    if db.pragma("application_id") != APPLICATION_ID:
        raise DatabaseError(f"{path} is no suppression list; move it away, and a new one is made")
    version = db.pragma("user_version")
    if version != VERSION:
        raise DatabaseError(
            f"{path} has format {version}, and this version of the gateway reads format {VERSION}: "
            "export it with the version that made it, move it away, and import it"
        )


def _described(path: Path, error: Exception) -> DatabaseError:
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return DatabaseError(
            f"{path} is damaged: {error}; move it away with its -wal and -shm files, "
            "and restore a copy or import an export"
        )
    if isinstance(error, apsw.BusyError):
        return DatabaseError(f"{path} is locked by another program: {error}")
    if isinstance(error, OSError):
        return DatabaseError(f"{path}: {error.strerror}")
    return DatabaseError(f"{path} cannot be used: {error}")
