"""Asks the database whom it names, at each recipient."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from plugins.suppression.address import Spelling, Target, root
from plugins.suppression.database import DatabaseError, identify, open_to_read
from plugins.suppression.entry import EVERYWHERE
from plugins.suppression.pattern import Pattern
from plugins.suppression.verdict import Match

_CHECK_EVERY = 1.0

_COLUMNS = "SELECT address, scope, reason FROM"
# The plus keeps SQLite from looking for each scope of each address by itself.
_HOLDS = "+scope IN ('', ?, ?) AND (expires IS NULL OR expires > ?)"
_PATTERNS = "SELECT address, scope, reason, expires FROM entries WHERE instr(address, '*')"
_MARK = "SELECT value FROM marks WHERE name = ?"


class _PatternEntry(NamedTuple):
    pattern: Pattern
    match: Match
    expires: int | None


@lru_cache(maxsize=256)
def _query(count: int) -> str:
    # So the names are looked up one after the other; for IN, SQLite would make a table of them.
    names = f"WITH names (name) AS (VALUES {','.join(['(?)'] * count)})"
    return f"{names} {_COLUMNS} names CROSS JOIN entries ON address = name WHERE {_HOLDS}"


_QUERY_ROOT = f"{_COLUMNS} entries WHERE root = ? AND {_HOLDS}"


class Lookup:
    """One connection of a worker to the database.

    Nothing of the list is kept in memory but its patterns, and these are read again when one of
    them has changed.

    Args:
        path: the database, which must be there.
        spelling: what makes no difference between addresses.
        clock: seconds since the epoch.

    Raises:
        DatabaseError: the database cannot be used.
    """

    def __init__(self, path: Path, spelling: Spelling, clock: Callable[[], float]) -> None:
        self._path = path
        self._spelling = spelling
        self._clock = clock
        self._db: apsw.Connection | None = None
        self._file = (0, 0)
        self._checked = 0.0
        self._version = -1
        self._patterns_mark = -1
        self._patterns: list[_PatternEntry] = []
        self._open()

    def find(self, target: Target, sender_scope: str, stream_scope: str) -> list[Match]:
        """The entries that name an address and hold for such mail, in no order.

        Args:
            target: the address.
            sender_scope: the scope of the mail's sender domain.
            stream_scope: the scope of the mail's stream.

        Raises:
            DatabaseError: the database cannot be asked now.
        """
        now = self._clock()
        names = target.names
        conditions = (sender_scope, stream_scope, now)
        try:
            db = self._connection(now)
            rows: list[Any] = db.execute(_query(len(names)), (*names, *conditions)).fetchall()
            if not self._spelling.is_exact:
                same = root(target.address) or target.address
                rows += [
                    row
                    for row in db.execute(_QUERY_ROOT, (same, *conditions))
                    if self._spelling.reduced(row[0]) == target.reduced
                ]
            if db.data_version() != self._version:
                self._read_patterns(db)
        except apsw.Error as error:
            self.close()
            raise DatabaseError(f"{self._path} cannot be read: {error}") from error
        found = [Match(*row) for row in rows]
        if self._patterns:
            scopes = (EVERYWHERE, sender_scope, stream_scope)
            found += [
                entry.match
                for entry in self._patterns
                if entry.match.scope in scopes
                and (entry.expires is None or entry.expires > now)
                and entry.pattern.names(target)
            ]
        return found

    def has_stream_scopes(self) -> bool:
        """Whether there is, or ever was, an entry for a stream.

        Raises:
            DatabaseError: the database cannot be asked now.
        """
        try:
            return bool(self._connection(self._clock()).execute(_MARK, ("streams",)).get)
        except apsw.Error as error:
            self.close()
            raise DatabaseError(f"{self._path} cannot be read: {error}") from error

    def close(self) -> None:
        """Closes the database; the next question opens it again."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _connection(self, now: float) -> apsw.Connection:
        # The clock may be set back.
        if self._db is not None and abs(now - self._checked) >= _CHECK_EVERY:
            if identify(self._path) != self._file:
                self.close()
            self._checked = now
        return self._db or self._open()

    def _open(self) -> apsw.Connection:
        self._db = db = open_to_read(self._path)
        self._file = identify(self._path)
        self._checked = self._clock()
        self._version = self._patterns_mark = -1
        return db

    def _read_patterns(self, db: apsw.Connection) -> None:
        mark = db.execute(_MARK, ("patterns",)).get
        if mark != self._patterns_mark:
            self._patterns = [
                _PatternEntry(Pattern(address), Match(address, scope, reason), expires)
                for address, scope, reason, expires in db.execute(_PATTERNS)
            ]
            self._patterns_mark = mark
        self._version = db.data_version()
