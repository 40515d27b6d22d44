from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.hooks import Discard, Recipient, Reject, Resolver
from gateway.testing import FakeDns
from gateway.testing.dns import Failure
from plugins.suppression import Suppression, SuppressionConfig
from plugins.suppression.misspelling import BIG, OTHERS, Misspellings, is_one_slip
from tests.plugins.suppression_site import Site, ask, mail

REJECT = {"misspelled": "reject", "without_mail": "pass"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


# Misspelled domains.


@pytest.mark.parametrize(
    ("domain", "meant"),
    [
        ("gmial.com", "gmail.com"),
        ("gmal.com", "gmail.com"),
        ("gmaill.com", "gmail.com"),
        ("gnail.com", "gmail.com"),
        ("gmail.con", "gmail.com"),
        ("gmail.co", "gmail.com"),
        ("gmailcom", "gmail.com"),
        ("yaho.co.jp", "yahoo.co.jp"),
        ("yahoo.co.jo", "yahoo.co.jp"),
        ("docmo.ne.jp", "docomo.ne.jp"),
        ("docomo.en.jp", "docomo.ne.jp"),
        ("ezwed.ne.jp", "ezweb.ne.jp"),
        ("sofbank.ne.jp", "softbank.ne.jp"),
        ("hotmial.com", "hotmail.com"),
        ("iclould.com", "icloud.com"),
        ("outlok.jp", "outlook.jp"),
        *((domain, None) for domain in (*BIG, *sorted(OTHERS))),
        *((domain, None) for domain in ("example.com", "gmx.com", "gmx.net", "msn.com", "aol.com")),
        *((domain, None) for domain in ("mail.gmail.com", "gmail.co.jp", "ggmaill.com", "com", "")),
    ],
)
def test_one_slip_from_a_big_domain(domain: str, meant: str | None) -> None:
    assert Misspellings([]).meant(domain) == meant


def test_domains_that_a_site_knows_are_spelled_right() -> None:
    assert Misspellings(["gmal.com"]).meant("gmal.com") is None


def test_big_domains_that_look_like_each_other_are_both_right() -> None:
    for domain in BIG:
        for other in BIG:
            if is_one_slip(domain, other):
                assert Misspellings([]).meant(domain) is None


WORDS = st.text("abc", max_size=6)


def slips(word: str) -> set[str]:
    """Everything that one slip makes of a word."""
    found = set()
    for place in range(len(word) + 1):
        head, tail = word[:place], word[place:]
        found |= {head + letter + tail for letter in "abc"}
        if tail:
            found.add(head + tail[1:])
            found |= {head + letter + tail[1:] for letter in "abc"}
        if len(tail) > 1:
            found.add(head + tail[1] + tail[0] + tail[2:])
    return found - {word}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """A word, and what up to three slips make of it."""
    word = other = draw(WORDS)
    for _ in range(draw(st.integers(0, 3))):
        other = draw(st.sampled_from(sorted(slips(other))))
    return word, other


@given(pairs())
@example(("abc", "baa"))
def test_a_slip_is_one_letter_or_two_exchanged(words: tuple[str, str]) -> None:
    one, other = words
    assert is_one_slip(one, other) is (other in slips(one))
    assert is_one_slip(one, other) is is_one_slip(other, one)


@given(st.sampled_from(BIG), st.data())
def test_every_slip_from_a_big_domain_is_found(domain: str, data: st.DataObject) -> None:
    misspelled = data.draw(st.sampled_from(sorted(slips(domain) - {*BIG, *OTHERS})))
    meant = Misspellings([]).meant(misspelled)
    assert meant is not None
    assert is_one_slip(misspelled, meant)


def test_a_misspelled_domain_can_be_refused(site: Site) -> None:
    plugin = site.plugin(hygiene=REJECT)

    answer = ask(plugin, "taro@Gmial.com")

    assert isinstance(answer, Reject)
    assert (answer.code, answer.status) == (550, "5.1.2")
    assert answer.text == "There is no mail domain gmial.com, did you mean gmail.com?"
    (event,) = site.events
    assert event.type == "suppressed"
    assert event.reason == "invalid: misspelled: gmial.com, gmail.com is meant"
    assert ask(plugin, "taro@gmail.com") is None


def test_a_misspelled_domain_can_be_reported(site: Site) -> None:
    plugin = site.plugin(hygiene={"misspelled": "report", "without_mail": "pass"})

    assert ask(plugin, "taro@gmial.com") is None

    (event,) = site.events
    assert event.type == "suspected"
    assert event.recipient == "taro@gmial.com"


@pytest.mark.parametrize("hygiene", [None, {"misspelled": "pass", "without_mail": "pass"}])
def test_hygiene_is_off_unless_asked_for(site: Site, hygiene: dict[str, str] | None) -> None:
    assert ask(site.plugin(hygiene=hygiene), "taro@gmial.com") is None
    assert site.events == []


def test_the_list_comes_first(site: Site) -> None:
    site.add("taro@gmial.com")
    answer = ask(site.plugin(hygiene=REJECT, action="discard"), "taro@gmial.com")
    assert answer == Discard("suppressed")


@pytest.mark.parametrize("domain", ["[192.0.2.1]", "gmаil.com", "localhost"])
def test_odd_domains_are_no_misspellings(site: Site, domain: str) -> None:
    assert ask(site.plugin(hygiene=REJECT), f"taro@{domain}") is None


# What the DNS says.

ZONES: dict[str, Any] = {
    "mx.example": {"MX": ["10 a.mx.example."]},
    "null.example": {"MX": ["0 ."]},
    "address.example": {"A": ["192.0.2.1"]},
    "six.example": {"AAAA": ["2001:db8::1"]},
    "empty.example": {"TXT": ["nothing"]},
    "alias.example": {"CNAME": ["mx.example."]},
    "broken.example": Failure.SERVFAIL,
    "silent.example": Failure.SILENCE,
    "half.example": {"MX": [], "A": Failure.SERVFAIL, "AAAA": []},
}

NO_SERVER = "There is no mail server for the domain {}"


async def verdict(site: Site, address: str, **hygiene: Any) -> object:
    """What RCPT is answered, with the DNS above."""
    async with FakeDns(ZONES) as server:
        resolver = Resolver([server.address], 20.0, hosts=site.folder / "hosts")
        plugin = site.plugin(resolver=resolver, hygiene={"without_mail": "reject", **hygiene})
        answer: Any = plugin.rcpt(Recipient(address, message=mail()))
        try:
            return await answer
        finally:
            await resolver.close()


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        ("mx.example", None),
        ("address.example", None),
        ("six.example", None),
        ("alias.example", None),
        ("null.example", Reject("The domain null.example takes no mail", 556, "5.1.10")),
        ("empty.example", Reject(NO_SERVER.format("empty.example"), 550, "5.1.2")),
        ("missing.example", Reject(NO_SERVER.format("missing.example"), 550, "5.1.2")),
        ("MISSING.example", Reject(NO_SERVER.format("missing.example"), 550, "5.1.2")),
        # A failure of the DNS refuses nobody.
        ("broken.example", None),
        ("half.example", None),
        ("[192.0.2.1]", None),
        ("localhost", None),
    ],
)
async def test_domains_that_take_no_mail_can_be_refused(
    site: Site, domain: str, answer: Reject | None
) -> None:
    assert await verdict(site, f"taro@{domain}") == answer
    assert [event.type for event in site.events] == ["suppressed"] * (answer is not None)


