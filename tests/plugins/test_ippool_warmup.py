"""Warm-up: days, the curve, and budgets that all processes share exactly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from itertools import count, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hooks import Attempt, Delay, Disposition, Limits, Outcome, Source
from plugins.ippool import IpPool
from plugins.ippool.budget import Budgets
from plugins.ippool.day import day_at
from plugins.ippool.warmup import CURVE, WarmUp
from tests.plugins.ippool_site import DAY, NOON, Site, answered, mail, send, sent_from, sources

SINCE = "2026-11-20"  # the day before
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


# The curve.


def test_the_shipped_curve_grows_for_thirty_days() -> None:
    assert len(CURVE) == 30
    assert (CURVE[0], CURVE[-1]) == (50, 200_000)
    assert all(first < second <= 2 * first for first, second in pairwise(CURVE))


@pytest.mark.parametrize(
    ("today", "day", "budget"),
    [("2026-10-31", 0, 0), ("2026-11-01", 1, 5), ("2026-11-03", 3, 9), ("2026-11-04", 4, None)],
)
def test_a_day_has_its_budget(today: str, day: int, budget: int | None) -> None:
    warmup = WarmUp(date(2026, 11, 1), (5, 7, 9))
    assert warmup.day(date.fromisoformat(today)) == day
    assert warmup.budget(date.fromisoformat(today)) == budget


@given(
    now=st.integers(0, 4_000_000_000),
    zone=st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Chatham"]),
)
def test_days_follow_each_other_without_a_gap(now: int, zone: str) -> None:
    day = day_at(now, ZoneInfo(zone))
    assert now in day
    assert day.date == datetime.fromtimestamp(now, ZoneInfo(zone)).date()
    following = day_at(day.end, ZoneInfo(zone))
    assert (following.date - day.date).days == 1
    assert following.start == day.end


# Budgets.


def _config(*budgets: int, **others: object) -> dict[str, object]:
    """Sources s0, s1 …, each with a budget for today, and then `warm` without one."""
    found: dict[str, dict[str, object]] = {}
    for number, budget in enumerate(budgets):
        found.update(sources(f"s{number}", warmup={"since": SINCE, "curve": [1, budget, 1000]}))
        found[f"s{number}"]["address"] = f"127.0.0.{number + 10}"
    return {"sources": {**found, **sources(*others.pop("warm", ()))}, **others}  # type: ignore[misc]


async def test_a_source_sends_its_budget_and_no_more(site: Site) -> None:
    async with site.plugin(_config(3)) as plugin:
        assert [sent_from(plugin, mail(number=number)) for number in range(3)] == ["s0"] * 3
        answer = send(plugin, mail(number=4))
    assert answer == Delay(
        DAY / 2,
        "no source of pool default can be used: s0 may send no more than 3 to other today",
    )


async def test_each_provider_has_a_budget_of_its_own(site: Site) -> None:
    async with site.plugin(_config(1)) as plugin:
        for domain in ("gmail.com", "docomo.ne.jp", "example.net"):
            assert sent_from(plugin, mail(f"taro@{domain}")) == "s0"
        for domain in ("googlemail.com", "docomo.ne.jp", "example.org"):
            assert isinstance(send(plugin, mail(f"jiro@{domain}")), Delay)


async def test_the_next_day_brings_the_next_budget(site: Site) -> None:
    async with site.plugin(_config(3)) as plugin:
        for number in range(3):
            sent_from(plugin, mail(number=number))
        answer = send(plugin, mail())
        assert isinstance(answer, Delay)
        site.now += answer.seconds
        for number in range(1000):
            assert sent_from(plugin, mail(number=number)) == "s0"
        assert isinstance(send(plugin, mail()), Delay)
        site.now += DAY  # warm
        for number in range(1100):
            assert sent_from(plugin, mail(number=number)) == "s0"


async def test_the_day_begins_where_the_time_zone_says(site: Site) -> None:
    site.now = datetime(2026, 11, 21, 14, 59, tzinfo=UTC).timestamp()  # 23:59 in Tokyo
    async with site.plugin(_config(1, timezone="Asia/Tokyo")) as plugin:
        sent_from(plugin, mail())
        assert send(plugin, mail()) == Delay(
            60.0,
            "no source of pool default can be used: s0 may send no more than 1 to other today",
        )
        site.now += 60
        assert sent_from(plugin, mail()) == "s0"


async def test_nothing_is_sent_before_the_first_day(site: Site) -> None:
    config = {"sources": sources("a", warmup={"since": "2026-11-22", "curve": [1]})}
    async with site.plugin(config) as plugin:
        assert isinstance(send(plugin, mail()), Delay)
        site.now += DAY / 2
        assert sent_from(plugin, mail()) == "a"


async def test_what_is_too_much_goes_from_a_warm_source_of_the_pool(site: Site) -> None:
    async with site.plugin(_config(2, 3, warm=["warm"])) as plugin:
        used = [sent_from(plugin, mail(number=number)) for number in range(100)]
    assert used.count("s0") == 2
    assert used.count("s1") == 3
    assert used.count("warm") == 95


async def test_and_else_from_the_pool_that_it_falls_back_to(site: Site) -> None:
    config = _config(
        2,
        1,
        warm=["last"],
        pools={
            "new": {"sources": ["s0"], "fallback": "newer"},
            "newer": {"sources": ["s1"], "fallback": "old"},
            "old": {"sources": ["last"]},
        },
        default="new",
    )
    async with site.plugin(config) as plugin:
        used = [sent_from(plugin, mail(number=number)) for number in range(5)]
    assert used == ["s0", "s0", "s1", "last", "last"]


async def test_recipients_count_and_not_messages(site: Site) -> None:
    async with site.plugin(_config(5)) as plugin:
        three = [f"u{number}@example.net" for number in range(3)]
        assert sent_from(plugin, mail(three, number=1)) == "s0"
        delivery = mail(three, number=2)
        assert sent_from(plugin, delivery) == "s0"
        # Two are left for today; the dispatcher brings the third recipient again.
        assert delivery.recipients_per_message == 2
        assert isinstance(send(plugin, mail(three[2:], number=2)), Delay)


async def test_what_another_plugin_takes_apart_is_charged_part_by_part(site: Site) -> None:
    async with site.plugin(_config(5)) as plugin:
        delivery = mail([f"u{number}@example.net" for number in range(9)])
        delivery.recipients_per_message = 4
        assert sent_from(plugin, delivery) == "s0"
        assert delivery.recipients_per_message == 4
        delivery.recipients = delivery.recipients[4:]
        delivery.recipients_per_message = 4
        assert sent_from(plugin, delivery) == "s0"
        assert delivery.recipients_per_message == 1


async def test_an_attempt_that_was_not_made_is_not_charged_twice(site: Site) -> None:
    """Where no connection is free, the hooks are asked again for the same delivery."""
    async with site.plugin(_config(2)) as plugin:
        delivery = mail(["a@example.net", "b@example.net"])
        for _ in range(5):
            assert isinstance(send(plugin, delivery), Source)
        assert delivery.recipients_per_message is None
        assert sent_from(plugin, delivery) == "s0"
        assert isinstance(send(plugin, mail(number=2)), Delay)


async def test_what_another_source_sends_after_all_is_given_back(site: Site) -> None:
    async with site.plugin(_config(1, warm=["warm"])) as plugin:
        delivery = mail()
        delivery.source = Source("127.0.0.10", "s0.example.com")
        plugin.source(delivery)
        assert plugin.admit(delivery) is None
        delivery.source = Source("127.0.0.2", "warm.example.com")
        assert plugin.admit(delivery) is None
        other = mail(number=2)
        other.source = Source("127.0.0.10", "s0.example.com")
        assert plugin.admit(other) is None
        third = mail(number=3)
        third.source = other.source
        assert isinstance(plugin.admit(third), Delay)


async def test_and_what_another_new_source_sends(site: Site) -> None:
    async with site.plugin(_config(1, 1)) as plugin:
        plugin.source(delivery := mail())
        first, second = (Source(f"127.0.0.{one}", f"s{one - 10}.example.com") for one in (10, 11))
        for source in (first, second):
            delivery.source = source
            assert plugin.admit(delivery) is None
        other = mail(number=2)
        other.source = first
        assert plugin.admit(other) is None
        third = mail(number=3)
        for source in (first, second):
            third.source = source
            assert isinstance(plugin.admit(third), Delay)


async def test_who_never_reached_a_server_is_not_charged(site: Site) -> None:
    async with site.plugin(_config(1)) as plugin:
        for number in range(3):
            delivery = mail(number=number)
            assert isinstance(send(plugin, delivery), Source)
            answered(plugin, delivery, 0, "4.4.1", "connection refused", "connect")
        delivery = mail(number=9)
        assert isinstance(send(plugin, delivery), Source)
        answered(plugin, delivery, 451, "4.3.0", "not now")
        assert isinstance(send(plugin, delivery), Delay)


async def test_a_charge_of_yesterday_is_not_given_back_today(site: Site) -> None:
    async with site.plugin(_config(1)) as plugin:
        delivery = mail()
        send(plugin, delivery)
        site.now += DAY / 2
        sent_from(plugin, mail(number=2))
        answered(plugin, delivery, 0, "4.4.1", "connection refused", "connect")
        budgets = Budgets(site.limits(), "ippool")
        today = day_at(site.now, UTC)
        assert budgets.used(budgets.account("s0", "other", 0, today), site.now) == 1


async def test_the_address_of_another_plugin_is_none_of_its_business(site: Site) -> None:
    async with site.plugin(_config(1)) as plugin:
        delivery = mail()
        delivery.source = Source("127.0.0.99", "x.example.com")
        assert plugin.admit(delivery) is None
        delivery.source = None
        assert plugin.admit(delivery) is None


# Several processes.


@pytest.fixture
async def two(site: Site) -> AsyncIterator[tuple[IpPool, IpPool]]:
    async with site.plugin(_config(10)) as first, site.plugin(_config(10)) as second:
        yield first, second


async def test_two_workers_share_a_budget(two: tuple[IpPool, IpPool]) -> None:
    for number in range(10):
        assert sent_from(two[number % 2], mail(number=number)) == "s0"
    for plugin in two:
        assert isinstance(send(plugin, mail(number=99)), Delay)


async def test_who_comes_second_asks_again(two: tuple[IpPool, IpPool]) -> None:
    """Between choosing and charging, others may use up the budget."""
    late = mail(number=99)
    answer = two[0].source(late)
    assert isinstance(answer, Source)
    late.source = answer
    for number in range(10):
        sent_from(two[1], mail(number=number))
    delay = two[0].admit(late)
    assert delay is not None
    assert 0 < delay.seconds < 1
    assert not delay.lane


async def test_a_restart_forgets_nothing(site: Site) -> None:
    async with site.plugin(_config(2)) as plugin:
        sent_from(plugin, mail())
    site.close()
    async with site.plugin(_config(2)) as plugin:
        sent_from(plugin, mail(number=2))
        assert isinstance(send(plugin, mail(number=3)), Delay)


_WORKER = """
import sys
from datetime import UTC
from pathlib import Path
from gateway.hooks import Limits, Recipient
from plugins.ippool.budget import Budgets
from plugins.ippool.day import day_at

