"""Sets of IP networks, and how they are written in a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, WithJsonSchema

AnyNetwork: TypeAlias = IPv4Network | IPv6Network


def parse_network(value: Any) -> AnyNetwork:
    """Reads `10.0.0.0/8`, `2001:db8::/32` or one address, which is a network of its own.

    Raises:
        ValueError: it is none, or bits after the prefix are set.
    """
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("expected an IP network as text, for example 10.0.0.0/8")
    try:
        network = ip_network(value.strip("[]"), strict=False)
    except ValueError:
        raise ValueError(f'"{value}" is no IP network; for example: 10.0.0.0/8') from None
    address = value.partition("/")[0]
    if ip_network(address.strip("[]")).network_address != network.network_address:
        raise ValueError(
            f'"{value}" has host bits set; the network is {network}, the one address is {address}'
        )
    return network


Network = Annotated[
    AnyNetwork,
    BeforeValidator(parse_network),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "2001:db8::1"]}),
]
"""An IP network in a configuration."""


class NetworkSet:
    """Says whether an address lies in one of some networks, without making address objects."""

    __slots__ = ("_ranges4", "_ranges6")

    def __init__(self, networks: Iterable[AnyNetwork]) -> None:
        every = list(networks)
        self._ranges4 = self._ranges(n for n in every if n.version == 4)
        self._ranges6 = self._ranges(n for n in every if n.version == 6)

    @staticmethod
    def _ranges(networks: Iterable[AnyNetwork]) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((n.network_address.packed, n.broadcast_address.packed) for n in networks)

    def __contains__(self, address: str) -> bool:
        """Whether the networks hold an address; IPv4 written as `::ffff:1.2.3.4` counts as IPv4.

        What is no IP address is in no network.
        """
        try:
            if ":" not in address:
                packed, ranges = inet_pton(AF_INET, address), self._ranges4
            else:
                packed, ranges = inet_pton(AF_INET6, address.partition("%")[0]), self._ranges6
                if packed.startswith(b"\0\0\0\0\0\0\0\0\0\0\xff\xff"):
                    packed, ranges = packed[12:], self._ranges4
        except (OSError, ValueError):
            return False
        # A loop and not any(): a generator would cost more than the few comparisons.
        for first, last in ranges:  # noqa: SIM110
            if first <= packed <= last:
                return True
        return False
