"""The plugin in a gateway, against scripted receivers and a DNS, all on real sockets."""

from __future__ import annotations

import time
from pathlib import Path

from gateway.testing import FakeDns, NextHop
from tests.assembly import Assembly, configure, until


def by_mx(dns: FakeDns, port: int) -> str:
    """The part of gateway.yaml that delivers to exchangers on loopback."""
    return (
        f"relay: {{mx_port: {port}, tls: {{level: none}}}}\n"
        f"dns: {{nameservers: ['{dns.address}'], loopback: true}}\n"
    )


def port_of(hop: NextHop) -> int:
    return int(hop.address.rpartition(":")[2])


async def test_a_rate_paces_mail_of_two_domains_with_one_server(tmp_path: Path) -> None:
    zones = {
        "one.example": {"MX": ["10 mx.example."]},
        "two.example": {"MX": ["10 mx.example."]},
        "mx.example": {"A": ["127.0.0.1"]},
    }
    plugins = "plugins:\n  - throttle: {default: {site: {rate: 20/s, connections: 1}}}\n"
    async with FakeDns(zones) as dns, NextHop() as hop:
        config = configure(tmp_path, by_mx(dns, port_of(hop)) + plugins)
        async with Assembly(config) as gateway:
            start = time.monotonic()
            for number in range(15):
                for domain in ("one.example", "two.example"):
                    assert (await gateway.submit(f"r{number}@{domain}")).startswith("250")
            await hop.wait(30)
            took = time.monotonic() - start
    # Two go at once, and the others one by one.
    assert took >= 28 / 20 - 0.05
    assert hop.connections >= 1
    domains = {message.recipients[0][0].partition("@")[2] for message in hop.messages}
    assert domains == {"one.example", "two.example"}


async def test_a_reply_pauses_the_site(tmp_path: Path) -> None:
    zones = {"one.example": {"MX": ["10 mx.example."]}, "mx.example": {"A": ["127.0.0.1"]}}
    plugins = (
        "plugins:\n  - throttle:\n      rules:\n"
        "        busy: {code: 450, text: slow down, action: [slow, pause], for: 1h}\n"
    )
    reply = ["450 4.7.1 Please slow down", "250 2.1.0 Ok"]
    async with FakeDns(zones) as dns, NextHop(mail=list(reply)) as hop:
        config = configure(tmp_path, by_mx(dns, port_of(hop)) + plugins)
        async with Assembly(config) as gateway:
            await gateway.submit("a@one.example")
            await until(lambda: gateway.rows(state="deferred"), "the first to be deferred")
            await gateway.submit("b@one.example")

            def reasons() -> list[str]:
                return [row.reply for row in gateway.rows(state="deferred")]

            await until(lambda: len(reasons()) == 2, "the second to wait")
            assert reasons() == [
                "450 4.7.1 Please slow down",
                "throttle: site:mx.example is paused: busy: 450 4.7.1 Please slow down",
            ]
            assert hop.messages == []


async def test_quotas_are_answered_at_the_dot(tmp_path: Path) -> None:
    plugins = "plugins:\n  - throttle: {quotas: {all: {messages: {month: 2}}}}\n"
    async with NextHop() as hop:
        config = configure(tmp_path, f"relay: {{via: ['{hop.address}']}}\n{plugins}")
        async with Assembly(config) as gateway:
            replies = [await gateway.submit(f"r{number}@one.example") for number in range(3)]
            await hop.wait(2)
    assert [reply[:9] for reply in replies] == ["250 2.0.0", "250 2.0.0", "452 4.7.1"]
    assert "The quota of 2 messages a month is used up until " in replies[2]
