"""Forgets recipients after some time; what is left of them are sums."""

# ruff: noqa: S608 (what is put into SQL is written in this package; values are bound)

from __future__ import annotations

from decimal import Decimal

import apsw

from plugins.report.cells import (
    DIMENSIONS,
    KEYS,
    Grain,
    fill,
    fill_details,
    fill_links,
    fill_sales,
    make_tables,
)
from plugins.report.days import day_expression, zone_of
from plugins.report.worth import add, multiplied, plain

BATCH = 500
"""Recipients that are forgotten at a time: as many as events come at a time, so that forgetting
keeps up, and no more, as the service process does nothing else in the meantime."""

_EVERY = 3600.0
_SETTLING = 600.0
"""Seconds after the start. Events that had not been acknowledged when the process ended come again
then, and have to meet the rows that they made."""


class Retention:
    """Rolls up rows that are older than they may become.

    Args:
        db: the file, open to write.
        keep: how long rows are kept, in seconds.
        timezone: where the days of sums begin.
    """

    def __init__(self, db: apsw.Connection, keep: float, timezone: str) -> None:
        self._db = db
        self._keep = keep
        self._zone = zone_of(timezone)
        self._due: float | None = None

    def enforce(self, now: float) -> None:
        """Looks whether there are rows to forget, and forgets a batch of them.

        It looks at most once an hour, and then at each call until none are left.

        Raises:
            apsw.Error: the file cannot be written; everything is as it was.
        """
        if self._due is None:
            self._due = now + _SETTLING
        # The clock may have been set back.
        self._due = min(self._due, now + _EVERY)
        if now >= self._due:
            # Before, for the case that this fails.
            self._due = now + _EVERY
            if self._roll_up(now - self._keep):
                self._due = now

    def _roll_up(self, before: float) -> bool:
        """Forgets a batch; returns whether there may be more."""
        db = self._db
        some = db.execute("SELECT EXISTS (SELECT 1 FROM recipients WHERE first<?)", (before,)).get
        if not some:
            return False
        with db:
            make_tables(db)
            db.execute(
                "INSERT INTO temp.chosen SELECT message_id, recipient FROM recipients "
                "WHERE first<? ORDER BY first LIMIT ?",
                (before, BATCH),
            )
            count = db.changes()
            sql = (
                "SELECT min(first), max(first) FROM temp.chosen "
                "CROSS JOIN recipients USING (message_id, recipient)"
            )
            start, end = db.execute(sql).get
            day = day_expression("r.first", self._zone, start, end)
            grain = Grain(frozenset(DIMENSIONS), day, chosen=True)
            fill(db, grain)
            fill_details(db, grain)
            fill_links(db, grain)
            fill_sales(db, grain)
            self._add_up()
            for table in ("actions", "conversions", "recipients"):
                db.execute(
                    f"DELETE FROM {table} WHERE (message_id, recipient) IN "
                    "(SELECT message_id, recipient FROM temp.chosen)"
                )
            make_tables(db)
        return count == BATCH

    def _add_up(self) -> None:
        db = self._db
        db.execute(
            # WHERE tells the parser that ON does not belong to the SELECT.
            f"INSERT INTO totals SELECT {KEYS}, name, count FROM temp.cells WHERE true "
            "ON CONFLICT DO UPDATE SET count=count+excluded.count"
        )
        db.execute(
            f"INSERT INTO link_totals SELECT {KEYS}, url, people, clicks FROM temp.link_cells "
            "WHERE true ON CONFLICT DO UPDATE SET "
            "people=people+excluded.people, clicks=clicks+excluded.clicks"
        )
        cells = list(db.execute(f"SELECT {KEYS}, currency, value, orders FROM temp.sale_cells"))
        key = " AND ".join(f"{name}=?" for name in (*DIMENSIONS, "currency"))
        for *keys, value, orders in cells:
            known = db.execute(
                f"SELECT orders, value FROM sale_totals WHERE {key}", keys
            ).fetchone()
            before, total = known if known is not None else (0, "0")
            total = add(Decimal(total), multiplied(value, orders))
            db.execute(
                f"INSERT OR REPLACE INTO sale_totals VALUES ({','.join('?' * 8)})",
                (*keys, before + orders, plain(total)),
            )
