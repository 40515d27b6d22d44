"""Reports as tables for a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plugins.report.figures import RATES, Campaign, Figures, Group, Link, Report
from plugins.report.texts import percent, visible

ALWAYS = ("accepted", "delivered", "bounced", "opened", "clicked", "converted", "unsubscribed")
"""Columns that are shown even where everything is 0."""
_COLUMNS = (
    "suppressed",
    "accepted",
    "delivered",
    "bounced",
    "expired",
    "discarded",
    "dropped",
    "opened",
    "clicked",
    "converted",
    "unsubscribed",
    "complained",
)
_LONGEST = 60
_LONGEST_URL = 120


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the table; without figures a text that may be as long as it is."""

    label: str
    day: str = ""
    cells: Sequence[str] | None = None


def columns_of(total: Figures) -> list[str]:
    """The columns that say something."""
    shown = [name for name in _COLUMNS if name in ALWAYS or total[name]]
    if total["opened"] and total["clicked"]:
        shown.insert(shown.index("clicked") + 1, "click_to_open")
    return shown


def render(report: Report, by: Sequence[str], texts: Mapping[str, str]) -> str:
    """The table: a line for each campaign, and below it those of its parts."""
    if not report.campaigns:
        return texts["empty"]
    columns = columns_of(report.total)
    lines = [_Line(texts["campaign"], texts["since"], [texts[name] for name in columns])]
    for campaign in report.campaigns:
        name = visible(campaign.name, _LONGEST) or texts["none"]
        day = campaign.first.isoformat()
        lines.append(_Line(name, day, _cells(campaign.figures, columns)))
        lines += _parts(campaign, by, columns, texts)
    if len(report.campaigns) > 1:
        lines.append(_Line(texts["total"], "", _cells(report.total, columns)))
    return _aligned(lines)


def _parts(
    campaign: Campaign, by: Sequence[str], columns: Sequence[str], texts: Mapping[str, str]
) -> list[_Line]:
    groups = {"variant": campaign.variants, "domain": campaign.domains, "day": campaign.days}
    lines = []
    for dimension in by:
        if dimension == "link":
            lines += _links(campaign.links, texts)
            continue
        lines.append(_Line(f"  {texts[f'{dimension}s']}"))
        lines += [
            _Line(f"    {_label(group, texts)}", "", _cells(group.figures, columns))
            for group in groups[dimension]
        ]
        if dimension == "variant":
            lines += [_Line(f"    {line}") for line in comparisons(campaign, texts)]
    return lines


def comparisons(campaign: Campaign, texts: Mapping[str, str]) -> list[str]:
    """A sentence for each pair of variants."""
    return [
        texts[one.verdict].format(
            better=f"{visible(one.better, _LONGEST)} ({percent(one.better_rate)})",
            other=f"{visible(one.other, _LONGEST)} ({percent(one.other_rate)})",
        )
        for one in campaign.comparisons
    ]


def _label(group: Group, texts: Mapping[str, str]) -> str:
    if group.name is None:
        return texts["others"].format(count=f"{group.others:,}")
    return visible(group.name, _LONGEST) or texts["unknown"]


def _links(links: Sequence[Link], texts: Mapping[str, str]) -> list[_Line]:
    rows = [(f"{link.people:,}", f"{link.clicks:,}") for link in links]
    head = texts["clicked"], texts["clicks"]
    widths = [max(map(_width, column)) for column in zip(head, *rows, strict=True)]
    lines = [_Line(f"  {texts['links']}")]
    urls = [texts["link"]]
    urls += [
        texts["others"].format(count=f"{link.others:,}")
        if link.url is None
        else visible(link.url, _LONGEST_URL) or texts["unknown"]
        for link in links
    ]
    for row, url in zip([head, *rows], urls, strict=True):
        numbers = "  ".join(_right(*pair) for pair in zip(row, widths, strict=True))
        lines.append(_Line(f"    {numbers}  {url}"))
    return lines


def _cells(figures: Figures, columns: Sequence[str]) -> list[str]:
    return [cell(figures, name) for name in columns]


def cell(figures: Figures, name: str) -> str:
    """A count with its rate, or a rate alone."""
    if name == "click_to_open":
        return percent(figures.rate(name))
    count = f"{figures[name]:,}"
    if name not in RATES or figures.rate(name) is None:
        return count
    return f"{count} ({percent(figures.rate(name))})"


def _aligned(lines: Sequence[_Line]) -> str:
    rows = [[line.label, line.day, *line.cells] for line in lines if line.cells is not None]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    texts = []
    for line in lines:
        if line.cells is None:
            texts.append(line.label)
            continue
        left = [
            text + " " * (width - _width(text))
            for text, width in zip((line.label, line.day), widths, strict=False)
        ]
        right = [_right(*pair) for pair in zip(line.cells, widths[2:], strict=True)]
        texts.append("  ".join([*left, *right]).rstrip())
    return "\n".join(texts)


def _right(text: str, width: int) -> str:
    return " " * (width - _width(text)) + text


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )
