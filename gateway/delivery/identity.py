"""What this gateway is called and where it listens: it must not hand mail to itself."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from gateway.configuration.endpoint import Endpoint
from gateway.resolver import ip_address


@dataclass(frozen=True, slots=True)
class Identity:
    """The name that this gateway goes by, and the addresses that it listens at."""

    hostname: str = ""
    listen: tuple[Endpoint, ...] = ()

    def is_name(self, host: str) -> bool:
        """Whether a host is this gateway, going by its name."""
        return bool(host) and host.rstrip(".").lower() == self.hostname.lower()

    def listens_at(self, address: str, port: int) -> bool:
        """Whether a connection to an IP address and port would come back to this gateway."""
        if not port:
            return False
        return any(one.port == port and _reaches(address, one.host) for one in self.listen)


def _reaches(address: str, listening: str) -> bool:
    there, here = _plain(address), _plain(listening)
    if there is None or here is None:
        return False
    if here.is_unspecified:
        return here.version == there.version and _is_local(there)
    return there == here


def _plain(text: str) -> IPv4Address | IPv6Address | None:
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_local(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of this machine's: only to those a socket can be bound."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        try:
            bound.bind((str(address), 0))
        except OSError:
            return False
    return True