async def test_rcpt_waits_for_the_dns_no_longer_than_it_may(site: Site) -> None:
    async with asyncio.timeout(10):  # the resolver would ask for twenty seconds
        assert await verdict(site, "taro@silent.example", timeout="100ms") is None
    assert site.events == []


async def test_domains_that_take_no_mail_can_be_reported(site: Site) -> None:
    assert await verdict(site, "taro@null.example", without_mail="report") is None
    assert [(event.type, event.reason) for event in site.events] == [
        ("suspected", "invalid: null MX: null.example")
    ]


async def test_the_hosts_of_the_machine_are_known(site: Site) -> None:
    (site.folder / "hosts").write_text("192.0.2.7 intern.example\n")
    assert await verdict(site, "taro@intern.example") is None


async def test_whom_the_list_refuses_the_dns_is_not_asked_about(site: Site) -> None:
    site.add("taro@missing.example")
    assert await verdict(site, "taro@missing.example") == Reject("Recipient refused")


async def test_a_misspelled_domain_is_refused_before_the_dns_is_asked(site: Site) -> None:
    answer = await verdict(site, "taro@gmial.com", misspelled="reject")
    assert isinstance(answer, Reject)
    assert "did you mean" in answer.text


def test_only_a_site_that_asks_the_dns_pays_for_a_coroutine() -> None:
    def kind(**config: Any) -> str:
        return type(Suppression(SuppressionConfig.model_validate(config))).__name__

    assert kind() == kind(hygiene=REJECT) == "Suppression"
    assert kind(hygiene={}) == "SuppressionWithDns"
