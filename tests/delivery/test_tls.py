"""Which protection connections must have: as configured, and as receiving domains publish."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.attempt import Credentials, Delivery, Disposition, Hop, Outcome, Route, TlsLevel
from gateway.configuration.relay import RelayTls, TlsPolicy
from gateway.delivery.connection import Connection, Timeouts, open_connection
from gateway.delivery.mta_sts import Mode
from gateway.delivery.protection import Protection
from gateway.delivery.tls import AVOIDED_SECONDS, Requirement, Tls
from gateway.resolver import Resolver
from gateway.testing import Drop, Failure, FakeDns, NextHop
from tests.delivery.authority import Authority, Identity, self_signed
from tests.delivery.policy_host import PolicyHost, answer
from tests.delivery.sending import CONTENT, SOURCE, lines, make_delivery

DOMAIN = "example.net"
HOST = "mx.example.net"
AUTHORITY = Authority()
SERVER = AUTHORITY.issue(HOST, with_root=True)
TLS = SERVER.server()
UNKNOWN = self_signed(HOST)
UNKNOWN_TLS = UNKNOWN.server()
WEB = AUTHORITY.issue(f"mta-sts.{DOMAIN}").server()
POLICY = f"version: STSv1\nmode: enforce\nmx: {HOST}\nmax_age: 86400\n"
NONE, OPPORTUNISTIC, REQUIRED, VERIFIED = TlsLevel
DEFERRED, FAILED = Disposition.DEFERRED, Disposition.FAILED


@dataclass
class World:
    """A receiving domain with its DNS and policy, and a worker's `Tls`."""

    dns: FakeDns
    web: PolicyHost
    resolver: Resolver
    folder: Path
    now: float = 1_000_000.0
    tls: Tls = None  # type: ignore[assignment]

    def configure(self, **config: Any) -> Tls:
        """Wires it as a worker does."""
        options = {"ca": AUTHORITY.write(self.folder / "ca.pem"), **config}
        self.tls = Tls(
            RelayTls(**options),
            self.resolver,
            self.folder / "mta-sts",
            lambda: self.now,
            https_port=self.web.port,
        )
        return self.tls

    def publish(self, server: NextHop, *records: str, policy: str = "") -> None:
        """TLSA records for a server, and an MTA-STS policy."""
        port = server.address.rpartition(":")[2]
        if records:
            self.dns.zones[f"_{port}._tcp.{HOST}"] = {"TLSA": list(records)}
        if policy:
            self.dns.zones[f"_mta-sts.{DOMAIN}"] = {"TXT": ['"v=STSv1; id=1"']}
            self.web.answer = answer(policy)

    async def open(
        self,
        server: NextHop,
        delivery: Delivery | None = None,
        host: str = HOST,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (it is frozen)
        **route: Any,
    ) -> Connection | Outcome:
        """A connection to a server for a delivery, or why there is none."""
        address, port = server.address.split(":")
        hop = Hop(host, int(port))
        options = {"is_mx": True, "authentic": await self.resolver.mx_authentic(DOMAIN), **route}
        delivery = delivery or make_delivery(f"b@{DOMAIN}")
        requirement = await self.tls.requirement(delivery, Route((hop,), "site", **options))
        protection = await self.tls.protection(requirement, hop)
        if isinstance(protection, Outcome):
            return protection
        return await open_connection(hop, address, SOURCE, timeouts, protection)

    async def connect(self, server: NextHop, *args: Any, **route: Any) -> Connection:
        """The same, which has to work; it is closed again."""
        opened = await self.open(server, *args, **route)
        assert isinstance(opened, Connection), opened
        opened.abort()
        return opened

    async def fail(self, server: NextHop, *args: Any, **route: Any) -> Outcome:
        """The same, which must not work."""
        opened = await self.open(server, *args, **route)
        assert isinstance(opened, Outcome)
        assert opened.stage == "tls"
        assert server.messages == []
        return opened


