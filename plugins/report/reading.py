"""Makes a report of the file."""

# ruff: noqa: S608 (what is put into SQL is written in this package; values are bound)

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import TypeVar

import apsw

from plugins.report.cells import (
    KEYS,
    WITHIN,
    Grain,
    fill,
    fill_details,
    fill_links,
    fill_sales,
    make_tables,
)
from plugins.report.days import day_expression, day_of, day_start, zone_of
from plugins.report.figures import Campaign, Figures, Group, Link, Moment, Report, Sale
from plugins.report.worth import add, multiplied

_Item = TypeVar("_Item")

NO_CAMPAIGN = "(none)"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which mail is meant; None and '' do not choose.

    Attributes:
        campaign: a pattern with `*`, `?` and `[…]`; `(none)` is mail without a campaign.
        stream: its name.
        since, until: days on which messages were first seen, both included.
    """

    campaign: str | None = None
    stream: str | None = None
    since: date | None = None
    until: date | None = None

    def pattern(self) -> str | None:
        """The pattern as SQLite takes it."""
        return "" if self.campaign == NO_CAMPAIGN else self.campaign


def read(
    db: apsw.Connection,
    selection: Selection,
    timezone: str,
    wanted: Collection[str],
    top: int = 0,
) -> Report:
    """Makes a report.

    Args:
        db: a connection; a report sees the file as it was at one moment.
        selection: which mail.
        timezone: where days begin.
        wanted: which parts: `variant`, `domain`, `day`, `link`, `sale` and `detail` (how soon
            people did something, and what programs did).
        top: how many domains and links at most; the others are summed. 0: all.

    Raises:
        apsw.Error: the file cannot be read.
    """
    db.execute("BEGIN")
    try:
        make_tables(db)
        return _Reading(db, selection, timezone, wanted, top).report()
    finally:
        db.execute("ROLLBACK")


class _Reading:
    """One report in the making."""

    def __init__(
        self,
        db: apsw.Connection,
        selection: Selection,
        timezone: str,
        wanted: Collection[str],
        top: int,
    ) -> None:
        self._db = db
        self._selection = selection
        self._timezone = timezone
        self._zone = zone_of(timezone)
        self._wanted = frozenset(wanted)
        self._top = top
        self._totals, self._totals_values = self._where("day")

    def report(self) -> Report:
        """Everything that is wanted."""
        chosen = self._choose()
        self._fill(Grain(self._wanted & {"variant", "domain"}, chosen=chosen))
        figures = {
            campaign: Figures(counts)
            for (campaign, _), counts in self._counts("''", "name NOT GLOB '*[@:]*'")
        }
        variants, domains = self._groups("variant"), self._groups("domain")
        links, sales = self._links(chosen), self._sales(chosen)
        timelines, robots = self._details(chosen)
        days = self._days(chosen)
        campaigns = [
            Campaign(
                campaign,
                first,
                last,
                figures.get(campaign, Figures({})),
                variants=tuple(sorted(variants[campaign], key=_by_name)),
                domains=_most(sorted(domains[campaign], key=_by_mail), self._top, _sum_groups),
                days=tuple(sorted(days[campaign], key=_by_name)),
                links=_most(links[campaign], self._top, _sum_links),
                sales=tuple(sales[campaign]),
                timeline=timelines[campaign],
                robots=robots[campaign],
            )
            for campaign, first, last in self._periods()
        ]
        selection = self._selection
        return Report(tuple(campaigns), selection.since, selection.until, self._timezone)

    def _choose(self) -> bool:
        """Notes which rows are meant, unless all are; the fewer, the sooner they are read."""
        where, values = self._where("time")
        if values:
            self._db.execute(
                f"INSERT INTO temp.chosen SELECT message_id, recipient FROM recipients "
                f"WHERE {where}",
                values,
            )
        return bool(values)

    def _fill(self, grain: Grain) -> None:
        fill(self._db, grain)
        self._db.execute(
            f"INSERT INTO temp.cells SELECT {KEYS}, name, count FROM totals WHERE {self._totals}",
            self._totals_values,
        )

    def _days(self, chosen: bool) -> defaultdict[str, list[Group]]:
        """By day. On its own: days of many domains would be too many groups."""
        start, end = self._db.execute("SELECT min(first), max(first) FROM recipients").get
        if "day" in self._wanted:
            self._db.execute("DELETE FROM temp.cells")
            day = day_expression("r.first", self._zone, start or 0, end or 0)
            self._fill(Grain(frozenset({"day"}), day, chosen))
        return self._groups("day")

    def _where(self, clock: str) -> tuple[str, list[str | float]]:
        """SQL for the selection: of rows, by `time`, or of totals, by `day`."""
        chosen = self._selection
        terms, values = ["true"], list[str | float]()
        pattern = chosen.pattern()
        if pattern is not None:
            terms.append("campaign GLOB ?")
            values.append(pattern)
        if chosen.stream is not None:
            terms.append("stream=?")
            values.append(chosen.stream)
        column = "first" if clock == "time" else "day"
        if chosen.since is not None:
            terms.append(f"{column}>=?")
            start = day_start(chosen.since, self._zone)
            values.append(start if clock == "time" else chosen.since.isoformat())
        if chosen.until is not None:
            terms.append(f"{column}<?")
            after = chosen.until + timedelta(days=1)
            values.append(day_start(after, self._zone) if clock == "time" else after.isoformat())
        return " AND ".join(terms), values

    def _periods(self) -> list[tuple[str, date, date]]:
        """Campaigns with the days of their first and last messages, the newest first."""
        where, others = self._where("time")
        spans: dict[str, tuple[float, float]] = {}
        sql = (
            "SELECT campaign, min(first), max(first) FROM recipients "
            f"WHERE {where} GROUP BY campaign"
        )
        for campaign, start, end in self._db.execute(sql, others):
            spans[campaign] = start, end
        sql = (
            f"SELECT campaign, min(day), max(day) FROM totals WHERE {self._totals} "
            "GROUP BY campaign"
        )
        for campaign, *days in self._db.execute(sql, self._totals_values):
            start, end = (day_start(date.fromisoformat(day), self._zone) for day in days)
            known = spans.get(campaign, (start, end))
            spans[campaign] = min(start, known[0]), max(end, known[1])
        # Mail without a campaign is no campaign.
        ordered = sorted(spans, key=lambda name: (name == "", -spans[name][0], name))
        return [
            (name, day_of(spans[name][0], self._zone), day_of(spans[name][1], self._zone))
            for name in ordered
        ]

    def _counts(self, column: str, where: str) -> Iterator[tuple[tuple[str, str], Counter[str]]]:
        """For each campaign and value of a column, how often each thing happened."""
        found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        sql = (
            f"SELECT campaign, {column}, name, sum(count) FROM temp.cells WHERE {where} "
            "GROUP BY 1,2,3"
        )
        for campaign, value, name, count in self._db.execute(sql):
            found[campaign, value][name] = count
        yield from found.items()

    def _groups(self, column: str) -> defaultdict[str, list[Group]]:
        groups: defaultdict[str, list[Group]] = defaultdict(list)
        if column in self._wanted:
            for (campaign, value), counts in self._counts(column, "name NOT GLOB '*[@:]*'"):
                groups[campaign].append(Group(value, Figures(counts)))
        return groups

    def _links(self, chosen: bool) -> defaultdict[str, list[Link]]:
        links: defaultdict[str, list[Link]] = defaultdict(list)
        if "link" in self._wanted:
            fill_links(self._db, Grain(frozenset(), chosen=chosen))
            self._db.execute(
                f"INSERT INTO temp.link_cells SELECT {KEYS}, url, people, clicks "
                f"FROM link_totals WHERE {self._totals}",
                self._totals_values,
            )
            sql = (
                "SELECT campaign, url, sum(people), sum(clicks) FROM temp.link_cells "
                "GROUP BY 1,2 ORDER BY 3 DESC, 4 DESC, 2"
            )
            for campaign, url, people, clicks in self._db.execute(sql):
                links[campaign].append(Link(url, people, clicks))
        return links

    def _sales(self, chosen: bool) -> defaultdict[str, list[Sale]]:
        sums: dict[tuple[str, str], Sale] = {}
        if "sale" in self._wanted:
            fill_sales(self._db, Grain(frozenset(), chosen=chosen))
            sql = "SELECT campaign, currency, orders, value, orders FROM temp.sale_cells"
            found = list(self._db.execute(sql))
            sql = (
                f"SELECT campaign, currency, orders, value, 1 FROM sale_totals WHERE {self._totals}"
            )
            found += self._db.execute(sql, self._totals_values)
            for campaign, currency, orders, value, times in found:
                known = sums.get((campaign, currency), Sale(currency, 0, Decimal(0)))
                worth = add(known.value, multiplied(value, times))
                sums[campaign, currency] = Sale(currency, known.orders + orders, worth)
        sales: defaultdict[str, list[Sale]] = defaultdict(list)
        # The currencies in the order of their names, and what has none at the end.
        for (campaign, _), sale in sorted(sums.items(), key=lambda item: (not item[0][1], item[0])):
            sales[campaign].append(sale)
        return sales

    def _details(
        self, chosen: bool
    ) -> tuple[defaultdict[str, tuple[Moment, ...]], defaultdict[str, dict[str, dict[str, int]]]]:
        timelines: defaultdict[str, tuple[Moment, ...]] = defaultdict(tuple)
        robots: defaultdict[str, dict[str, dict[str, int]]] = defaultdict(dict)
        if "detail" not in self._wanted:
            return timelines, robots
        fill_details(self._db, Grain(frozenset(), chosen=chosen))
        for (campaign, _), counts in self._counts("''", "name GLOB '*[@:]*'"):
            limits = (*WITHIN, None)
            people = [
                list(accumulate(counts[f"{name}@{place}"] for place in range(len(limits))))
                for name in ("opened", "clicked")
            ]
            timelines[campaign] = tuple(map(Moment, limits, *people))
            for name, count in counts.items():
                _, colon, rest = name.partition("robot:")
                if colon:
                    what, _, kind = rest.partition(":")
                    robots[campaign].setdefault(what, {})[kind] = count
        return timelines, robots


def _most(
    items: list[_Item], top: int, add_up: Callable[[list[_Item]], _Item]
) -> tuple[_Item, ...]:
    """The first ones, and the others as one; a single other one is shown as it is."""
    if not top or len(items) <= top + 1:
        return tuple(items)
    return (*items[:top], add_up(items[top:]))


def _by_name(group: Group) -> str:
    return group.name or ""


def _by_mail(group: Group) -> tuple[int, str]:
    return -group.figures["accepted"], group.name or ""


def _sum_groups(groups: list[Group]) -> Group:
    total = Figures({})
    for group in groups:
        total += group.figures
    return Group(None, total, len(groups))


def _sum_links(links: list[Link]) -> Link:
    people = sum(link.people for link in links)
    return Link(None, people, sum(link.clicks for link in links), len(links))
