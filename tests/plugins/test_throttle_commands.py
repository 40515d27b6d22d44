from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gateway.hooks import Resolver
from gateway.testing import Failure, FakeDns
from plugins.throttle import Throttle
from tests.plugins.throttle_site import BUSY, Site, admitted, answer, delivery, mail

RULES = {"busy": {"code": 421, "action": ["slow", "pause"], "for": "1h"}}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def run(
    site: Site, *arguments: str, status: int = 0, resolver: Resolver | None = None, **config: Any
) -> Result:
    """Runs `gateway throttle` with these arguments."""
    command = Throttle(site.config(**config)).commands(site.context("command", resolver))
    assert isinstance(command, click.Group)
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == status, (result.output, result.exception)
    return result


# show.


def test_show_of_nothing(site: Site) -> None:
    result = run(site, "show")
    assert (result.stdout, result.stderr) == ("", "Nothing has been limited lately.\n")
    assert json.loads(run(site, "show", "--json").stdout) == {"scopes": [], "quotas": []}


def test_show_tells_rates_connections_and_what_is_slowed(site: Site) -> None:
    config: dict[str, Any] = {
        "providers": {
            "big": {
                "domains": "big.example",
                "rate": "16/s",
                "connections": 20,
                "per_source": {"connections": 4},
            }
        },
        "default": {"site": {"rate": "2/h", "connections": 3}},
        "rules": RULES,
        "quotas": {"per_user": {"by": "user", "messages": {"day": 1000}, "recipients": {"day": 9}}},
    }
    plugin = site.plugin(**config)
    one, other = delivery("big.example", source="192.0.2.1"), delivery()
    assert admitted(plugin, one)
    assert admitted(plugin, other)
    limits = plugin._context.limits
    leases = [limits.lease(of.ceilings) for of in (one, one, other)]
    assert all(leases)
    answer(plugin, one, BUSY)
    assert plugin.message(mail("a@x.example", "b@x.example")) is None

    assert run(site, "show", **config).stdout.splitlines() == [
        "provider:big",
        "  16/s messages, next in 0.1 s",
        "  2 of 20 connections open",
        "provider:big from 192.0.2.1",
        "  2 of 4 connections open",
        f"  slowed to 1/2 until 2025-11-24T16:15:00Z: busy: {BUSY}",
        f"  paused until 2025-11-24T17:00:00Z: busy: {BUSY}",
        "site:mx.one.example",
        "  2/h messages, next in 1800 s",
        "  1 of 3 connections open",
        "quota per_user, user shop: 1 of 1,000 messages, 2 of 9 recipients "
        "until 2025-11-25 00:00 UTC",
    ]
    data = json.loads(run(site, "show", "--json", **config).stdout)
    assert [scope["scope"] for scope in data["scopes"]] == [
        "provider:big",
        "provider:big from 192.0.2.1",
        "site:mx.one.example",
    ]
    assert data["scopes"][1] == {
        "scope": "provider:big from 192.0.2.1",
        "rates": [],
        "connections": {"open": 2, "limit": 4},
        "state": [
            {
                "kind": "slow",
                "divisor": 2,
                "until": site.now + 900,
                "why": f"busy: {BUSY}",
            },
            {"kind": "pause", "until": site.now + 3600, "why": f"busy: {BUSY}"},
        ],
    }
    assert data["quotas"] == [
        {
            "quota": "per_user",
            "subject": "user shop",
            "period": "day",
            "until": "2025-11-25 00:00 UTC",
            "messages": 1,
            "recipients": 2,
        }
    ]


def test_show_tells_ceilings_of_domains_and_of_smarthosts(site: Site) -> None:
    config: dict[str, Any] = {
        "default": {"domain": {"connections": 5}},
        "smarthosts": {"site": {"connections": 7}},
    }
    plugin = site.plugin(**config)
    ways = [delivery(), delivery(lane="smarthost", site="smarthost", mx=False)]
    assert all(admitted(plugin, of) for of in ways)
    leases = [plugin._context.limits.lease(of.ceilings) for of in ways]
    assert all(leases)
    assert run(site, "show", **config).stdout.splitlines() == [
        "domain:one.example",
        "  1 of 5 connections open",
        "site:smarthost",
        "  1 of 7 connections open",
    ]


# resume.


