"""What the DNS says that is authenticated (RFC 4035, RFC 7672): for the exchangers of a domain, the
addresses of a host, and TLSA records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver, Tlsa
from gateway.testing import Failure, FakeDns
from gateway.testing.dns import Records

ZONES: Mapping[str, Records | Failure] = {
    "signed.example": {"MX": ["10 mx.signed.example."]},
    "mx.signed.example": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "bare.signed.example": {"TXT": ["x"]},
    "failing.signed.example": Failure.SERVFAIL,
    "unsigned.example": {"MX": ["10 mx.signed.example."], "A": ["192.0.2.3"]},
    "alias.signed.example": {"CNAME": ["alias2.signed.example."]},
    "alias2.signed.example": {"CNAME": ["MX.signed.example."]},
    "leaving.signed.example": {"CNAME": ["unsigned.example."]},
    "coming.unsigned.example": {"CNAME": ["mx.signed.example."]},
    "half.signed.example": {"A": ["192.0.2.4"], "AAAA": Failure.SERVFAIL},
    "_25._tcp.mx.signed.example": {"TLSA": [f"3 1 1 {'ab' * 32}", f"2 0 2 {'cd' * 64}"]},
    "_25._tcp.unsigned.example": {"TLSA": [f"3 1 1 {'ab' * 32}"]},
    "_25._tcp.bare.signed.example": {"TXT": ["x"]},
    "_25._tcp.failing.signed.example": Failure.SERVFAIL,
    "_25._tcp.malformed.signed.example": {"TLSA": [r"\# 5 03 01 01 ab cd"]},
}


@asynccontextmanager
async def _resolver(
    authenticated: bool | None = None, hosts: Path = Path("/nonexistent")
) -> AsyncIterator[tuple[Resolver, FakeDns]]:
    async with FakeDns(ZONES, signed=["signed.example"]) as dns:
        resolver = Resolver(
            [dns.address], timeout=1.0, loopback=True, hosts=hosts, authenticated=authenticated
        )
        try:
            yield resolver, dns
        finally:
            await resolver.close()


@pytest.mark.parametrize(
    ("nameservers", "authenticated", "believed"),
    [
        (["127.0.0.1"], None, True),
        (["127.0.0.53", "[::1]:5353"], None, True),
        (["127.0.0.1", "192.0.2.53"], None, False),
        (["192.0.2.53"], None, False),
        (["192.0.2.53"], True, True),
        (["127.0.0.1"], False, False),
    ],
)
async def test_who_is_believed(
    nameservers: list[str], authenticated: bool | None, believed: bool
) -> None:
    assert Resolver(nameservers, authenticated=authenticated).authenticated is believed


@pytest.mark.parametrize(
    ("domain", "authentic"),
    [
        ("signed.example", True),
        ("bare.signed.example", True),  # that it has none
        ("missing.signed.example", True),
        ("failing.signed.example", False),
        ("unsigned.example", False),
        ("missing.unsigned.example", False),
    ],
)
async def test_exchangers(domain: str, authentic: bool) -> None:
    async with _resolver() as (resolver, dns):
        for _ in range(2):
            assert await resolver.mx_authentic(domain) is authentic
        assert dns.queries[domain, "MX"] == 1


async def test_what_mx_has_asked_is_not_asked_again() -> None:
    async with _resolver() as (resolver, dns):
        assert await resolver.mx("signed.example") == [(10, "mx.signed.example")]
        assert await resolver.mx_authentic("signed.example")
        assert dns.queries[("signed.example", "MX")] == 1


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("mx.signed.example", "mx.signed.example"),
        ("MX.Signed.Example", "mx.signed.example"),
        ("alias.signed.example", "mx.signed.example"),
        ("half.signed.example", "half.signed.example"),
        ("leaving.signed.example", None),
        ("coming.unsigned.example", None),
        ("unsigned.example", None),
        ("bare.signed.example", None),
        ("missing.signed.example", None),
        ("failing.signed.example", None),
        ("192.0.2.1", None),
        ("localhost", None),
    ],
)
async def test_addresses(host: str, name: str | None) -> None:
    async with _resolver() as (resolver, _):
        assert await resolver.authentic_name(host) == name


async def test_addresses_of_the_hosts_file_are_not_authenticated(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.9 mx.signed.example\n")
    async with _resolver(hosts=hosts) as (resolver, _):
        assert await resolver.authentic_name("mx.signed.example") is None


async def test_tlsa_records() -> None:
    async with _resolver() as (resolver, _):
        assert sorted(await resolver.tlsa("_25._tcp.mx.signed.example"), key=repr) == [
            Tlsa(2, 0, 2, b"\xcd" * 64),
            Tlsa(3, 1, 1, b"\xab" * 32),
        ]
        assert await resolver.tlsa("_25._tcp.unsigned.example") == []
        assert await resolver.tlsa("_25._tcp.bare.signed.example") == []
        with pytest.raises(NoSuchDomainError):
            await resolver.tlsa("_25._tcp.missing.signed.example")
        for name in ("failing", "malformed"):
            with pytest.raises(ResolutionError):
                await resolver.tlsa(f"_25._tcp.{name}.signed.example")


async def test_a_server_that_is_not_believed_is_not_asked() -> None:
    async with _resolver(authenticated=False) as (resolver, dns):
        assert not await resolver.mx_authentic("signed.example")
        assert await resolver.authentic_name("mx.signed.example") is None
        assert dns.queries.total() == 0
        # It says nothing either, as nobody asks.
        assert await resolver.tlsa("_25._tcp.mx.signed.example") == []
