from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Attempt, Delay, Disposition, Outcome, Reject
from plugins.throttle import Throttle
from plugins.throttle.pattern import LONGEST
from tests.plugins.throttle_site import (
    BUSY,
    DELIVERED,
    NOW,
    Site,
    admitted,
    again,
    answer,
    delayed,
    delivery,
    passed,
    refusal,
    rule,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.mark.parametrize(
    ("action", "said", "meant"),
    [
        ("retry", "550 5.7.1 blocked", Disposition.DEFERRED),
        ("retry", "450 4.7.1 blocked", Disposition.DEFERRED),
        ("fail", "450 4.7.1 blocked", Disposition.FAILED),
        ("fail", "550 5.7.1 blocked", Disposition.FAILED),
        ("none", "550 5.7.1 blocked", Disposition.FAILED),
        (["pause", "retry"], "550 5.7.1 blocked", Disposition.DEFERRED),
    ],
)
def test_an_outcome_can_be_meant_otherwise(
    site: Site, action: Any, said: str, meant: Disposition
) -> None:
    plugin = site.plugin(rules={"x": {"text": "blocked", "action": action}})
    outcome = answer(plugin, delivery(recipients=3), said)
    assert outcome.disposition is meant
    # What the server said stays in the log and in reports.
    assert outcome.reply == said
    assert isinstance(plugin.admit(delivery()), Delay) == (action != "none" and "pause" in action)


def test_what_was_delivered_and_what_no_server_said_means_nothing(site: Site) -> None:
    plugin = site.plugin(rules={"x": {"text": ".", "action": "pause"}})
    of = delivery()
    for outcome in (
        DELIVERED,
        Outcome(Disposition.DEFERRED, 0, "4.4.1", "connection refused", "connect"),
        Outcome(Disposition.DEFERRED, 0, "4.4.3", "no answer from the DNS", "route"),
        Outcome(Disposition.FAILED, 550, "5.7.1", "a plugin says no", "admit"),
    ):
        assert answer(plugin, of, outcome) is outcome
    of.route = None
    assert plugin.reply(Attempt(of, of.recipients[0], None, None, refusal(BUSY))) is None
    assert admitted(plugin, delivery())


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ({"code": 421}, "421 4.1.1 x", "422 4.1.1 x"),
        ({"code": "45x"}, "452 4.1.1 x", "421 4.1.1 x"),
        ({"code": [421, "5xx"]}, "554 5.1.1 x", "450 4.1.1 x"),
        ({"status": "4.7.28"}, "421 4.7.28 x", "421 4.7.2 x"),
        ({"status": "4.7.*"}, "421 4.7.280 x", "421 4.70.1 x"),
        ({"status": ["5.*.1", "4.2.1"]}, "550 5.17.1 x", "550 5.7.11 x"),
        ({"text": "A b"}, "421 4.7.0 xa By", "421 4.7.0 a  b"),
        ({"text": ["one", "^two"]}, "421 4.7.0 two", "421 4.7.0 x two"),
        ({"text": "迷惑メール"}, "550 5.7.1 これは迷惑メールです", "550 5.7.1 迷惑"),
        ({"code": 421, "text": "x"}, "421 4.7.0 x", "450 4.7.0 x"),
        ({"code": 421, "stage": "dot"}, "421 4.7.0 x", None),
    ],
)
def test_every_condition_must_hold(
    site: Site, condition: dict[str, Any], yes: str, no: str | None
) -> None:
    plugin = site.plugin(rules={"x": {**condition, "action": "pause"}})
    negative = refusal(no, "dot") if no is not None else refusal(yes, "rcpt")
    answer(plugin, delivery(), negative)
    assert admitted(plugin, delivery())
    answer(plugin, delivery(), refusal(yes, "dot"))
    assert not admitted(plugin, delivery())


