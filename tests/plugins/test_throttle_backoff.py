from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Attempt, Delay, Disposition, Outcome
from plugins.throttle.terms import Slow
from tests.plugins.throttle_site import (
    BUSY,
    NOW,
    Site,
    admitted,
    answer,
    delayed,
    delivery,
    refusal,
    refused,
    rule,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


# Pause.


def test_a_pause_stops_the_site_in_all_workers_at_once(site: Site) -> None:
    config = rule("pause", **{"for": "5m"})
    one, other = site.plugin(**config), site.plugin(**config)
    assert admitted(other, delivery())
    of = delivery()
    assert admitted(one, of)
    assert answer(one, of, BUSY) == refusal(BUSY)
    for plugin in (one, other):
        said = delayed(plugin, delivery("two.example", hosts=["mx.one.example"]))
        assert said.lane
        assert 299 < said.seconds <= 300
        assert said.reason == f"throttle: site:mx.one.example is paused: busy: {BUSY}"
        assert admitted(plugin, delivery("elsewhere.example"))
    site.now += 300
    assert admitted(one, delivery())
    assert admitted(other, delivery())


def test_a_long_pause_is_looked_at_again_every_five_minutes(site: Site) -> None:
    plugin = site.plugin(**rule("pause", **{"for": "4h"}))
    answer(plugin, delivery(), BUSY)
    assert delayed(plugin, delivery()).seconds == 300


def test_a_pause_holds_for_the_source_address_that_met_it(site: Site) -> None:
    plugin = site.plugin(**rule("pause"))
    answer(plugin, delivery(source="192.0.2.1"), BUSY)
    assert not delayed(plugin, delivery(source="192.0.2.1")).lane
    assert admitted(plugin, delivery(source="192.0.2.2"))


def test_or_for_all_of_them(site: Site) -> None:
    plugin = site.plugin(**rule("pause", per_source=False))
    answer(plugin, delivery(source="192.0.2.1"), BUSY)
    assert delayed(plugin, delivery(source="192.0.2.2")).lane


@pytest.mark.parametrize(
    ("scope", "stopped"),
    [
        ("provider", ["a.example", "b.example", "c.example"]),
        ("site", ["a.example", "b.example"]),
        ("domain", ["a.example"]),
    ],
)
def test_a_pause_is_for_the_provider_the_site_or_the_domain(
    site: Site, scope: str, stopped: list[str]
) -> None:
    plugin = site.plugin(providers={"big": {"mx": "*.mx.example"}}, **rule("pause", scope=scope))
    hosts = {"a.example": "1.mx.example", "b.example": "1.mx.example", "c.example": "2.mx.example"}
    answer(plugin, delivery("a.example", hosts=["1.mx.example"]), BUSY)
    found = [
        domain
        for domain, host in hosts.items()
        if not admitted(plugin, delivery(domain, hosts=[host]))
    ]
    assert found == stopped


def test_of_two_pauses_the_later_end_holds(site: Site) -> None:
    plugin = site.plugin(
        rules={
            "long": {"text": "hour", "action": "pause", "for": "10m"},
            "short": {"code": 421, "action": "pause", "for": "1m"},
        }
    )
    answer(plugin, delivery(), "421 4.7.0 in an hour")
    answer(plugin, delivery(), BUSY)
    assert delayed(plugin, delivery()).reason.endswith("long: 421 4.7.0 in an hour")
    site.now += 61
    assert not admitted(plugin, delivery())


def test_it_takes_as_many_replies_as_the_rule_says(site: Site) -> None:
    plugin = site.plugin(**rule("pause", after=3, within="1m"))
    for _ in range(2):
        answer(plugin, delivery(recipients=5), BUSY)
        assert admitted(plugin, delivery())
    site.now += 61
    for _ in range(2):
        answer(plugin, delivery(), BUSY)
        assert admitted(plugin, delivery())
    answer(plugin, delivery(), BUSY)
    assert not admitted(plugin, delivery())
    site.now += 601
    answer(plugin, delivery(), BUSY)
    assert admitted(plugin, delivery())


def test_recipients_that_meet_different_rules_count_each_of_them_once(site: Site) -> None:
    rules = {
        name: {"text": name, "action": "pause", "after": 2, "scope": scope}
        for name, scope in (("one", "site"), ("two", "domain"))
    }
    plugin = site.plugin(rules=rules)
    of = delivery(recipients=4)
    for recipient, word in zip(of.recipients, ("one", "two", "one", "two"), strict=True):
        said = refusal(f"450 4.7.1 {word}", "rcpt")
        assert plugin.reply(Attempt(of, recipient, of.route, of.source, said)) is None
    assert admitted(plugin, delivery())


def test_the_replies_of_all_workers_count_together(site: Site) -> None:
    config = rule("pause", after=3)
    workers = [site.plugin(**config) for _ in range(3)]
    for worker in workers:
        assert admitted(worker, delivery())
        answer(worker, delivery(), BUSY)
    assert not any(admitted(worker, delivery()) for worker in workers)


# Bounce.


def test_bounce_fails_what_comes_for_a_time(site: Site) -> None:
    plugin = site.plugin(**rule("bounce", **{"for": "1h"}))
    answer(plugin, delivery(), BUSY)
    of = delivery()
    said = refused(plugin, of)
    assert (said.code, said.status) == (550, "5.7.1")
    assert said.text == f"No mail goes to site:mx.one.example for now: busy: {BUSY}"
    # What the plugin says itself is not what a server says.
    own = Outcome(Disposition.FAILED, said.code, said.status, said.text, "admit")
    site.now += 3599
    assert answer(plugin, of, own) == own
    site.now += 1
    assert admitted(plugin, delivery())


def test_bounce_is_stronger_than_pause(site: Site) -> None:
    plugin = site.plugin(
        rules={
            "closed": {"text": "closed", "scope": "domain", "action": "bounce", "for": "10m"},
            "busy": {"code": 421, "action": "pause", "for": "1h"},
        }
    )
    answer(plugin, delivery(), "550 5.7.1 closed")
    answer(plugin, delivery(), BUSY)
    assert refused(plugin, delivery()).text.endswith("closed: 550 5.7.1 closed")
    site.now += 601
    assert delayed(plugin, delivery()).lane


# Slow.


def pace(site: Site, plugin: Any, seconds: float = 20.0, step: float = 0.01, **kind: Any) -> float:
    """Messages in a second."""
    start, sent = site.now, 0
    while site.now < start + seconds:
        sent += admitted(plugin, delivery(**kind))
        site.now += step
    return sent / seconds


def test_slow_halves_rate_and_connections_and_recovers_step_by_step(site: Site) -> None:
    config: dict[str, Any] = {
        "default": {
            "site": {"rate": "16/s", "connections": 20},
            "slow": {"halvings": 3, "every": "1m", "recover": "10m"},
        },
        **rule("slow"),
    }
    plugin, other = site.plugin(**config), site.plugin(**config)
    key = "throttle/connections/site:mx.one.example"

    def connections() -> int:
        of = delivery()
        while not admitted(other, of):
            site.now += 0.1
        return of.ceilings[key]

    assert pace(site, plugin) == pytest.approx(16, abs=0.3)
    found = []
    for _ in range(4):
        answer(plugin, delivery(), BUSY)
        last = site.now
        found.append((connections(), pace(site, other)))
        site.now += 61
    assert [one for one, _ in found] == [10, 5, 2, 2]
    assert [one for _, one in found] == pytest.approx([8, 4, 2, 2], abs=0.5)
    for minutes, count, rate in ((10, 5, 4), (20, 10, 8), (30, 20, 16)):
        site.now = last + minutes * 60 + 1
        assert connections() == count
        assert pace(site, other) == pytest.approx(rate, abs=0.5)


def test_replies_of_one_moment_halve_once(site: Site) -> None:
    plugin = site.plugin(
        default={"site": {"connections": 32}, "slow": {"every": "30s"}}, **rule("slow")
    )
    attempts = [delivery(recipients=3) for _ in range(10)]
    for of in attempts:
        assert admitted(plugin, of)
    for of in attempts:
        answer(plugin, of, BUSY)
        site.now += 0.5
    site.now += 20
    of = delivery()
    plugin.admit(of)
    assert set(of.ceilings.values()) == {16}


def test_slow_without_any_limits_starts_from_a_rate(site: Site) -> None:
    plugin = site.plugin(default={"slow": {"rate": "8/s"}}, **rule("slow"))
    assert pace(site, plugin, 1) > 90
    answer(plugin, delivery(), BUSY)
    assert pace(site, plugin) == pytest.approx(4, abs=0.2)


def test_slow_for_a_source_address_leaves_the_others(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": "16/s", "connections": 8}}, **rule("slow"))
    answer(plugin, delivery(source="192.0.2.1"), BUSY)
    assert pace(site, plugin, source="192.0.2.1") == pytest.approx(8, abs=0.3)
    assert pace(site, plugin, source="192.0.2.2") == pytest.approx(16, abs=0.3)
    of = delivery(source="192.0.2.1")
    plugin.admit(of)
    assert of.ceilings == {
        "throttle/connections/site:mx.one.example": 8,
        "throttle/connections/site:mx.one.example from 192.0.2.1": 4,
    }


def test_slow_halves_the_limit_of_the_source_where_it_has_its_own(site: Site) -> None:
    plugin = site.plugin(
        default={"site": {"rate": "16/s", "per_source": {"rate": "6/s", "connections": 1}}},
        **rule("slow"),
    )
    answer(plugin, delivery(source="192.0.2.1"), BUSY)
    assert pace(site, plugin, source="192.0.2.1") == pytest.approx(3, abs=0.2)
    of = delivery(source="192.0.2.1")
    plugin.admit(of)
    assert of.ceilings == {"throttle/connections/site:mx.one.example from 192.0.2.1": 1}


@given(st.integers(1, 20), st.floats(1, 1e6), st.floats(-1e6, 1e8))
def test_a_slow_down_only_ever_gets_less(halvings: int, recover: float, later: float) -> None:
    slow = Slow(halvings, NOW, recover, "")
    now = NOW + later
    assert 0 <= slow.at(now) <= halvings
    if now < slow.end:
        assert slow.next_change(now) >= now
    else:
        assert slow.at(now + 1) == 0
    assert slow.at(slow.end + 1) == 0


def test_slow_and_pause_together(site: Site) -> None:
    plugin = site.plugin(
        default={"site": {"rate": "8/s"}}, **rule(["slow", "pause"], **{"for": "1m"})
    )
    answer(plugin, delivery(), BUSY)
    assert isinstance(plugin.admit(delivery()), Delay)
    site.now += 60
    assert pace(site, plugin) == pytest.approx(4, abs=0.2)


def test_a_restart_forgets_nothing(site: Site) -> None:
    config = rule("pause")
    answer(site.plugin(**config), delivery(), BUSY)
    assert not admitted(site.plugin(**config), delivery())


def test_a_clock_that_was_set_back_stops_nothing_for_longer(site: Site) -> None:
    plugin = site.plugin(default={"slow": {"rate": "8/s"}}, **rule("slow"))
    answer(plugin, delivery(), BUSY)
    site.now -= 3600
    assert pace(site, plugin) == pytest.approx(4, abs=0.2)
