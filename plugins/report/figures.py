"""What a report says, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from plugins.report.significance import Comparison, compare

COUNTS = (
    "accepted",
    "delivered",
    "bounced",
    "expired",
    "suppressed",
    "discarded",
    "dropped",
    "opened",
    "clicked",
    "converted",
    "unsubscribed",
    "complained",
    "opens",
    "clicks",
)
"""The counts of a report. All but the last two are of recipients of messages; those are how often
people opened and clicked."""

RATES: Mapping[str, tuple[str, str]] = {
    "delivered": ("delivered", "accepted"),
    "bounced": ("bounced", "accepted"),
    "opened": ("opened", "delivered"),
    "clicked": ("clicked", "delivered"),
    "converted": ("converted", "delivered"),
    "unsubscribed": ("unsubscribed", "delivered"),
    "complained": ("complained", "delivered"),
    "click_to_open": ("clicked", "opened"),
}
"""Each rate: which count is divided by which."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts, and the rates that follow from them."""

    counts: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.counts.get(name, 0)

    def rate(self, name: str) -> float | None:
        """A rate from 0 to 1, or above where more is known of the part than of the whole.

        None where there is nothing to divide by.
        """
        part, whole = RATES[name]
        return self[part] / self[whole] if self[whole] else None

    def __add__(self, other: Figures) -> Figures:
        names = {**self.counts, **other.counts}
        return Figures({name: self[name] + other[name] for name in names})


@dataclass(frozen=True, slots=True)
class Group:
    """A part of a campaign's mail: of a variant, to a domain, or of a day.

    Attributes:
        name: '' if it is not known; None for all others, summed.
        figures: what became of it.
        others: how many groups were summed, where they were.
    """

    name: str | None
    figures: Figures
    others: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A link that was clicked: by how many people, and how often; `url` None for all others."""

    url: str | None
    people: int
    clicks: int
    others: int = 0


@dataclass(frozen=True, slots=True)
class Sale:
    """Orders in one currency, '' for those without a value."""

    currency: str
    orders: int
    value: Decimal


@dataclass(frozen=True, slots=True)
class Moment:
    """How many people had opened and clicked within some hours of the delivery; None: ever."""

    hours: int | None
    opened: int
    clicked: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """What became of the mail of a campaign.

    Attributes:
        name: '' for mail without a campaign.
        first, last: the days of its first and its last message.
        figures: of all of it.
        variants, domains, days: of its parts; days are YYYY-MM-DD.
        links: what people clicked, most people first.
        sales: what they ordered.
        timeline: how soon they opened and clicked.
        robots: what programs did, by `opened`, `clicked` … and the word for the kind of program.
    """

    name: str
    first: date
    last: date
    figures: Figures
    variants: tuple[Group, ...] = ()
    domains: tuple[Group, ...] = ()
    days: tuple[Group, ...] = ()
    links: tuple[Link, ...] = ()
    sales: tuple[Sale, ...] = ()
    timeline: tuple[Moment, ...] = ()
    robots: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def comparisons(self) -> list[Comparison]:
        """Whether variants differ in clicks: every pair."""
        return compare(
            {
                group.name: (group.figures["clicked"], group.figures["delivered"])
                for group in self.variants
                if group.name
            }
        )


@dataclass(frozen=True, slots=True)
class Report:
    """Campaigns, the newest first; `since` and `until` are what was asked for, both included."""

    campaigns: tuple[Campaign, ...]
    since: date | None
    until: date | None
    timezone: str

    @property
    def total(self) -> Figures:
        """All campaigns together."""
        total = Figures({})
        for campaign in self.campaigns:
            total += campaign.figures
        return total
