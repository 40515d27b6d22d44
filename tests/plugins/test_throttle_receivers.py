from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.hooks import Delay, Disposition
from plugins.throttle import Throttle, ThrottleConfig
from plugins.throttle.plan import Planner
from plugins.throttle.receivers import SHIPPED
from tests.plugins.throttle_replies import PROVIDERS, REPLIES, SERVERS
from tests.plugins.throttle_site import NOW, Site, answer, delivery


@pytest.fixture(scope="module")
def shipped() -> ThrottleConfig:
    return ThrottleConfig()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Throttle]]:
    """A plugin with the shipped receivers; each test takes it a day later."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site, site.plugin(shipped=True)
    site.close()


def test_the_shipped_receivers_are_told_apart(shipped: ThrottleConfig) -> None:
    planner = Planner(shipped.merged)
    found: dict[str | None, list[str]] = {}
    for domain, host in SERVERS.items():
        of = delivery(domain, hosts=[host])
        assert of.route is not None
        plan = planner.plan(domain, of.route, None, domain)
        found.setdefault(plan.provider, []).append(domain)
    assert found.pop(None) == ["elsewhere.example"]
    assert found == PROVIDERS
    assert set(PROVIDERS) == set(shipped.merged.providers)


def test_every_shipped_receiver_has_limits(shipped: ThrottleConfig) -> None:
    planner = Planner(shipped.merged)
    for domain, host in SERVERS.items():
        of = delivery(domain, hosts=[host], source="192.0.2.1")
        assert of.route is not None
        plan = planner.plan(domain, of.route, "192.0.2.1", domain)
        assert plan.ceilings, domain
        assert plan.messages_per_connection is not None, domain


@pytest.mark.parametrize(("domain", "reply", "does"), REPLIES)
def test_a_reply_does_what_the_shipped_rules_say(
    running: tuple[Site, Throttle], domain: str, reply: str, does: str | None
) -> None:
    site, plugin = running
    site.now += 86400.0
    of = delivery(domain, hosts=[SERVERS[domain]], source="192.0.2.1")
    outcome = answer(plugin, of, reply)
    found = _done(site, plugin, domain)
    if reply[0] == "5" and outcome.disposition is Disposition.DEFERRED:
        found.append("retry")
    name, _, actions = (does or ": -").partition(": ")
    assert found == [one for one in actions.split() if one not in ("-", "retry")] + (
        ["retry"] if "retry" in actions and reply[0] == "5" else []
    )
    rules = {rule.name for rule in _rules(plugin, of) if rule.matches(outcome)}
    assert (name in rules) if name else not rules


def _rules(plugin: Throttle, of: Any) -> Any:
    return plugin._traffic.flow(of, NOW).plan.rules


def _done(site: Site, plugin: Throttle, domain: str) -> list[str]:
    """What is in force for the source that met the reply."""
    of = delivery(domain, hosts=[SERVERS[domain]], source="192.0.2.1")
    scopes = dict.fromkeys(plugin._traffic.flow(of, site.now).plan.scopes.values())
    found = [
        part["kind"]
        for scope in scopes
        for part in plugin._traffic.states.read(scope.key, site.now).described(site.now)
    ]
    assert isinstance(plugin.admit(of), Delay) == ("pause" in found)
    return found


def test_the_texts_of_japanese_receivers_have_rules_of_their_own_or_the_common_ones(
    shipped: ThrottleConfig,
) -> None:
    for name in ("docomo", "au", "softbank"):
        provider = shipped.merged.providers[name]
        assert provider.recipients_per_message == 100
        assert provider.rules


def test_every_number_of_the_shipped_file_is_a_guess_or_has_a_source() -> None:
    """A number without `guess` beside it stands under a comment that names a page."""
    number = re.compile(
        r"\b(?:connections|rate|messages_per_connection|recipients_per_message): \d"
    )
    documented = in_comment = False
    numbers = 0
    for line in SHIPPED.read_text().partition("\ndefault:")[0].splitlines():
        if line.startswith("  # "):
            documented = ("https://" in line) or (in_comment and documented)
            in_comment = True
            continue
        in_comment = False
        if number.search(line):
            numbers += 1
            assert documented or "guess" in line, line
    assert numbers == 40
