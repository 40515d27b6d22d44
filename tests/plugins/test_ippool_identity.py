"""Addresses that are tried on this machine, and names that are looked up in the DNS."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dns.reversename
import pytest

import plugins.ippool
from gateway.hooks import Delay, Resolver
from gateway.testing import FakeDns
from gateway.testing.dns import Failure, Records
from plugins.ippool.config import SourceConfig
from plugins.ippool.identity import Bindings, Identities, bind_error, is_private
from tests.plugins.ippool_site import NOWHERE, Site, answered, mail, send, sent_from, sources

ABSENT = {
    "absent": {"address": NOWHERE, "helo": "absent.example.com", "public": "10.0.0.1"},
}
"""Its names are not looked up: receivers never see it."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


# Binding.


def test_an_address_of_this_machine_can_be_bound() -> None:
    assert bind_error("127.0.0.2") is None
    assert bind_error("127.255.255.254") is None


def test_another_one_cannot() -> None:
    assert bind_error(NOWHERE) == "Cannot assign requested address"
    assert bind_error("2001:db8::1") is not None


def test_an_address_whose_ports_are_all_taken_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(self: socket.socket, address: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", taken)
    assert bind_error("127.0.0.2") is None


def test_changes_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    here: set[str] = set()
    configured = {"a": SourceConfig(address="127.0.0.2", helo="a.example.com")}
    bindings = Bindings(
        configured,
        logging.getLogger("test"),
        lambda address: None if address in here else "no such address",
    )
    with caplog.at_level(logging.INFO):
        bindings.check()
        bindings.check()
        assert bindings.unbound == {"a": "no such address"}
        here.add("127.0.0.2")
        bindings.check("a")
        bindings.check()
    assert bindings.unbound == {}
    assert [record.getMessage() for record in caplog.records] == [
        "source a is not used: 127.0.0.2 cannot be bound: no such address",
        "source a is used again: 127.0.0.2 can be bound",
    ]


async def test_a_source_that_is_not_there_stops_no_other(site: Site) -> None:
    config: dict[str, Any] = {"sources": {**sources("here"), **ABSENT}}
    async with site.plugin(config) as plugin:
        assert {sent_from(plugin, mail(number=number)) for number in range(40)} == {"here"}


async def test_mail_waits_a_minute_for_the_only_one(site: Site) -> None:
    async with site.plugin({"sources": ABSENT}) as plugin:
        assert send(plugin, mail()) == Delay(
            60.0,
            "no source of pool default can be used: absent cannot be bound: "
            "Cannot assign requested address",
        )


async def test_the_service_process_says_so(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with site.plugin({"sources": ABSENT}, "worker"):
        assert caplog.records == []
    async with site.plugin({"sources": ABSENT}, "service"):
        (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "source absent is not used: 192.0.2.77 cannot be bound: Cannot assign requested address"
    )


async def test_a_source_is_used_again_when_its_address_is_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that comes and goes takes the rights of the superuser: the port stands for it."""
    missing = {"127.0.0.3"}
    bind = socket.socket.bind

    def bind_or_not(self: socket.socket, address: Any) -> None:
        if address[0] in missing:
            raise OSError(99, "Cannot assign requested address")
        bind(self, address)

    monkeypatch.setattr(socket.socket, "bind", bind_or_not)
    monkeypatch.setattr(plugins.ippool, "CHECK_AGAIN", 0.01)
    async with site.plugin({"sources": sources("a", "b")}) as plugin:
        assert {sent_from(plugin, mail(number=number)) for number in range(40)} == {"a"}
        missing.clear()
        end = time.monotonic() + 10
        while sent_from(plugin, mail()) != "b":
            assert time.monotonic() < end
            await asyncio.sleep(0.002)
        missing.add("127.0.0.2")
        delivery = mail()
        while sent_from(plugin, delivery) != "a":
            assert time.monotonic() < end
        # A connection that fails makes it look at once.
        answered(plugin, delivery, 0, "4.4.1", "Cannot assign requested address", "connect")
        assert {sent_from(plugin, mail(number=number)) for number in range(40)} == {"b"}


# Names.


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.31.0.1", True),
        ("192.168.1.1", True),
        ("100.64.0.1", True),
        ("fd00::1", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("8.8.8.8", False),
        ("2001:db8::1", False),
    ],
)
def test_what_receivers_never_see_is_known(address: str, private: bool) -> None:
    assert is_private(address) is private


def _reversed(address: str) -> str:
    return dns.reversename.from_address(address).to_text(omit_final_dot=True)


ZONES: dict[str, Records | Failure] = {
    "good.example.com": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "wrong.example.com": {"A": ["198.51.100.7"]},
    "empty.example.com": {"TXT": ['"nothing"']},
    "broken.example.com": Failure.SERVFAIL,
    _reversed("192.0.2.1"): {"PTR": ["alias.example.com.", "Good.example.com."]},
    _reversed("2001:db8::1"): {"PTR": ["good.example.com."]},
    _reversed("192.0.2.2"): {"PTR": ["other.example.com."]},
    _reversed("192.0.2.4"): Failure.SERVFAIL,
}


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    async with FakeDns(ZONES) as dns:
        resolver = Resolver([dns.address], 1.0)
        yield resolver
        await resolver.close()


@pytest.mark.parametrize(
    ("address", "helo", "problems"),
    [
        ("192.0.2.1", "good.example.com", []),
        ("2001:db8::1", "good.example.com", []),
        (
            "192.0.2.2",
            "good.example.com",
            [
                "the PTR record of 192.0.2.2 is other.example.com, not good.example.com",
                "the address of good.example.com is 2001:db8::1, 192.0.2.1, not 192.0.2.2",
            ],
        ),
        (
            "192.0.2.3",
            "gone.example.com",
            [
                "192.0.2.3 has no PTR record, and many receivers refuse such mail",
                "gone.example.com does not exist in the DNS",
            ],
        ),
        (
            "192.0.2.4",
            "empty.example.com",
            [
                "the PTR record of 192.0.2.4 cannot be looked up: …",
                "the address of empty.example.com is missing, not 192.0.2.4",
            ],
        ),
    ],
)
async def test_names_are_checked_both_ways(
    resolver: Resolver, address: str, helo: str, problems: list[str]
) -> None:
    identities = Identities(resolver)
    found = await identities.problems(SourceConfig(address=address, helo=helo))
    assert [re.sub("(cannot be looked up: ).+", r"\1…", problem) for problem in found] == problems


async def test_a_dns_that_does_not_answer_is_said(resolver: Resolver) -> None:
    source = SourceConfig(address="192.0.2.2", helo="broken.example.com")
    problems = await Identities(resolver).problems(source)
    assert problems[1].startswith("broken.example.com cannot be looked up: ")


async def test_behind_a_nat_the_address_that_receivers_see_counts(resolver: Resolver) -> None:
    identities = Identities(resolver)
    inside = {"address": "10.0.0.7", "helo": "good.example.com"}
    public = SourceConfig.model_validate({**inside, "public": "192.0.2.1"})
    assert await identities.problems(public) == []
    wrong = SourceConfig.model_validate({**inside, "public": "192.0.2.3"})
    assert len(await identities.problems(wrong)) == 2
    assert await identities.problems(SourceConfig.model_validate(inside)) == []


async def test_the_service_process_warns_of_names(
    site: Site,
    resolver: Resolver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = {
        "sources": {
            "good": {"address": "127.0.0.2", "public": "192.0.2.1", "helo": "good.example.com"},
            "bad": {"address": "127.0.0.3", "public": "192.0.2.3", "helo": "good.example.com"},
        }
    }
    async with site.plugin(config, "service", resolver):
        end = time.monotonic() + 10
        while len(caplog.records) < 2:
            assert time.monotonic() < end
            await asyncio.sleep(0.002)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert [record.getMessage() for record in caplog.records] == [
        "source bad: 192.0.2.3 has no PTR record, and many receivers refuse such mail",
        "source bad: the address of good.example.com is 2001:db8::1, 192.0.2.1, not 192.0.2.3",
    ]
