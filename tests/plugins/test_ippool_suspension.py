"""Sources that receivers block, or that a person suspends: in all processes, and told once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plugins.ippool
from gateway.hooks import Delay, Disposition, Limits, Outcome, Source
from plugins.ippool import IpPool
from plugins.ippool.identity import Bindings
from plugins.ippool.suspension import EVERYWHERE, Policy, Suspension, Suspensions, told
from tests.plugins.ippool_site import (
    NOON,
    SPAMHAUS,
    Site,
    answered,
    blocked,
    mail,
    send,
    sent_from,
    sources,
)

HOUR = 3600.0
POLICY = Policy(HOUR, 24 * HOUR, 24 * HOUR)
CONFIG: dict[str, Any] = {"sources": sources("a", "b")}
ALONE: dict[str, Any] = {"sources": sources("a")}
GMAIL = "taro@gmail.com"
_NUMBERS = count()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limits]:
    """One file for many examples, each under a name of its own."""
    limits = Limits(tmp_path_factory.mktemp("limits") / "limits")
    yield limits
    limits.close()


@pytest.fixture
async def alone(site: Site) -> AsyncIterator[IpPool]:
    async with site.plugin(ALONE) as plugin:
        yield plugin


def _used(plugin: IpPool, recipient: str = GMAIL, count: int = 40) -> set[str]:
    return {sent_from(plugin, mail(recipient, number=number)) for number in range(count)}


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def _from(plugin: IpPool, name: str, recipient: str = GMAIL) -> Any:
    """A delivery that comes from that source."""
    for number in range(1000):
        delivery = mail(recipient, number=number)
        answer = send(plugin, delivery)
        if isinstance(answer, Source) and answer.helo.startswith(f"{name}."):
            return delivery
    raise AssertionError(f"{name} is never used")


# What receivers say.


async def test_a_source_that_is_blocked_is_not_used_for_that_provider(site: Site) -> None:
    async with site.plugin(CONFIG) as plugin:
        blocked(plugin, _from(plugin, "a"))
        assert _used(plugin) == {"b"}
        assert _used(plugin, "jiro@googlemail.com") == {"b"}
        assert _used(plugin, "taro@docomo.ne.jp") == {"a", "b"}


async def test_its_mail_is_deferred_so_that_it_goes_from_another(site: Site) -> None:
    async with site.plugin(CONFIG) as plugin:
        outcome = blocked(plugin, _from(plugin, "a"))
    assert outcome == Outcome(
        Disposition.DEFERRED, 550, "5.7.1", SPAMHAUS, "rcpt", "mx.example.net[192.0.2.9]:25"
    )


async def test_what_comes_while_it_is_suspended_is_deferred_too_and_counts_once(
    site: Site,
) -> None:
    async with site.plugin(CONFIG) as plugin:
        under_way = [_from(plugin, "a") for _ in range(3)]
        for delivery in under_way:
            outcome = blocked(plugin, delivery)
            assert outcome is not None
            assert outcome.disposition is Disposition.DEFERRED
        assert site.told() == [("source_suspended", "a", "gmail")]
        site.now += HOUR
        assert _used(plugin) == {"a", "b"}


async def test_other_refusals_are_left_as_they_are(alone: IpPool) -> None:
    delivery = mail(GMAIL)
    send(alone, delivery)
    assert answered(alone, delivery, 550, "5.1.1", "User unknown") is None
    assert sent_from(alone, mail(GMAIL)) == "a"


async def test_a_small_receiver_speaks_for_itself_only(site: Site) -> None:
    async with site.plugin(CONFIG) as plugin:
        blocked(plugin, _from(plugin, "a", "taro@example.net"))
        assert _used(plugin, "taro@example.net") == {"b"}
        other = mail("taro@example.org")
        assert other.route is not None
        route = type(other.route)(other.route.hops, "mx.example.org")
        used = {
            sent_from(plugin, mail("taro@example.org", number=number, route=route))
            for number in range(40)
        }
        assert used == {"a", "b"}


async def test_where_no_other_source_is_left_the_mail_waits(alone: IpPool, site: Site) -> None:
    delivery = mail(GMAIL)
    send(alone, delivery)
    blocked(alone, delivery)
    answer = send(alone, mail(GMAIL, number=2))
    reason = "no source of pool default can be used: a is suspended for gmail"
    assert answer == Delay(900.0, reason)
    site.now += HOUR - 60
    assert send(alone, mail(GMAIL, number=2)) == Delay(60.0, reason)


async def test_each_time_it_lasts_twice_as_long_until_that_is_forgotten(
    alone: IpPool, site: Site
) -> None:
    lengths = []
    for _ in range(7):
        delivery = mail(GMAIL)
        assert isinstance(send(alone, delivery), Source)
        blocked(alone, delivery)
        began = site.now
        while isinstance(answer := send(alone, mail(GMAIL)), Delay):
            site.now += answer.seconds
        lengths.append((site.now - began) / HOUR)
    assert lengths == [1, 2, 4, 8, 16, 24, 24]
    site.now += 24 * HOUR
    delivery = mail(GMAIL)
    send(alone, delivery)
    blocked(alone, delivery)
    site.now += HOUR
    assert sent_from(alone, mail(GMAIL)) == "a"


async def test_a_rule_may_say_how_long(site: Site) -> None:
    config = {**ALONE, "blocks": [{"text": "slow down", "suspend": "5m"}]}
    async with site.plugin(config) as plugin:
        delivery = mail(GMAIL)
        send(plugin, delivery)
        assert answered(plugin, delivery, 421, "4.7.0", "Slow down") is not None
        answer = send(plugin, mail(GMAIL))
        assert isinstance(answer, Delay)
        assert answer.seconds == 300.0


async def test_a_rule_may_say_that_it_is_no_block(site: Site) -> None:
    config = {**ALONE, "blocks": [{"text": "spamhaus", "suspend": 0}]}
    async with site.plugin(config) as plugin:
        delivery = mail(GMAIL)
        send(plugin, delivery)
        assert blocked(plugin, delivery) is None


VAGUE = "The message was refused: your IP address is blocked"


async def test_vague_words_have_to_come_for_several_messages(site: Site) -> None:
    async with site.plugin(CONFIG) as plugin:
        for number in (1, 2):
            delivery = _from(plugin, "a")
            delivery.message_id = f"ID{number}"
            # The outcome stays: it may be the message that is refused.
            assert blocked(plugin, delivery, VAGUE) is None
        delivery = _from(plugin, "a")
        delivery.message_id = "ID3"
        assert blocked(plugin, delivery, VAGUE) is not None
        assert _used(plugin) == {"b"}


async def test_one_message_says_no_more_the_second_time(site: Site) -> None:
    """Spam that got in must not walk through all sources and take each out."""
    async with site.plugin(CONFIG) as plugin:
        for name in ("a", "b", "a", "b", "a", "b"):
            delivery = _from(plugin, name)
            delivery.message_id = "ID1"
            assert blocked(plugin, delivery, VAGUE) is None


async def test_vague_words_are_forgotten_after_an_hour(alone: IpPool, site: Site) -> None:
    for number in range(6):
        delivery = mail(GMAIL, number=number)
        send(alone, delivery)
        assert blocked(alone, delivery, VAGUE) is None
        site.now += HOUR / 2


async def test_replies_to_other_plugins_sources_are_not_looked_at(alone: IpPool) -> None:
    delivery = mail(GMAIL)
    delivery.source = Source("127.0.0.99", "x.example.com")
    assert blocked(alone, delivery) is None
    delivery.source = None
    assert blocked(alone, delivery) is None


# Events.


async def test_an_event_tells_whose_refusal_it_was(site: Site) -> None:
    async with site.plugin(CONFIG) as plugin:
        delivery = _from(plugin, "a")
        blocked(plugin, delivery)
    (event,) = site.events
    assert event.type == "source_suspended"
    assert event.message_id == delivery.message_id
    assert event.recipient == GMAIL
    assert (event.code, event.status) == (550, "5.7.1")
    assert event.reason == (
        f"source a is suspended for gmail until 2026-11-21T13:00:00Z: 550 5.7.1 {SPAMHAUS}"
    )
    assert event.notes == {"source": "a", "provider": "gmail", "until": "2026-11-21T13:00:00Z"}


async def test_the_end_is_told_once_by_whoever_sees_it_first(site: Site) -> None:
    async with site.plugin(CONFIG) as first, site.plugin(CONFIG) as second:
        blocked(first, _from(first, "a"))
        sent_from(second, mail(GMAIL))
        site.now += HOUR
        for plugin in (second, first, second, first):
            sent_from(plugin, mail(GMAIL))
    assert site.told() == [("source_suspended", "a", "gmail"), ("source_resumed", "a", "gmail")]
    assert site.events[1].reason == "source a is used for gmail again"
    assert site.events[1].message_id == ""


async def test_an_outbox_that_is_not_there_yet_stops_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def too_early(event: object) -> None:
        raise RuntimeError("not ready")

    monkeypatch.setattr(site, "_emit", too_early)
    async with site.plugin(CONFIG) as plugin:
        with caplog.at_level(logging.WARNING):
            assert blocked(plugin, _from(plugin, "a")) is not None
    assert "source a is suspended for gmail until 2026-11-21T13:00:00Z" in caplog.text


def test_what_never_ends_is_said_so() -> None:
    suspension = Suspension("a", EVERYWHERE, inf, 0, "new", "by hand")
    event = told(suspension, NOON, UTC, None)
    assert event.reason == "source a is suspended for all receivers until it is resumed: by hand"
    assert event.notes["until"] == ""


# Several processes.


async def test_all_workers_know_at_once(site: Site) -> None:
    async with site.plugin(CONFIG) as first, site.plugin(CONFIG) as second:
        assert _used(second) == {"a", "b"}
        blocked(first, _from(first, "a"))
        assert _used(second) == {"b"}


async def test_a_restart_forgets_nothing(site: Site) -> None:
    async with site.plugin(CONFIG) as plugin:
        blocked(plugin, _from(plugin, "a"))
    site.close()
    async with site.plugin(CONFIG) as plugin:
        assert _used(plugin) == {"b"}


async def test_a_person_suspends_and_resumes_while_workers_run(site: Site) -> None:
    by_hand = Suspensions(site.limits(), "ippool", POLICY)
    async with site.plugin(CONFIG) as plugin:
        by_hand.suspend("a", EVERYWHERE, site.now, inf, "by hand")
        assert _used(plugin) == {"b"}
        site.now += 1000 * 24 * HOUR
        assert _used(plugin) == {"b"}
        assert [one.judge for one in by_hand.resume("a", None, site.now)] == [EVERYWHERE]
        assert _used(plugin) == {"a", "b"}
    assert site.told() == [("source_suspended", "a", "*"), ("source_resumed", "a", "*")]


async def test_a_suspension_by_hand_may_end_by_itself(site: Site) -> None:
    by_hand = Suspensions(site.limits(), "ippool", POLICY)
    async with site.plugin(CONFIG) as plugin:
        by_hand.suspend("a", "gmail", site.now, site.now + 60, "by hand")
        assert _used(plugin) == {"b"}
        assert _used(plugin, "taro@docomo.ne.jp") == {"a", "b"}
        site.now += 60
        assert _used(plugin) == {"a", "b"}


async def test_the_service_process_tells_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins.ippool, "CHECK_AGAIN", 0.001)
    by_hand = Suspensions(site.limits(), "ippool", POLICY)
    by_hand.suspend("a", EVERYWHERE, site.now, site.now + 60, "by hand")
    rounds: list[int] = []
    check = Bindings.check

    def counted(self: Bindings, only: str | None = None) -> None:
        rounds.append(1)
        check(self, only)

    monkeypatch.setattr(Bindings, "check", counted)
    async with site.plugin(CONFIG, "service"):
        await _until(lambda: len(rounds) > 3)
        assert site.told() == []
    async with site.plugin(CONFIG):
        await _until(lambda: site.told() == [("source_suspended", "a", "*")])
        site.now += 60
        await _until(lambda: len(site.told()) == 2)
    assert site.told()[1] == ("source_resumed", "a", "*")


# The laws.


def test_what_has_been_told_is_not_looked_at_again(suspensions: Suspensions) -> None:
    suspensions.block("a", "gmail", NOON, "550 no", None)
    assert not suspensions.refresh(NOON + 1)
    assert suspensions.refresh(NOON + HOUR)
    (found,) = suspensions.tell(NOON + HOUR)
    assert found.judge == "gmail"
    assert not suspensions.refresh(NOON + HOUR)


@pytest.fixture
def suspensions(site: Site) -> Suspensions:
    return Suspensions(site.limits(), "ippool", POLICY)


def test_of_two_ends_the_later_holds(suspensions: Suspensions) -> None:
    suspensions.block("a", "gmail", NOON, "550 no", None)
    suspensions.suspend("a", EVERYWHERE, NOON, NOON + 60, "by hand")
    assert suspensions.until("a", "gmail", NOON) == NOON + HOUR
    assert suspensions.until("a", "yahoo", NOON) == NOON + 60
    shorter = suspensions.suspend("a", "gmail", NOON, NOON + 60, "by hand")
    assert (shorter.until, shorter.reason) == (NOON + HOUR, "550 no")


def test_what_is_resumed_begins_anew(suspensions: Suspensions) -> None:
    for times in (1, 2):
        found = suspensions.block("a", "gmail", NOON, "550 no", None)
        assert found is not None
        assert (found.times, found.until) == (1, NOON + HOUR)
        assert len(suspensions.resume("a", "gmail", NOON)) == 1, times
        assert suspensions.until("a", "gmail", NOON) == 0.0


def test_resuming_ends_what_is_named_only(suspensions: Suspensions) -> None:
    for source, judge in (("a", "gmail"), ("a", "yahoo"), ("b", "gmail")):
        suspensions.block(source, judge, NOON, "550 no", None)
    assert [one.judge for one in suspensions.resume("a", "gmail", NOON)] == ["gmail"]
    assert suspensions.until("a", "yahoo", NOON)
    assert [one.judge for one in suspensions.resume("a", None, NOON)] == ["yahoo"]
    assert suspensions.until("b", "gmail", NOON)
    assert suspensions.resume("a", None, NOON) == []


def test_resuming_forgets_how_often_it_was(suspensions: Suspensions) -> None:
    suspensions.block("a", "gmail", NOON, "550 no", None)
    later = NOON + 2 * HOUR
    assert suspensions.resume("a", "gmail", later) == []
    found = suspensions.block("a", "gmail", later, "550 no", None)
    assert found is not None
    assert found.times == 1


_SITES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)


@settings(deadline=None)
@given(st.lists(st.tuples(_SITES, st.text(max_size=2000)), unique_by=lambda pair: pair[0]))
def test_any_reply_and_any_site_can_be_kept(limits: Limits, kept: list[tuple[str, str]]) -> None:
    name = f"ippool{next(_NUMBERS)}"
    suspensions = Suspensions(limits, name, POLICY)
    for judge, reason in kept:
        suspensions.block("a", judge, NOON, reason, None)
    other = Suspensions(limits, name, POLICY)
    other.refresh(NOON)
    found = {one.judge: one for one in other}
    assert set(found) == {judge for judge, _ in kept}
    for judge, reason in kept:
        one = found[judge]
        assert (one.source, one.until, one.times, one.state) == ("a", NOON + HOUR, 1, "on")
        assert reason.startswith(one.reason)
        assert len(one.reason) >= min(len(reason), 50)


@given(st.integers(1, 10_000), st.floats(1, 1e6), st.floats(1, 1e9))
def test_a_suspension_is_never_shorter_than_the_first_nor_longer_than_the_longest(
    times: int, first: float, longest: float
) -> None:
    policy = Policy(first, max(first, longest), HOUR)
    assert first <= policy.seconds(times) <= policy.longest
    assert policy.seconds(times) <= policy.seconds(times + 1)