budgets = Budgets(Limits(Path(sys.argv[1])), "ippool")
account = budgets.account("s0", "other", 1000, day_at(float(sys.argv[2]), UTC))
print(sum(
    budgets.charge(account, f"{sys.argv[3]}-{number}", [Recipient(f"u{n}@x") for n in range(7)],
                   float(sys.argv[2]))
    for number in range(200)
))
"""


def test_processes_that_run_at_once_charge_exactly_the_budget(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, tmp_path / "limits", str(NOON), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert sum(map(int, outputs)) == 1000


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(["sent", "lost", "busy"])),
        max_size=40,
    )
)
def test_what_is_charged_is_what_was_sent(
    limits: Limits, steps: list[tuple[int, int, str]]
) -> None:
    """Whatever happens to attempts: the count is that of recipients sent to or under way."""
    budgets = Budgets(limits, f"ippool{next(_NUMBERS)}")
    account = budgets.account("s0", "other", 20, day_at(NOON, UTC))
    sent = 0
    under_way: set[tuple[str, str]] = set()
    for message, size, fate in steps:
        recipients = mail([f"u{number}@x" for number in range(size)]).recipients
        charged = budgets.charge(account, str(message), recipients, NOON)
        assert charged <= size
        for recipient in recipients[:charged]:
            under_way.add((str(message), recipient.address))
            if fate != "busy":
                reached = fate == "sent"
                budgets.settle(str(message), recipient.address, reached=reached, now=NOON)
                under_way.discard((str(message), recipient.address))
                sent += reached
        assert budgets.used(account, NOON) == sent + len(under_way) <= 20


def test_an_outcome_without_a_charge_changes_nothing(site: Site) -> None:
    budgets = Budgets(site.limits(), "ippool")
    budgets.settle("ID1", "a@example.net", reached=False, now=NOON)
    assert site.limits().cells("ippool/", NOON) == []


async def test_the_counters_of_a_day_go_with_it(site: Site) -> None:
    async with site.plugin(_config(3)) as plugin:
        sent_from(plugin, mail())
    limits = site.limits()
    assert [cell.key for cell in limits.cells("ippool/sent/", NOON)] == [
        "ippool/sent/s0/other/2026-11-21"
    ]
    assert limits.cells("ippool/sent/", NOON + DAY / 2) == []


async def test_delivered_recipients_stay_charged(site: Site) -> None:
    async with site.plugin(_config(1)) as plugin:
        delivery = mail()
        answer = send(plugin, delivery)
        assert isinstance(answer, Source)
        outcome = Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot")
        attempt = Attempt(delivery, delivery.recipients[0], delivery.route, answer, outcome)
        assert plugin.reply(attempt) is None
        assert isinstance(send(plugin, mail(number=2)), Delay)
