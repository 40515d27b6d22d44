"""Sources of both address families: which one a site can be reached from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.hooks import Delay, Hop, Resolver, Route, Source
from gateway.testing import FakeDns
from gateway.testing.dns import Failure, Records
from plugins.ippool import IpPool
from plugins.ippool.identity import bind_error
from plugins.ippool.pool import ANY, V4, V6
from plugins.ippool.reach import Reach
from tests.plugins.ippool_site import Site, answered, mail, route_to, send, sent_from

pytestmark = pytest.mark.skipif(
    bind_error("::1") is not None, reason="this machine has no IPv6, not even to itself"
)

CONFIG: dict[str, Any] = {
    "sources": {
        "four": {"address": "127.0.0.2", "helo": "four.example.com"},
        "six": {"address": "::1", "helo": "six.example.com"},
    }
}
BOTH = route_to("both.example")
OLD = route_to("old.example")
NEW = route_to("new.example")
GONE = route_to("gone.example")

ZONES: dict[str, Records | Failure] = {
    "both.example": {"A": ["198.51.100.1"], "AAAA": ["2001:db8::1"]},
    "old.example": {"A": ["198.51.100.2"]},
    "new.example": {"AAAA": ["2001:db8::2"]},
    "slow.example": Failure.SILENCE,
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
async def dns() -> AsyncIterator[FakeDns]:
    async with FakeDns(ZONES) as dns:
        yield dns


@pytest.fixture
async def resolver(dns: FakeDns) -> AsyncIterator[Resolver]:
    resolver = Resolver([dns.address], 1.0)
    yield resolver
    await resolver.close()


@pytest.fixture
async def plugin(site: Site, resolver: Resolver) -> AsyncIterator[IpPool]:
    async with site.plugin(CONFIG, resolver=resolver) as plugin:
        yield plugin


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def _used(plugin: IpPool, route: Route) -> set[str]:
    return {sent_from(plugin, mail(route=route, number=number)) for number in range(40)}


async def test_what_is_not_known_yet_goes_by_version_4(plugin: IpPool) -> None:
    """No attempt is wasted on finding out: nearly everybody has an address of version 4."""
    for route in (BOTH, OLD, NEW):
        assert _used(plugin, route) == {"four"}


@pytest.mark.parametrize(("route", "used"), [(BOTH, {"four", "six"}), (NEW, {"six"})])
async def test_what_the_dns_says_is_known_soon(
    plugin: IpPool, route: Route, used: set[str]
) -> None:
    assert _used(plugin, route) == {"four"}
    await _until(lambda: _used(plugin, route) == used)


async def test_a_site_is_asked_about_once_an_hour(dns: FakeDns, resolver: Resolver) -> None:
    reach = Reach(resolver)
    for now in (0.0, 1.0, 3599.0):
        reach.families(BOTH, now)
    await _until(lambda: reach.families(BOTH, 3599.0) == (ANY,))
    assert dns.queries["both.example", "AAAA"] == 1
    dns.zones["both.example"] = ZONES["old.example"]
    resolver_cache_is_over = Resolver([dns.address], 1.0)
    again = Reach(resolver_cache_is_over)
    again.families(BOTH, 3600.0)
    await _until(lambda: again.families(BOTH, 3600.0) == (V4,))
    await resolver_cache_is_over.close()
    await reach.stop()


async def test_an_old_answer_holds_until_the_new_one_is_there(
    dns: FakeDns, resolver: Resolver
) -> None:
    reach = Reach(resolver)
    reach.families(OLD, 0.0)
    await _until(lambda: reach.families(OLD, 0.0) == (V4,))
    assert reach.families(OLD, 4000.0) == (V4,)
    await reach.stop()


async def test_addresses_need_no_dns(resolver: Resolver, dns: FakeDns) -> None:
    reach = Reach(resolver)
    assert reach.families(Route((Hop("198.51.100.1"),), "a"), 0.0) == (V4,)
    assert reach.families(Route((Hop("2001:db8::1"),), "b"), 0.0) == (V6,)
    assert reach.families(Route((Hop("2001:db8::1"), Hop("198.51.100.1")), "c"), 0.0) == (ANY,)
    assert not dns.queries


async def test_a_name_that_does_not_exist_or_a_silent_dns_leaves_it_unknown(
    resolver: Resolver,
) -> None:
    reach = Reach(resolver)
    route = route_to("gone.example", "slow.example")
    reach.families(route, 0.0)
    await reach.stop()
    assert reach.families(route, 1.0) == (V4, V6)


async def test_a_family_that_is_missing_is_not_tried_again(plugin: IpPool) -> None:
    _used(plugin, BOTH)
    await _until(lambda: _used(plugin, BOTH) == {"four", "six"})
    delivery = mail(route=BOTH)
    while sent_from(plugin, delivery) != "six":
        pass
    text = "host both.example has no address that ::1 can reach"
    assert answered(plugin, delivery, 0, "4.4.4", text, "connect") is None
    assert _used(plugin, BOTH) == {"four"}


async def test_a_family_without_a_connection_is_avoided_for_a_while(
    plugin: IpPool, site: Site
) -> None:
    _used(plugin, BOTH)
    await _until(lambda: _used(plugin, BOTH) == {"four", "six"})
    delivery = mail(route=BOTH)
    while sent_from(plugin, delivery) != "six":
        pass
    answered(plugin, delivery, 0, "4.4.1", "connect to both.example: timed out", "connect")
    assert _used(plugin, BOTH) == {"four"}
    assert sent_from(plugin, delivery) == "four"
    answered(plugin, delivery, 0, "4.4.1", "connect to both.example: timed out", "connect")
    assert _used(plugin, BOTH) == {"four", "six"}  # neither is better than the other
    site.now += 600
    assert _used(plugin, BOTH) == {"four", "six"}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("4.4.3", "DNS has no answer for both.example"),
        ("4.3.2", "connect to both.example: the gateway is stopping"),
        ("5.4.6", "mail loops back to this gateway"),
    ],
)
async def test_what_is_no_matter_of_addresses_changes_nothing(
    plugin: IpPool, status: str, text: str
) -> None:
    _used(plugin, BOTH)
    await _until(lambda: _used(plugin, BOTH) == {"four", "six"})
    delivery = mail(route=BOTH)
    while sent_from(plugin, delivery) != "six":
        pass
    answered(plugin, delivery, 0, status, text, "connect")
    assert _used(plugin, BOTH) == {"four", "six"}


async def test_a_source_without_its_address_says_nothing_about_the_site(
    site: Site, resolver: Resolver
) -> None:
    sources = {
        **CONFIG["sources"],
        "away": {"address": "2001:db8::99", "helo": "away.example.com", "public": "fd00::1"},
    }
    async with site.plugin({"sources": sources}, resolver=resolver) as plugin:
        _used(plugin, BOTH)
        await _until(lambda: _used(plugin, BOTH) == {"four", "six"})
        delivery = mail(route=BOTH)
        delivery.source = Source("2001:db8::99", "away.example.com")
        answered(plugin, delivery, 0, "4.4.1", "Cannot assign requested address", "connect")
        assert _used(plugin, BOTH) == {"four", "six"}


async def test_a_pool_of_one_family_is_used_whatever_is_known(
    site: Site, resolver: Resolver
) -> None:
    config = {"sources": {"six": CONFIG["sources"]["six"]}}
    async with site.plugin(config, resolver=resolver) as plugin:
        for route in (BOTH, OLD, NEW, GONE):
            assert _used(plugin, route) == {"six"}


async def test_the_fallback_has_the_other_family(site: Site, resolver: Resolver) -> None:
    config = {
        **CONFIG,
        "pools": {
            "new": {"sources": ["six"], "fallback": "old"},
            "old": {"sources": ["four"]},
        },
        "default": "new",
    }
    async with site.plugin(config, resolver=resolver) as plugin:
        assert _used(plugin, OLD) == {"six"}  # not known yet, and six is what is asked for
        await _until(lambda: _used(plugin, OLD) == {"four"})
        _used(plugin, NEW)
        assert _used(plugin, NEW) == {"six"}


async def test_mail_waits_for_a_source_that_can_reach_the_site(
    site: Site, resolver: Resolver
) -> None:
    """A free source of the wrong family is no help."""
    four = {**CONFIG["sources"]["four"], "warmup": {"since": "2026-11-21", "curve": [1]}}
    config = {"sources": {**CONFIG["sources"], "four": four}}
    async with site.plugin(config, resolver=resolver) as plugin:
        route = Route((Hop("198.51.100.1"),), "literal")
        assert sent_from(plugin, mail(route=route)) == "four"
        answer = send(plugin, mail(route=route, number=2))
        assert answer == Delay(
            43_200.0,
            "no source of pool default can be used: four may send no more than 1 to other today",
        )


async def test_what_failed_long_ago_counts_no_more(resolver: Resolver) -> None:
    reach = Reach(resolver)
    route = Route((Hop("198.51.100.1"), Hop("2001:db8::1")), "both")
    reach.failed("both", V4, 0.0)
    assert reach.families(route, 1.0) == (V6,)
    assert reach.families(route, 600.0) == (ANY,)
    reach.failed("both", V6, 700.0)
    assert reach.families(route, 701.0) == (V4,)


async def test_a_dns_that_fails_later_takes_away_no_knowledge(dns: FakeDns) -> None:
    forgetful = Resolver([dns.address], 1.0, min_ttl=0.0, max_ttl=0.0, max_negative_ttl=0.0)
    reach = Reach(forgetful)
    reach.families(OLD, 0.0)
    await _until(lambda: reach.families(OLD, 0.0) == (V4,))
    asked = dns.queries.total()
    dns.zones["old.example"] = {"TXT": ['"moving house"']}
    reach.families(OLD, 3600.0)
    await _until(lambda: dns.queries.total() > asked + 1)
    # Whoever asks now gets the answer after those who asked before.
    assert await forgetful.addresses("old.example") == []
    assert reach.families(OLD, 3600.0) == (V4,)
    await forgetful.close()


async def test_many_sites_are_not_all_remembered(resolver: Resolver) -> None:
    reach = Reach(resolver)
    for number in range(20_000):
        reach.missing(f"site{number}", V6)
    assert reach.families(Route((Hop("198.51.100.1"),), "site19999"), -1.0) == (V4,)