def test_the_first_rule_that_matches_is_taken_and_none_ends_the_search(site: Site) -> None:
    plugin = site.plugin(
        providers={
            "big": {
                "domains": "one.example",
                "rules": {"mine": {"text": "mailbox", "action": "none"}},
            }
        },
        **rule("pause"),
    )
    answer(plugin, delivery(), "421 4.7.0 mailbox is busy")
    assert admitted(plugin, delivery())
    answer(plugin, delivery("two.example"), "421 4.7.0 mailbox is busy")
    assert not admitted(plugin, delivery("two.example"))


def test_the_rules_of_a_provider_are_not_for_smarthosts(site: Site) -> None:
    plugin = site.plugin(
        providers={
            "big": {"domains": "one.example", **rule("pause")},
        },
        smarthosts={"rules": {"own": {"text": "own", "action": "pause"}}},
    )
    kind: dict[str, Any] = {"lane": "smarthost", "site": "smarthost", "mx": False}
    answer(plugin, delivery(**kind), BUSY)
    assert admitted(plugin, delivery(**kind))
    answer(plugin, delivery(**kind), "421 4.7.0 own")
    assert delayed(plugin, delivery("two.example", **kind)).lane


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Throttle]]:
    site = Site(tmp_path_factory.mktemp("site"))
    rules = {"x": {"text": ".", "action": ["slow", "bounce"]}}
    yield site, site.plugin(shipped=True, rules=rules)
    site.close()


@given(st.text(max_size=3000), st.integers(400, 599), st.sampled_from(["mail", "dot", "odd"]))
def test_no_reply_breaks_it(
    running: tuple[Site, Throttle], text: str, code: int, stage: str
) -> None:
    site, plugin = running
    site.now += 86400.0
    kind = Disposition.DEFERRED if code < 500 else Disposition.FAILED
    answer(plugin, delivery(), Outcome(kind, code, f"{code // 100}.0.0", text, stage))
    said = plugin.admit(delivery())
    # The pattern wants one character in the first line.
    shown = text[:LONGEST].strip("\n")
    assert isinstance(said, Reject) == (bool(shown) and stage != "odd")
    if isinstance(said, Reject):
        assert said.text.isprintable()


def test_patterns_see_the_beginning_of_a_reply_only(site: Site) -> None:
    plugin = site.plugin(rules={"x": {"text": "end", "action": "pause"}})
    answer(plugin, delivery(), f"421 4.7.0 {'x' * LONGEST}end")
    assert admitted(plugin, delivery())
    answer(plugin, delivery(), f"421 4.7.0 {'x' * (LONGEST - 3)}end")
    assert not admitted(plugin, delivery())


def test_what_happens_is_logged_once_with_the_reason(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = site.plugin(**rule(["slow", "pause"], **{"for": "90s"}))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # those that were under way
            answer(plugin, delivery(recipients=4), BUSY)
            site.now += 10
    assert [record.getMessage() for record in caplog.records] == [
        f"site:mx.one.example goes at 1/2: busy: {BUSY}",
        f"site:mx.one.example is paused for 90 s: busy: {BUSY}",
    ]
    site.now += 70
    assert not admitted(plugin, delivery())  # the last one counts
    site.now += 10
    assert admitted(plugin, delivery())


def test_a_message_that_was_refused_pays_anew(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": "1/h"}})
    of = delivery()
    assert admitted(plugin, of)
    answer(plugin, of, "450 4.2.0 later")
    assert not admitted(plugin, again(of))


def test_a_cell_of_nonsense_is_as_none(site: Site) -> None:
    plugin = site.plugin(**rule(["slow", "pause"]))
    limits = site.context().limits
    for kind in ("slow", "stop"):
        limits.change(
            f"throttle/{kind}/site:mx.one.example", NOW, lambda _: (1.0, NOW + 100, "non sense x")
        )
    assert passed(plugin, 3) == 3
    answer(plugin, delivery(), BUSY)
    assert not admitted(plugin, delivery())
