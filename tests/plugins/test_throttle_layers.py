from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from plugins.throttle import ThrottleConfig
from plugins.throttle.receivers import SHIPPED
from tests.plugins.throttle_site import Site, delivery


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_gateway_yaml_overrides_single_values(site: Site) -> None:
    config = site.config(shipped=True, providers={"gmail": {"connections": 3, "rate": "1/h"}})
    gmail = config.merged.providers["gmail"]
    before = ThrottleConfig().merged.providers["gmail"]
    assert gmail.connections == 3
    assert gmail.messages_per_connection == before.messages_per_connection
    assert (gmail.rules or {}).keys() == (before.rules or {}).keys()
    assert next(iter(config.merged.providers)) == "gmail"
    origin = config.merged.origin
    assert origin(("providers", "gmail", "connections")) == (
        "gateway.yaml: providers.gmail.connections"
    )
    shipped, _, line = origin(("providers", "gmail", "messages_per_connection")).rpartition(":")
    assert shipped == "shipped receivers.yaml"
    text = SHIPPED.read_text().splitlines()[int(line) - 1]
    assert text.strip().startswith("messages_per_connection: 100")


def test_null_takes_away_values_sections_rules_and_providers(site: Site) -> None:
    config = site.config(
        shipped=True,
        providers={
            "docomo": {"rate": None, "rules": {"busy": None}},
            "office365": {"site": None},
            "comcast": None,
        },
        rules={"connections": None},
        default={"site": {"connections": None}},
    )
    merged = config.merged
    assert merged.providers["docomo"].rate is None
    assert merged.providers["docomo"].connections == 5
    assert not merged.providers["docomo"].rules
    assert merged.providers["office365"].site is None
    assert "comcast" not in merged.providers
    assert "connections" not in merged.rules
    assert "rate-limited" in merged.rules
    assert merged.default.messages_per_connection == 100
    assert merged.default.site is None or merged.default.site.connections is None
    assert not [path for path in merged.origins if path[:2] == ("providers", "comcast")]


def test_a_rule_can_be_changed_in_part_and_new_ones_come_first(site: Site) -> None:
    config = site.config(
        shipped=True,
        providers={
            "yahoo": {
                "rules": {"complaints": {"for": "5m"}, "mine": {"text": "mine", "action": "pause"}}
            }
        },
        rules={"first": {"code": "4xx", "action": "none"}},
    )
    rules = config.merged.providers["yahoo"].rules
    assert rules is not None
    assert next(iter(rules)) == "mine"
    complaints = rules["complaints"]
    assert complaints is not None
    assert (complaints.lasting, complaints.action) == (300.0, ("slow", "pause"))
    assert next(iter(config.merged.rules)) == "first"


OWN = """\
providers:
  corp:
    domains: [corp.example]
    rate: [10/s, 1000/h]
    rules:
      closed: {text: "closed", scope: domain, action: bounce, for: 1h}
  gmail: {connections: 8}
  biglobe: null
default:
  domain: {connections: 2}
"""


