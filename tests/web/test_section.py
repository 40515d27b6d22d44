"""The section `http` of gateway.yaml."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.configuration.config import ConfigError, load_config
from tests.certificate import make_certificate

LISTEN = "hostname: gw.example.com\nlisten: [{address: 127.0.0.1:2525}]\n"


def test_nothing_is_served_without_it() -> None:
    for text in ("", "http:\n", "http: null\n"):
        assert load_config(Path("gateway.yaml"), LISTEN + text).http is None


def test_the_defaults() -> None:
    http = load_config(Path("gateway.yaml"), LISTEN + "http: {address: 127.0.0.1:8025}\n").http
    assert http is not None
    assert str(http.address) == "127.0.0.1:8025"
    assert http.tls is None
    assert http.proxies == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert http.metrics == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert (http.max_body, http.timeout) == (65536, 30.0)


def test_everything(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "t.example.com")
    text = """
http:
  address: "[::1]:443"
  tls: {certificate: cert.pem, key: key.pem}
  proxies: [10.0.0.5]
  metrics: [10.0.0.9, "2001:db8::/32"]
  max_body: 1MiB
  timeout: 10s
"""
    http = load_config(tmp_path / "gateway.yaml", LISTEN + text).http
    assert http is not None
    assert http.tls is not None
    assert (http.tls.certificate, http.tls.key) == (certificate, key)
    assert http.proxies == (ip_network("10.0.0.5"),)
    assert http.metrics == (ip_network("10.0.0.9"), ip_network("2001:db8::/32"))
    assert (str(http.address), http.max_body, http.timeout) == ("[::1]:443", 1 << 20, 10.0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http: {}", "gateway.yaml:3: http.address: missing"),
        ("http: {address: 8025}", "gateway.yaml:3: http.address: expected an IP address and a"),
        ("http: {address: 127.0.0.1:8025, port: 1}", "gateway.yaml:3: http.port: unknown key"),
        (
            "http: {address: 127.0.0.1:2525}",
            "gateway.yaml:3: http.address: 127.0.0.1:2525 is already taken by listen[0]",
        ),
        (
            "http:\n  address: 127.0.0.1:1\n  tls: {certificate: /dev/null, key: /dev/null}",
            "/dev/null and /dev/null are no pair of certificate and key",
        ),
        (
            "http:\n  address: 127.0.0.1:1\n  tls: {certificate: /dev/null}",
            "gateway.yaml:5: http.tls.key: missing",
        ),
        (
            "http:\n  address: 127.0.0.1:1\n  tls: {mode: implicit}",
            "gateway.yaml:5: http.tls.mode: unknown key",
        ),
        ("http: {address: 127.0.0.1:1, proxies: [a]}", '"a" is no IP network'),
        ("http: {address: 127.0.0.1:1, metrics: [a]}", '"a" is no IP network'),
        ("http: {address: 127.0.0.1:1, timeout: 0s}", "must be longer than nothing"),
    ],
)
def test_what_is_wrong_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Path("gateway.yaml"), LISTEN + text + "\n")
    assert problem in "\n".join(map(str, caught.value.problems))
