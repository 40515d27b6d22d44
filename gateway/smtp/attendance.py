"""Which clients are connected, and how often."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address

NETWORK_OCTETS = 8
"""A client with IPv6 has a network of 64 bits to itself (RFC 6177), with any address in it."""


def place_of(address: str) -> str | bytes:
    """What counts as one client: an IPv4 address, or the network of 64 bits of an IPv6 address."""
    address = address.removeprefix("::ffff:")
    if ":" not in address:
        return address
    return IPv6Address(address).packed[:NETWORK_OCTETS]


class Attendance:
    """Counts the open connections, and those of each client.

    Args:
        changed: told how many there are, whenever that changes.

    Attributes:
        connections: how many there are.
    """

    def __init__(self, changed: Callable[[int], None] = lambda _: None) -> None:
        self.connections = 0
        self._changed = changed
        self._counts: dict[str | bytes, int] = {}

    def come(self, place: str | bytes) -> None:
        """A client has connected."""
        self._counts[place] = self._counts.get(place, 0) + 1
        self.connections += 1
        self._changed(self.connections)

    def go(self, place: str | bytes) -> None:
        """A connection of the client is gone."""
        left = self._counts[place] - 1
        if left:
            self._counts[place] = left
        else:
            del self._counts[place]
        self.connections -= 1
        self._changed(self.connections)

    def count(self, place: str | bytes) -> int:
        """How many connections of the client are open."""
        return self._counts.get(place, 0)

    def __len__(self) -> int:
        """How many clients are connected."""
        return len(self._counts)