def paused(site: Site, *domains: str) -> Throttle:
    plugin = site.plugin(rules=RULES, providers={"big": {"domains": "big.example"}})
    for domain in domains:
        for source in ("192.0.2.1", "192.0.2.2"):
            answer(plugin, delivery(domain, source=source), BUSY)
    return plugin


CONFIG: dict[str, Any] = {"rules": RULES, "providers": {"big": {"domains": "big.example"}}}


@pytest.mark.parametrize(
    ("scope", "resumed"),
    [
        ("big", ["provider:big from 192.0.2.1", "provider:big from 192.0.2.2"]),
        ("provider:big", ["provider:big from 192.0.2.1", "provider:big from 192.0.2.2"]),
        ("provider:big from 192.0.2.2", ["provider:big from 192.0.2.2"]),
        ("site:mx.one.example from 192.0.2.1", ["site:mx.one.example from 192.0.2.1"]),
    ],
)
def test_resume_lets_mail_go_in_running_workers(site: Site, scope: str, resumed: list[str]) -> None:
    plugin = paused(site, "big.example", "one.example")
    result = run(site, "resume", scope, **CONFIG)
    assert result.stdout.splitlines() == [f"{one} resumed" for one in resumed]
    for domain, name in (("big.example", "provider:big"), ("one.example", "site:mx.one.example")):
        for source in ("192.0.2.1", "192.0.2.2"):
            goes = admitted(plugin, delivery(domain, source=source))
            assert goes == (f"{name} from {source}" in resumed)
    assert resumed[0] not in run(site, "show", **CONFIG).stdout


def test_resume_of_all_and_of_nothing(site: Site) -> None:
    paused(site, "big.example")
    result = run(site, "resume", "gib", "big", status=1, **CONFIG)
    assert result.stdout.count("resumed") == 2
    assert result.stderr == "Error: nothing is slowed or paused in gib\n"
    paused(site, "big.example", "one.example")
    data = json.loads(run(site, "resume", "--all", "--json", **CONFIG).stdout)
    assert len(data["resumed"]) == 4
    assert json.loads(run(site, "resume", "--all", "--json", **CONFIG).stdout) == {"resumed": []}
    assert "name scopes, or say --all" in run(site, "resume", status=2).stderr
    assert "name scopes, or say --all" in run(site, "resume", "big", "--all", status=2).stderr


# explain.

ZONES: dict[str, Any] = {
    "example.jp": {
        "MX": ["10 mx1.mail.example.jp.", "10 mx2.mail.example.jp.", "20 late.example."]
    },
    "a.example": {"A": ["192.0.2.80"]},
    "no.example": {"MX": ["0 ."]},
    "empty.example": {"TXT": ["x"]},
    "broken.example": Failure.SERVFAIL,
    "mine.example": {"MX": ["10 aspmx.l.google.com."]},
}


async def explain(
    site: Site, *arguments: str, status: int = 0, **config: Any
) -> tuple[Result, Any]:
    """Runs `gateway throttle explain` in a thread, beside the DNS server."""
    async with FakeDns(ZONES) as dns:
        address = dns.address

        def command() -> Result:
            resolver = Resolver([address], 2.0)
            return run(site, "explain", *arguments, status=status, resolver=resolver, **config)

        result = await asyncio.to_thread(command)
    data = json.loads(result.stdout) if "--json" in arguments and not status else None
    return result, data


