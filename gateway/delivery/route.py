"""Where a domain's mail goes: as `relay` says, or to its mail exchangers (RFC 5321 5.1)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from gateway.attempt import Credentials, Disposition, Hop, Outcome, Route
from gateway.configuration.relay import Login, Relay, RouteSection, credentials_of
from gateway.delivery.identity import Identity
from gateway.hooks.condition import glob
from gateway.resolver import (
    NoSuchDomainError,
    ResolutionError,
    Resolver,
    ip_address,
    stays_here,
)

SMARTHOST = "smarthost"

_HOPS_PER_ROUTE = 20
_DOMAINS_IN_MEMORY = 10_000
_IMPLICIT_TLS_PORT = 465


class Router:
    """Decides where a domain's mail goes.

    Args:
        relay: the smarthosts, the routes of some domains, and the port of mail exchangers.
        resolver: asks the DNS.
        identity: who we are, so that no mail comes back to us.
        shuffle: puts exchangers of equal preference into a random order (RFC 5321 5.1).

    Raises:
        ValueError: the password of a login cannot be read.
    """

    def __init__(
        self,
        relay: Relay,
        resolver: Resolver,
        identity: Identity = Identity(),  # noqa: B008 (it is frozen)
        *,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        self._resolver = resolver
        self._identity = identity
        self._port = relay.mx_port
        self._shuffle = shuffle
        self._routes = [(glob([name]), _routed(to)) for name, to in relay.routes.items()]
        self._routed: dict[str, Route | None] = {}
        self._smarthosts: Route | None = None
        if relay.via:
            self._smarthosts = Route(
                relay.via,
                SMARTHOST,
                implicit_tls=relay.implicit_tls,
                login=_credentials(relay.login),
            )

    def lane(self, domain: str) -> str:
        """The lane that a domain's deliveries wait in. Asks nobody, never changes."""
        if self._smarthosts is None or (self._routes and self._route_of(domain) is not None):
            return domain
        return SMARTHOST

    async def route(self, domain: str) -> Route | Outcome:
        """The way to a domain, or why there is none for now (DEFERRED) or for good (FAILED).

        Args:
            domain: in lower case and A-labels, or an address literal such as `[192.0.2.1]`.
        """
        routed = self._route_of(domain) if self._routes else None
        if routed is not None:
            return routed
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

    def via(self, hops: Iterable[str]) -> Route:
        """The way over servers that a person chose, such as `10.0.0.5:25`.

        Where `relay` names the same servers, its login and its TLS hold for them here too.

        Raises:
            ValueError: one of them is no host and port.
        """
        parsed = tuple(map(Hop.parse, hops))
        known = [route for _, route in self._routes]
        if self._smarthosts is not None:
            known.append(self._smarthosts)
        site = _site(parsed)
        for route in known:
            if set(parsed) <= set(route.hops):
                return Route(parsed, site, route.tls, route.implicit_tls, route.login)
        implicit = all(hop.port == _IMPLICIT_TLS_PORT for hop in parsed)
        return Route(parsed, site, implicit_tls=implicit)

    def _route_of(self, domain: str) -> Route | None:
        """The first of the configured routes that a domain matches."""
        try:
            return self._routed[domain]
        except KeyError:
            pass
        found = next((route for matches, route in self._routes if matches(domain)), None)
        if len(self._routed) >= _DOMAINS_IN_MEMORY:
            self._routed.clear()
        self._routed[domain] = found
        return found

    async def _to_exchangers(self, domain: str) -> Route | Outcome:
        exchangers = await self._resolver.mx(domain)
        authentic = await self._resolver.mx_authentic(domain)
        if not exchangers:
            if not await self._resolver.addresses(domain):
                return _failed(550, "5.4.4", f"Domain {domain} has neither MX nor address")
            if self._identity.is_name(domain):
                return _loop(domain)
            itself = (Hop(domain, self._port),)
            return Route(itself, domain, is_mx=True, authentic=authentic)
        named = [(preference, host) for preference, host in exchangers if host]
        if not named:
            return _failed(556, "5.1.10", f"Domain {domain} does not accept mail (null MX)")
        usable = [entry for entry in named if self._resolver.loopback or not stays_here(entry[1])]
        if not usable:
            return _failed(550, "5.4.6", f"MX of {domain} points back to the sender's own machine")
        # Those that are not better than we are would send it to us again.
        ours = [preference for preference, host in named if self._identity.is_name(host)]
        if ours:
            usable = [entry for entry in usable if entry[0] < min(ours)]
        if not usable:
            return _loop(domain)
        hosts: list[str] = []
        for preference in sorted({preference for preference, _ in usable}):
            equals = [host for one, host in usable if one == preference and host not in hosts]
            self._shuffle(equals)
            hosts += equals
        best = min(preference for preference, _ in usable)
        site = ",".join(sorted({host for preference, host in usable if preference == best}))
        hops = tuple(Hop(host, self._port) for host in hosts[:_HOPS_PER_ROUTE])
        return Route(hops, site, is_mx=True, authentic=authentic)

    def _to_literal(self, domain: str) -> Route | Outcome:
        text = domain.removeprefix("[").removesuffix("]")
        is_version_6 = text.lower().startswith("ipv6:")
        address = ip_address(text[5:] if is_version_6 else text)
        if address is None or not domain.endswith("]") or (address.version == 6) != is_version_6:
            return _failed(550, "5.1.2", f"Bad address literal {domain}")
        if not self._resolver.loopback and stays_here(str(address)):
            return _failed(550, "5.4.6", f"{domain} points back to the sender's own machine")
        return Route((Hop(str(address), self._port),), domain)


def _routed(section: RouteSection) -> Route:
    return Route(
        section.via,
        _site(section.via),
        section.tls,
        section.implicit_tls,
        _credentials(section.login),
    )


def _site(hops: Iterable[Hop]) -> str:
    """Domains that go over the same servers share their connections."""
    return ",".join(sorted(map(str, hops)))


def _credentials(login: Login | None) -> Credentials | None:
    return None if login is None else credentials_of(login)


def _loop(domain: str) -> Outcome:
    return _failed(550, "5.4.6", f"Mail for {domain} loops back to this gateway, its best MX")


def _failed(code: int, status: str, text: str) -> Outcome:
    return _outcome(Disposition.FAILED, code, status, text)


def _outcome(disposition: Disposition, code: int, status: str, text: str) -> Outcome:
    return Outcome(disposition, code, status, text, stage="route")
