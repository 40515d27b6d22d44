"""What of the quotas is used: an SQLite file that all workers share.

It is written in one transaction for each message, so that all of them together never take more
than there is. Nothing waits for the disk: a crash of the machine may forget the last moments, a
crash of the gateway nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw

from gateway.hooks import Recipient
from plugins.throttle.window import Window

FILE_NAME = "quotas.db"
APPLICATION_ID = 0x54485154
VERSION = 1

WAIT_SECONDS = 5.0
"""How long a writer waits for another one, which takes well below a millisecond."""
_RETRY_SECONDS = 0.0005

_PURGED_AT_ONCE = 300
_PURGE_EVERY = 1.0
"""What is over is removed a little at a time, so that no message waits for it."""
_GRACE = 3600.0
"""Seconds by which the clock may be set back without anybody getting a quota twice."""

_SCHEMA = """
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    quota TEXT NOT NULL,
    subject TEXT NOT NULL,
    period TEXT NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0,
    recipients INTEGER NOT NULL DEFAULT 0,
    UNIQUE (quota, subject, period, start)
) STRICT;
CREATE INDEX ends ON windows (end);
CREATE TABLE seen (
    window INTEGER NOT NULL,
    recipient INTEGER NOT NULL,
    PRIMARY KEY (window, recipient)
) STRICT, WITHOUT ROWID;
"""

_FIND = (
    "INSERT INTO windows (quota, subject, period, start, end) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET end = excluded.end RETURNING id, messages, recipients"
)
_COUNT = "UPDATE windows SET messages = messages + 1, recipients = recipients + ? WHERE id = ?"
_SEE = "INSERT OR IGNORE INTO seen VALUES (?, ?)"
_OVER = "SELECT id FROM windows WHERE end <= ? LIMIT 1"
_FORGET = (
    "DELETE FROM seen WHERE window = ?1 AND recipient IN "
    "(SELECT recipient FROM seen WHERE window = ?1 LIMIT ?2)"
)


class LedgerError(Exception):
    """The file cannot be used; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a message wants of one window of one subject's part of a quota.

    `messages` and `recipients` are the limits; None: without.
    """

    quota: str
    subject: str
    window: Window
    messages: int | None
    recipients: int | None
    addresses: Sequence[int]


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a window is used."""

    quota: str
    subject: str
    window: Window
    messages: int
    recipients: int


def addresses_of(recipients: Sequence[Recipient]) -> list[int]:
    """Recipients as the ledger knows them, each once: 64 bits of a hash, whatever their case."""
    texts = {recipient.address.lower() for recipient in recipients}
    return [
        int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)
        for text in texts
    ]


class Ledger:
    """One process's connection to the file, which is made if need be.

    Raises:
        LedgerError: it cannot be opened or made, is damaged, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._purged = 0.0
        try:
            # SQLite would make it readable for others.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        except (OSError, apsw.Error) as error:
            raise LedgerError(f"{path} cannot be opened: {error}") from error
        try:
            self._prepare()
        except apsw.Error as error:
            self.close()
            raise LedgerError(
                f"{path} cannot be used: {error}; if it is damaged, move it away with its -wal and "
                "-shm files, and a new one is made"
            ) from error
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        db = self._db
        db.set_busy_handler(_patience())
        _use_wal(db)
        # The file stays sound whatever happens; only the last moments may be forgotten.
        db.pragma("synchronous", "normal")
        db.execute("BEGIN IMMEDIATE")
        if db.pragma("application_id") == 0 and not db.pragma("schema_version"):
            db.execute(_SCHEMA)
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", VERSION)
        db.execute("COMMIT")
        if (db.pragma("application_id"), db.pragma("user_version")) != (APPLICATION_ID, VERSION):
            raise LedgerError(
                f"{self._path} is of another program or version; move it away, "
                "and a new one is made"
            )

    def charge(self, claims: Sequence[Claim], now: float) -> list[tuple[Claim, str]]:
        """Takes all that a message wants, or nothing.

        Returns the claims that exceed their limits, each with the unit that does; none if all was
        taken.

        Raises:
            LedgerError: the file cannot be written.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                exceeded: list[tuple[Claim, str]] = []
                for claim in claims:
                    unit = self._claim(claim)
                    if unit is not None:
                        exceeded.append((claim, unit))
                if not exceeded:
                    self._purge(now)
                db.execute("ROLLBACK" if exceeded else "COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except apsw.Error as error:
            raise LedgerError(f"{self._path} cannot be written: {error}") from error
        return exceeded

    def _claim(self, claim: Claim) -> str | None:
        """Takes what is claimed, and says which unit is too much."""
        db = self._db
        window = claim.window
        id_, messages, recipients = db.execute(
            _FIND, (claim.quota, claim.subject, window.period, window.start, window.end)
        ).get
        if claim.messages is not None and messages >= claim.messages:
            return "messages"
        new = 0
        if claim.recipients is not None:
            before = db.total_changes()
            db.executemany(_SEE, ((id_, address) for address in claim.addresses))
            new = db.total_changes() - before
            if recipients + new > claim.recipients:
                return "recipients"
        db.execute(_COUNT, (new, id_))
        return None

    def _purge(self, now: float) -> None:
        """Removes a little of what is over."""
        if 0 <= now - self._purged < _PURGE_EVERY:
            return
        over = self._db.execute(_OVER, (int(now - _GRACE),)).get
        if over is None:
            self._purged = now
            return
        before = self._db.total_changes()
        self._db.execute(_FORGET, (over, _PURGED_AT_ONCE))
        if self._db.total_changes() - before < _PURGED_AT_ONCE:
            self._db.execute("DELETE FROM windows WHERE id = ?", (over,))

    def used(self, now: float) -> list[Use]:
        """How much is used of all windows that are not over.

        Raises:
            LedgerError: the file cannot be read.
        """
        query = (
            "SELECT quota, subject, period, start, end, messages, recipients FROM windows "
            "WHERE end > ? ORDER BY quota, subject, end"
        )
        try:
            rows: list[Any] = self._db.execute(query, (int(now),)).fetchall()
        except apsw.Error as error:
            raise LedgerError(f"{self._path} cannot be read: {error}") from error
        return [
            Use(quota, subject, Window(period, start, end), messages, recipients)
            for quota, subject, period, start, end, messages, recipients in rows
        ]

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


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
    """A busy handler that asks often: SQLite's own waits longer and longer."""
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
