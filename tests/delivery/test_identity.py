"""A gateway knows itself by its name and by where it listens."""

from __future__ import annotations

import pytest

from gateway.configuration.endpoint import Endpoint
from gateway.delivery.identity import Identity


def _identity(*listen: str) -> Identity:
    return Identity("Gw.Example.com", tuple(map(Endpoint.parse, listen)))


@pytest.mark.parametrize("host", ["gw.example.com", "GW.example.COM", "gw.example.com."])
def test_its_name(host: str) -> None:
    assert _identity().is_name(host)


@pytest.mark.parametrize("host", ["", "example.com", "gw.example.com.example", "192.0.2.1"])
def test_other_names(host: str) -> None:
    assert not _identity().is_name(host)


def test_without_a_name_no_host_is_ours() -> None:
    assert not Identity().is_name("gw.example.com")
    assert not Identity().is_name("")


@pytest.mark.parametrize(
    ("listen", "address", "port", "ours"),
    [
        ("192.0.2.1:25", "192.0.2.1", 25, True),
        ("192.0.2.1:25", "192.0.2.1", 2525, False),
        ("192.0.2.1:25", "192.0.2.2", 25, False),
        ("192.0.2.1:25", "::ffff:192.0.2.1", 25, True),
        ("[2001:db8::1]:25", "2001:DB8:0::1", 25, True),
        ("0.0.0.0:25", "127.0.0.1", 25, True),
        ("0.0.0.0:25", "127.9.9.9", 25, True),
        ("[::]:25", "127.0.0.1", 25, False),
        ("0.0.0.0:25", "192.0.2.1", 25, False),
        ("0.0.0.0:25", "127.0.0.1", 26, False),
        ("127.0.0.1:25", "no address", 25, False),
        ("127.0.0.1:0", "127.0.0.1", 0, False),
    ],
)
def test_where_it_listens(listen: str, address: str, port: int, ours: bool) -> None:
    assert _identity("192.0.2.77:587", listen).listens_at(address, port) is ours
