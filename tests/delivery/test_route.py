"""Routing against a DNS server on loopback that answers, fails and lies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.attempt import Credentials, Disposition, Hop, Outcome, Route, TlsLevel
from gateway.configuration.config import ConfigError, load_config
from gateway.configuration.relay import Relay
from gateway.delivery.identity import Identity
from gateway.delivery.route import SMARTHOST, Router
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver
from gateway.testing import Failure, FakeDns
from gateway.testing.dns import Records

NOWHERE = "127.0.0.1:1"


def _in_order(hosts: list[str]) -> None:
    hosts.sort()


async def _route(
    zones: Mapping[str, Records | Failure], domain: str, *, loopback: bool = False
) -> Route | Outcome:
    async with FakeDns(zones) as server:
        resolver = Resolver([server.address], timeout=1.0, loopback=loopback)
        try:
            return await Router(Relay(mx_port=2525), resolver, shuffle=_in_order).route(domain)
        finally:
            await resolver.close()


def _to_mx(hops: tuple[Hop, ...], site: str) -> Route:
    return Route(hops, site, is_mx=True)


def _hops(*hosts: str) -> tuple[Hop, ...]:
    return tuple(Hop(host, 2525) for host in hosts)


async def test_smarthosts_take_everything_without_dns() -> None:
    hops = (Hop("10.0.0.1", 2600), Hop("relay.example.net"))
    router = Router(Relay(via=hops), Resolver([NOWHERE]))
    for domain in ("example.com", "[192.0.2.1]", "localhost"):
        assert router.lane(domain) == SMARTHOST
        assert await router.route(domain) == Route(hops, SMARTHOST)


def _relay(folder: Path, text: str) -> Relay:
    """The section `relay` of a gateway.yaml."""
    path = folder / "gateway.yaml"
    path.write_text(f"hostname: gw.example.com\nlisten: [{{address: '127.0.0.1:25'}}]\n{text}\n")
    return load_config(path).relay


LOGIN = "login: {user: us, password_file: password}"
ROUTES = f"""
relay:
  via: ["smarthost.example:587"]
  {LOGIN}
  routes:
    corp.example: ["10.0.0.5:2525", "10.0.0.6:2525"]
    "*.corp.example": ["10.0.0.6:2525", "10.0.0.5:2525"]
    例え.example: ["[2001:db8::1]"]
    "B*k.example":
      via: ["bank.example:465"]
      implicit_tls: true
      tls: verified
      {LOGIN}
    b*: ["10.0.0.7"]