@asynccontextmanager
async def _world(folder: Path, *, signed: bool = True, **config: Any) -> AsyncIterator[World]:
    zones: dict[str, Any] = {
        DOMAIN: {"MX": [f"10 {HOST}."]},
        HOST: {"A": ["127.0.0.1"]},
        f"mta-sts.{DOMAIN}": {"A": ["127.0.0.1"]},
    }
    async with FakeDns(zones, signed=["."] if signed else []) as dns, PolicyHost(WEB) as web:
        resolver = Resolver([dns.address], timeout=1.0, loopback=True)
        world = World(dns, web, resolver, folder)
        folder.mkdir(exist_ok=True)
        world.configure(**config)
        try:
            yield world
        finally:
            await world.tls.close()
            await resolver.close()


def _tlsa(usage: int, selector: int, matching: int, identity: Identity, place: int = 0) -> str:
    certificate = identity.der[place]
    data = identity.spki if selector else certificate
    digest = {1: hashlib.sha256, 2: hashlib.sha512}.get(matching)
    return f"{usage} {selector} {matching} {(digest(data).digest() if digest else data).hex()}"


# What the configuration says.


async def _level(world: World, delivery: Delivery | None = None, **route: Any) -> TlsLevel:
    requirement = await world.tls.requirement(
        delivery or make_delivery(), Route((Hop("10.0.0.5"),), "site", **route)
    )
    return requirement.level


def _rule(level: TlsLevel, **domains: Any) -> TlsPolicy:
    return TlsPolicy(level=level, **domains)


@pytest.mark.parametrize("level", TlsLevel)
@pytest.mark.parametrize("of_route", [None, *TlsLevel])
async def test_a_route_overrides_the_level(
    tmp_path: Path, level: TlsLevel, of_route: TlsLevel | None
) -> None:
    async with _world(tmp_path, level=level) as world:
        assert await _level(world, tls=of_route) is (of_route or level)
        demanded = max((of_route or level, REQUIRED), key=list(TlsLevel).index)
        assert await _level(world, tls=of_route, implicit_tls=True) is demanded
        login = Credentials("gateway", "secret")
        assert await _level(world, tls=of_route, login=login) is demanded


async def test_the_first_policy_that_matches_is_taken(tmp_path: Path) -> None:
    policies = (
        _rule(VERIFIED, recipient_domain="Bank.example"),
        _rule(NONE, recipient_domain=("*.bank.example", "old.example")),
        _rule(REQUIRED, sender_domain="hr.*", recipient_domain="*.example"),
        _rule(VERIFIED, sender_domain="hr.example.com"),
        _rule(NONE, recipient_domain="bücher.example"),
    )
    async with _world(tmp_path, policies=policies) as world:
        for recipient, sender, level in (
            ("b@bank.example", "a@example.com", VERIFIED),
            ("b@BANK.example", "a@hr.example.com", VERIFIED),
            ("b@x.bank.example", "a@hr.example.com", NONE),
            ("b@old.example", "", NONE),
            ("b@new.example", "a@HR.example.com", REQUIRED),
            ("b@new.example", "a@example.com", OPPORTUNISTIC),
            ("b@example.net", "a@hr.example.com", VERIFIED),
            ("b@example.net", "", OPPORTUNISTIC),
            ("b@xn--bcher-kva.example", "a@example.com", NONE),
            ("b@bücher.example", "a@example.com", NONE),
        ):
            delivery = make_delivery(recipient, sender=sender)
            for _ in range(2):
                assert await _level(world, delivery) is level, (recipient, sender)
            assert await _level(world, delivery, tls=OPPORTUNISTIC) is OPPORTUNISTIC


async def test_recipients_over_a_smarthost_share_the_strictest_level(tmp_path: Path) -> None:
    policies = (
        _rule(REQUIRED, recipient_domain="bank.example"),
        _rule(NONE, recipient_domain="old.example"),
    )
    async with _world(tmp_path, policies=policies) as world:
        for recipients, level in (
            (["a@old.example", "b@old.example"], NONE),
            (["a@old.example", "b@example.net"], OPPORTUNISTIC),
            (["a@old.example", "b@bank.example", "c@example.net"], REQUIRED),
        ):
            assert await _level(world, make_delivery(*recipients)) is level


