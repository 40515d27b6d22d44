from __future__ import annotations

import pytest

from gateway.doctor.dmarc import policy_of, walk
from gateway.resolver import ResolutionError
from gateway.testing.dns import Failure
from tests.doctor.sites import resolving


def _txt(text: str) -> dict[str, list[str]]:
    return {"TXT": [f'"{text}"']}


def test_the_walk_skips_the_middle_of_a_long_name() -> None:
    assert walk("a.b.example") == ["a.b.example", "b.example", "example"]
    long = walk("a.b.c.d.e.f.g.h.i.example")
    assert long[:2] == ["a.b.c.d.e.f.g.h.i.example", "d.e.f.g.h.i.example"]
    assert len(long) == 8


async def test_a_policy_of_its_own_and_one_from_above() -> None:
    async with resolving(
        {
            "_dmarc.example.com": _txt("v=DMARC1; p=reject; sp=none; adkim=s"),
            "_dmarc.own.example.com": _txt("v=DMARC1; p=quarantine"),
        }
    ) as resolver:
        above = await policy_of(resolver, "news.example.com")
        own = await policy_of(resolver, "own.example.com")
        nothing = await policy_of(resolver, "example.net")
    assert (above.domain, above.organization) == ("example.com", "example.com")
    assert above.action("news.example.com") == "none"
    assert above.action("example.com") == "reject"
    assert (own.domain, own.organization) == ("own.example.com", "example.com")
    assert own.action("own.example.com") == "quarantine"
    assert (nothing.domain, nothing.organization) == ("", "example.net")


async def test_a_public_suffix_is_no_organization() -> None:
    async with resolving(
        {
            "_dmarc.example": _txt("v=DMARC1; p=none; psd=y"),
            "_dmarc.shop.example": _txt("v=DMARC1; p=reject"),
        }
    ) as resolver:
        shop = await policy_of(resolver, "mail.shop.example")
    assert (shop.domain, shop.organization) == ("shop.example", "shop.example")


async def test_strict_and_relaxed_alignment() -> None:
    async with resolving({"_dmarc.example.com": _txt("v=DMARC1; p=reject; aspf=s")}) as resolver:
        policy = await policy_of(resolver, "example.com")
    assert policy.aligned("adkim", "example.com", "a.example.com", "example.com")
    assert not policy.aligned("adkim", "example.com", "example.net", "example.net")
    assert not policy.aligned("aspf", "example.com", "a.example.com", "example.com")
    assert policy.aligned("aspf", "example.com", "example.com", "example.com")


async def test_two_records_are_none_and_silence_is_an_error() -> None:
    async with resolving(
        {
            "_dmarc.two.example": {"TXT": ['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"']},
            "_dmarc.down.example": Failure.SERVFAIL,
        }
    ) as resolver:
        assert (await policy_of(resolver, "two.example")).domain == ""
        with pytest.raises(ResolutionError):
            await policy_of(resolver, "down.example")
