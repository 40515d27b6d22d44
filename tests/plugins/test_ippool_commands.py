"""`gateway ippool`: what is shown, suspended, resumed and checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from plugins.ippool import IpPool, IpPoolConfig
from tests.plugins.ippool_site import DAY, NOWHERE, Site, blocked, mail, send, sent_from, sources

CONFIG: dict[str, Any] = {
    "sources": {
        **sources("old", weight=3),
        "new": {
            "address": "127.0.0.9",
            "helo": "new.example.com",
            "warmup": {"since": "2026-11-20", "curve": [10, 2000, 5000]},
        },
        "away": {"address": NOWHERE, "helo": "away.example.com"},
    },
    "pools": {
        "main": {"sources": ["old"]},
        "bulk": {"sources": ["new", "old"], "fallback": "main"},
    },
    "default": "main",
}
GMAIL = "taro@gmail.com"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def run(
    site: Site, *arguments: str, status: int = 0, config: dict[str, Any] | None = None
) -> Result:
    """Runs `gateway ippool` with these arguments."""
    plugin = IpPool(IpPoolConfig.model_validate(config or CONFIG))
    command = plugin.commands(site.context("command"))
    assert isinstance(command, click.Group)
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_show_says_how_each_source_stands(site: Site) -> None:
    assert run(site, "show").stdout == (
        "old  127.0.0.2  old.example.com  in main, bulk, weight 3\n"
        "  warm\n"
        "\n"
        "new  127.0.0.9  new.example.com  in bulk, weight 1\n"
        "  warm-up day 2 of 3: 2,000 recipients of each provider today, 5,000 tomorrow\n"
        "\n"
        "away  192.0.2.77  away.example.com  in no pool, weight 1\n"
        "  warm\n"
        "  not used: 192.0.2.77 cannot be bound: Cannot assign requested address\n"
    )


async def test_show_says_what_was_sent_and_what_is_suspended(site: Site) -> None:
    config = {**CONFIG, "pools": {"bulk": {"sources": ["new"]}}, "default": "bulk"}
    async with site.plugin(config) as plugin:
        for number in range(1234):
            sent_from(plugin, mail("taro@docomo.ne.jp", number=number))
        delivery = mail(GMAIL)
        send(plugin, delivery)
        blocked(plugin, delivery)
        site.now += 3600
        delivery = mail(GMAIL)
        send(plugin, delivery)
        blocked(plugin, delivery, "Client host [192.0.2.1] blocked using dnsbl.example")
    text = run(site, "show").stdout
    assert (
        "  warm-up day 2 of 3: 2,000 recipients of each provider today, 5,000 tomorrow\n"
        "    gmail                  2 of 2,000\n"
        "    docomo             1,234 of 2,000\n"
        "  suspended for gmail until 2026-11-21T15:00:00Z, 2 times in a row: 550 5.7.1 Client "
        "host [192.0.2.1] blocked using dnsbl.example\n"
    ) in text
    _, new, _ = json.loads(run(site, "show", "--json").stdout)
    assert new == {
        "source": "new",
        "address": "127.0.0.9",
        "helo": "new.example.com",
        "weight": 1,
        "pools": ["bulk"],
        "warmup": {
            "since": "2026-11-20",
            "day": 2,
            "days": 3,
            "today": 2000,
            "tomorrow": 5000,
            "used": {"gmail": 2, "docomo": 1234},
        },
        "suspensions": [
            {
                "provider": "gmail",
                "until": "2026-11-21T15:00:00Z",
                "times": 2,
                "reason": "550 5.7.1 Client host [192.0.2.1] blocked using dnsbl.example",
            }
        ],
        "unbound": None,
    }


@pytest.mark.parametrize(
    ("days", "line"),
    [
        (-5, "  warm-up begins on 2026-11-20"),
        (1, "  warm-up day 3 of 3: 5,000 recipients of each provider today, no limit tomorrow"),
        (2, "  warm"),
    ],
)
def test_show_knows_the_beginning_and_the_end_of_a_warm_up(
    site: Site, days: int, line: str
) -> None:
    site.now += days * DAY
    _, _, after = run(site, "show").stdout.partition("new  127.0.0.9")
    assert after.split("\n")[1] == line


def test_times_are_those_of_the_time_zone(site: Site) -> None:
    config = {**CONFIG, "timezone": "Asia/Tokyo"}
    assert run(site, "suspend", "old", "--for", "2h", config=config).stdout == (
        "old is suspended for all receivers until 2026-11-21T23:00:00+09:00\n"
    )


async def test_a_source_is_suspended_and_resumed(site: Site) -> None:
    config: dict[str, Any] = {"sources": sources("a", "b")}
    async with site.plugin(config) as plugin:
        assert run(site, "suspend", "a", config=config).stdout == (
            "a is suspended for all receivers until it is resumed\n"
        )
        assert {sent_from(plugin, mail(number=number)) for number in range(40)} == {"b"}
        assert "suspended for all receivers until it is resumed: by hand\n" in (
            run(site, "show", config=config).stdout
        )
        assert run(site, "resume", "a", config=config).stdout == (
            "a is used for all receivers again\n"
        )
        assert {sent_from(plugin, mail(number=number)) for number in range(40)} == {"a", "b"}
        assert "suspended" not in run(site, "show", config=config).stdout
    assert site.told() == [("source_suspended", "a", "*"), ("source_resumed", "a", "*")]


async def test_for_one_provider(site: Site) -> None:
    config: dict[str, Any] = {"sources": sources("a", "b")}
    run(site, "suspend", "a", "--provider", "gmail", "--for", "30m", config=config)
    run(site, "suspend", "a", "--provider", "MX.example.net", "--reason", "slow", config=config)
    async with site.plugin(config) as plugin:
        assert {sent_from(plugin, mail(GMAIL, number=number)) for number in range(40)} == {"b"}
        assert {sent_from(plugin, mail(number=number)) for number in range(40)} == {"b"}
        other = {
            sent_from(plugin, mail("taro@docomo.ne.jp", number=number)) for number in range(40)
        }
        assert other == {"a", "b"}
    assert run(site, "resume", "a", "--provider", "gmail", config=config).stdout == (
        "a is used for gmail again\n"
    )
    assert run(site, "resume", "a", "--provider", "gmail", config=config).stdout == (
        "a was not suspended for gmail\n"
    )
    assert json.loads(run(site, "resume", "a", "--json", config=config).stdout) == {
        "source": "a",
        "resumed": ["mx.example.net"],
    }
    assert run(site, "resume", "a", config=config).stdout == "a was not suspended\n"


def test_suspend_prints_json(site: Site) -> None:
    assert json.loads(run(site, "suspend", "old", "--for", "1h", "--json").stdout) == {
        "source": "old",
        "provider": "*",
        "until": "2026-11-21T13:00:00Z",
        "times": 0,
        "reason": "by hand",
    }
    assert json.loads(run(site, "suspend", "old", "--json").stdout)["until"] is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["suspend", "odl"], "'odl' is not one of 'old', 'new', 'away'"),
        (["suspend"], "Missing argument 'SOURCE'"),
        (["suspend", "old", "--for", "soon"], "expected a duration, for example 30s, 5m"),
        (["suspend", "old", "--for", "0"], "must be longer than nothing"),
        (["suspend", "old", "--provider", "gmial"], "'gmial' is no provider; known are gmail, ya"),
        (["suspend", "old", "--provider", "other"], "'other' is no provider"),
        (["suspend", "old", "--reason", "a\nb"], "expected one line of text"),
        (["resume", "old", "--provider", "x"], "'x' is no provider"),
    ],
)
def test_what_a_command_cannot_take_is_one_clear_line(
    site: Site, arguments: list[str], text: str
) -> None:
    assert text in " ".join(run(site, *arguments, status=2).stderr.split())


def test_check_is_content_with_addresses_that_nobody_sees(site: Site) -> None:
    config: dict[str, Any] = {"sources": sources("a")}
    assert run(site, "check", config=config).stdout == "a  127.0.0.2  a.example.com: ok\n"


def test_check_says_what_is_wrong(site: Site) -> None:
    away: dict[str, Any] = {
        "sources": {**sources("a"), "away": {"address": NOWHERE, "helo": "a.invalid"}}
    }
    text = run(site, "check", status=1, config=away).stdout
    first, second = text.splitlines()
    assert first == "a  127.0.0.2  a.example.com: ok"
    assert second.startswith(
        "away  192.0.2.77  a.invalid: 192.0.2.77 cannot be bound: Cannot assign requested address; "
    )
    # Nobody answers at the name server of this test.
    assert "the PTR record of 192.0.2.77 cannot be looked up: " in second
    assert "a.invalid cannot be looked up: " in second
    data = json.loads(run(site, "check", "--json", status=1, config=away).stdout)
    assert data[0] == {"source": "a", "problems": []}
    assert data[1]["source"] == "away"
    assert len(data[1]["problems"]) == 3


def test_counters_that_cannot_be_opened_are_one_line(site: Site) -> None:
    (site.folder / "limits").mkdir()
    for arguments in (["show"], ["suspend", "old"], ["resume", "old"]):
        result = run(site, *arguments, status=1)
        assert result.stderr.startswith("Error: ")
        assert "limits" in result.stderr
        assert result.stderr.count("\n") == 1
