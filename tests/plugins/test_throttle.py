from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Delay
from plugins.throttle import Throttle
from plugins.throttle.charges import Charges
from plugins.throttle.plan import short
from tests.plugins.throttle_site import (
    DELIVERED,
    NOW,
    Site,
    admitted,
    again,
    answer,
    delayed,
    delivery,
    passed,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


# What counts together.


def test_without_limits_all_mail_goes(site: Site) -> None:
    plugin = site.plugin()
    one = delivery()
    assert admitted(plugin, one)
    assert (one.ceilings, one.messages_per_connection, one.recipients_per_message) == (
        {},
        None,
        None,
    )


def test_domains_with_the_same_servers_are_one_site(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": "1/s", "connections": 3}})
    one = delivery("one.example", hosts=["b.mx.example", "a.mx.example"])
    two = delivery("two.example", hosts=["a.mx.example", "b.mx.example"])
    assert admitted(plugin, one)
    said = delayed(plugin, two)
    assert said.lane
    assert 0.9 < said.seconds <= 1.01
    assert said.reason == "throttle: site:a.mx.example,b.mx.example: 1/s messages"
    assert admitted(plugin, delivery("three.example"))
    assert one.ceilings == {"throttle/connections/site:a.mx.example,b.mx.example": 3}
    assert two.ceilings == one.ceilings


def test_each_domain_by_itself(site: Site) -> None:
    plugin = site.plugin(default={"domain": {"rate": "1/s", "connections": 3}})
    one = delivery("one.example", hosts=["mx.example"])
    assert admitted(plugin, one)
    assert not admitted(plugin, delivery("one.example", hosts=["mx.example"]))
    assert admitted(plugin, delivery("two.example", hosts=["mx.example"]))
    assert one.ceilings == {"throttle/connections/domain:one.example": 3}


PROVIDERS = {"big": {"domains": ["big.example", "*.big.example"], "mx": "*.big-mx.example"}}


@pytest.mark.parametrize(
    ("kind", "provider"),
    [
        ({"domain": "big.example"}, True),
        ({"domain": "a.big.example"}, True),
        ({"domain": "notbig.example"}, False),
        ({"domain": "customer.example", "hosts": ["mx1.big-mx.example"]}, True),
        ({"domain": "customer.example", "hosts": ["MX1.Big-MX.example"]}, True),
        ({"domain": "customer.example", "hosts": ["big-mx.example"]}, False),
        # Only what is tried first counts, not who takes the mail in the end.
        (
            {
                "domain": "x.example",
                "hosts": ["x.example", "a.big-mx.example"],
                "site": "x.example",
            },
            False,
        ),
    ],
)
def test_a_provider_is_told_by_domain_and_by_server(
    site: Site, kind: dict[str, Any], provider: bool
) -> None:
    plugin = site.plugin(providers={"big": {**PROVIDERS["big"], "rate": "1/h", "connections": 7}})
    assert admitted(plugin, delivery("big.example"))
    of = delivery(**kind)
    said = plugin.admit(of)
    assert isinstance(said, Delay) == provider
    assert of.ceilings == ({"throttle/connections/provider:big": 7} if provider else {})


def test_the_first_provider_that_fits_is_taken_and_domains_before_servers(site: Site) -> None:
    plugin = site.plugin(
        providers={
            "one": {"mx": "*.mx.example", "connections": 1},
            "two": {"domains": "two.example", "connections": 2},
            "three": {"mx": "*.example", "connections": 3},
        }
    )
    ceilings = []
    for domain, host in (("two.example", "a.mx.example"), ("x.example", "a.mx.example")):
        of = delivery(domain, hosts=[host])
        assert admitted(plugin, of)
        ceilings.append(of.ceilings)
    assert ceilings == [
        {"throttle/connections/provider:two": 2},
        {"throttle/connections/provider:one": 1},
    ]


def test_a_provider_its_sites_and_its_domains_can_all_be_limited(site: Site) -> None:
    plugin = site.plugin(
        providers={
            "big": {
                "mx": "*.mx.example",
                "connections": 9,
                "rate": "3/h",
                "site": {"connections": 5, "rate": "2/h"},
                "domain": {"connections": 2, "rate": "1/h"},
            }
        },
        default={"site": {"connections": 1}},
    )
    of = delivery("a.example", hosts=["1.mx.example"])
    assert admitted(plugin, of)
    assert of.ceilings == {
        "throttle/connections/provider:big": 9,
        "throttle/connections/site:1.mx.example": 5,
        "throttle/connections/domain:a.example": 2,
    }
    assert not admitted(plugin, delivery("a.example", hosts=["1.mx.example"]))


def test_all_limits_are_taken_at_once_or_none(site: Site) -> None:
    """Mail that one limit keeps back does not use up another."""
    plugin = site.plugin(
        providers={"big": {"mx": "*.mx.example", "rate": "2/h", "domain": {"rate": "1/h"}}}
    )
    kinds = [{"domain": domain, "hosts": ["1.mx.example"]} for domain in ("a.example", "b.example")]
    site.now += 3600.0
    # Two in an hour come one by one.
    assert admitted(plugin, delivery(**kinds[0]))  # type: ignore[arg-type]
    site.now += 1801.0
    for _ in range(5):
        assert not admitted(plugin, delivery(**kinds[0]))  # type: ignore[arg-type]
    assert admitted(plugin, delivery(**kinds[1]))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["192.0.2.1", "2001:db8::1"])
def test_each_source_address_by_itself(site: Site, source: str) -> None:
    plugin = site.plugin(
        default={"site": {"connections": 9, "per_source": {"rate": "1/s", "connections": 4}}}
    )
    one = delivery(source=source)
    assert admitted(plugin, one)
    assert one.ceilings == {
        "throttle/connections/site:mx.one.example": 9,
        f"throttle/connections/site:mx.one.example from {source}": 4,
    }
    said = delayed(plugin, delivery(source=source))
    assert not said.lane  # mail from another address need not wait
    assert admitted(plugin, delivery(source="192.0.2.99"))


def test_where_the_system_chooses_the_source_all_mail_has_the_same(site: Site) -> None:
    plugin = site.plugin(default={"site": {"per_source": {"rate": "1/s"}}})
    assert admitted(plugin, delivery())
    assert delayed(plugin, delivery()).lane


def test_recipients_can_be_limited(site: Site) -> None:
    plugin = site.plugin(default={"site": {"recipient_rate": "10/s"}})
    assert admitted(plugin, delivery(recipients=10))
    said = delayed(plugin, delivery())
    assert 0.85 < said.seconds <= 1.01
    assert said.reason == "throttle: site:mx.one.example: 10/s recipients"


def test_of_a_message_that_is_divided_only_the_first_part_pays(site: Site) -> None:
    plugin = site.plugin(default={"recipients_per_message": 10, "site": {"recipient_rate": "10/s"}})
    of = delivery(recipients=100)
    assert admitted(plugin, of)
    assert of.recipients_per_message == 10
    assert delayed(plugin, delivery()).seconds <= 1.01


def test_the_bounds_of_other_plugins_are_kept(site: Site) -> None:
    plugin = site.plugin(default={"recipients_per_message": 10, "messages_per_connection": 10})
    for before, kept in ((5, 5), (20, 10), (None, 10)):
        of = delivery(recipients=100)
        of.messages_per_connection = of.recipients_per_message = before
        of.ceilings["other"] = 1
        assert admitted(plugin, of)
        assert (of.messages_per_connection, of.recipients_per_message) == (kept, kept)
        assert of.ceilings == {"other": 1}


# Rates.


@pytest.mark.parametrize(("rate", "count"), [("100/s", 100), ("60/m", 1), ("36000/h", 10)])
def test_a_rate_is_kept_over_two_workers(site: Site, rate: str, count: int) -> None:
    workers = [site.plugin(default={"site": {"rate": rate}}) for _ in range(2)]
    start, sent = site.now, 0
    while site.now < start + 10:
        for worker in workers:
            sent += admitted(worker, delivery())
        site.now += 0.002
    assert count * 10 <= sent <= count * 10.1 + 6


def test_of_several_rates_the_shortest_paces_and_the_longest_bounds(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": ["1000/h", "10/s"]}})
    start, sent = site.now, []
    while site.now < start + 7200:
        if admitted(plugin, delivery()):
            sent.append(site.now - start)
        site.now += 0.05 if site.now < start + 60 else 1.0
    # A tenth of the hour's amount goes ahead, at the pace of the second.
    assert 95 <= len([at for at in sent if at < 10.5]) <= 106
    for begin in range(0, 3600, 300):
        assert len([at for at in sent if begin <= at < begin + 3600]) <= 1101
    assert 2 * 1000 <= len(sent) + 10 <= 2 * 1000 + 120


def test_limits_survive_a_restart(site: Site) -> None:
    assert passed(site.plugin(default={"site": {"rate": "2/h"}}), 5) == 1
    assert passed(site.plugin(default={"site": {"rate": "2/h"}}), 5) == 0
    site.now += 1801
    assert passed(site.plugin(default={"site": {"rate": "2/h"}}), 5) == 1


def test_mail_that_waits_for_a_connection_pays_once(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": "1/h"}})
    of = delivery()
    for _ in range(5):
        assert admitted(plugin, again(of))
    answer(plugin, of, DELIVERED)
    assert not admitted(plugin, again(of))


def test_who_has_not_been_sent_for_a_minute_pays_again(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": "1/h"}})
    of = delivery()
    assert admitted(plugin, of)
    site.now += 61
    assert not admitted(plugin, again(of))


def test_charges_are_bounded() -> None:
    charges = Charges()
    for number in range(20_000):
        charges.add((str(number), ""), NOW)
    assert not charges.holds(("9999", ""), NOW)
    assert charges.holds(("10000", ""), NOW)


# The lane, and mail that does not go to mail exchangers.


def test_the_lane_waits_only_if_all_its_mail_does(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": "1/h"}}, smarthosts={"site": {"rate": "1/h"}})

    def lane(**kind: Any) -> bool:
        assert passed(plugin, 2, **kind) <= 1
        return delayed(plugin, delivery(**kind)).lane

    assert lane(domain="a.example")
    assert lane(domain="b.example", site="b.example", mx=False)  # without MX: its own server
    assert lane(domain="c.example", lane="smarthost", site="smarthost", mx=False)
    # Mail that somebody has rerouted waits for itself.
    assert not lane(domain="d.example", site="elsewhere", mx=False)
    assert not lane(domain="e.example", lane="smarthost", site="elsewhere", mx=False)
    assert not lane(domain="f.example", lane="smarthost")


def test_a_domain_behind_smarthosts_does_not_hold_up_the_others(site: Site) -> None:
    plugin = site.plugin(smarthosts={"domain": {"rate": "1/h"}})
    kind = {"lane": "smarthost", "site": "smarthost", "mx": False}
    assert admitted(plugin, delivery("a.example", **kind))  # type: ignore[arg-type]
    assert not delayed(plugin, delivery("a.example", **kind)).lane  # type: ignore[arg-type]
    assert admitted(plugin, delivery("b.example", **kind))  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [False, True])
def test_providers_behind_smarthosts(site: Site, counts: bool) -> None:
    plugin = site.plugin(
        providers={
            "big": {
                "domains": "big.example",
                "rate": "1/h",
                "connections": 3,
                "domain": {"rate": "2/h"},
                "via_smarthosts": counts,
            }
        },
        smarthosts={"site": {"connections": 8}, "domain": {"rate": "3/h"}},
    )
    kind: dict[str, Any] = {"lane": "smarthost", "site": "smarthost", "mx": False}
    of = delivery("big.example", **kind)
    assert admitted(plugin, of)
    # A connection to a smarthost is not one to the provider.
    assert of.ceilings == {"throttle/connections/site:smarthost": 8}
    said = delayed(plugin, delivery("big.example", **kind))
    scope = "provider:big: 1/h" if counts else "domain:big.example: 3/h"
    assert said.reason == f"throttle: {scope} messages"


def test_a_route_to_the_servers_of_a_provider_is_the_way_to_it(site: Site) -> None:
    plugin = site.plugin(providers={"big": {"mx": "*.mx.example", "connections": 3}})
    of = delivery("a.example", hosts=["1.mx.example"], site="route", mx=False)
    assert admitted(plugin, of)
    assert of.ceilings == {"throttle/connections/provider:big": 3}


# Names and memory.


@pytest.mark.parametrize("length", [1, 90, 230])
def test_names_of_any_length_make_keys(site: Site, length: int) -> None:
    plugin = site.plugin(default={"site": {"rate": "1/h"}})
    hosts = [f"{'x' * (length % 60)}{number}.example" for number in range(1 + length // 20)]
    assert passed(plugin, 3, hosts=hosts) == 1
    assert passed(plugin, 3, hosts=[*hosts, "other.example"]) == 1


@given(st.text("ab,.", max_size=150), st.text("ab,.", max_size=150))
def test_short_names_are_unique(one: str, other: str) -> None:
    assert len(short(one)) <= 100
    assert (short(one) == short(other)) == (one == other)


def test_many_domains_take_bounded_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.throttle.traffic._REMEMBERED", 100)
    plugin = site.plugin()
    for number in range(150):
        assert admitted(plugin, delivery(f"d{number}.example"))
    assert len(plugin._traffic._flows) == 100


def test_two_entries_in_gateway_yaml_count_apart(site: Site) -> None:
    one = site.plugin(default={"site": {"rate": "1/h", "connections": 1}})
    other = Throttle(site.config(default={"site": {"rate": "1/h", "connections": 1}}))
    other.start(replace(site.context(), name="throttle#2"))
    of = delivery()
    assert admitted(one, of)
    assert admitted(other, of)
    assert set(of.ceilings) == {
        "throttle/connections/site:mx.one.example",
        "throttle#2/connections/site:mx.one.example",
    }


def test_hooks_without_work_are_left_out(site: Site) -> None:
    assert site.plugin().unused == ("message",)
    assert site.plugin(quotas={"q": {"messages": {"day": 1}}}).unused == ()
