from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.configuration.network import NetworkSet, parse_network
from gateway.web.forwarded import client_address

PROXIES = NetworkSet(map(parse_network, ("127.0.0.0/8", "10.0.0.0/8", "::1"))).__contains__


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ([b"192.0.2.1"], "192.0.2.1"),
        ([b"192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        ([b"192.0.2.1", b"10.0.0.1,127.0.0.1"], "192.0.2.1"),
        # Who is not trusted may have written what stands before.
        ([b"192.0.2.1, 198.51.100.7, 10.0.0.1"], "198.51.100.7"),
        ([b"10.0.0.9, 198.51.100.7"], "198.51.100.7"),
        ([b"unknown, 198.51.100.7"], "198.51.100.7"),
        # All are ours: the client is the first.
        ([b"10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        ([b"192.0.2.1:4711"], "192.0.2.1"),
        ([b"[2001:db8::1]:4711"], "2001:db8::1"),
        ([b"[2001:db8::1]"], "2001:db8::1"),
        ([b"2001:DB8:0::1"], "2001:db8::1"),
        ([b"::ffff:192.0.2.1"], "192.0.2.1"),
        ([b"fe80::1%<script>"], "fe80::1"),
        ([], None),
        ([b""], None),
        ([b"unknown"], None),
        ([b"192.0.2.1, <script>"], None),
        ([b"192.0.2.1, \xe3\x81\x82"], None),
        ([b"192.0.2.1, <script>, 10.0.0.1"], "10.0.0.1"),
        ([b"192.0.2.256"], None),
    ],
)
def test_the_client_behind_proxies(values: list[bytes], address: str | None) -> None:
    assert client_address(values, PROXIES) == address


@given(st.lists(st.binary()), st.ip_addresses())
def test_a_client_cannot_say_that_it_is_another(invented: list[bytes], real: object) -> None:
    """The proxy puts the real address behind whatever the client sent."""
    seen = client_address([*invented, str(real).encode()], lambda address: False)
    mapped = getattr(real, "ipv4_mapped", None)
    assert seen == str(mapped or real).partition("%")[0]


@given(st.lists(st.binary()))
def test_what_is_told_is_an_address(values: list[bytes]) -> None:
    address = client_address(values, PROXIES)
    assert address is None or str(ip_address(address)) == address
