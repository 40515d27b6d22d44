"""The README: its configurations load, its commands run, and they print what it shows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.configuration.config import load_config
from gateway.hooks import Event
from gateway.hooks.load import load_plugins
from plugins.report import Report, ReportConfig
from plugins.report.figures import COUNTS, RATES
from tests.plugins.report_site import DAY, HOUR, NOW, Site, sent

README = (Path(__file__).parents[2] / "plugins/report/README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
TABLES = [text for language, text in BLOCKS if language == "text" and "accepted  " in text]
COMMANDS = [
    line.removeprefix("gateway report")
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
]
START = datetime(2026, 11, 16, 9, tzinfo=UTC).timestamp()


def _campaign(name: str, size: int, after: float) -> Iterator[Event]:
    """Mail of a campaign, every so many of which something happened to."""
    for number in range(size):
        domain = ("example.net", "example.org", "example.net", "mail.example.com")[number % 4]
        subject = f"{name}{number}", f"u{number}@{domain}"
        variant = "AB"[number // 5 % 2] if name == "week-47" else ""
        fate = ["accepted", "bounced" if number % 41 == 0 else "delivered"]
        if number % 41 and name:
            fate += ["opened"] * (number % 5 in (1, 3))
            every = 11 if variant == "A" else 7
            fate += ["clicked"] * (number % every == 1)
            fate += ["converted"] * (number % 43 == 1)
            fate += ["unsubscribed"] * (number % 97 == 1)
        for place, kind in enumerate(fate):
            notes = {"url": f"https://shop.example/{number % 3}"} if kind == "clicked" else {}
            if kind == "converted":
                notes = {"order": f"{number}", "value": "12.50", "currency": "EUR"}
            found = sent(kind, *subject, 0.0, campaign=name, variant=variant, **notes)
            yield replace(found, time=START + after + place * number * 60)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    for campaign in (("", 311, -56 * DAY), ("week-46", 1012, -7 * DAY), ("week-47", 1000, 0.0)):
        site.observe(_campaign(*campaign))
    yield site
    site.stop()


def test_what_is_shown_is_what_is_printed(site: Site) -> None:
    assert len(TABLES) == 2
    for options, shown in zip(COMMANDS, TABLES, strict=False):
        assert site.said(*shlex.split(options)) == shown


def test_every_command_runs(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 4
    for options in COMMANDS:
        site.said(*shlex.split(options))
    assert (tmp_path / "week-47.html").exists()


def test_the_json_that_is_shown_has_the_names_and_values_of_what_is_printed(site: Site) -> None:
    (shown,) = [text for language, text in BLOCKS if language == "text" and "period" in text]
    printed = json.loads(site.said("--json", "--campaign", "week-47"))
    (campaign,) = printed["campaigns"]
    assert set(re.findall(r'^ {6}"(\w+)":', shown, re.MULTILINE)) == set(campaign)
    assert set(re.findall(r'^ {2}"(\w+)":', shown, re.MULTILINE)) == set(printed)
    for part in ("comparisons", "links", "sales"):
        one = json.dumps(campaign[part][0])
        assert one in re.sub(r"\s+", " ", shown), one
    first, last = campaign["timeline"][0], campaign["timeline"][-1]
    assert json.dumps(first) in shown
    assert json.dumps(last) in shown


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "yaml"])
def test_a_configuration_loads(tmp_path: Path, text: str) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    (plugin,) = load_plugins(load_config(tmp_path / "gateway.yaml"))
    assert plugin.entry.name == "report"


def test_every_key_option_and_count_is_explained(tmp_path: Path) -> None:
    for name in ReportConfig.model_fields:
        assert f"| `{name}` |" in README
        assert re.search(rf"^      {name}: ", README, re.MULTILINE)
    command = Report(ReportConfig()).commands(Site(tmp_path).context("command"))
    for parameter in command.params:
        assert f"`{parameter.opts[0]}" in README
    for name in {*COUNTS, *RATES} - {"opens", "clicks"}:
        assert f"| `{name}` |" in README


def test_now_is_what_the_others_take_it_for() -> None:
    assert datetime.fromtimestamp(NOW, UTC).isoformat() == "2026-09-21T14:13:20+00:00"
    assert DAY == 24 * HOUR
