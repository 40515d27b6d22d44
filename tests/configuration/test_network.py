from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.configuration.network import NetworkSet, parse_network

NETWORKS = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"]


@pytest.mark.parametrize(
    "address",
    ["10.255.0.1", "192.0.2.1", "2001:db8:1::1", "::1", "::ffff:10.0.0.1", "2001:db8::1%eth0"],
)
def test_addresses_inside(address: str) -> None:
    assert address in NetworkSet(map(parse_network, NETWORKS))


@pytest.mark.parametrize(
    "address",
    [
        "11.0.0.0",
        "192.0.2.2",
        "2001:db9::",
        "::2",
        "::ffff:11.0.0.1",
        "",
        "unknown",
        "10.0.0",
        "10.0.0.1\0",
        "[::1]",
        "::10.0.0.1",
    ],
)
def test_addresses_outside_and_what_is_none(address: str) -> None:
    assert address not in NetworkSet(map(parse_network, NETWORKS))
    assert address not in NetworkSet([])


@given(
    st.ip_addresses(v=4) | st.ip_addresses(v=6),
    st.integers(0, 32),
    st.ip_addresses(v=4) | st.ip_addresses(v=6),
)
def test_membership_is_that_of_the_standard_library(
    base: object, prefix: int, other: object
) -> None:
    network = ip_network(f"{base}/{prefix}", strict=False)
    for address in (base, other):
        text = str(address)
        mapped = getattr(ip_address(text), "ipv4_mapped", None)
        if mapped is None:
            assert (text in NetworkSet([network])) == (ip_address(text) in network)
        assert parse_network(str(network)) == network


def test_host_bits_are_refused_with_the_right_network() -> None:
    with pytest.raises(
        ValueError, match=r"the network is 10\.0\.0\.0/8, the one address is 10\.1\.2\.3"
    ):
        parse_network("10.1.2.3/8")
    with pytest.raises(ValueError, match="no IP network"):
        parse_network("10.1.2/8")
    with pytest.raises(ValueError, match="as text"):
        parse_network(10)
