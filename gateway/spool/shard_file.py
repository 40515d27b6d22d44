"""The file of a shard: its lock, its tables, and how it is opened."""

from __future__ import annotations

import fcntl
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from gateway.mail.large_content import LARGE

APPLICATION_ID = 0x4D474154  # "MGAT"
VERSION = 2
PAGE_SIZE = 8192

_PARTS = f"""
CREATE TABLE parts (            -- of messages of more than {LARGE} octets; their content is empty
  copy INTEGER NOT NULL,
  number INTEGER NOT NULL,      -- from 0, in order
  octets BLOB NOT NULL,
  PRIMARY KEY (copy, number)
) STRICT;
CREATE TRIGGER parts_go_with_their_message AFTER DELETE ON messages WHEN old.size>{LARGE} BEGIN
  DELETE FROM parts WHERE copy=old.copy;
END;
PRAGMA user_version = {VERSION};
"""  # noqa: S608 (constants)

_SCHEMA = f"""
CREATE TABLE messages (
  copy INTEGER PRIMARY KEY,     -- the queue id for the first copy, an id of its own for the others
  id INTEGER NOT NULL,          -- the queue id that the client was told
  received REAL NOT NULL,
  sender TEXT NOT NULL,
  stream TEXT NOT NULL,
  size INTEGER NOT NULL,
  checksum INTEGER NOT NULL,    -- CRC-32 of content
  envelope TEXT NOT NULL,       -- JSON: client, notes, DSN parameters
  content BLOB NOT NULL
) STRICT;
CREATE TABLE deliveries (
  id INTEGER NOT NULL,          -- the queue id
  number INTEGER NOT NULL,      -- counts the recipients of the message
  copy INTEGER NOT NULL,
  lane TEXT NOT NULL,
  priority INTEGER NOT NULL,
  recipient TEXT NOT NULL,
  parameters TEXT,              -- JSON: DSN parameters and notes of the recipient
  due REAL,                     -- NULL: in the owner's memory, or held
  held TEXT,                    -- why a person has to decide
  attempts INTEGER NOT NULL DEFAULT 0,
  reply TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_by_due ON deliveries (due, lane, priority) WHERE due IS NOT NULL;
CREATE INDEX deliveries_by_lane ON deliveries (lane, priority, due) WHERE due IS NOT NULL;
CREATE TABLE events (number INTEGER PRIMARY KEY, event TEXT NOT NULL) STRICT;
PRAGMA application_id = {APPLICATION_ID};
{_PARTS}
"""


class SpoolError(Exception):
    """The disk did not take what was to be written. `full` tells that it has no room."""

    def __init__(self, text: str, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


@dataclass(frozen=True, slots=True)
class UnreadableShard:
    """A shard that is damaged so that SQLite cannot read it; `reason` is what SQLite says."""

    path: Path
    reason: str

    @property
    def number(self) -> int:
        """The number of the shard."""
        return int(self.path.stem)

    def __str__(self) -> str:
        return f"{self.path} cannot be read: {self.reason}"


class ShardBusyError(Exception):
    """Another process owns the shard."""


def lock(path: Path, owner: str) -> int:
    """Locks a shard for this process and writes into the lock file who that is.

    Returns a descriptor; closing it, or the end of the process, gives the lock up.

    Raises:
        ShardBusyError: another process has it.
        SpoolError: the file cannot be made or written.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been removed with its shard between open and lock.
            if os.fstat(descriptor).st_nlink:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, owner.encode(), 0)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ShardBusyError(str(path)) from None
        except OSError as error:
            os.close(descriptor)
            raise SpoolError(f"{path}: {error.strerror}") from error
        os.close(descriptor)


def renewed_lock(descriptor: int, path: Path) -> int:
    """The lock of a shard whose files somebody may have deleted: if so, taken once more.

    A lock on a file that is gone keeps nobody away.

    Raises:
        ShardBusyError: another process has taken it meanwhile.
        SpoolError: the file cannot be made or written.
    """
    try:
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except OSError:
        pass  # the file is gone, or the folder cannot be read: taking the lock says which
    owner = os.pread(descriptor, 4096, 0).decode()
    renewed = lock(path, owner)
    os.close(descriptor)
    return renewed


def open_database(path: Path) -> apsw.Connection:
    """Opens a shard to write, and makes its tables if it is new.

    Raises:
        SpoolError: the file is no shard, or of another version.
        apsw.Error, OSError: it cannot be opened.
    """
    # SQLite would make it readable for others.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.set_busy_timeout(10_000)
        db.pragma("page_size", PAGE_SIZE)
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "full")
        db.pragma("cache_size", -8192)
        if _is_new(db):
            with db:
                list(db.execute(_SCHEMA))
        version = db.pragma("user_version")
        _check_format(path, db.pragma("application_id"), version)
        if version == 1:
            # Large messages that are there stay in one piece until they have gone out.
            with db:
                list(db.execute(_PARTS))
        # New files are safe only when the folder that names them is.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: Path) -> apsw.Connection:
    """Opens a shard beside its owner.

    Raises:
        apsw.Error: it cannot be opened.
    """
    db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(10_000)
    return db


_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.SQLError)
"""What SQLite says to a file that is damaged: a table may not be found in it any more."""

_WHAT_AN_OWNER_READS = (
    "SELECT count(*) FROM deliveries NOT INDEXED WHERE due IS NULL AND held IS NULL",
    "SELECT count(*) FROM deliveries INDEXED BY deliveries_by_due WHERE due IS NOT NULL",
    "SELECT count(*) FROM deliveries INDEXED BY deliveries_by_lane WHERE due IS NOT NULL",
    "SELECT max(id) FROM messages",
    "SELECT max(number) FROM events",
)


def damage_to(path: Path, error: apsw.Error) -> UnreadableShard:
    """What an error says of a shard, if it says that the shard is damaged.

    Raises:
        SpoolError: something else is wrong.
    """
    if isinstance(error, _DAMAGE):
        return UnreadableShard(path, str(error))
    raise SpoolError(f"{path} cannot be read: {error}") from error


def is_missing(path: Path) -> bool:
    """Whether a shard is not there any more, or not yet, which who reads it hears as an error."""
    try:
        with closing(open_to_read(path)) as db:
            return _is_new(db)
    except apsw.Error:
        return not path.exists()


def _is_new(db: apsw.Connection) -> bool:
    """Whether its tables were not written yet."""
    return db.pragma("application_id") == 0 and not db.pragma("schema_version")


def examine(path: Path) -> UnreadableShard | None:
    """Whether a worker that takes a shard would leave it for a person, because it is damaged.

    Returns None if all is well. The file stays as it is.

    Raises:
        SpoolError: the file is no shard, of another version, or may not be read.
    """
    try:
        with closing(open_to_read(path)) as db:
            if _is_new(db):
                return None
            _check_format(path, db.pragma("application_id"), db.pragma("user_version"))
            for query in _WHAT_AN_OWNER_READS:
                db.execute(query).fetchall()
    except apsw.Error as error:
        return damage_to(path, error)
    return None


def _check_format(path: Path, application_id: int, version: int) -> None:
    if application_id != APPLICATION_ID:
        raise SpoolError(f"{path} is no shard of a spool")
    if version not in (1, VERSION):
        raise SpoolError(
            f"{path} has format {version}; this version of the gateway reads format {VERSION}"
        )


def reason_of(error: Exception) -> str:
    """Why the disk did not do what was asked, for people."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__.removesuffix('Error')}: {error}" if str(error) else repr(error)
