"""Counts what happened to addresses, and suppresses those that it happened to often enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import apsw

from plugins.suppression.database import identify, open_to_write, read, transaction
from plugins.suppression.entry import Entry
from plugins.suppression.learning import Incident
from plugins.suppression.writer import put

KEEP_SECONDS = 7 * 86400.0
"""How long events are remembered at least: those that come again do so after a crash."""
_PRUNE_SECONDS = 3600.0

_RESET = (
    "UPDATE incidents SET counted=0 WHERE address=? AND kind IN ('bounce', 'soft_bounce')"
    " AND time<=? AND counted"
)


class Incidents:
    """The memory of the service process, in the database.

    Args:
        path: the database.
        longest: for how long bounces are counted, in seconds.

    Raises:
        DatabaseError: the database cannot be used.
    """

    def __init__(self, path: Path, longest: float) -> None:
        self._path = path
        self._db = open_to_write(path)
        self._file = identify(path)
        self._keep = max(longest, KEEP_SECONDS)
        self._pruned = float("-inf")
        # A call that took too long goes on in its thread while its events come again.
        self._lock = Lock()

    def learn(self, incidents: Sequence[Incident], now: float) -> list[Entry]:
        """Takes incidents, all or none, and returns the entries that they made.

        What is known already changes nothing, so the same may come again.

        Raises:
            DatabaseError: the database cannot be written now.
        """
        with self._lock:
            self._renew()
            prune = abs(now - self._pruned) >= _PRUNE_SECONDS
            if not prune and all(map(self._is_idle, incidents)):
                return []
            made = []
            db = self._db
            with transaction(db):
                if prune:
                    db.execute("DELETE FROM incidents WHERE time<?", (now - self._keep,))
                for incident in incidents:
                    if incident.entry is None:
                        db.execute(_RESET, (incident.address, incident.time))
                    elif _counts(db, incident):
                        put(db, incident.entry)
                        made.append(incident.entry)
            if prune:
                self._pruned = now
            return made

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def _renew(self) -> None:
        """Opens the file that is there now, should it be another one; never makes one."""
        if identify(self._path) != self._file:
            self._db.close()
            self._db = open_to_write(self._path)
            self._file = identify(self._path)

    def _is_idle(self, incident: Incident) -> bool:
        """Whether it is a delivery to an address that nothing is counted for, as most are."""
        if incident.entry is not None:
            return False
        sql = "SELECT EXISTS (SELECT 1 FROM incidents WHERE address=? AND counted)"
        return list(read(self._db, sql, (incident.address,))) == [(0,)]


def _counts(db: apsw.Connection, incident: Incident) -> bool:
    """Remembers an incident; whether it is a new one, and enough of them have come."""
    key = (incident.address, incident.kind, incident.event)
    db.execute(
        "INSERT INTO incidents VALUES (?,?,?,?,1) ON CONFLICT DO NOTHING", (*key, incident.time)
    )
    if not db.changes():
        return False
    if incident.after == 1:
        return True
    count = db.execute(
        "SELECT count(*) FROM incidents WHERE address=? AND kind=? AND counted AND time>?",
        (incident.address, incident.kind, incident.time - incident.within),
    ).get
    return bool(count >= incident.after)
