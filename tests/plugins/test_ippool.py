"""Which pool a message goes from, and what the hooks say."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.hooks import Delay, Source
from tests.plugins.ippool_site import NOWHERE, Site, mail, send, sent_from, sources

POOLS: dict[str, Any] = {
    "sources": sources("one", "two", "three", "four"),
    "pools": {
        "main": {"sources": ["one"]},
        "bulk": {"sources": ["two"]},
        "vip": {"sources": ["three"]},
        "tagged": {"sources": ["four"]},
    },
    "default": "main",
    "rules": [
        {"pool": "tagged", "when": {"header": {"X-Pool": "tagged"}}},
        {"pool": "vip", "when": {"sender_domain": "vip.example.com"}},
        {"pool": "bulk", "when": {"stream": ["bulk", "news-*"]}},
        {"pool": "vip", "when": {"user": "shop", "recipient_domain": "bank.example"}},
    ],
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({}, "one"),
        ({"stream": "bulk"}, "two"),
        ({"stream": "news-7"}, "two"),
        ({"sender": "a@vip.example.com"}, "three"),
        ({"sender": "a@vip.example.com", "stream": "bulk"}, "three"),  # the first that fits
        ({"recipients": "taro@bank.example"}, "three"),
        ({"content": b"X-Pool: tagged\r\n\r\nx\r\n", "stream": "bulk"}, "four"),
        ({"sender": ""}, "one"),
        ({"notes": {"pool": "bulk"}}, "two"),
        ({"notes": {"pool": "main"}, "stream": "bulk"}, "one"),  # what is asked for wins
        ({"notes": {"pool": ""}}, "one"),
    ],
)
async def test_rules_choose_the_pool(site: Site, fields: dict[str, Any], source: str) -> None:
    async with site.plugin(POOLS) as plugin:
        assert sent_from(plugin, mail(**fields)) == source


async def test_what_is_asked_for_a_recipient_wins_over_the_message(site: Site) -> None:
    async with site.plugin(POOLS) as plugin:
        delivery = mail(notes={"pool": "bulk"})
        delivery.recipients[0].notes["pool"] = "vip"
        assert sent_from(plugin, delivery) == "three"


async def test_a_pool_that_is_not_there_is_said_once_and_the_mail_goes_as_usual(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.plugin(POOLS) as plugin:
        with caplog.at_level(logging.WARNING):
            for number in range(3):
                delivery = mail(notes={"pool": "bluk"}, stream="bulk", number=number)
                assert sent_from(plugin, delivery) == "two"
    assert [record.getMessage() for record in caplog.records] == [
        'there is no pool "bluk", which mail asks for; its pool is chosen as usual'
    ]


async def test_a_source_has_its_address_and_its_name(site: Site) -> None:
    async with site.plugin({"sources": sources("one")}) as plugin:
        assert send(plugin, mail()) == Source("127.0.0.2", "one.example.com")


async def test_mail_is_spread_by_weight(site: Site) -> None:
    shares = sources("one", "two", "three")
    shares["three"]["weight"] = 6
    async with site.plugin({"sources": shares}) as plugin:
        counts = Counter(sent_from(plugin, mail(number=number)) for number in range(4000))
    # Four standard deviations of 3000 in 4000.
    assert abs(counts["three"] - 3000) < 110
    assert abs(counts["one"] - 500) < 85


async def test_a_sticky_pool_keeps_sources_in_all_processes(site: Site) -> None:
    config: dict[str, Any] = {
        "sources": sources("one", "two", "three"),
        "pools": {"all": {"sources": ["one", "two", "three"], "sticky": True}},
    }
    async with site.plugin(config) as first, site.plugin(config) as second:
        for domain in ("example.net", "example.org", "gmail.com", "docomo.ne.jp"):
            used = {
                sent_from(plugin, mail(f"u{number}@{domain}", sender=sender, number=number))
                for plugin in (first, second)
                for sender in ("a@shop.example.com", "B@Shop.Example.com")
                for number in range(5)
            }
            assert len(used) == 1
        spread = {
            sent_from(first, mail(f"taro@d{number}.example", number=number)) for number in range(50)
        }
    assert spread == {"one", "two", "three"}


async def test_a_sticky_pair_goes_on_to_the_next_source_of_its_own(site: Site) -> None:
    warmup = {"since": "2026-11-21", "curve": [2]}
    config: dict[str, Any] = {
        "sources": sources("one", "two", "three", warmup=warmup),
        "pools": {"all": {"sources": ["one", "two", "three"], "sticky": True}},
    }
    async with site.plugin(config) as plugin:
        used = [sent_from(plugin, mail(number=number)) for number in range(6)]
        assert isinstance(send(plugin, mail(number=7)), Delay)
    assert len(set(used)) == 3
    assert used[0::2] == used[1::2]


async def test_no_delay_stops_the_lane(site: Site) -> None:
    """Other mail of the lane may have another pool."""
    warmup = {"since": "2026-11-21", "curve": [1]}
    async with site.plugin({"sources": sources("one", warmup=warmup)}) as plugin:
        sent_from(plugin, mail())
        answer = send(plugin, mail(number=2))
    assert isinstance(answer, Delay)
    assert not answer.lane


async def test_mail_that_waits_is_told_why_and_for_the_first_to_come_back(site: Site) -> None:
    warmup = {"since": "2026-11-21", "curve": [1]}
    away = {"address": NOWHERE, "helo": "away.example.com", "public": "10.0.0.1"}
    config: dict[str, Any] = {
        "sources": {**sources("one", "two", "three", warmup=warmup), "away": away}
    }
    async with site.plugin(config) as plugin:
        for number in range(3):
            sent_from(plugin, mail(number=number))
        assert send(plugin, mail(number=4)) == Delay(
            60.0,
            "no source of pool default can be used: away cannot be bound: Cannot assign requested "
            "address; one may send no more than 1 to other today; three may send no more than 1 "
            "to other today; and so on",
        )
        site.now += 3600
        answer = send(plugin, mail(number=4))
        assert isinstance(answer, Delay)
        assert answer.seconds == 900.0  # what is not there an hour later may never be
