"""The bundled plugins keep the rules, each as it may be configured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.conformance import check_plugin
from tests.plugins.dkim_keys import ed25519_key, rsa_key

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "suppression": {},
    "suppression of some": {
        "addresses": ["reader3@example3.net", "ada@example.org"],
        "domains": ["example5.net"],
        "action": "discard",
        "streams_known": "message",
        "hygiene": {},
    },
    "personalization": {
        "only_with_header": None,
        "missing": "empty",
        "headers": ["Subject", "X-Name"],
        "variants": {"autumn": {"a": {"values": {"subject": "For {{ recipient.address }}"}}}},
    },
    "tracking": {
        "base_url": "https://t.example.com",
        "text_links": True,
        "unsubscribe": {"mailto": "leave@example.com"},
    },
    "report": {},
    "bounces": {"domain": "bounce.example.com", "complaints": ["news@example.com"]},
    "bounces by token": {"domain": "bounce.example.com", "style": "token"},
    "dkim": {
        "keys": [
            {"domain": "example.com", "selector": "s1", "file": "rsa.pem"},
            {"domain": "example.com", "selector": "e1", "file": "ed25519.pem"},
        ],
        "unsigned": "default",
        "default": "example.com",
        "verify": {},
    },
    "throttle": {
        "quotas": {"all": {"messages": {"hour": 100_000}}},
        "providers": {"net": {"domains": ["*.net"], "rate": "5/s", "connections": 2}},
    },
    "ippool": {
        "sources": {
            "mta1": {"address": "127.0.0.2", "helo": "mta1.example.com"},
            "mta2": {"address": "127.0.0.3", "helo": "mta2.example.com"},
        },
        "pools": {"main": {"sources": ["mta1", "mta2"]}},
        "default": "main",
    },
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_bundled_plugin_keeps_the_rules(case: str, tmp_path: Path) -> None:
    rsa_key().write(tmp_path / "rsa.pem")
    ed25519_key().write(tmp_path / "ed25519.pem")
    name = case.split()[0]
    report = check_plugin(
        name,
        json.dumps(SETTINGS[case]),
        settings_file=tmp_path / "settings.yaml",
        # How long they take is measured elsewhere; the machine of a test may be busy.
        budget=0.1,
    )
    assert report.good, str(report)
    assert report.warnings == [], str(report)
    assert report.distribution.startswith("mail-gateway ")
