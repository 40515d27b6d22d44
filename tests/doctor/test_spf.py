from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.doctor.spf import LOOKUPS, check_host
from gateway.testing.dns import Failure, Records
from tests.doctor.sites import resolving

ZONES: Mapping[str, Records | Failure] = {
    "four.example": {"TXT": ['"v=spf1 ip4:192.0.2.0/24 -all"']},
    "six.example": {"TXT": ['"v=spf1 ip6:2001:db8::/32 ~all"']},
    "host.example": {"TXT": ['"v=spf1 a -all"'], "A": ["192.0.2.7"]},
    "near.example": {"TXT": ['"v=spf1 a:host.example/24 -all"']},
    "both.example": {"TXT": ['"v=spf1 a:dual.example/24//64 -all"']},
    "dual.example": {"A": ["198.51.100.1"], "AAAA": ["2001:db8:1::1"]},
    "mail.example": {"TXT": ['"v=spf1 mx ?all"'], "MX": ["10 host.example."]},
    "incl.example": {"TXT": ['"v=spf1 include:four.example ~all"']},
    "redi.example": {"TXT": ['"v=spf1 redirect=four.example"']},
    "macro.example": {"TXT": ['"v=spf1 exists:%{ir}.%{v}.list.example -all"']},
    "7.2.0.192.in-addr.list.example": {"A": ["127.0.0.2"]},
    "point.example": {"TXT": ['"v=spf1 ptr:named.example -all"']},
    "7.2.0.192.in-addr.arpa": {"PTR": ["mx.named.example."]},
    "mx.named.example": {"A": ["192.0.2.7"]},
    "twice.example": {"TXT": ['"v=spf1 -all"', '"v=spf1 +all"']},
    "typo.example": {"TXT": ['"v=spf1 ipv4:192.0.2.7 -all"']},
    "wrong.example": {"TXT": ['"v=spf1 ip4:192.0.2.777 -all"']},
    "empty.example": {"TXT": ['"v=spf1 include:nothing.example -all"']},
    "loop.example": {"TXT": ['"v=spf1 include:loop.example -all"']},
    "split.example": {"TXT": ['"v=spf1 ip4:192." "0.2.7 -all"']},
    "other.example": {"TXT": ['"v=spf10 +all"', '"something else"']},
    "down.example": Failure.SERVFAIL,
    "void.example": {"TXT": ['"v=spf1 a:no1.example a:no2.example a:no3.example -all"']},
}


@pytest.mark.parametrize(
    ("domain", "address", "result"),
    [
        ("four.example", "192.0.2.7", "pass"),
        ("four.example", "198.51.100.7", "fail"),
        ("four.example", "2001:db8::7", "fail"),
        ("six.example", "2001:db8::7", "pass"),
        ("six.example", "192.0.2.7", "softfail"),
        ("host.example", "192.0.2.7", "pass"),
        ("host.example", "192.0.2.8", "fail"),
        ("near.example", "192.0.2.8", "pass"),
        ("both.example", "198.51.100.200", "pass"),
        ("both.example", "2001:db8:1::2", "pass"),
        ("both.example", "2001:db8:1:1::2", "fail"),
        ("mail.example", "192.0.2.7", "pass"),
        ("mail.example", "192.0.2.8", "neutral"),
        ("incl.example", "192.0.2.7", "pass"),
        ("incl.example", "198.51.100.7", "softfail"),
        ("redi.example", "192.0.2.7", "pass"),
        ("redi.example", "198.51.100.7", "fail"),
        ("macro.example", "192.0.2.7", "pass"),
        ("macro.example", "192.0.2.8", "fail"),
        ("point.example", "192.0.2.7", "pass"),
        ("split.example", "192.0.2.7", "pass"),
        ("twice.example", "192.0.2.7", "permerror"),
        ("typo.example", "192.0.2.7", "permerror"),
        ("wrong.example", "192.0.2.7", "permerror"),
        ("empty.example", "192.0.2.7", "permerror"),
        ("loop.example", "192.0.2.7", "permerror"),
        ("void.example", "192.0.2.7", "permerror"),
        ("other.example", "192.0.2.7", "none"),
        ("nothing.example", "192.0.2.7", "none"),
        ("down.example", "192.0.2.7", "temperror"),
    ],
)
async def test_what_a_receiver_comes_to(domain: str, address: str, result: str) -> None:
    async with resolving(ZONES) as resolver:
        verdict = await check_host(resolver, address, domain, "gw.example.com")
    assert verdict.result == result, verdict


async def test_no_more_than_ten_terms_ask_the_dns() -> None:
    zones: dict[str, Records | Failure] = {
        f"n{number}.example": {"TXT": [f'"v=spf1 include:n{number + 1}.example -all"']}
        for number in range(LOOKUPS + 1)
    }
    zones[f"n{LOOKUPS}.example"] = {"TXT": ['"v=spf1 +all"']}
    async with resolving(zones) as resolver:
        exact = await check_host(resolver, "192.0.2.7", "n0.example", "x")
        zones_more = {**zones, "n.example": {"TXT": ['"v=spf1 include:n0.example -all"']}}
    async with resolving(zones_more) as resolver:
        beyond = await check_host(resolver, "192.0.2.7", "n.example", "x")
    assert (exact.result, exact.lookups) == ("pass", LOOKUPS)
    assert beyond.result == "permerror"
