"""The configuration: what is taken, and that every mistake is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.configuration.config import load_config
from gateway.configuration.validation import check
from gateway.configuration.yaml_document import ConfigError
from plugins.ippool import IpPool, IpPoolConfig
from plugins.ippool.provider import PROVIDERS
from plugins.ippool.warmup import CURVE
from tests.plugins.ippool_site import sources

TWO = sources("a", "b")


def _config(**settings: Any) -> IpPoolConfig:
    return IpPoolConfig.model_validate({"sources": TWO, **settings})


def _wrong(settings: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        IpPoolConfig.model_validate(settings)
    return "\n".join(
        f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"
        for error in caught.value.errors()
    )


def test_sources_alone_are_one_pool() -> None:
    config = _config()
    assert {name: one.sources for name, one in config.all_pools.items()} == {"default": ("a", "b")}
    assert config.default_pool == "default"
    assert config.curve == CURVE
    assert set(config.all_providers) == set(PROVIDERS)


def test_the_only_pool_is_the_default() -> None:
    assert _config(pools={"bulk": {"sources": ["a"]}}).default_pool == "bulk"


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("127.0.0.9", "127.0.0.9"),
        ("2001:DB8::0001", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_addresses_of_both_families(address: str, meant: str) -> None:
    config = IpPoolConfig.model_validate(
        {"sources": {"a": {"address": address, "helo": "a.example.com"}}}
    )
    assert config.sources["a"].address == meant


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"address": "192.0.2.300"}, "sources.a.address: '192.0.2.300' is no IP address"),
        ({"address": "mx.example.com"}, "'mx.example.com' is no IP address; for example: 192"),
        ({"address": "0.0.0.0"}, "mail cannot be sent from 0.0.0.0"),
        ({"address": "224.0.0.1"}, "mail cannot be sent from 224.0.0.1"),
        ({"address": "fe80::1%eth0"}, "mail cannot be sent from fe80::1%eth0"),
        ({"address": "::ffff:192.0.2.1"}, "sources.a.address: write ::ffff:192.0.2.1 as 192.0.2.1"),
        ({"helo": "mta1"}, "sources.a.helo: 'mta1' is no host name to say in EHLO; expected one"),
        ({"helo": "mta_1.example.com"}, "is no host name to say in EHLO"),
        ({"helo": "-a.example.com"}, "is no host name to say in EHLO"),
        ({"helo": "[192.0.2.1]"}, "is no host name to say in EHLO"),
        ({"helo": "192.0.2.1"}, "is no host name to say in EHLO"),
        ({"helo": "a b.example.com"}, "is no host name to say in EHLO"),
        ({"helo": "a.example.com\r\nQUIT"}, "is no host name to say in EHLO"),
        ({"weight": 0}, "sources.a.weight: a weight is 1 or more, not 0; a source that is to send"),
        ({"weight": -1}, "a weight is 1 or more, not -1"),
        ({"public": "x"}, "sources.a.public: 'x' is no IP address"),
        ({"warmup": {}}, "sources.a.warmup.since: Field required"),
        ({"warmup": {"since": "soon"}}, "sources.a.warmup.since: Input should be a valid date"),
        ({"warmup": {"since": "2026-11-01", "curve": []}}, "sources.a.warmup.curve: "),
        ({"warmup": {"since": "2026-11-01", "curve": [0]}}, "sources.a.warmup.curve.0: "),
        ({"ehlo": "x"}, "sources.a.ehlo: Extra inputs are not permitted"),
    ],
)
def test_what_a_source_cannot_be(source: dict[str, Any], message: str) -> None:
    settings = {"sources": {"a": {**TWO["a"], **source}}}
    assert message in _wrong(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": {}}, "sources: "),
        ({"sources": {"a b": TWO["a"]}}, "'a b' is no name; expected up to 63 letters"),
        (
            {"sources": {**TWO, "c": {"address": "127.0.0.2", "helo": "c.example.com"}}},
            "sources.c has the address 127.0.0.2 of a",
        ),
        ({"pools": {"p": {"sources": []}}}, "pools.p has no sources"),
        (
            {"sources": sources("mta1", "mta2"), "pools": {"p": {"sources": ["mta3"]}}},
            'pools.p: there is no source mta3; did you mean "mta2"?',
        ),
        ({"pools": {"p": {"sources": ["zzz"]}}}, "there is no source zzz; known are a, b"),
        ({"pools": {"p": {"sources": ["a", "a"]}}}, "pools.p names a twice; for a larger share"),
        (
            {"pools": {"bulk": {"sources": ["a"], "fallback": "bulg"}}},
            'pools.bulk.fallback: there is no pool bulg; did you mean "bulk"?',
        ),
        (
            {"pools": {"p": {"sources": ["a"], "fallback": "p"}}},
            "pools fall back in a circle: p -> p",
        ),
        (
            {
                "pools": {
                    "p": {"sources": ["a"], "fallback": "q"},
                    "q": {"sources": ["b"], "fallback": "p"},
                },
                "default": "p",
            },
            "pools fall back in a circle: p -> q -> p",
        ),
        (
            {"pools": {"p": {"sources": ["a"]}, "q": {"sources": ["b"]}}},
            "default is missing: which of the pools p, q is for all other mail",
        ),
        ({"default": "p"}, "default: there is no pool p; known are default"),
        (
            {"rules": [{"pool": "bulk", "when": {"stream": "bulk"}}]},
            "rules: rule 1: there is no pool bulk; known are default",
        ),
        ({"rules": [{"pool": "default", "when": {}}]}, "rules.0.when: a condition needs at least"),
        ({"rules": [{"pool": "default"}]}, "rules.0.when: Field required"),
        ({"curve": []}, "curve: "),
        ({"curve": [50, 0]}, "curve.1: "),
        ({"timezone": "Tokyo"}, "timezone: 'Tokyo' is no time zone; expected one such as Asia/T"),
        ({"timezone": "../etc/passwd"}, "is no time zone"),
        ({"providers": {"x": {}}}, "providers.x: needs domains or mx"),
        ({"providers": {"x": {"mx": ["mx*.example.com"]}}}, "'mx*.example.com' is no domain"),
        ({"providers": {"x": {"domains": ["a@b.example"]}}}, "'a@b.example' is no domain"),
        ({"providers": {"other": {"mx": ["*.example"]}}}, 'the name "other" stands for all who'),
        (
            {"providers": {"gmial": None}},
            'providers.gmial: null: there is no provider gmial; did you mean "gmail"?',
        ),
        ({"blocks": [{}]}, "blocks.0: needs at least one of text, code and status"),
        ({"blocks": [{"stage": ["rcpt"]}]}, "blocks.0: needs at least one of text, code and"),
        ({"blocks": [{"text": "("}]}, "blocks.0.text: '(' is no regular expression: "),
        ({"blocks": [{"code": 250}]}, "expected something like 550"),
        ({"blocks": [{"status": "5.7.x"}]}, "expected something like 5.7.1"),
        ({"blocks": [{"code": 550, "after": 0}]}, "blocks.0.after: "),
        (
            {"blocks": [{"code": 550, "provider": ["gmial"]}]},
            'blocks: block 1: there is no provider gmial; did you mean "gmail"?',
        ),
        ({"suspension": {"first": "2h", "longest": "1h"}}, "longest must not be shorter than fir"),
        ({"suspension": {"first": 0}}, "suspension.first: "),
        ({"poolz": {}}, "poolz: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, Any], message: str) -> None:
    assert message in _wrong({"sources": TWO, **settings})


def test_providers_are_added_replaced_and_removed() -> None:
    config = _config(
        providers={
            "gmail": None,
            "apple": {"domains": ["apple.example"]},
            "web": {"mx": ["*.web.de"]},
        }
    )
    providers = config.all_providers
    assert "gmail" not in providers
    assert providers["apple"].mx == ()
    assert providers["web"].mx == ("*.web.de",)
    assert providers["yahoo"] == PROVIDERS["yahoo"]


def test_own_blocks_are_asked_before_the_shipped_ones_which_can_be_left_out() -> None:
    own = {"text": "GO AWAY", "code": 550, "status": "5.7", "stage": ["dot"], "suspend": "30m"}
    first, *others = _config(blocks=[own]).rules_of_blocks
    assert first.text is not None
    assert first.text.search("please go away")
    assert (first.code, first.status, first.seconds) == ("550", "5.7", 1800.0)
    assert first.stages == {"dot"}
    assert tuple(others) == _config().rules_of_blocks
    assert _config(shipped_blocks=False).rules_of_blocks == ()


def test_the_hook_for_the_budget_is_left_out_where_no_source_warms_up() -> None:
    assert IpPool(_config()).unused == ("admit",)
    warming = sources("a", warmup={"since": "2026-11-01"})
    assert IpPool(IpPoolConfig.model_validate({"sources": warming})).unused == ()


YAML = """
hostname: gw.example.com
listen: [{address: 127.0.0.1:2525}]
plugins:
  - ippool:
      sources:
        a: {address: 192.0.2.1, helo: a.example.com, warmup: {since: 2026-11-01}}
      blocks:
        - {code: 554, status: 5.7, text: go away}
"""


def test_dates_and_numbers_may_stand_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(YAML)
    config = load_config(path)
    (entry,) = config.plugins
    settings = check(IpPoolConfig, config.document, dict(entry.settings), entry.path)
    assert str(settings.sources["a"].warmup and settings.sources["a"].warmup.since) == "2026-11-01"
    (rule, *_) = settings.rules_of_blocks
    assert (rule.code, rule.status) == ("554", "5.7")


def test_a_mistake_is_shown_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(YAML.replace("192.0.2.1", "192.0.2.999"))
    config = load_config(path)
    (entry,) = config.plugins
    with pytest.raises(ConfigError) as caught:
        check(IpPoolConfig, config.document, dict(entry.settings), entry.path)
    (problem,) = caught.value.problems
    assert "7:" in str(problem)
    assert "'192.0.2.999' is no IP address; for example: 192.0.2.1" in str(problem)
