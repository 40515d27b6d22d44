"""What is in the list, for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from plugins.suppression.address import Spelling, Target, root
from plugins.suppression.database import open_empty, open_to_read, read
from plugins.suppression.entry import Entry
from plugins.suppression.pattern import Pattern

_COLUMNS = "SELECT address, scope, reason, expires, added, source, note FROM entries"
_SELECTED = "WHERE (?1 ISNULL OR scope=?1) AND (?2 ISNULL OR reason=?2)"
_SIZE = "SELECT count(*) FROM entries WHERE (?1 ISNULL OR scope=?1) AND (?2 ISNULL OR reason=?2)"
_COUNTS = """
SELECT reason, substr(scope, 1, instr(scope, ':') - 1) AS kind,
    count(*), sum(expires NOTNULL AND expires <= ?)
FROM entries GROUP BY reason, kind
"""


class Count(NamedTuple):
    """How many entries there are of a reason and a kind of scope: '', `sender` or `stream`.

    `ended` is how many of them have expired.
    """

    reason: str
    kind: str
    entries: int
    ended: int


class Inventory:
    """A connection that reads the list.

    Args:
        path: the database. It is not made: where a running gateway has lost it, an empty one would
            let mail through.

    Raises:
        DatabaseError: the database cannot be used; all methods may raise it too.
    """

    def __init__(self, path: Path) -> None:
        self._db = open_to_read(path) if path.exists() else open_empty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()

    def entries(self, scope: str | None = None, reason: str | None = None) -> Iterator[Entry]:
        """The entries of a scope, or a reason, or all, in the order of their addresses."""
        sql = f"{_COLUMNS} {_SELECTED} ORDER BY address, scope, reason"
        return map(Entry._make, read(self._db, sql, (scope, reason)))

    def size(self, scope: str | None = None, reason: str | None = None) -> int:
        """How many `entries` gives."""
        ((count,),) = list(read(self._db, _SIZE, (scope, reason)))
        return int(count)

    def naming(self, target: Target, spelling: Spelling) -> list[Entry]:
        """All entries that name an address, whatever their scope, and ended or not."""
        sql = f"{_COLUMNS} WHERE address IN ({','.join('?' * len(target.names))})"
        found = list(map(Entry._make, read(self._db, sql, tuple(target.names))))
        if not spelling.is_exact:
            same = root(target.address) or target.address
            others = map(Entry._make, read(self._db, f"{_COLUMNS} WHERE root=?", (same,)))
            found += [one for one in others if spelling.reduced(one.address) == target.reduced]
        patterns = map(Entry._make, read(self._db, f"{_COLUMNS} WHERE instr(address, '*')"))
        found += [one for one in patterns if Pattern(one.address).names(target)]
        return sorted(set(found))

    def counts(self, now: float) -> list[Count]:
        """How many entries there are of each reason and kind of scope."""
        return list(map(Count._make, read(self._db, _COUNTS, (now,))))