async def test_equal_requirements_share_connections(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        world.dns.zones["_mta-sts.example.org"] = {"TXT": ['"v=STSv1; id=9"']}
        hops = (Hop(HOST),)
        first, again, other = [
            await world.tls.requirement(make_delivery(f"b@{domain}"), Route(hops, "s", is_mx=True))
            for domain in (DOMAIN, DOMAIN, "example.org")
        ]
        assert first is again
        assert first == other
        assert hash(first) == hash(other)
        assert (first.domain, other.domain) == (DOMAIN, "example.org")
        different = {
            first,
            *[
                await world.tls.requirement(make_delivery(f"b@{DOMAIN}", **delivery), route)
                for delivery, route in (
                    ({}, Route(hops, "s", is_mx=True, authentic=True)),
                    ({"require_tls": True}, Route(hops, "s", is_mx=True)),
                    ({}, Route(hops, "s", is_mx=True, tls=REQUIRED)),
                    ({}, Route(hops, "s", implicit_tls=True)),
                    ({}, Route(hops, "s", login=Credentials("a", "b"))),
                    ({}, Route(hops, "s", login=Credentials("a", "c"))),
                )
            ],
        }
        assert len(different) == 7
        assert "secret" not in repr(
            await world.tls.requirement(
                make_delivery(), Route(hops, "s", login=Credentials("a", "secret"))
            )
        )


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"ca": Path(__file__)}, "has no certificates in the form of PEM"),
        ({"ciphers": "NONSENSE"}, "OpenSSL knows no ciphers 'NONSENSE'"),
        ({"minimum": "1.1"}, "'1.2' or '1.3'"),
        ({"policies": [{"level": "required"}]}, "needs recipient_domain or sender_domain"),
        ({"policies": [{"level": "required", "sender_domain": "a@b.example"}]}, 'has no "@"'),
        ({"policies": [{"level": "strict", "sender_domain": "b.example"}]}, "'verified'"),
    ],
)
def test_mistakes_in_the_configuration(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as raised:
        RelayTls.model_validate(keys)
    assert reason in str(raised.value)


async def test_certificates_that_cannot_be_read_any_more(tmp_path: Path) -> None:
    async with _world(tmp_path, level=VERIFIED) as world, NextHop(tls=TLS) as server:
        (tmp_path / "ca.pem").unlink()
        outcome = await world.fail(server)
        assert (outcome.disposition, outcome.status) == (DEFERRED, "4.3.5")
        assert "relay.tls cannot be read: No such file" in outcome.text


async def test_smarthosts_publish_nothing(tmp_path: Path) -> None:
    async with _world(tmp_path) as world, NextHop(tls=UNKNOWN_TLS) as server:
        world.publish(server, _tlsa(3, 1, 1, SERVER), policy=POLICY)
        connection = await world.connect(server, is_mx=False)
        assert connection.tls.endswith("not verified")
        assert world.dns.queries.keys() == {(DOMAIN, "MX")}


# DANE.


@pytest.mark.parametrize("level", [OPPORTUNISTIC, REQUIRED, VERIFIED])
async def test_dane(tmp_path: Path, level: TlsLevel) -> None:
    async with _world(tmp_path, level=level) as world, NextHop(tls=UNKNOWN_TLS) as server:
        world.publish(server, _tlsa(3, 1, 1, UNKNOWN))
        connection = await world.connect(server)
        assert connection.tls.endswith(", verified by DANE")


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
async def test_records_that_match(tmp_path: Path, usage: int, selector: int, matching: int) -> None:
    identity = AUTHORITY.own if usage == 2 else SERVER
    async with _world(tmp_path) as world, NextHop(tls=TLS) as server:
        world.publish(server, _tlsa(usage, selector, matching, identity))
        assert (await world.connect(server)).tls.endswith("verified by DANE")


async def test_records_that_do_not_match(tmp_path: Path) -> None:
    for level in (OPPORTUNISTIC, VERIFIED):
        async with _world(tmp_path, level=level) as world, NextHop(tls=TLS) as server:
            world.publish(server, _tlsa(3, 1, 1, UNKNOWN), _tlsa(2, 1, 1, UNKNOWN))
            outcome = await world.fail(server)
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.7.5")
            relay = f"{HOST}[{server.address.replace(':', ']:')}"
            assert outcome.text == (
                f"no TLS with {relay}, which TLSA of {HOST} demands: "
                "the TLSA records do not match the certificate"
            )
            # Nothing was said to whom it is not.
            assert lines(server)[:2] == ["EHLO gw.example.com", "STARTTLS"]
            assert server.connections == 1


@pytest.mark.parametrize("record", ["0 1 1", "1 0 1", "3 2 1", "3 1 9"])
async def test_records_that_say_nothing_demand_tls_of_any_kind(tmp_path: Path, record: str) -> None:
    data = f"{record} {'ab' * 32}"
    async with _world(tmp_path) as world, NextHop(tls=UNKNOWN_TLS) as server:
        world.publish(server, data)
        assert (await world.connect(server)).tls.endswith("not verified")
    async with _world(tmp_path) as world, NextHop() as server:
        world.publish(server, data)
        outcome = await world.fail(server)
        assert (outcome.disposition, outcome.status) == (DEFERRED, "4.7.4")
        assert f"TLSA of {HOST} demands: no STARTTLS is offered" in outcome.text
    async with _world(tmp_path, level=VERIFIED) as world, NextHop(tls=UNKNOWN_TLS) as server:
        world.publish(server, data)
        assert "self-signed" in (await world.fail(server)).text


async def test_dane_allows_no_way_in_the_clear(tmp_path: Path) -> None:
    record = _tlsa(3, 1, 1, SERVER)
    for how, status in (
        ({}, "4.7.4"),
        ({"tls": TLS, "starttls": "454 4.7.0 Later"}, "4.7.4"),
        ({"tls": TLS, "handshake": Drop()}, "4.4.2"),
    ):
        async with _world(tmp_path) as world, NextHop(**how) as server:  # type: ignore[arg-type]
            world.publish(server, record)
            outcome = await world.fail(server)
            assert (outcome.disposition, outcome.status) == (DEFERRED, status)
            assert server.connections == 1


@pytest.mark.parametrize("failure", [Failure.SERVFAIL, Failure.REFUSED])
async def test_a_failing_look_up_may_be_an_attack(tmp_path: Path, failure: Failure) -> None:
    async with _world(tmp_path) as world, NextHop(tls=TLS) as server:
        port = server.address.rpartition(":")[2]
        world.dns.zones[f"_{port}._tcp.{HOST}"] = failure
        outcome = await world.fail(server)
        assert (outcome.disposition, outcome.status) == (DEFERRED, "4.7.5")
        assert f"DNS has no answer for TLSA of _{port}._tcp.{HOST}: " in outcome.text
        assert server.connections == 0
        # Where the level is none, there is nothing to look up.
        world.configure(level=NONE)
        assert (await world.connect(server)).tls == ""
        world.configure(dane=False)
        assert (await world.connect(server)).tls.endswith("not verified")


async def test_without_dnssec_records_are_not_asked_for(tmp_path: Path) -> None:
    async with _world(tmp_path, signed=False) as world, NextHop(tls=TLS) as server:
        world.publish(server, _tlsa(3, 1, 1, UNKNOWN))
        assert (await world.connect(server)).tls.endswith("not verified")
        # The exchangers are, the addresses are not; and the other way round.
        world.dns.signed = {"_tcp.mx.example.net"}
        assert (await world.connect(server, authentic=True)).tls.endswith("not verified")
        world.dns.signed = {HOST}
        world.resolver._cache.clear()
        assert (await world.connect(server)).tls.endswith("not verified")
        assert not any(kind == "TLSA" for _, kind in world.dns.queries)


async def test_an_alias_has_its_records_at_its_end_first(tmp_path: Path) -> None:
    async with _world(tmp_path) as world, NextHop(tls=TLS) as server:
        port = server.address.rpartition(":")[2]
        world.dns.zones["alias.example.net"] = {"CNAME": [f"{HOST}."]}
        alias, end = f"_{port}._tcp.alias.example.net", f"_{port}._tcp.{HOST}"
        world.dns.zones[alias] = {"TLSA": [_tlsa(3, 1, 1, SERVER)]}
        connection = await world.connect(server, host="alias.example.net")
        assert connection.tls.endswith("verified by DANE")
        world.dns.zones[end] = {"TLSA": [_tlsa(3, 1, 1, UNKNOWN)]}
        world.resolver._cache.clear()
        outcome = await world.fail(server, host="alias.example.net")
        assert f"TLSA of {HOST} demands" in outcome.text
        # The certificate of an issuer may have either name, or that of the domain.
        world.dns.zones[end] = {"TLSA": [_tlsa(2, 1, 1, AUTHORITY.own)]}
        world.resolver._cache.clear()
        for name in (HOST, "alias.example.net", DOMAIN):
            async with NextHop(tls=AUTHORITY.issue(name, with_root=True).server()) as other:
                world.publish(other, _tlsa(2, 1, 1, AUTHORITY.own))
                await world.connect(other, host="alias.example.net")
        async with NextHop(tls=AUTHORITY.issue("a.example", with_root=True).server()) as other:
            world.publish(other, _tlsa(2, 1, 1, AUTHORITY.own))
            assert "do not match" in (await world.fail(other, host="alias.example.net")).text


async def test_dane_takes_the_place_of_the_certificate_that_a_policy_wants(
    tmp_path: Path,
) -> None:
    async with _world(tmp_path) as world, NextHop(tls=UNKNOWN_TLS) as server:
        world.publish(server, _tlsa(3, 1, 1, UNKNOWN), policy=POLICY)
        assert (await world.connect(server)).tls.endswith("verified by DANE")
    async with _world(tmp_path) as world, NextHop(tls=TLS) as server:
        # A policy never makes up for records that do not match (RFC 8461 2).
        world.publish(server, _tlsa(3, 1, 1, UNKNOWN), policy=POLICY)
        assert "TLSA records do not match" in (await world.fail(server)).text
        world.publish(server, "1 1 1 " + "ab" * 32)
        world.resolver._cache.clear()
        assert (await world.connect(server)).tls.endswith("verified by MTA-STS")


# MTA-STS.


@pytest.mark.parametrize("level", [OPPORTUNISTIC, REQUIRED])
async def test_a_policy_demands_a_valid_certificate(tmp_path: Path, level: TlsLevel) -> None:
    async with _world(tmp_path, signed=False, level=level) as world:
        async with NextHop(tls=TLS) as server:
            world.publish(server, policy=POLICY)
            assert (await world.connect(server)).tls.endswith("verified by MTA-STS")
        for how, status, reason in (
            ({"tls": UNKNOWN_TLS}, "4.7.5", "self-signed certificate"),
            ({}, "4.7.4", "no STARTTLS is offered"),
            ({"tls": TLS, "starttls": "454 4.7.0 Later"}, "4.7.4", "refused: 454 Later"),
            ({"tls": TLS, "handshake": Drop()}, "4.4.2", "closed the connection"),
        ):
            async with NextHop(**how) as server:
                outcome = await world.fail(server)
                assert (outcome.disposition, outcome.status) == (DEFERRED, status)
                assert f"the MTA-STS policy of {DOMAIN} demands" in outcome.text
                assert reason in outcome.text
                assert server.connections == 1


async def test_a_policy_names_the_servers(tmp_path: Path) -> None:
    async with _world(tmp_path, signed=False) as world, NextHop(tls=TLS) as server:
        world.publish(server, policy=POLICY)
        for host in ("other.example.net", "127.0.0.1", "mx.example.net.evil.example"):
            outcome = await world.fail(server, host=host)
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.7.5")
            assert outcome.text == (
                f"{host} must not be used: it is not among the servers in the MTA-STS policy "
                f"of {DOMAIN}"
            )
        assert server.connections == 0


async def test_certificates_of_the_system_are_trusted_for_policies_too(tmp_path: Path) -> None:
    """`ca` may be a company's own, for its smarthosts: the world's domains are not below it."""
    async with _world(tmp_path, signed=False) as world, NextHop() as server:
        world.publish(server, policy=POLICY)
        delivery = make_delivery(f"b@{DOMAIN}")
        requirement = await world.tls.requirement(delivery, Route((), "s", is_mx=True))
        verified = await world.tls.requirement(delivery, Route((), "s", tls=VERIFIED))
        of_policy = await world.tls.protection(requirement, Hop(HOST))
        of_config = await world.tls.protection(verified, Hop(HOST))
        assert isinstance(of_policy, Protection)
        assert isinstance(of_config, Protection)
        assert of_policy.context is not None
        assert of_config.context is not None
        assert len(of_config.context.get_ca_certs()) == 1
        assert len(of_policy.context.get_ca_certs()) >= 1
        assert of_policy.context is not of_config.context


@pytest.mark.parametrize("level", [OPPORTUNISTIC, REQUIRED])
async def test_a_policy_in_testing_only_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, level: TlsLevel
) -> None:
    testing = POLICY.replace("enforce", "testing")
    async with _world(tmp_path, signed=False, level=level) as world:
        async with NextHop(tls=TLS) as server:
            world.publish(server, policy=testing)
            assert (await world.connect(server)).tls.endswith("verified by MTA-STS")
            assert caplog.records == []
            connection = await world.connect(server, host="other.example.net")
            assert connection.tls.endswith("not verified")
            assert _warning(caplog) == (
                f"MTA-STS policy of {DOMAIN} (testing) is broken by other.example.net:"
                f"{server.address[10:]}: it is not among the servers in the MTA-STS policy of "
                f"{DOMAIN}"
            )
            await world.connect(server, host="other.example.net")
            assert caplog.records == []
        async with NextHop(tls=UNKNOWN_TLS) as server:
            for connections in (2, 3):
                assert (await world.connect(server)).tls.endswith("not verified")
                assert server.connections == connections
            assert "self-signed certificate" in _warning(caplog)
            world.now += AVOIDED_SECONDS
            await world.connect(server)
            assert server.connections == 5
            assert "self-signed certificate" in _warning(caplog)
        async with NextHop() as server:
            if level is OPPORTUNISTIC:
                assert (await world.connect(server)).tls == ""
            else:
                outcome = await world.fail(server)
                assert "the configuration demands: no STARTTLS" in outcome.text
            assert "no STARTTLS is offered" in _warning(caplog)


