"""Reports as a page that can be sent on: one file, no scripts, nothing from elsewhere. Pure.

Whatever comes from mail is escaped, and shown as text, never as something to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from plugins.report.chart import Bar, Series, bars, columns
from plugins.report.figures import Campaign, Figures, Group, Moment, Report
from plugins.report.style import STYLE
from plugins.report.table import cell, columns_of, comparisons
from plugins.report.texts import TEXTS, Language, percent, visible

MOST_CAMPAIGNS = 20
"""Campaigns that are shown in detail."""
_MOST_BARS = 10
_STEPS = ("accepted", "delivered", "opened", "clicked", "converted")
_KEY_FIGURES = (*_STEPS, "bounced", "unsubscribed")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(report: Report, language: Language, now: datetime) -> str:
    """A complete HTML document.

    Args:
        report: with all parts but days, which are shown where there are any.
        language: what it is in.
        now: when the report was made.
    """
    return _Page(report, language, now).document()


class _Page:
    """One page in the making."""

    def __init__(self, report: Report, language: Language, now: datetime) -> None:
        self._report = report
        self._language = language
        self._now = now
        self._texts = TEXTS[language]

    def document(self) -> str:
        """All of it."""
        texts, report = self._texts, self._report
        shown = report.campaigns[:MOST_CAMPAIGNS]
        title = texts["title"]
        if len(report.campaigns) == 1:
            title = f"{self._name(report.campaigns[0])} – {title}"
        content = f"<h1>{escape(title)}</h1>\n{self._period()}"
        if len(report.campaigns) != 1:
            content += self._overview()
        content += "".join(self._campaign(number, one) for number, one in enumerate(shown, 1))
        return (
            f'<!DOCTYPE html>\n<html lang="{self._language}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
            f"<body>\n<main>\n{content}<footer><p>{escape(texts['note'])}</p></footer>\n"
            "</main>\n</body>\n</html>\n"
        )

    def _period(self) -> str:
        texts, report = self._texts, self._report
        if not report.campaigns:
            return ""
        text = texts["period"].format(
            first=report.since or min(one.first for one in report.campaigns),
            last=report.until or max(one.last for one in report.campaigns),
            timezone=report.timezone,
        )
        now = texts["until_now"].format(now=f"{self._now:%Y-%m-%d %H:%M}")
        return f'<p class="period">{escape(text)}<br>{escape(now)}</p>\n'

    def _overview(self) -> str:
        texts, campaigns = self._texts, self._report.campaigns
        if not campaigns:
            return f"<p>{escape(texts['empty'])}</p>\n"
        rows = [(self._name(one), one.first.isoformat(), one.figures) for one in campaigns]
        names = columns_of(self._report.total)
        table = _table(
            texts["overview"],
            [texts["campaign"], texts["since"], *(texts[name] for name in names)],
            [
                [name, day, *(cell(figures, column) for column in names)]
                for name, day, figures in (*rows, (texts["total"], "", self._report.total))
            ],
            words=2,
        )
        if len(campaigns) > MOST_CAMPAIGNS:
            note = texts["not_shown"].format(shown=MOST_CAMPAIGNS, all=f"{len(campaigns):,}")
            table += f"<p>{escape(note)}</p>\n"
        return table

    def _name(self, campaign: Campaign) -> str:
        return visible(campaign.name, 200) or self._texts["none"]

    def _campaign(self, number: int, campaign: Campaign) -> str:
        name = f"c{number}"
        parts = [
            self._key_figures(campaign.figures),
            self._funnel(name, campaign.figures),
            self._timeline(name, campaign.timeline),
            self._variants(name, campaign),
            self._groups("domain", campaign.domains, self._domain_bars(name, campaign.domains)),
            self._groups("day", campaign.days, ""),
            self._links(campaign),
            self._sales(campaign),
            self._robots(campaign),
        ]
        heading = ""
        if len(self._report.campaigns) != 1:
            heading = f"<h2>{escape(self._name(campaign))}</h2>\n"
        return f'<section class="campaign">\n{heading}{"".join(parts)}</section>\n'

    def _key_figures(self, figures: Figures) -> str:
        texts = self._texts
        tiles = []
        for name in (*_KEY_FIGURES, *(["complained"] if figures["complained"] else [])):
            rate = "" if name == "accepted" else percent(figures.rate(name))
            tiles.append(
                f"<div><dt>{escape(texts[name])}</dt>"
                f"<dd>{figures[name]:,}<small>{rate}</small></dd></div>\n"
            )
        return f'<dl aria-label="{escape(texts["key_figures"])}">\n{"".join(tiles)}</dl>\n'

    def _funnel(self, name: str, figures: Figures) -> str:
        texts = self._texts
        whole = max(figures["accepted"], 1)
        shares = [(texts[step], figures[step], figures[step] / whole) for step in _STEPS]
        chart = bars(
            f"{name}-funnel",
            texts["funnel"],
            texts["funnel_text"],
            [Bar(label, share, f"{count:,} ({percent(share)})") for label, count, share in shares],
        )
        table = _table(
            texts["funnel"],
            ["", texts["people"], texts["of_accepted"]],
            [[label, f"{count:,}", percent(share)] for label, count, share in shares],
        )
        return self._figure("funnel", chart, table, "figure pair")

    def _timeline(self, name: str, timeline: Sequence[Moment]) -> str:
        texts = self._texts
        if not any(moment.opened or moment.clicked for moment in timeline):
            return ""
        labels = [self._span(moment.hours) for moment in timeline]
        chart = columns(
            f"{name}-timeline",
            texts["timeline"],
            texts["timeline_text"],
            labels,
            [
                Series(texts["opened"], [moment.opened for moment in timeline]),
                Series(texts["clicked"], [moment.clicked for moment in timeline]),
            ],
        )
        table = _table(
            texts["timeline_text"],
            [texts["within"], texts["opened"], texts["clicked"]],
            [
                [label, f"{moment.opened:,}", f"{moment.clicked:,}"]
                for label, moment in zip(labels, timeline, strict=True)
            ],
        )
        return self._figure("timeline", chart, table, "figure pair")

    def _span(self, hours: int | None) -> str:
        if hours is None:
            return self._texts["ever"]
        if hours < 48:
            return self._texts["hours"].format(count=hours)
        return self._texts["days_long"].format(count=hours // 24)

    def _variants(self, name: str, campaign: Campaign) -> str:
        named = [group for group in campaign.variants if group.name]
        if not named:
            return ""
        rates = [group.figures.rate("clicked") or 0.0 for group in named]
        highest = max(*rates, 0.0001)
        chart = bars(
            f"{name}-variants",
            self._texts["rates"],
            self._texts["rates_text"],
            [
                Bar(self._label(group), rate / highest, percent(group.figures.rate("clicked")))
                for group, rate in zip(named, rates, strict=True)
            ][:_MOST_BARS],
        )
        verdicts = "".join(
            f"<li>{escape(line)}</li>\n" for line in comparisons(campaign, self._texts)
        )
        verdicts = f"<ul>\n{verdicts}</ul>\n" if verdicts else ""
        return self._groups("variant", campaign.variants, chart, verdicts)

    def _domain_bars(self, name: str, domains: Sequence[Group]) -> str:
        known = [group for group in domains if group.name is not None][:_MOST_BARS]
        return bars(
            f"{name}-domains",
            self._texts["domains"],
            self._texts["domains_text"],
            [
                Bar(
                    self._label(group),
                    group.figures.rate("delivered") or 0.0,
                    percent(group.figures.rate("delivered")),
                )
                for group in known
            ],
        )

    def _groups(self, dimension: str, groups: Sequence[Group], chart: str, after: str = "") -> str:
        if not groups:
            return ""
        texts = self._texts
        total = sum((group.figures for group in groups), Figures({}))
        names = columns_of(total)
        table = _table(
            texts[f"{dimension}s"],
            [texts[dimension], *(texts[name] for name in names)],
            [
                [self._label(group), *(cell(group.figures, name) for name in names)]
                for group in groups
            ],
        )
        return self._figure(f"{dimension}s", chart, table + after)

    def _label(self, group: Group) -> str:
        if group.name is None:
            return self._texts["others"].format(count=f"{group.others:,}")
        return visible(group.name, 200) or self._texts["unknown"]

    def _links(self, campaign: Campaign) -> str:
        if not campaign.links:
            return ""
        texts = self._texts
        rows = []
        for link in campaign.links:
            url = visible(link.url or "", 300) or texts["unknown"]
            if link.url is None:
                url = texts["others"].format(count=f"{link.others:,}")
            rows.append([url, f"{link.people:,}", f"{link.clicks:,}"])
        head = [texts["link"], texts["clicked"], texts["clicks"]]
        return self._figure("links", "", _table(texts["links"], head, rows))

    def _sales(self, campaign: Campaign) -> str:
        if not campaign.sales:
            return ""
        texts = self._texts
        rows = [
            [sale.currency or texts["none"], f"{sale.orders:,}", f"{sale.value:,f}"]
            for sale in campaign.sales
        ]
        head = [texts["currency"], texts["orders"], texts["value"]]
        return self._figure("sales", "", _table(texts["sales"], head, rows))

    def _robots(self, campaign: Campaign) -> str:
        texts = self._texts
        parts = []
        for what, kinds in sorted(campaign.robots.items()):
            said = texts[f"robot_{what}"].format(count=f"{sum(kinds.values()):,}")
            most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:_MOST_BARS]
            details = ", ".join(f"{visible(kind, 40)} {count:,}" for kind, count in most)
            parts.append(f"{said} ({details})")
        if not parts:
            return ""
        text = texts["robots"].format(what=texts["list"].join(parts))
        return f'<p class="robots">{escape(text)}</p>\n'

    def _figure(self, heading: str, chart: str, table: str, style: str = "figure") -> str:
        level = "h2" if len(self._report.campaigns) == 1 else "h3"
        chart = f'<div class="chart">\n{chart}</div>\n' if chart else ""
        return (
            f'<section class="{style}">\n<{level}>{escape(self._texts[heading])}</{level}>\n'
            f'<div class="parts">\n{chart}{table}</div>\n</section>\n'
        )


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words and whose others are numbers."""
    titles = "".join(
        f'<th scope="col"{"" if place < words else _NUMBER}>{escape(text)}</th>'
        for place, text in enumerate(head)
    )
    body = []
    for label, *cells in rows:
        rest = "".join(
            f"<td{'' if place < words else _NUMBER}>{escape(text)}</td>"
            for place, text in enumerate(cells, 1)
        )
        body.append(f'<tr><th scope="row">{escape(label)}</th>{rest}</tr>\n')
    return (
        f'<div class="table"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{''.join(body)}</tbody>\n</table></div>\n"
    )


_NUMBER = ' class="number"'
