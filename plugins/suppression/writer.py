"""Changes the list, in transactions so short that others hardly wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw

from plugins.suppression.address import root
from plugins.suppression.database import DatabaseError, open_to_write, read, transaction
from plugins.suppression.entry import Entry

BATCH_SECONDS = 0.05
"""About how long each transaction of a long change takes."""
GAP_SECONDS = 0.003
"""How long others get between two of them; they ask every millisecond."""
FIRST_BATCH = 1000
SMALLEST_BATCH = 100
LARGEST_BATCH = 50_000

STAGE_KIB = 65_536
"""Memory for the rows of an import; what does not fit goes into a temporary file."""

# What is there is never made weaker: the later end holds, and a note goes only for another one.
_UPSERT = """
INSERT INTO {table} {rows}
ON CONFLICT (address, scope, reason) DO UPDATE SET
    expires = iif(expires ISNULL OR excluded.expires ISNULL, NULL, max(expires, excluded.expires)),
    note = iif(excluded.note = '', note, excluded.note)
WHERE (expires NOTNULL AND (excluded.expires ISNULL OR excluded.expires > expires))
    OR excluded.note NOT IN ('', note)
"""
_VALUES = "VALUES (?,?,?,?,?,?,?,?)"
_MAKE_STAGE = """
CREATE TEMP TABLE staged (
    address TEXT, scope TEXT, reason TEXT, expires INTEGER, added INTEGER, source TEXT, note TEXT,
    root TEXT, PRIMARY KEY (address, scope, reason)
) WITHOUT ROWID
"""
_STAGE = _UPSERT.format(table="temp.staged", rows=_VALUES)
_PUT = _UPSERT.format(table="main.entries", rows=_VALUES)
# A batch begins after one row of the stage and ends with another.
_BATCH_END = (
    "SELECT address, scope, reason FROM temp.staged WHERE (address, scope, reason) > (?,?,?)"
    " ORDER BY address, scope, reason LIMIT 1 OFFSET ?"
)
_LAST = (
    "SELECT address, scope, reason FROM temp.staged ORDER BY address DESC, scope DESC, reason DESC"
    " LIMIT 1"
)
_BATCH_COUNT = """
SELECT count(*), total(EXISTS (
    SELECT 1 FROM main.entries AS old
    WHERE (old.address, old.scope, old.reason) = (staged.address, staged.scope, staged.reason)
))
FROM temp.staged
WHERE (address, scope, reason) > (?,?,?) AND (address, scope, reason) <= (?,?,?)
"""
_MERGE = _UPSERT.format(
    table="main.entries",
    rows="SELECT * FROM temp.staged"
    " WHERE (address, scope, reason) > (?,?,?) AND (address, scope, reason) <= (?,?,?)",
)
_KNOWN = "SELECT 1 FROM entries WHERE address=? AND scope=? AND reason=?"
_EXPIRED = (
    "SELECT address, scope, reason FROM entries WHERE expires<=?"
    " AND (address, scope, reason) > (?,?,?) ORDER BY address, scope, reason LIMIT ?"
)


@dataclass(slots=True)
class Merged:
    """What became of rows: how many were new, and how many changed what was there."""

    rows: int = 0
    new: int = 0
    changed: int = 0


def put(db: apsw.Connection, entry: Entry) -> None:
    """Adds an entry within a transaction. What is there already is never made weaker."""
    db.execute(_PUT, _row(entry))


def _row(entry: Entry) -> tuple[str | int | None, ...]:
    return (*entry, root(entry.address))


class Writer:
    """A connection that changes the list.

    Args:
        path: the database; it is made if it is not there.

    Raises:
        DatabaseError: the database cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._db = open_to_write(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def add(self, entries: Iterable[Entry]) -> Merged:
        """Adds entries, all or none.

        Raises:
            DatabaseError: the database cannot be written.
        """
        merged = Merged()
        db = self._db
        with transaction(db):
            for entry in entries:
                known = db.execute(_KNOWN, entry[:3]).fetchone()
                put(db, entry)
                merged.rows += 1
                merged.new += known is None
                merged.changed += known is not None and db.changes() > 0
        return merged

    # Many entries: first aside, where nobody sees them, then into the list batch by batch.

    def stage(self, entries: Iterable[Entry]) -> None:
        """Takes entries that `merge` will put into the list. They are lost with the connection.

        Raises:
            DatabaseError: there is no room for them.
        """
        try:
            self._db.pragma("cache_size", -STAGE_KIB, schema="temp")
            self._db.execute(_MAKE_STAGE)
            with self._db:
                self._db.executemany(_STAGE, map(_row, entries))
        except apsw.Error as error:
            raise DatabaseError(f"the rows cannot be kept for the import: {error}") from error

    def staged(self) -> int:
        """How many entries wait for `merge`.

        Raises:
            DatabaseError: they cannot be read.
        """
        ((count,),) = list(read(self._db, "SELECT count(*) FROM temp.staged"))
        return int(count)

    def merge(self) -> Iterator[Merged]:
        """Puts what was staged into the list; gives the numbers so far after each batch.

        Raises:
            DatabaseError: the database cannot be written; what was given so far is in the list.
        """
        merged = Merged()
        db = self._db
        start = ("", "", "")
        last = db.execute(_LAST).fetchone()
        size = FIRST_BATCH
        while last is not None and start != last:
            began = time.monotonic()
            with transaction(db):
                end = db.execute(_BATCH_END, (*start, size - 1)).fetchone() or last
                ((rows, known),) = list(read(db, _BATCH_COUNT, (*start, *end)))
                db.execute(_MERGE, (*start, *end))
                new = rows - int(known)
                merged.rows += rows
                merged.new += new
                merged.changed += db.changes() - new
            start = end
            size = _resized(size, time.monotonic() - began)
            yield merged
            time.sleep(GAP_SECONDS)

    # Removing.

    def remove(self, addresses: Sequence[str], scope: str | None, reason: str | None) -> int:
        """Removes the entries of these addresses, of one scope or reason or of all.

        With those of bounces goes what was counted for them. Returns how many entries were removed.

        Raises:
            DatabaseError: the database cannot be written.
        """
        removed = 0
        db = self._db
        with transaction(db):
            for address in addresses:
                db.execute(
                    "DELETE FROM entries WHERE address=?1 AND (?2 ISNULL OR scope=?2)"
                    " AND (?3 ISNULL OR reason=?3)",
                    (address, scope, reason),
                )
                removed += db.changes()
                if reason in (None, "bounce"):
                    db.execute("UPDATE incidents SET counted=0 WHERE address=?", (address,))
        return removed

    def remove_ended(self, now: float) -> Iterator[int]:
        """Removes entries that have ended; gives the number so far after each batch.

        Raises:
            DatabaseError: the database cannot be written.
        """
        removed = 0
        db = self._db
        start = ("", "", "")
        while True:
            found = list(read(db, _EXPIRED, (now, *start, FIRST_BATCH)))
            if not found:
                return
            start = found[-1]
            with transaction(db):
                for key in found:
                    db.execute(
                        "DELETE FROM entries WHERE address=? AND scope=? AND reason=?"
                        " AND expires<=?",
                        (*key, now),
                    )
                    removed += db.changes()
            yield removed
            time.sleep(GAP_SECONDS)


def _resized(size: int, seconds: float) -> int:
    """The rows of the next batch, from what the last one took; at most twice as many."""
    fitting = size * BATCH_SECONDS / max(seconds, BATCH_SECONDS / 2)
    return max(SMALLEST_BATCH, min(LARGEST_BATCH, int(fitting)))
