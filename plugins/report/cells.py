"""What rows add up to, as cells: how often one thing happened to mail of one kind.

Reports and what is left of forgotten recipients are made of the same cells, so that a report says
the same before and after.

A cell's name is that of a count, such as `clicked`, or `clicked@2` for people who first did so
within the third of `WITHIN`, or `robot:clicked:scanner` for what a program did.
"""

# ruff: noqa: S608 (what is put into SQL is written in this package; values are bound)

from __future__ import annotations

from dataclasses import dataclass

import apsw

from plugins.report.database import KINDS, MILESTONES

DIMENSIONS = ("day", "campaign", "variant", "domain", "stream")
"""What tells kinds of mail apart; the day is that of the first event of a message."""

WITHIN = (1, 2, 3, 6, 12, 24, 48, 72, 168, 336)
"""Hours since a message was delivered; what comes later is counted beyond the last one."""

KEYS = ", ".join(DIMENSIONS)

_TABLES = f"""
CREATE TEMP TABLE IF NOT EXISTS chosen
  (message_id TEXT, recipient TEXT, PRIMARY KEY (message_id, recipient)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS people
  (message_id TEXT, recipient TEXT, {", ".join(f"{name} REAL" for name in KINDS)},
   opens INTEGER, clicks INTEGER);
CREATE TEMP TABLE IF NOT EXISTS cells ({KEYS}, name TEXT, count INTEGER);
CREATE TEMP TABLE IF NOT EXISTS link_cells ({KEYS}, url TEXT, people INTEGER, clicks INTEGER);
CREATE TEMP TABLE IF NOT EXISTS sale_cells ({KEYS}, currency TEXT, value TEXT, orders INTEGER);
"""

_PEOPLE = ", ".join(
    f"min(a.time) FILTER (WHERE a.kind='{kind}' AND a.robot='') AS {name}"
    for name, kind in KINDS.items()
)
_TIMES = ", ".join(
    f"count(*) FILTER (WHERE a.kind='{KINDS[name]}' AND a.robot='') AS {times}"
    for name, times in (("opened", "opens"), ("clicked", "clicks"))
)


@dataclass(frozen=True, slots=True)
class Grain:
    """How finely rows are told apart, and which are meant.

    Attributes:
        dimensions: those that are told apart; `campaign` always is.
        day: SQL for the day of a row `r`; needed for `day`.
        chosen: only rows whose keys are in the table `chosen`.
    """

    dimensions: frozenset[str]
    day: str = "''"
    chosen: bool = False

    @property
    def keys(self) -> str:
        """SQL for the dimensions of a row `r`."""
        columns = {name: f"r.{name}" for name in DIMENSIONS} | {"day": f"ifnull({self.day}, '')"}
        kept = self.dimensions | {"campaign"}
        return ", ".join(
            f"{columns[name] if name in kept else repr('')} AS {name}" for name in DIMENSIONS
        )

    def rows(self, table: str, alias: str) -> str:
        """SQL for the rows of a table."""
        if not self.chosen:
            return f"{table} AS {alias}"
        return f"chosen AS k CROSS JOIN {table} AS {alias} ON {_same(alias, 'k')}"


def make_tables(db: apsw.Connection) -> None:
    """Makes the temporary tables, or empties them."""
    list(db.execute(_TABLES))
    for name in ("chosen", "people", "cells", "link_cells", "sale_cells"):
        db.execute(f"DELETE FROM temp.{name}")


def fill(db: apsw.Connection, grain: Grain) -> None:
    """Fills `cells` from rows, and `people` with what each person did."""
    # What came back later was not delivered after all.
    column = {name: f"r.{name}" for name in MILESTONES}
    column["delivered"] = "CASE WHEN r.bounced IS NULL THEN r.delivered END"
    milestones = ", ".join(f"count({value}) AS {name}" for name, value in column.items())
    _unpivot(
        db,
        f"SELECT {grain.keys}, {milestones} FROM {grain.rows('recipients', 'r')} "
        "GROUP BY 1,2,3,4,5",
        MILESTONES,
    )
    db.execute("DELETE FROM temp.people")
    db.execute(
        f"INSERT INTO temp.people SELECT a.message_id, a.recipient, {_PEOPLE}, {_TIMES} "
        f"FROM {grain.rows('actions', 'a')} GROUP BY a.message_id, a.recipient"
    )
    counts = ", ".join(f"count(p.{name}) AS {name}" for name in KINDS)
    _unpivot(
        db,
        f"SELECT {grain.keys}, {counts}, sum(p.opens) AS opens, sum(p.clicks) AS clicks "
        f"FROM {_with('temp.people', 'p')} GROUP BY 1,2,3,4,5",
        (*KINDS, "opens", "clicks"),
    )
    buyers = (
        f"SELECT DISTINCT c.message_id, c.recipient FROM {grain.rows('conversions', 'c')} "
        "WHERE c.robot=''"
    )
    db.execute(
        f"INSERT INTO temp.cells SELECT {grain.keys}, 'converted', count(*) "
        f"FROM {_with(f'({buyers})', 'c')} GROUP BY 1,2,3,4,5"
    )


