"""The page, read by parsers that are not ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from plugins.report.chart import Bar, Series, bars, columns
from plugins.report.page import MOST_CAMPAIGNS
from plugins.report.texts import TEXTS
from tests.plugins.report_site import DAY, HOUR, Site, event, sent
from tests.plugins.test_report_commands import HOSTILE, spring

SVG = "{http://www.w3.org/2000/svg}"
EMPTY = ("meta", "br")


class Page(HTMLParser):
    """A page whose elements are closed as they should be.

    Attributes:
        tags: of all elements.
        names, links: the attributes `id`, and those that would load or lead somewhere.
        cells: of all tables, row by row.
        text: what is shown.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: list[str] = []
        self.links: list[tuple[str, str | None]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in EMPTY:
            self._open.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")
        for name, value in attributes:
            assert not name.startswith("on")
            if name == "id":
                self.names.append(value or "")
            elif name in ("href", "src", "action", "style", "data", "xlink:href"):
                self.links.append((name, value))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.cells[-1][-1] += data


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


def _charts(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_a_campaign(site: Site) -> None:
    site.observe(spring())
    site.observe(
        [
            event("converted", 1, HOUR, order="1", value="1234.50", currency="EUR"),
            event("opened", 2, HOUR, robot="proxy-apple"),
            event("clicked", 2, HOUR, robot="scanner", url="https://shop.example/"),
        ]
    )
    html = site.said("--campaign", "spring", "--html")
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert "spring – Mail report" in page.text
    assert "Mail of 2026-09-21 to 2026-09-21 (UTC)" in page.text
    for row in (
        ["delivered", "190", "95.0%"],
        ["1 h", "60", "25"],
        ["https://shop.example/0", "9", "9"],
        ["EUR", "1", "1,234.50"],
    ):
        assert row in page.cells
    (variant,) = [row for row in page.cells if row[0] == "B"]
    assert variant[1:6] == ["100", "95 (95.0%)", "5 (5.0%)", "30 (31.6%)", "20 (21.1%)"]
    assert "B (21.1%) was clicked more than A (5.3%): unlikely chance (95 %)" in page.text
    assert (
        "Programs are not counted above. They followed links 1× (scanner 1), "
        "loaded images 1× (proxy-apple 1)."
    ) in page.text


def test_nothing_is_loaded_followed_or_run(site: Site) -> None:
    site.observe(spring())
    html = site.said("--html")
    page = Page(html)
    assert page.links == []
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(page.tags)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


@pytest.mark.parametrize("language", TEXTS)
def test_each_chart_is_xml_with_a_title_a_description_and_a_table(
    site: Site, language: str
) -> None:
    site.observe(spring())
    html = site.said("--html", "--language", language)
    page = Page(html)
    assert f'<html lang="{language}">' in html
    charts = _charts(html)
    # Funnel and domains of both; how soon, and variants, of the one with clicks and variants.
    assert len(charts) == 2 * 2 + 2
    for chart in charts:
        names = [chart[0].get("id"), chart[1].get("id")]
        assert [chart[0].tag, chart[1].tag] == [f"{SVG}title", f"{SVG}desc"]
        assert chart.get("aria-labelledby") == " ".join(map(str, names))
        assert chart[0].text
        assert chart[1].text
    assert len(page.names) == len(set(page.names))
    for part in re.findall(r'<section class="figure.*?</section>', html, re.DOTALL):
        assert "<table>" in part
        assert "<caption>" in part


def test_hostile_mail_is_text(site: Site) -> None:
    attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;]]>-->"
    for number, campaign in enumerate((attack, HOSTILE)):
        subject = f"ID{number}", f"u1@{attack}"
        notes = {"campaign": campaign, "variant": attack, "url": f"javascript:{attack}"}
        kinds = ("accepted", "delivered", "clicked")
        site.observe(sent(kind, *subject, 5, **notes) for kind in kinds)
        site.observe([sent("clicked", *subject, 6, **{**notes, "robot": attack})])
    html = site.said("--html")
    page = Page(html)
    assert not {"script", "img", "a"} & set(page.tags)
    assert page.links == []
    assert attack in page.text
    assert f"javascript:{attack}" in page.text
    assert len(_charts(html)) == 8


def test_many_campaigns(site: Site) -> None:
    for number in range(MOST_CAMPAIGNS + 5):
        site.observe([event("accepted", number, number * DAY, campaign=f"c-{number:02}")])
    html = site.said("--html")
    page = Page(html)
    assert html.count('<section class="campaign">') == MOST_CAMPAIGNS
    assert "Details are shown of the newest 20 of 25 campaigns." in page.text
    assert [row[0] for row in page.cells[1:4]] == ["c-24", "c-23", "c-22"]
    assert ["all", "", "25"] in [row[:3] for row in page.cells]


def test_without_mail(site: Site) -> None:
    site.observe([])
    assert TEXTS["en"]["empty"] in Page(site.said("--html")).text


def test_a_file(site: Site, tmp_path: Path) -> None:
    site.observe(spring())
    path = tmp_path / "report.html"
    path.write_text("old")
    result = site.run("--html", str(path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{path} written\n"
    assert path.read_text() == site.said("--html")
    assert {one.name for one in tmp_path.iterdir()} == {"data", "report.html"}
    result = site.run("--html", str(tmp_path / "none" / "report.html"))
    assert result.exit_code == 1
    assert "report.html cannot be written: No such file or directory" in result.stderr


def test_bars_are_as_long_as_what_they_show() -> None:
    chart = ElementTree.fromstring(
        bars("x", "t", "d", [Bar("a", 1, ""), Bar("b", 0.5, ""), Bar("c", 7, ""), Bar("d", 0, "")])
    )
    widths = [float(one.get("width", "")) for one in chart.iter(f"{SVG}rect")]
    assert widths == [widths[0], widths[0] / 2, widths[0], 0.0]


def test_columns_are_as_high_as_what_they_show() -> None:
    series = [Series("a", [0, 5, 10]), Series("b", [10, 0, 0])]
    chart = ElementTree.fromstring(columns("x", "t", "d", ["1", "2", "3"], series))
    # The first rectangle of a series is in the legend.
    heights = [float(one.get("height", "")) for one in chart.iter(f"{SVG}rect")]
    assert heights == [12, 0, 90, 180, 12, 180, 0, 0]
    empty = columns("x", "t", "d", ["1"], [Series("a", [0])])
    assert ElementTree.fromstring(empty) is not None