def _warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    text = record.message
    caplog.clear()
    return text


@pytest.mark.parametrize("config", [{"mta_sts": False}, {"level": NONE}])
async def test_policies_that_nobody_obeys_are_not_fetched(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    async with _world(tmp_path, signed=False, **config) as world:
        async with NextHop(tls=UNKNOWN_TLS) as server:
            world.publish(server, policy=POLICY)
            await world.connect(server)
        assert world.web.requests == []


# REQUIRETLS and TLS-Required (RFC 8689).

REQUIRETLS = ("PIPELINING", "REQUIRETLS")


def _demanding(**options: Any) -> Delivery:
    return make_delivery(f"b@{DOMAIN}", require_tls=True, **options)


@pytest.mark.parametrize("level", TlsLevel)
async def test_requiretls(tmp_path: Path, level: TlsLevel) -> None:
    for signed, records, policy, verified_by in (
        (True, [_tlsa(3, 1, 1, SERVER)], "", "DANE"),
        (True, [], "", "certificate"),
        (False, [], POLICY, "MTA-STS"),
        (False, [], POLICY.replace("enforce", "testing"), "MTA-STS"),
    ):
        # Whatever the level is: who sends demands it.
        async with (
            _world(tmp_path, signed=signed, level=level) as world,
            NextHop(tls=TLS, extensions=REQUIRETLS) as server,
        ):
            world.publish(server, *records, policy=policy)
            connection = await world.connect(server, _demanding())
            if level is VERIFIED and verified_by == "MTA-STS":
                verified_by = "certificate"
            assert connection.tls.endswith(f"verified by {verified_by}")
            assert connection.extensions.require_tls
            shutil.rmtree(tmp_path / "mta-sts", ignore_errors=True)


async def test_requiretls_over_a_smarthost(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        async with NextHop(tls=TLS, extensions=REQUIRETLS) as server:
            connection = await world.connect(server, _demanding(), is_mx=False)
            assert connection.tls.endswith("verified by certificate")
        async with NextHop(tls=TLS, extensions=REQUIRETLS, implicit_tls=True) as server:
            connection = await world.connect(server, _demanding(), is_mx=False, implicit_tls=True)
            assert connection.tls.endswith("verified by certificate")


async def test_requiretls_where_it_cannot_be_had(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        for how, status, reason in (
            ({"tls": TLS}, "5.7.30", "REQUIRETLS, which mx.example.net["),
            ({"extensions": REQUIRETLS}, "5.7.10", "no STARTTLS is offered"),
            ({"tls": UNKNOWN_TLS, "extensions": REQUIRETLS}, "5.7.10", "self-signed"),
            ({"tls": TLS, "starttls": "502 5.5.1 No"}, "5.7.10", "refused"),
        ):
            async with NextHop(**how) as server:
                outcome = await world.fail(server, _demanding())
                assert (outcome.disposition, outcome.status) == (FAILED, status)
                assert "REQUIRETLS" in outcome.text
                assert reason in outcome.text
                assert server.connections == 1
        async with NextHop(tls=TLS, handshake=Drop()) as server:
            # That may be different the next time.
            outcome = await world.fail(server, _demanding())
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.2")


async def test_requiretls_needs_an_exchanger_that_nobody_can_have_forged(tmp_path: Path) -> None:
    async with (
        _world(tmp_path, signed=False) as world,
        NextHop(tls=TLS, extensions=REQUIRETLS) as server,
    ):
        outcome = await world.fail(server, _demanding())
        assert (outcome.disposition, outcome.status) == (FAILED, "5.7.30")
        assert "neither DNSSEC nor an MTA-STS policy" in outcome.text
        assert server.connections == 0


async def test_requiretls_takes_no_server_beside_the_policy(tmp_path: Path) -> None:
    for mode in Mode.ENFORCE, Mode.TESTING:
        async with (
            _world(tmp_path / mode, signed=False) as world,
            NextHop(tls=TLS, extensions=REQUIRETLS) as server,
        ):
            world.publish(server, policy=POLICY.replace("enforce", mode))
            outcome = await world.fail(server, _demanding(), host="other.example.net")
            assert (outcome.disposition, outcome.status) == (FAILED, "5.7.30")


@pytest.mark.parametrize(
    ("field", "without"),
    [
        ("TLS-Required: No", True),
        ("tls-required:no", True),
        ("TLS-Required:\t No \t", True),
        ("TLS-Required: Yes", False),
        ("TLS-Required: Not at all", False),
        ("X-TLS-Required: No", False),
        ("Subject: TLS-Required: No", False),
        ("Subject: x\r\n TLS-Required: No", False),
        ("Subject: x\r\n\r\nTLS-Required: No", False),
        ("TLS-Required: No\r\nSubject: x", True),
    ],
)
async def test_a_message_may_prefer_to_arrive(tmp_path: Path, field: str, without: bool) -> None:
    content = f"From: a@example.com\r\n{field}\r\n".encode() + CONTENT
    async with _world(tmp_path) as world, NextHop() as server:
        world.publish(server, _tlsa(3, 1, 1, SERVER), policy=POLICY)
        delivery = make_delivery(f"b@{DOMAIN}", content=content)
        opened = await world.open(server, delivery)
        assert isinstance(opened, Connection) is without
        if isinstance(opened, Connection):
            opened.abort()
        # What the configuration demands stays, and so does what the sender demanded first.
        assert isinstance(await world.open(server, delivery, tls=REQUIRED), Outcome)
        assert isinstance(await world.open(server, _demanding(content=content)), Outcome)


async def test_a_message_without_an_end_of_its_header(tmp_path: Path) -> None:
    async with _world(tmp_path) as world, NextHop() as server:
        world.publish(server, policy=POLICY)
        delivery = make_delivery(f"b@{DOMAIN}", content=b"TLS-Required: No\r\n")
        await world.connect(server, delivery)


# Memory.


async def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.delivery.tls._MOST", 3)
    policies = (_rule(REQUIRED, recipient_domain="bank.example"),)
    async with _world(tmp_path, policies=policies, mta_sts=False) as world:
        for number in range(10):
            delivery = make_delivery(f"b@{number}.example")
            route = Route((Hop(HOST),), "s", is_mx=True)
            requirement = await world.tls.requirement(delivery, route)
            protection = await world.tls.protection(requirement, Hop(f"{number}.example"))
            assert isinstance(protection, Protection)
            protection.failed("for a test")
        for memory in (world.tls._requirements, world.tls._levels, world.tls._avoided):
            assert len(memory) <= 3
        assert requirement == Requirement(OPPORTUNISTIC, certain=False)