"""


def _routed(tmp_path: Path) -> Router:
    (tmp_path / "password").write_text("secret\n")
    return Router(_relay(tmp_path, ROUTES), Resolver([NOWHERE]))


async def test_some_domains_go_another_way(tmp_path: Path) -> None:
    router = _routed(tmp_path)
    ours = (Hop("10.0.0.5", 2525), Hop("10.0.0.6", 2525))
    site = "10.0.0.5:2525,10.0.0.6:2525"
    assert await router.route("corp.example") == Route(ours, site)
    # The same servers in another order: the connections are shared.
    assert await router.route("a.corp.example") == Route(ours[::-1], site)
    assert await router.route("xn--r8jz45g.example") == Route(
        (Hop("2001:db8::1", 25),), "[2001:db8::1]:25"
    )
    assert await router.route("bank.example") == Route(
        (Hop("bank.example", 465),),
        "bank.example:465",
        TlsLevel.VERIFIED,
        implicit_tls=True,
        login=Credentials("us", "secret"),
    )
    assert await router.route("barn.example") == Route((Hop("10.0.0.7", 25),), "10.0.0.7:25")
    for domain in ("example.com", "corp.example.com", "[192.0.2.1]"):
        assert await router.route(domain) == Route(
            (Hop("smarthost.example", 587),), SMARTHOST, login=Credentials("us", "secret")
        )


async def test_a_domain_with_its_own_way_is_a_lane(tmp_path: Path) -> None:
    router = _routed(tmp_path)
    for _ in range(2):
        assert router.lane("corp.example") == "corp.example"
        assert router.lane("a.corp.example") == "a.corp.example"
        assert router.lane("example.com") == SMARTHOST
    relay = _relay(tmp_path, 'relay: {routes: {corp.example: ["10.0.0.5:25"]}}')
    router = Router(relay, Resolver([NOWHERE]))
    assert router.lane("corp.example") == "corp.example"
    assert router.lane("example.com") == "example.com"


async def test_as_many_domains_are_remembered_as_make_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.delivery.route._DOMAINS_IN_MEMORY", 3)
    router = _routed(tmp_path)
    for number in range(10):
        assert router.lane(f"d{number}.example") == SMARTHOST
        assert len(router._routed) <= 3
    assert router.lane("corp.example") == "corp.example"


def test_the_way_that_a_person_chose(tmp_path: Path) -> None:
    router = _routed(tmp_path)
    assert router.via(["192.0.2.9:2525", "mx.example"]) == Route(
        (Hop("192.0.2.9", 2525), Hop("mx.example", 25)), "192.0.2.9:2525,mx.example:25"
    )
    # What is configured for these servers holds whoever chose them.
    login = Credentials("us", "secret")
    assert router.via(["smarthost.example:587"]) == Route(
        (Hop("smarthost.example", 587),), "smarthost.example:587", login=login
    )
    assert router.via(["bank.example:465"]) == Route(
        (Hop("bank.example", 465),),
        "bank.example:465",
        TlsLevel.VERIFIED,
        implicit_tls=True,
        login=login,
    )
    assert router.via(["10.0.0.6:2525"]) == Route((Hop("10.0.0.6", 2525),), "10.0.0.6:2525")
    assert router.via(["other.example:465"]).implicit_tls
    with pytest.raises(ValueError, match="the port must be a number"):
        router.via(["mx.example:x"])


def test_a_password_that_is_not_there(tmp_path: Path) -> None:
    text = "login: {user: us, password_env: NO_SUCH_PASSWORD}"
    relay = _relay(tmp_path, f"relay:\n  via: [a.example]\n  {text}")
    with pytest.raises(ValueError, match="NO_SUCH_PASSWORD is not set"):
        Router(relay, Resolver([NOWHERE]))


@pytest.mark.parametrize(
    ("relay", "problem"),
    [
        ("{routes: {a@b.example: ['x']}}", 'a domain has no "@"'),
        ("{routes: {b.example: []}}", 'relay.routes["b.example"]'),
        ("{routes: {b.example: {}}}", 'relay.routes["b.example"]'),
        ("{routes: {b.example: ['x:0']}}", "the port must be a number from 1 to 65535"),
        ("{routes: {b.example: {via: ['x'], login: {user: u}}}}", "password_file or password_env"),
        (
            "{routes: {b.example: {via: ['x'], implicit_tls: true, tls: none}}}",
            "implicit_tls needs TLS, and tls: none forbids it",
        ),
        (
            "{via: ['x'], login: {user: u, password_env: E}, tls: {level: none}}",
            "login needs TLS, and tls.level: none forbids it",
        ),
        ("{implicit_tls: true}", "implicit_tls is for the smarthosts, and via names none"),
        ("{via: ['x'], loginn: {}}", "loginn"),
    ],
)
def test_ways_that_are_none(tmp_path: Path, relay: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        _relay(tmp_path, f"relay: {relay}")
    assert problem in "\n".join(map(str, raised.value.problems))


# Never to ourselves (RFC 5321 5.1).


async def _loops(zones: Mapping[str, Records | Failure], domain: str) -> Route | Outcome:
    async with FakeDns(zones) as server:
        resolver = Resolver([server.address], timeout=1.0)
        identity = Identity("gw.example.com")
        router = Router(Relay(mx_port=2525), resolver, identity, shuffle=_in_order)
        try:
            return await router.route(domain)
        finally:
            await resolver.close()


async def test_exchangers_that_are_not_better_than_we_are_get_nothing() -> None:
    zones = {
        "e.example": {
            "MX": ["10 a.example.", "20 b.example.", "20 GW.example.com.", "30 c.example."]
        }
    }
    assert await _loops(zones, "e.example") == _to_mx(_hops("a.example"), "a.example")


@pytest.mark.parametrize(
    "zones",
    [
        {"e.example": {"MX": ["10 gw.example.com.", "20 b.example."]}},
        {"e.example": {"MX": ["10 gw.example.com.", "10 b.example."]}},
        {"e.example": {"MX": ["10 gw.example.com."]}},
    ],
)
async def test_mail_that_we_are_to_have_ourselves_loops(zones: Mapping[str, Records]) -> None:
    outcome = await _loops(zones, "e.example")
    assert isinstance(outcome, Outcome)
    assert (outcome.disposition, outcome.status) == (Disposition.FAILED, "5.4.6")
    assert "loops back to this gateway" in outcome.text


async def test_mail_to_our_own_name_loops() -> None:
    outcome = await _loops({"gw.example.com": {"A": ["192.0.2.1"]}}, "gw.example.com")
    assert isinstance(outcome, Outcome)
    assert (outcome.disposition, outcome.status) == (Disposition.FAILED, "5.4.6")


async def test_without_smarthosts_each_domain_is_a_lane() -> None:
    assert Router(Relay(), Resolver([NOWHERE])).lane("example.com") == "example.com"


async def test_exchangers_by_preference() -> None:
    zones = {"example.com": {"MX": ["20 c.example.", "10 B.example.", "10 a.example.", "5 d."]}}
    route = await _route(zones, "example.com")
    assert route == _to_mx(_hops("d", "a.example", "b.example", "c.example"), "d")


async def test_equals_are_shuffled_and_the_site_stays() -> None:
    zones = {"example.com": {"MX": [f"10 mx{n}.example." for n in range(6)] + ["20 z.example."]}}
    async with FakeDns(zones) as server:
        resolver = Resolver([server.address])
        orders = set()
        sites = set()
        for _ in range(40):
            route = await Router(Relay(), resolver).route("example.com")
            assert isinstance(route, Route)
            orders.add(route.hops)
            sites.add(route.site)
            assert route.hops[-1] == Hop("z.example", 25)
            assert {hop.host for hop in route.hops[:-1]} == {f"mx{n}.example" for n in range(6)}
    assert len(orders) > 1
    assert sites == {",".join(f"mx{n}.example" for n in range(6))}


async def test_domains_with_the_same_exchangers_share_a_site() -> None:
    zones = {
        "one.example": {"MX": ["10 a.example.", "10 b.example."]},
        "two.example": {"MX": ["1 b.example.", "1 a.example.", "9 c.example."]},
    }
    first = await _route(zones, "one.example")
    second = await _route(zones, "two.example")
    assert isinstance(first, Route)
    assert isinstance(second, Route)
    assert first.site == second.site == "a.example,b.example"


async def test_an_exchanger_that_is_listed_twice_is_tried_once() -> None:
    route = await _route({"e.example": {"MX": ["10 a.example.", "20 a.example."]}}, "e.example")
    assert route == _to_mx(_hops("a.example"), "a.example")


async def test_no_more_exchangers_than_make_sense() -> None:
    zones = {"e.example": {"MX": [f"{n} mx{n:03}.e.example." for n in range(200)]}}
    route = await _route(zones, "e.example")
    assert isinstance(route, Route)
    assert route.hops == _hops(*(f"mx{n:03}.e.example" for n in range(20)))


@pytest.mark.parametrize("kind", ["A", "AAAA"])
async def test_a_domain_without_mx_is_its_own_exchanger(kind: str) -> None:
    address = "192.0.2.1" if kind == "A" else "2001:db8::1"
    route = await _route({"example.com": {kind: [address]}}, "example.com")
    assert route == _to_mx(_hops("example.com"), "example.com")


async def test_an_alias_is_followed() -> None:
    zones: dict[str, Records] = {
        "alias.example": {"CNAME": ["real.example."]},
        "real.example": {"MX": ["10 mx.example."]},
    }
    assert await _route(zones, "alias.example") == _to_mx(_hops("mx.example"), "mx.example")


async def test_an_exchanger_named_by_its_address() -> None:
    zones = {"example.com": {"MX": ["10 192.0.2.7."]}}
    route = await _route(zones, "example.com")
    assert route == _to_mx(_hops("192.0.2.7"), "192.0.2.7")


@pytest.mark.parametrize(
    ("zones", "domain", "code", "status"),
    [
        ({"e.example": {"MX": ["0 ."]}}, "e.example", 556, "5.1.10"),
        ({}, "e.example", 550, "5.1.2"),
        ({"e.example": {"TXT": ['"x"']}}, "e.example", 550, "5.4.4"),
        ({"e.example": {"MX": ["1 localhost.", "2 127.0.0.1."]}}, "e.example", 550, "5.4.6"),
        ({"e.example": {"MX": ["1 0.0.0.0.", "2 x.localhost."]}}, "e.example", 550, "5.4.6"),
        ({"e.example": {"A": ["127.0.0.1"], "AAAA": ["::1"]}}, "e.example", 550, "5.4.4"),
        ({"a.example": {"CNAME": ["gone.example."]}}, "a.example", 550, "5.1.2"),
        ({}, "a..example", 550, "5.1.2"),
        ({}, "x" * 64 + ".example", 550, "5.1.2"),
        ({}, "[127.0.0.1]", 550, "5.4.6"),
        ({}, "[IPv6:::1]", 550, "5.4.6"),
        ({}, "[IPv6:::ffff:127.0.0.1]", 550, "5.4.6"),
        ({}, "[1.2.3]", 550, "5.1.2"),
        ({}, "[1.2.3.4", 550, "5.1.2"),
        ({}, "[2001:db8::1]", 550, "5.1.2"),
        ({}, "[IPv6:1.2.3.4]", 550, "5.1.2"),
        ({}, "[x400:abc]", 550, "5.1.2"),
        ({}, "[]", 550, "5.1.2"),
    ],
)
async def test_no_route_for_good(
    zones: Mapping[str, Any], domain: str, code: int, status: str
) -> None:
    outcome = await _route(zones, domain)
    assert isinstance(outcome, Outcome)
    assert (outcome.disposition, outcome.code) == (Disposition.FAILED, code)
    assert (outcome.status, outcome.stage, outcome.relay) == (status, "route", "none")
    assert domain in outcome.text


async def test_a_null_mx_beside_another_one_does_not_count() -> None:
    route = await _route({"e.example": {"MX": ["0 .", "10 mx.example."]}}, "e.example")
    assert route == _to_mx(_hops("mx.example"), "mx.example")


@pytest.mark.parametrize(
    "zone",
    [
        Failure.SERVFAIL,
        Failure.REFUSED,
        Failure.SILENCE,
        Failure.NONSENSE,
        {"MX": Failure.SERVFAIL, "A": ["192.0.2.1"]},
        {"A": Failure.SERVFAIL},
        {"AAAA": Failure.SILENCE},
        {"AAAA": Failure.NXDOMAIN, "A": Failure.SERVFAIL},
    ],
)
async def test_no_answer_for_now_is_no_failure(zone: Records | Failure) -> None:
    outcome = await _route({"example.com": zone}, "example.com")
    assert isinstance(outcome, Outcome)
    assert outcome.disposition is Disposition.DEFERRED
    assert (outcome.code, outcome.status, outcome.stage) == (451, "4.4.3", "route")


async def test_no_dns_server_at_all() -> None:
    resolver = Resolver([NOWHERE], timeout=0.5)
    outcome = await Router(Relay(), resolver).route("example.com")
    assert isinstance(outcome, Outcome)
    assert (outcome.disposition, outcome.status) == (Disposition.DEFERRED, "4.4.3")


async def test_one_address_type_that_fails_does_not_hide_the_other() -> None:
    zones: dict[str, Records] = {"h.example": {"AAAA": Failure.SERVFAIL, "A": ["192.0.2.1"]}}
    async with FakeDns(zones) as server:
        assert await Resolver([server.address]).addresses("h.example") == ["192.0.2.1"]


async def test_address_literals_are_their_own_hop() -> None:
    assert await _route({}, "[192.0.2.1]") == Route(_hops("192.0.2.1"), "[192.0.2.1]")
    assert await _route({}, "[ipv6:2001:db8::1]") == Route(
        _hops("2001:db8::1"), "[ipv6:2001:db8::1]"
    )


async def test_loopback_is_believed_if_one_says_so() -> None:
    zones: dict[str, Records] = {"e.example": {"A": ["127.0.0.1"]}}
    assert await _route(zones, "e.example", loopback=True) == _to_mx(
        _hops("e.example"), "e.example"
    )
    assert isinstance(await _route({}, "[127.0.0.1]", loopback=True), Route)


async def test_addresses_of_both_versions_of_ip() -> None:
    zones = {
        "h.example": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:db8::1"]},
        "mixed.example": {"A": ["127.0.0.1", "224.0.0.1", "192.0.2.3"]},
        "none.example": {"MX": ["1 h.example."]},
    }
    async with FakeDns(zones) as server:
        resolver = Resolver([server.address])
        first, *others = await resolver.addresses("h.example")
        assert first == "2001:db8::1"
        # The server gives them in any order.
        assert sorted(others) == ["192.0.2.1", "192.0.2.2"]
        assert await resolver.addresses("mixed.example") == ["192.0.2.3"]
        assert await resolver.addresses("none.example") == []
        with pytest.raises(NoSuchDomainError):
            await resolver.addresses("gone.example")


async def test_an_ip_address_is_its_own() -> None:
    resolver = Resolver([NOWHERE])
    assert await resolver.addresses("127.0.0.1") == ["127.0.0.1"]
    assert await resolver.addresses("::1") == ["::1"]


async def test_localhost_is_what_the_system_says(tmp_path: Path) -> None:
    resolver = Resolver([NOWHERE], hosts=tmp_path / "none")
    assert set(await resolver.addresses("localhost")) <= {"::1", "127.0.0.1"}
    assert await resolver.addresses("localhost")


async def test_a_name_that_the_system_cannot_find() -> None:
    with pytest.raises(ResolutionError, match="no-such-host"):
        await Resolver([NOWHERE]).addresses("no-such-host")


async def test_the_hosts_file_comes_first_and_is_read_again(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.9 Relay.example r # a comment\n::9 relay.example\nnonsense\n#1 x\n")
    async with FakeDns({"relay.example": {"A": ["192.0.2.1"]}}) as server:
        resolver = Resolver([server.address], hosts=hosts)
        assert await resolver.addresses("relay.EXAMPLE") == ["10.0.0.9", "::9"]
        assert await resolver.addresses("r") == ["10.0.0.9"]
        hosts.write_text("")
        assert await resolver.addresses("relay.example") == ["192.0.2.1"]


async def test_answers_are_remembered() -> None:
    zones: dict[str, Records | Failure] = {
        "e.example": {"MX": ["10 mx.example."]},
        "empty.example": {},
        "broken.example": Failure.SERVFAIL,
    }
    async with FakeDns(zones) as server:
        router = Router(Relay(), Resolver([server.address]))
        for _ in range(3):
            assert isinstance(await router.route("e.example"), Route)
            for domain in ("empty.example", "gone.example", "broken.example"):
                assert isinstance(await router.route(domain), Outcome)
        assert server.queries["e.example", "MX"] == 1
        assert server.queries["gone.example", "MX"] == 1
        assert server.queries["empty.example", "MX"] == 1
        assert server.queries["empty.example", "A"] == 1
        assert server.queries["empty.example", "AAAA"] == 1
        assert server.queries["broken.example", "MX"] == 1


async def _until_changed(resolver: Resolver, domain: str, old: object) -> object:
    async with asyncio.timeout(10):
        while True:
            try:
                new: object = await resolver.mx(domain)
            except (NoSuchDomainError, ResolutionError) as error:
                new = type(error)
            if new != old:
                return new
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("before", "seen"),
    [
        ({"MX": ["10 old.example."]}, [(10, "old.example")]),
        ({}, []),
        (Failure.NXDOMAIN, NoSuchDomainError),
        (Failure.SERVFAIL, ResolutionError),
    ],
)
async def test_answers_are_forgotten_in_time(before: Records | Failure, seen: object) -> None:
    zones: dict[str, Records | Failure] = {"e.example": before}
    async with FakeDns(zones, ttl=3600) as server:
        resolver = Resolver(
            [server.address], min_ttl=0.05, max_ttl=0.3, max_negative_ttl=0.3, failure_ttl=0.3
        )
        first = await _until_changed(resolver, "e.example", None)
        assert first == seen
        server.zones["e.example"] = {"MX": ["10 new.example."]}
        assert await _until_changed(resolver, "e.example", first) == [(10, "new.example")]
        assert server.queries["e.example", "MX"] == 2


async def test_the_oldest_answers_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.resolver._NAMES_IN_CACHE", 2)
    async with FakeDns({}) as server:
        router = Router(Relay(), Resolver([server.address]))
        for domain in (
            "a.example",
            "b.example",
            "c.example",
            "c.example",
            "b.example",
            "a.example",
        ):
            await router.route(domain)
        assert server.queries == {
            ("a.example", "MX"): 2,
            ("b.example", "MX"): 1,
            ("c.example", "MX"): 1,
        }


async def test_a_ttl_of_zero_is_still_kept_for_a_while() -> None:
    async with FakeDns({"e.example": {"MX": ["10 mx.example."]}}, ttl=0) as server:
        resolver = Resolver([server.address])
        await resolver.mx("e.example")
        await resolver.mx("e.example")
        assert server.queries["e.example", "MX"] == 1


async def test_equal_questions_at_the_same_time_are_asked_once() -> None:
    async with FakeDns({"e.example": {"MX": ["10 mx.example."]}}) as server:
        resolver = Resolver([server.address])
        answers = await asyncio.gather(*(resolver.mx("e.example") for _ in range(50)))
        assert answers == [[(10, "mx.example")]] * 50
        assert server.queries["e.example", "MX"] == 1


async def test_who_gives_up_does_not_take_the_answer_from_the_others() -> None:
    async with FakeDns({"e.example": {"MX": ["10 mx.example."]}}) as server:
        resolver = Resolver([server.address])
        first = asyncio.create_task(resolver.mx("e.example"))
        second = asyncio.create_task(resolver.mx("e.example"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == [(10, "mx.example")]
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_closing_ends_open_questions() -> None:
    async with FakeDns({"e.example": Failure.SILENCE}) as server:
        resolver = Resolver([server.address], timeout=60)
        question = asyncio.create_task(resolver.mx("e.example"))
        async with asyncio.timeout(10):
            while not server.queries["e.example", "MX"]:
                await asyncio.sleep(0.01)
        await resolver.close()
        with pytest.raises(ResolutionError):
            await question


async def test_the_second_name_server_helps_out() -> None:
    zones: dict[str, Records] = {"e.example": {"MX": ["10 mx.example."]}}
    async with FakeDns({"e.example": Failure.SERVFAIL}) as broken, FakeDns(zones) as good:
        resolver = Resolver([broken.address, good.address])
        assert await resolver.mx("e.example") == [(10, "mx.example")]
        assert broken.queries["e.example", "MX"] == 1


async def test_a_long_answer_comes_over_tcp() -> None:
    zones = {"e.example": {"MX": [f"{n} a-rather-long-name-{n}.e.example." for n in range(100)]}}
    async with FakeDns(zones) as server:
        answer = await Resolver([server.address]).mx("e.example")
        assert len(answer) == 100
        assert server.queries["e.example", "MX"] == 2


async def test_truncated_over_udp_and_empty_over_tcp() -> None:
    async with FakeDns({"e.example": {"MX": Failure.TRUNCATED}}) as server:
        assert await Resolver([server.address]).mx("e.example") == []


def test_name_servers_are_ip_addresses() -> None:
    Resolver(["192.0.2.1", "192.0.2.1:5353", "[2001:db8::1]:53", "2001:db8::1"])
    with pytest.raises(ValueError, match="expected an IP address"):
        Resolver(["dns.example.com:53"])


async def test_the_systems_name_servers_are_the_default() -> None:
    assert Resolver([])._dns.nameservers
    await Resolver().close()


async def test_texts_are_joined() -> None:
    zones: dict[str, Records] = {"s1._domainkey.e.example": {"TXT": ['"v=DKIM1; " "p=AA"', "x"]}}
    async with FakeDns(zones) as server:
        resolver = Resolver([server.address])
        assert sorted(await resolver.txt("s1._domainkey.e.example")) == [b"v=DKIM1; p=AA", b"x"]
        with pytest.raises(NoSuchDomainError):
            await resolver.txt("s2._domainkey.e.example")