async def test_explain_says_what_applies_and_where_it_is_from(site: Site) -> None:
    (site.folder / "own.yaml").write_text(
        "providers:\n  mail_jp:\n    mx: '*.mail.example.jp'\n    rate: [10/s, 5000/h]\n"
    )
    config: dict[str, Any] = {
        "receivers": "own.yaml",
        "providers": {
            "mail_jp": {
                "connections": 4,
                "messages_per_connection": 9,
                "rules": {
                    "closed": {
                        "text": "closed",
                        "action": "bounce",
                        "scope": "domain",
                        "per_source": False,
                        "after": 2,
                    }
                },
            }
        },
        "rules": RULES,
    }
    plugin = site.plugin(**config)
    hosts = ["mx1.mail.example.jp", "mx2.mail.example.jp"]
    of = delivery("example.jp", hosts=hosts, source="192.0.2.1")
    answer(plugin, of, BUSY)
    result, _ = await explain(site, "hanako@Example.JP", "--source", "192.0.2.1", **config)
    assert result.stdout.splitlines() == [
        "domain    example.jp",
        "site      mx1.mail.example.jp,mx2.mail.example.jp",
        "provider  mail_jp",
        "limits",
        "  10/s messages, provider:mail_jp    (own.yaml:4)",
        "  5000/h messages, provider:mail_jp  (own.yaml:4)",
        "  4 connections, provider:mail_jp    (gateway.yaml: providers.mail_jp.connections)",
        "  9 messages per connection          "
        "(gateway.yaml: providers.mail_jp.messages_per_connection)",
        "rules",
        "  closed: bounce for 3600 s, domain:example.jp, after 2  "
        "(gateway.yaml: providers.mail_jp.rules.closed)",
        "    text closed",
        "  busy: pause+slow for 3600 s, provider:mail_jp from 192.0.2.1  "
        "(gateway.yaml: rules.busy)",
        "    code 421",
        "now       provider:mail_jp from 192.0.2.1 is slowed to 1/2 until 2025-11-24T16:15:00Z: "
        f"busy: {BUSY}",
        "now       provider:mail_jp from 192.0.2.1 is paused until 2025-11-24T17:00:00Z: "
        f"busy: {BUSY}",
    ]


async def test_explain_in_json_is_what_admit_does(site: Site) -> None:
    _, data = await explain(site, "info@mine.example", "--json", shipped=True)
    assert (data["domain"], data["provider"]) == ("mine.example", "gmail")
    assert data["hosts"] == ["aspmx.l.google.com"]
    plugin = site.plugin(shipped=True)
    of = delivery("mine.example", hosts=data["hosts"])
    assert admitted(plugin, of)
    assert of.ceilings == {
        f"throttle/connections/{one['scope']}": one["connections"] for one in data["connections"]
    }
    assert of.messages_per_connection == data["messages_per_connection"]["value"]
    for rule in data["rules"]:
        assert rule["from"].startswith("shipped receivers.yaml:")
        assert rule["when"]


async def test_explain_of_a_domain_without_mx_and_through_a_smarthost(site: Site) -> None:
    config: dict[str, Any] = {
        "default": {"site": {"rate": "1/s"}},
        "smarthosts": {"site": {"rate": "7/s"}},
    }
    result, _ = await explain(site, "a.example", **config)
    assert "site      a.example" in result.stdout
    assert "1/s messages, site:a.example  (gateway.yaml: default.site.rate)" in result.stdout
    result, _ = await explain(site, "no.example", "--via", "smtp.example.com:587", **config)
    assert "7/s messages, site:smarthost  (gateway.yaml: smarthosts.site.rate)" in result.stdout


async def test_explain_where_nothing_is_limited(site: Site) -> None:
    result, _ = await explain(site, "a.example")
    assert result.stdout.splitlines()[2:] == ["provider  none", "limits", "  none", "rules"]


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["x@no.example"], 1, "no.example takes no mail (null MX)"),
        (["x@missing.example"], 1, "missing.example does not exist"),
        (["x@empty.example"], 1, "empty.example has neither MX nor address"),
        (["x@broken.example"], 1, "broken.example"),
        (["x@"], 2, "'' is not a domain name"),
        (["a b"], 2, "'a b' is not a domain name"),
        (["a.example", "--source", "here"], 2, "'here' does not appear to be"),
        (["a.example", "--via", "host:port"], 2, "the port must be a number"),
    ],
)
async def test_explain_of_what_cannot_be(
    site: Site, arguments: list[str], status: int, problem: str
) -> None:
    result, _ = await explain(site, *arguments, status=status)
    assert problem in result.stderr.splitlines()[-1]


def test_a_ledger_that_cannot_be_read_is_one_line(site: Site) -> None:
    (site.folder / "data").mkdir()
    (site.folder / "data/quotas.db").write_bytes(b"nonsense" * 1000)
    result = run(site, "show", status=1, quotas={"q": {"messages": {"day": 1}}})
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_commands_are_part_of_gateway(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "hostname: gw.example.com\nspool: {path: spool}\n"
        "listen: [{address: '127.0.0.1:2525', allow: [127.0.0.0/8]}]\nplugins:\n  - throttle\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gateway", "-c", str(tmp_path / "gateway.yaml")),
            *("throttle", "explain", "gmail.com", "--via", "gmail-smtp-in.l.google.com"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "provider  gmail" in done.stdout
