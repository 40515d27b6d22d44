"""Reports as JSON and CSV, for programs. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from plugins.report.figures import COUNTS, RATES, Campaign, Figures, Group, Link, Report
from plugins.report.texts import visible
from plugins.report.worth import plain

# JSON may have these as they are; a terminal would obey some, and a person would be misled.
_INVISIBLE = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_FORMULA = ("=", "+", "-", "@")


def to_json(report: Report) -> str:
    """One object; what is in it is in the README."""
    data = {
        "period": {
            "since": report.since.isoformat() if report.since else None,
            "until": report.until.isoformat() if report.until else None,
            "timezone": report.timezone,
        },
        "campaigns": [_campaign(campaign) for campaign in report.campaigns],
        "total": _figures(report.total),
    }
    text = json.dumps(data, ensure_ascii=False, indent=2)
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _campaign(campaign: Campaign) -> dict[str, Any]:
    return {
        "campaign": campaign.name or None,
        "first": campaign.first.isoformat(),
        "last": campaign.last.isoformat(),
        **_figures(campaign.figures),
        "variants": [_group("variant", group) for group in campaign.variants],
        "comparisons": [
            {
                "better": one.better,
                "other": one.other,
                "better_rate": round(one.better_rate, 6),
                "other_rate": round(one.other_rate, 6),
                "probability": None if one.probability is None else round(one.probability, 6),
                "verdict": one.verdict,
            }
            for one in campaign.comparisons
        ],
        "domains": [_group("domain", group) for group in campaign.domains],
        "days": [_group("day", group) for group in campaign.days],
        "links": [
            {"url": link.url, "clicked": link.people, "clicks": link.clicks, **_others(link)}
            for link in campaign.links
        ],
        "sales": [
            {"currency": sale.currency or None, "orders": sale.orders, "value": plain(sale.value)}
            for sale in campaign.sales
        ],
        "timeline": [
            {"hours": moment.hours, "opened": moment.opened, "clicked": moment.clicked}
            for moment in campaign.timeline
        ],
        "robots": campaign.robots,
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "counts": {name: figures[name] for name in COUNTS},
        "rates": {name: _rounded(figures.rate(name)) for name in RATES},
    }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 6)


def _group(dimension: str, group: Group) -> dict[str, Any]:
    return {dimension: group.name, **_figures(group.figures), **_others(group)}


def _others(one: Group | Link) -> dict[str, int]:
    return {"others": one.others} if one.others else {}


def to_csv(report: Report, by: Sequence[str]) -> str:
    """A row for each campaign, or for each value of each dimension of each campaign."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(
        ["campaign", "dimension", "value", *COUNTS, *(f"{name}_rate" for name in RATES)]
    )
    for campaign in report.campaigns:
        if not by:
            writer.writerow(_row(campaign.name, "", "", campaign.figures))
        for dimension in by:
            for name, figures in _values(campaign, dimension):
                writer.writerow(_row(campaign.name, dimension, name, figures))
    return file.getvalue()


def _values(campaign: Campaign, dimension: str) -> list[tuple[str, Figures]]:
    if dimension == "link":
        return [
            (
                _name(link.url, link.others),
                Figures({"clicked": link.people, "clicks": link.clicks}),
            )
            for link in campaign.links
        ]
    groups = {"variant": campaign.variants, "domain": campaign.domains, "day": campaign.days}
    return [(_name(group.name, group.others), group.figures) for group in groups[dimension]]


def _name(name: str | None, others: int) -> str:
    return f"({others} others)" if name is None else name


def _row(campaign: str, dimension: str, value: str, figures: Figures) -> list[str]:
    link = dimension == "link"
    counts = [
        "" if link and name not in ("clicked", "clicks") else str(figures[name]) for name in COUNTS
    ]
    rates = [_rounded(figures.rate(name)) for name in RATES]
    return [
        _cell(campaign),
        dimension,
        value if dimension == "day" else _cell(value),
        *counts,
        *("" if rate is None or link else f"{rate:f}" for rate in rates),
    ]


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    text = visible(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
