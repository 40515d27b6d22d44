"""Whether a source can be used here, and whether the DNS says what it says of itself."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from logging import Logger

from gateway.hooks import NoSuchDomainError, ResolutionError, Resolver
from plugins.ippool.config import SourceConfig

_UNSEEN = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
) + tuple(map(ip_network, ("127.0.0.0/8", "fc00::/7", "::1/128")))


def bind_error(address: str) -> str | None:
    """Why this machine cannot connect from an address; None if it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        # All its ports are taken for the moment: so the address is there.
        return None if error.errno == errno.EADDRINUSE else str(error.strerror or error)
    return None


def is_private(address: str) -> bool:
    """Whether receivers never see an address, so that the DNS has nothing to say of it."""
    return any(ip_address(address) in network for network in _UNSEEN)


class Bindings:
    """Which sources cannot be used because this machine does not have their addresses.

    Args:
        sources: by name.
        log: where it is told what changes; None: nowhere.
        bind: why an address cannot be bound.

    Attributes:
        unbound: why not, by name, as last tried.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceConfig],
        log: Logger | None,
        bind: Callable[[str], str | None] = bind_error,
    ) -> None:
        self.unbound: dict[str, str] = {}
        self._sources = sources
        self._log = log
        self._bind = bind

    def check(self, only: str | None = None) -> None:
        """Tries all sources, or one, again."""
        for name in self._sources if only is None else (only,):
            address = self._sources[name].address
            error = self._bind(address)
            before = self.unbound.pop(name, None)
            if error is not None:
                self.unbound[name] = error
                if before is None and self._log is not None:
                    self._log.error(
                        "source %s is not used: %s cannot be bound: %s", name, address, error
                    )
            elif before is not None and self._log is not None:
                self._log.info("source %s is used again: %s can be bound", name, address)


class Identities:
    """Whether the DNS says of sources what they say of themselves (RFC 1912 2.1).

    Args:
        resolver: finds the addresses of names, and the names of addresses.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def problems(self, source: SourceConfig) -> list[str]:
        """What receivers will dislike about the names of a source, in one line each."""
        public = source.public or source.address
        if is_private(public):
            return []
        return [
            *await self._problems_of_address(public, source.helo),
            *await self._problems_of_name(public, source.helo),
        ]

    async def _problems_of_address(self, public: str, helo: str) -> list[str]:
        try:
            names = await self._resolver.names(public)
        except ResolutionError as error:
            return [f"the PTR record of {public} cannot be looked up: {error}"]
        if not names:
            return [f"{public} has no PTR record, and many receivers refuse such mail"]
        if helo in names:
            return []
        return [f"the PTR record of {public} is {', '.join(names)}, not {helo}"]

    async def _problems_of_name(self, public: str, helo: str) -> list[str]:
        try:
            addresses = await self._resolver.addresses(helo)
        except NoSuchDomainError:
            return [f"{helo} does not exist in the DNS"]
        except ResolutionError as error:
            return [f"{helo} cannot be looked up: {error}"]
        if ip_address(public) in map(ip_address, addresses):
            return []
        return [f"the address of {helo} is {', '.join(addresses) or 'missing'}, not {public}"]