@pytest.mark.parametrize("shipped", [True, False])
def test_a_file_of_ones_own_stands_between(site: Site, shipped: bool) -> None:
    text = OWN if shipped else OWN.replace("  gmail: {connections: 8}\n  biglobe: null\n", "")
    (site.folder / "own.yaml").write_text(text)
    config = site.config(
        shipped=shipped, receivers="own.yaml", providers={"corp": {"connections": 4}}
    )
    merged = config.merged
    corp = merged.providers["corp"]
    assert [str(rate) for rate in corp.rate or ()] == ["10/s", "1000/h"]
    assert corp.connections == 4
    assert merged.origin(("providers", "corp", "rate")) == "own.yaml:4"
    assert merged.origin(("providers", "corp", "rules", "closed", "for")) == "own.yaml:6"
    assert merged.origin(("providers", "corp", "domains")) == "own.yaml:3"
    if shipped:
        assert merged.providers["gmail"].connections == 8
        assert "biglobe" not in merged.providers
        assert merged.default.site is not None
    else:
        assert list(merged.providers) == ["corp"]
    assert merged.default.domain is not None
    assert merged.default.domain.connections == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "providers: {gmial: {connections: 3}}",
            'own.yaml:1: there is no provider "gmial"; did you',
        ),
        ("providers:\n  gmail: {conections: 3}", "own.yaml:2: providers.gmail.conections: unknown"),
        (
            "providers:\n  gmail:\n    rate: fast",
            "own.yaml:3: providers.gmail.rate.0: expected a rate",
        ),
        (
            "rules:\n  x:\n    text: '('\n    action: slow",
            "own.yaml:3: rules.x.text.0: '(' is no reg",
        ),
        ("rules:\n  x: {text: abc}", "own.yaml:2: the rule 'x' lacks an action"),
        ("rules:\n  x: {action: slow}", "own.yaml:2: the rule 'x' needs code, status or text"),
        ("rules: {x: null}", "own.yaml:1: there is no rule 'x' to take away"),
        (
            "providers:\n  nobody: null",
            'own.yaml:2: there is no provider "nobody"; known are gmail,',
        ),
        ("rules: {x: {text: a, action: slow}, x: {}}", "own.yaml:1: x is there twice"),
        ("a: [", "own.yaml:2: "),
        ("- a", "own.yaml:1: expected keys such as providers"),
        ("[1]: 2", "own.yaml:1: a key must be plain text"),
        ("default: {site: {rate: !!python/name:os.system x}}", "own.yaml:1: this is no value"),
        ("other: 1", "own.yaml:1: other: unknown key"),
        ("providers: {a b: {domains: x.example}}", "own.yaml:1: providers.a b: 'a b' is no name"),
        ("x: " + "[" * 50, "own.yaml:2: "),
        ("x: " + "{a: " * 50 + "1" + "}" * 50, "own.yaml:1: nested too deeply"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(site: Site, text: str, problem: str) -> None:
    (site.folder / "own.yaml").write_text(text + "\n")
    with pytest.raises(ValidationError) as raised:
        site.config(shipped=True, receivers="own.yaml")
    assert problem in raised.value.errors()[0]["msg"]
    assert "\n" not in raised.value.errors()[0]["msg"]


def test_a_file_that_cannot_be_read(site: Site) -> None:
    (site.folder / "own.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ValidationError, match="own\\.yaml: not UTF-8"):
        site.config(receivers="own.yaml")
    with pytest.raises(ValidationError, match="no such file"):
        site.config(receivers="missing.yaml")
    (site.folder / "empty.yaml").write_text("# nothing\n")
    assert site.config(receivers="empty.yaml").merged.providers == {}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (
            {"default": {"site": {"rate": ["100/s", "50/d"]}}},
            "50/d is less than 100/s lets through",
        ),
        ({"default": {"site": {"rate": ["1/s", "2/s"]}}}, "are for the same time"),
        ({"default": {"site": {"rate": []}}}, "an empty list"),
        ({"default": {"site": {"rate": 5}}}, "expected a rate"),
        ({"default": {"site": {"rate": "0/s"}}}, "would let nothing through"),
        ({"default": {"site": {"connections": 0}}}, "greater than or equal to 1"),
        ({"default": {"rate": "1/s"}}, "Extra inputs are not permitted"),
        ({"rules": {"x": {"code": 250, "action": "slow"}}}, "'250' is no code of a refusal"),
        ({"rules": {"x": {"code": True, "action": "slow"}}}, "is no code of a refusal"),
        ({"rules": {"x": {"status": "4.7", "action": "slow"}}}, "'4.7' is no status"),
        ({"rules": {"x": {"code": 421, "stage": "helo", "action": "slow"}}}, "'connect', 'ehlo'"),
        ({"rules": {"x": {"code": 421, "action": "sleep"}}}, "'slow', 'pause'"),
        ({"rules": {"x": {"code": 421, "action": ["retry", "fail"]}}}, "contradict each other"),
        ({"rules": {"x": {"code": 421, "action": ["pause", "bounce"]}}}, "contradict each other"),
        ({"rules": {"x": {"code": 421, "action": ["none", "slow"]}}}, "none stands alone"),
        ({"rules": {"x": {"code": 421, "action": "slow", "for": "1h"}}}, "does not last"),
        ({"rules": {"x y": {"code": 421, "action": "slow"}}}, "'x y' is no name"),
        ({"providers": {"x": {"domains": "a b"}}}, "'a b' is no domain"),
        ({"providers": {"x": {"connections": 1}}}, "there is no provider"),
        ({"time_zone": "Mars/Base"}, "is no time zone"),
    ],
)
def test_what_makes_no_sense_is_said(site: Site, config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as raised:
        site.config(**config)
    assert problem in str(raised.value)


def test_layers_that_contradict_each_other_are_found(site: Site) -> None:
    with pytest.raises(ValidationError) as raised:
        site.config(shipped=True, providers={"gmail": {"rules": {"busy": {"action": None}}}})
    assert ", providers.gmail.rules.busy: the rule 'busy' lacks an action" in str(raised.value)
    assert "shipped receivers.yaml:" in str(raised.value)


def test_names_in_japanese_are_compared_in_their_ascii_form(site: Site) -> None:
    plugin = site.plugin(providers={"x": {"domains": "*.例え.jp", "connections": 1}})
    of = delivery("a.xn--r8jz45g.jp")
    plugin.admit(of)
    assert of.ceilings == {"throttle/connections/provider:x": 1}