def fill_details(db: apsw.Connection, grain: Grain) -> None:
    """Fills `cells` with how soon people did something, as `people` has it, and with what programs
    did.
    """
    # A row without its delivery is of mail that was forgotten and came to life again.
    hours = "(p.{name}-ifnull(r.delivered, r.accepted))/3600"
    places = " ".join(f"WHEN {hours}<{limit} THEN {place}" for place, limit in enumerate(WITHIN))
    for name in ("opened", "clicked"):
        place = f"CASE {places} ELSE {len(WITHIN)} END".format(name=name)
        db.execute(
            f"INSERT INTO temp.cells SELECT {grain.keys}, '{name}@' || {place} AS name, count(*) "
            f"FROM {_with('temp.people', 'p')} WHERE p.{name} IS NOT NULL GROUP BY 1,2,3,4,5,6"
        )
    words = " ".join(f"WHEN '{kind}' THEN '{name}'" for name, kind in KINDS.items())
    for table, word in (("actions", f"CASE a.kind {words} END"), ("conversions", "'converted'")):
        db.execute(
            f"INSERT INTO temp.cells SELECT {grain.keys}, "
            f"'robot:' || {word} || ':' || a.robot AS name, count(*) "
            f"FROM {grain.rows(table, 'a')} CROSS JOIN recipients AS r ON {_same('r', 'a')} "
            "WHERE a.robot<>'' GROUP BY 1,2,3,4,5,6"
        )


def fill_links(db: apsw.Connection, grain: Grain) -> None:
    """Fills `link_cells` from rows: what people clicked."""
    followed = (
        "SELECT a.message_id, a.recipient, a.url, count(*) AS clicks "
        f"FROM {grain.rows('actions', 'a')} WHERE a.kind='{KINDS['clicked']}' AND a.robot='' "
        "GROUP BY a.message_id, a.recipient, a.url"
    )
    db.execute(
        f"INSERT INTO temp.link_cells SELECT {grain.keys}, p.url, count(*), sum(p.clicks) "
        f"FROM {_with(f'({followed})', 'p')} GROUP BY 1,2,3,4,5,6"
    )


def fill_sales(db: apsw.Connection, grain: Grain) -> None:
    """Fills `sale_cells` from rows, with the value of one order and how many had it.

    An order counts once for a recipient of a message, as it was first reported.
    """
    orders = (
        "SELECT c.message_id, c.recipient, c.value, c.currency, min(c.time) "
        f"FROM {grain.rows('conversions', 'c')} WHERE c.robot='' "
        "GROUP BY c.message_id, c.recipient, c.reference"
    )
    db.execute(
        f"INSERT INTO temp.sale_cells SELECT {grain.keys}, c.currency, c.value, count(*) "
        f"FROM {_with(f'({orders})', 'c')} GROUP BY 1,2,3,4,5,6,7"
    )


def _with(people: str, alias: str) -> str:
    """SQL for a table together with the rows of its recipients."""
    return f"{people} AS {alias} CROSS JOIN recipients AS r ON {_same('r', alias)}"


def _same(one: str, other: str) -> str:
    return f"{one}.message_id={other}.message_id AND {one}.recipient={other}.recipient"


def _unpivot(db: apsw.Connection, wide: str, names: tuple[str, ...]) -> None:
    """Makes a cell of each column that is not 0."""
    cells = " UNION ALL ".join(
        f'SELECT {KEYS}, \'{name}\', "{name}" FROM wide WHERE "{name}"' for name in names
    )
    db.execute(f"INSERT INTO temp.cells WITH wide AS MATERIALIZED ({wide}) {cells}")
