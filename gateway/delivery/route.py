"""Where a domain's mail goes: to the smarthosts, or to its mail exchangers (RFC 5321 5.1)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gateway.attempt import Disposition, Hop, Outcome, Route
from gateway.resolver import (
    NoSuchDomainError,
    ResolutionError,
    Resolver,
    ip_address,
    stays_here,
)

SMARTHOST = "smarthost"

_HOPS_PER_ROUTE = 20


class Router:
    """Decides where a domain's mail goes.

    Args:
        via: the smarthosts in order; if there are none, each domain's mail exchangers.
        resolver: asks the DNS.
        port: where mail exchangers listen.
        shuffle: puts exchangers of equal preference into a random order (RFC 5321 5.1).
    """

    def __init__(
        self,
        via: Sequence[Hop],
        resolver: Resolver,
        *,
        port: int = 25,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        self._smarthosts = Route(tuple(via), SMARTHOST) if via else None
        self._resolver = resolver
        self._port = port
        self._shuffle = shuffle

    def lane(self, domain: str) -> str:
        """The lane that a domain's deliveries wait in. Asks nobody, never changes."""
        return SMARTHOST if self._smarthosts is not None else domain

    async def route(self, domain: str) -> Route | Outcome:
        """The way to a domain, or why there is none for now (DEFERRED) or for good (FAILED).

        Args:
            domain: in lower case and A-labels, or an address literal such as `[192.0.2.1]`.
        """
        if self._smarthosts is not None:
            return self._smarthosts
        if domain.startswith("["):
            return self._to_literal(domain)
        try:
            return await self._to_exchangers(domain)
        except NoSuchDomainError:
            return _failed(550, "5.1.2", f"Domain {domain} does not exist")
        except ResolutionError as error:
            return _outcome(
                Disposition.DEFERRED, 451, "4.4.3", f"DNS has no answer for {domain}: {error}"
            )

    async def _to_exchangers(self, domain: str) -> Route | Outcome:
        exchangers = await self._resolver.mx(domain)
        if not exchangers:
            if await self._resolver.addresses(domain):
                return Route((Hop(domain, self._port),), domain)
            return _failed(550, "5.4.4", f"Domain {domain} has neither MX nor address")
        named = [(preference, host) for preference, host in exchangers if host]
        if not named:
            return _failed(556, "5.1.10", f"Domain {domain} does not accept mail (null MX)")
        usable = [entry for entry in named if self._resolver.loopback or not stays_here(entry[1])]
        if not usable:
            return _failed(550, "5.4.6", f"MX of {domain} points back to the sender's own machine")
        hosts: list[str] = []
        for preference in sorted({preference for preference, _ in usable}):
            equals = [host for one, host in usable if one == preference and host not in hosts]
            self._shuffle(equals)
            hosts += equals
        best = min(preference for preference, _ in usable)
        site = ",".join(sorted({host for preference, host in usable if preference == best}))
        return Route(tuple(Hop(host, self._port) for host in hosts[:_HOPS_PER_ROUTE]), site)

    def _to_literal(self, domain: str) -> Route | Outcome:
        text = domain.removeprefix("[").removesuffix("]")
        is_version_6 = text.lower().startswith("ipv6:")
        address = ip_address(text[5:] if is_version_6 else text)
        if address is None or not domain.endswith("]") or (address.version == 6) != is_version_6:
            return _failed(550, "5.1.2", f"Bad address literal {domain}")
        if not self._resolver.loopback and stays_here(str(address)):
            return _failed(550, "5.4.6", f"{domain} points back to the sender's own machine")
        return Route((Hop(str(address), self._port),), domain)


def _failed(code: int, status: str, text: str) -> Outcome:
    return _outcome(Disposition.FAILED, code, status, text)


def _outcome(disposition: Disposition, code: int, status: str, text: str) -> Outcome:
    return Outcome(disposition, code, status, text, stage="route")
