"""`gateway report`: tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from gateway.cli.command import gateway
from gateway.cli.plugins import add_plugin_commands
from gateway.hooks import Event
from plugins.report.texts import LANGUAGES, TEXTS
from tests.assembly import configure
from tests.plugins.report_site import DAY, Site, event, sent

HOSTILE = "\x1b[2J\u202e=1+1\r\n<script>alert(1)</script>\x9b"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


def spring() -> list[Event]:
    """A campaign of 200 messages in two variants, and another one a day later."""
    events = []
    for number in range(200):
        variant = "AB"[number % 2]
        domain = "example.net" if number < 150 else "example.org"
        subject = f"ID{number}", f"u{number}@{domain}"
        happened = ["accepted", "bounced" if number >= 190 else "delivered"]
        events += [sent(kind, *subject, variant=variant) for kind in happened]
        if number < 60:
            events.append(sent("opened", *subject, 60.0, variant=variant))
        if number < 40 and (variant == "B" or number < 10):
            url = f"https://shop.example/{number % 3}"
            events.append(sent("clicked", *subject, 120.0, variant=variant, url=url))
    events += [event("accepted", number, DAY, campaign="秋の号") for number in range(1000, 1003)]
    return events


def test_the_table(site: Site) -> None:
    site.observe(spring())
    lines = site.said().splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "campaign since accepted delivered bounced opened clicked click-to-open converted "
        "unsubscribed",
        "秋の号 2026-09-22 3 0 (0.0%) 0 (0.0%) 0 0 – 0 0",
        "spring 2026-09-21 200 190 (95.0%) 10 (5.0%) 60 (31.6%) 25 (13.2%) 41.7% 0 (0.0%) 0 (0.0%)",
        "all 203 190 (93.6%) 10 (4.9%) 60 (31.6%) 25 (13.2%) 41.7% 0 (0.0%) 0 (0.0%)",
    ]
    assert len({_width(line) for line in lines}) == 1


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def test_columns_of_rare_things_are_shown_where_they_happened(site: Site) -> None:
    site.observe([event("accepted"), event("delivered")])
    assert "complained" not in site.said()
    site.observe([event("complained"), event("suppressed", 2)])
    head, line = site.said().splitlines()
    assert {"complained", "suppressed"} <= set(head.split())
    assert line.endswith("1 (100.0%)")


def test_one_campaign_shows_variants_and_domains_without_asking(site: Site) -> None:
    site.observe(spring())
    said = site.said("--campaign", "spr*")
    assert "\n  Variants\n    A " in said
    assert "\n    B (21.1%) was clicked more than A (5.3%): unlikely chance (95 %)\n" in said
    assert "\n  Destination domains\n    example.net " in said
    assert "Variants" not in site.said("--campaign", "*")
    assert "Variants" not in site.said("--campaign", "spring", "--by", "day")
    only = site.said("--campaign", "秋*")
    assert "Variants" not in only
    assert "example.net" in only


def test_parts(site: Site) -> None:
    site.observe(spring())
    said = site.said("--by", "link", "--by", "day", "--campaign", "spring")
    assert said.index("Links") < said.index("Days")
    assert [line.split() for line in said.splitlines() if "https://" in line] == [
        ["9", "9", "https://shop.example/0"],
        ["8", "8", "https://shop.example/1"],
        ["8", "8", "https://shop.example/2"],
    ]
    assert "    2026-09-21  " in said


def test_the_domains_beyond_the_top_are_summed(site: Site) -> None:
    site.observe(
        sent("accepted", f"ID{number}-{copy}", f"u{copy}@d{number:02}.example")
        for number in range(30)
        for copy in range(31 - number)
    )
    lines = site.said("--by", "domain").splitlines()[3:]
    assert len(lines) == 21
    assert lines[0].split()[:2] == ["d00.example", "31"]
    assert lines[-1].split()[:3] == ["(10", "others)", str(sum(range(2, 12)))]
    assert len(site.said("--by", "domain", "--top", "0").splitlines()) == 33
    assert len(site.said("--by", "domain", "--top", "29").splitlines()) == 33
    printed = json.loads(site.said("--json", "--top", "1"))["campaigns"][0]["domains"]
    assert [(one["domain"], one.get("others")) for one in printed] == [
        ("d00.example", None),
        (None, 29),
    ]
    assert len(json.loads(site.said("--json"))["campaigns"][0]["domains"]) == 30


def test_a_stream(site: Site) -> None:
    site.observe(spring())
    assert site.said("--stream", "bulk") == site.said()
    assert site.said("--stream", "other") == "There is no such mail.\n"


def test_json(site: Site) -> None:
    site.observe(spring())
    site.observe([event("converted", 1, 300, order="1", value="12.50", currency="EUR")])
    data = json.loads(site.said("--json", "--since", "2026-09-01"))
    assert data["period"] == {"since": "2026-09-01", "until": None, "timezone": "UTC"}
    assert data["total"]["counts"]["accepted"] == 203
    autumn, found = data["campaigns"]
    assert autumn["campaign"] == "秋の号"
    assert autumn["rates"]["opened"] is None
    assert {name: count for name, count in found["counts"].items() if count} == {
        "accepted": 200,
        "delivered": 190,
        "bounced": 10,
        "opened": 60,
        "opens": 60,
        "clicked": 25,
        "clicks": 25,
        "converted": 1,
    }
    assert found["rates"] == {
        "delivered": 0.95,
        "bounced": 0.05,
        "opened": 0.315789,
        "clicked": 0.131579,
        "converted": 0.005263,
        "unsubscribed": 0.0,
        "complained": 0.0,
        "click_to_open": 0.416667,
    }
    (compared,) = found["comparisons"]
    assert (compared["better"], compared["verdict"]) == ("B", "unlikely chance")
    assert [(one["variant"], one["counts"]["clicked"]) for one in found["variants"]] == [
        ("A", 5),
        ("B", 20),
    ]
    assert [one["domain"] for one in found["domains"]] == ["example.net", "example.org"]
    assert [one["day"] for one in found["days"]] == ["2026-09-21"]
    assert found["links"][0] == {"url": "https://shop.example/0", "clicked": 9, "clicks": 9}
    assert found["sales"] == [{"currency": "EUR", "orders": 1, "value": "12.50"}]
    assert found["timeline"][0] == {"hours": 1, "opened": 60, "clicked": 25}
    assert found["timeline"][-1] == {"hours": None, "opened": 60, "clicked": 25}
    assert found["robots"] == {}


def test_opens_and_clicks_over_time(site: Site) -> None:
    site.observe([event("delivered", number, 100) for number in range(3)])
    hour = 3600
    site.observe([event("opened", 0, 100 + hour - 1), event("opened", 1, 100 + hour)])
    site.observe([event("clicked", 2, 100 + 400 * hour)])
    (found,) = json.loads(site.said("--json"))["campaigns"]
    line = {one["hours"]: (one["opened"], one["clicked"]) for one in found["timeline"]}
    assert (line[1], line[2], line[336], line[None]) == ((1, 0), (2, 0), (2, 0), (2, 1))


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv(site: Site) -> None:
    site.observe(spring())
    rows = _rows(site.said("--csv"))
    assert [(row["campaign"], row["dimension"], row["accepted"]) for row in rows] == [
        ("秋の号", "", "3"),
        ("spring", "", "200"),
    ]
    assert rows[1]["click_to_open_rate"] == "0.416667"
    rows = _rows(site.said("--csv", "--by", "variant", "--by", "link", "--campaign", "spring"))
    assert [(row["dimension"], row["value"], row["accepted"], row["clicked"]) for row in rows] == [
        ("variant", "A", "100", "5"),
        ("variant", "B", "100", "20"),
        ("link", "https://shop.example/0", "", "9"),
        ("link", "https://shop.example/1", "", "8"),
        ("link", "https://shop.example/2", "", "8"),
    ]


@pytest.mark.parametrize("options", [["--by", "link"], ["--json"], ["--csv"], ["--html"]])
def test_nothing_that_mail_says_steers_a_terminal(site: Site, options: list[str]) -> None:
    recipient = f"u1@{HOSTILE}"
    notes = {"campaign": HOSTILE, "variant": HOSTILE, "url": HOSTILE}
    site.observe(sent(kind, "ID1", recipient, 0, **notes) for kind in ("accepted", "clicked"))
    if "--json" not in options:
        options = [*options, "--by", "domain", "--by", "variant"]
    said = site.said(*options)
    assert [one for one in said if not one.isprintable() and one not in "\r\n"] == []
    if "--json" in options:
        assert json.loads(said)["campaigns"][0]["campaign"] == HOSTILE


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1"])
def test_no_cell_is_a_formula(site: Site, text: str) -> None:
    site.observe([event("accepted", campaign=text)])
    (row,) = _rows(site.said("--csv"))
    assert row["campaign"][0] in ("'", "\ufffd")


def test_japanese(site: Site) -> None:
    site.observe(spring())
    lines = site.said("--language", "ja", "--campaign", "spring").splitlines()
    assert lines[0].split()[:3] == ["キャンペーン", "開始日", "受付"]
    assert "  宛先ドメイン別" in lines
    assert any("偶然とは考えにくい差です" in line for line in lines)


def test_every_text_is_in_every_language() -> None:
    english = TEXTS["en"]
    for language in LANGUAGES:
        assert list(TEXTS[language]) == list(english)
        for name, text in TEXTS[language].items():
            assert _fields(text) == _fields(english[name]), name


def _fields(text: str) -> set[str]:
    return {part.partition("}")[0] for part in text.split("{")[1:]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "yesterday"], "'yesterday' is no day; expected one like 2031-12-31"),
        (["--since", "2026-02-02", "--until", "2026-02-01"], "is before --since"),
        (["--json", "--csv"], "say one of --json, --csv and --html"),
        (["--by", "recipient"], "'recipient' is not one of"),
    ],
)
def test_wrong_options(site: Site, options: list[str], message: str) -> None:
    result = site.run(*options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_without_a_file_it_says_so_and_makes_none(site: Site, tmp_path: Path) -> None:
    result = site.run()
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "report.db is not there: nothing was counted yet" in line
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_of_one_moment_while_the_service_writes(site: Site) -> None:
    site.observe([event("accepted", -1), event("delivered", -1)])
    stop = threading.Event()
    written = []

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            # Both in one batch, so that no report may see one without the other.
            site.observe([event("accepted", number), event("delivered", number)])
            written.append(number)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen: list[int] = []
        while len(seen) < 20 or seen[-1] == seen[0]:
            (found,) = json.loads(site.said("--json"))["campaigns"]
            counts = found["counts"]
            assert counts["accepted"] == counts["delivered"]
            assert sum(one["counts"]["accepted"] for one in found["days"]) == counts["accepted"]
            seen.append(counts["accepted"])
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)


def test_gateway_report(tmp_path: Path) -> None:
    config = configure(tmp_path, "plugins: [{report: {timezone: Asia/Tokyo}}]")
    folder = config.spool.path / "plugins" / "report"

    def said(*options: str) -> Any:
        arguments = ["-c", str(config.path), "report", *options]
        group = click.Group("gateway", dict(gateway.commands), params=list(gateway.params))
        add_plugin_commands(group, arguments)
        return CliRunner().invoke(group, arguments)

    assert said().exit_code == 1
    assert not folder.exists()
    site = Site(tmp_path / "elsewhere")
    site.observe([event("accepted")])
    site.stop()
    folder.mkdir(parents=True)
    site.path.rename(folder / "report.db")
    found = json.loads(said("--json").stdout)
    assert found["period"]["timezone"] == "Asia/Tokyo"
    assert [one["campaign"] for one in found["campaigns"]] == ["spring"]
