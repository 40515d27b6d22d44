"""The file of what became of each message for each recipient."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

APPLICATION = 0x67775270
VERSION = 1

MILESTONES = (
    "accepted",
    "suppressed",
    "discarded",
    "delivered",
    "bounced",
    "expired",
    "dropped",
)
"""What can become of a message for a recipient; a row has when it first did."""

KINDS = {"opened": "o", "clicked": "c", "unsubscribed": "u", "complained": "p"}
"""What people do, or programs in their place, and how rows of `actions` call it."""

_SCHEMA = f"""
CREATE TABLE recipients (
  message_id TEXT NOT NULL, recipient TEXT NOT NULL,
  campaign TEXT NOT NULL, variant TEXT NOT NULL, domain TEXT NOT NULL, stream TEXT NOT NULL,
  first REAL NOT NULL,
  {", ".join(f"{name} REAL" for name in MILESTONES)},
  PRIMARY KEY (message_id, recipient)
) WITHOUT ROWID;
CREATE INDEX recipients_by_time ON recipients (first);
-- Something that a person did, or a program. The same one may come again, and with the robot that
-- it was found to come from.
CREATE TABLE actions (
  message_id TEXT NOT NULL, recipient TEXT NOT NULL, kind TEXT NOT NULL, time REAL NOT NULL,
  url TEXT NOT NULL, robot TEXT NOT NULL,
  PRIMARY KEY (message_id, recipient, kind, time, url)
) WITHOUT ROWID;
CREATE TABLE conversions (
  message_id TEXT NOT NULL, recipient TEXT NOT NULL, reference TEXT NOT NULL, time REAL NOT NULL,
  value TEXT NOT NULL, currency TEXT NOT NULL, robot TEXT NOT NULL,
  PRIMARY KEY (message_id, recipient, reference, time)
) WITHOUT ROWID;
-- What is left of recipients that are forgotten.
CREATE TABLE totals (
  day TEXT NOT NULL, campaign TEXT NOT NULL, variant TEXT NOT NULL, domain TEXT NOT NULL,
  stream TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY (day, campaign, variant, domain, stream, name)
) WITHOUT ROWID;
CREATE TABLE link_totals (
  day TEXT NOT NULL, campaign TEXT NOT NULL, variant TEXT NOT NULL, domain TEXT NOT NULL,
  stream TEXT NOT NULL, url TEXT NOT NULL, people INTEGER NOT NULL, clicks INTEGER NOT NULL,
  PRIMARY KEY (day, campaign, variant, domain, stream, url)
) WITHOUT ROWID;
CREATE TABLE sale_totals (
  day TEXT NOT NULL, campaign TEXT NOT NULL, variant TEXT NOT NULL, domain TEXT NOT NULL,
  stream TEXT NOT NULL, currency TEXT NOT NULL, orders INTEGER NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (day, campaign, variant, domain, stream, currency)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""


def open_to_write(path: Path) -> apsw.Connection:
    """Opens the file, and makes it if there is none.

    Raises:
        ValueError: it cannot be opened, or is no such file of this version.
    """
    try:
        # SQLite would make it readable for others.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except (OSError, apsw.Error) as error:
        raise ValueError(f"{path} cannot be opened: {error}") from None
    try:
        db.set_busy_timeout(10_000)
        # A transaction that read first could not wait for its turn to write.
        db.transaction_mode = "IMMEDIATE"
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "normal")
        with db:
            if not db.pragma("application_id") and not db.pragma("schema_version"):
                list(db.execute(_SCHEMA))
        _check(db)
    except (apsw.Error, ValueError) as error:
        db.close()
        raise ValueError(f"{path} cannot be used: {error}") from None
    return db


def open_to_read(path: Path) -> apsw.Connection:
    """Opens the file while the service may be writing it.

    Raises:
        ValueError: there is none, or it is no such file of this version.
    """
    if not path.exists():
        raise ValueError(
            f"{path} is not there: nothing was counted yet; the plugin counts while "
            "the gateway runs"
        )
    try:
        db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    try:
        db.set_busy_timeout(10_000)
        _check(db)
    except (apsw.Error, ValueError) as error:
        db.close()
        raise ValueError(f"{path} cannot be read: {error}") from None
    return db


def _check(db: apsw.Connection) -> None:
    if db.pragma("application_id") != APPLICATION:
        raise ValueError("it is not a file of this plugin")
    version = db.pragma("user_version")
    if version != VERSION:
        raise ValueError(f"it has format {version}; this version reads format {VERSION}")
