"""Which address families a site can be reached over, as far as that is known."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.hooks import NoSuchDomainError, ResolutionError, Resolver, Route
from plugins.ippool.pool import ANY, V4, V6

_BELIEVED = 3_600.0
"""Seconds after which it is asked again what addresses a site has."""
_AVOIDED = 600.0
"""Seconds for which a family is avoided over which no connection came about."""
_REMEMBERED = 10_000

_UNKNOWN = (V4, V6)
"""What is tried while the DNS is asked: nearly everybody has an address of version 4."""


@dataclass(slots=True)
class _Site:
    families: int = 0
    asked: float = -_BELIEVED
    avoided: int = 0
    avoided_until: float = 0.0


class Reach:
    """Learns over which families sites can be reached: from the DNS, and from failures.

    Args:
        resolver: asks the DNS, while mail goes on with what is known.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._sites: dict[str, _Site] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def families(self, route: Route, now: float) -> tuple[int, ...]:
        """Sets of families to take a source from, the better one first.

        Args:
            route: the way to the site.
            now: seconds since the epoch.
        """
        site = self._sites.get(route.site)
        if site is None:
            site = self._new(route.site)
        if not 0 <= now - site.asked < _BELIEVED:
            site.asked = now
            literal = _literal(route)
            if literal:
                site.families = literal
            else:
                task = asyncio.get_running_loop().create_task(self._ask(route, site))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        known = site.families
        if site.avoided and now < site.avoided_until:
            wanted = (known or ANY) & ~site.avoided
            return (wanted,) if wanted else (ANY,)
        return (known,) if known else _UNKNOWN

    def missing(self, site_name: str, family: int) -> None:
        """A site turned out to have no address of a family."""
        site = self._sites.get(site_name) or self._new(site_name)
        site.families = (site.families or ANY) & ~family

    def failed(self, site_name: str, family: int, now: float) -> None:
        """No connection came about over a family: the other one is better for a while."""
        site = self._sites.get(site_name) or self._new(site_name)
        if now >= site.avoided_until:
            site.avoided = 0
        site.avoided |= family
        site.avoided_until = now + _AVOIDED

    async def stop(self) -> None:
        """Gives up the questions that are still open."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _new(self, name: str) -> _Site:
        if len(self._sites) >= _REMEMBERED:
            del self._sites[next(iter(self._sites))]
        site = self._sites[name] = _Site()
        return site

    async def _ask(self, route: Route, site: _Site) -> None:
        found = 0
        for host in dict.fromkeys(hop.host for hop in route.hops):
            try:
                addresses = await self._resolver.addresses(host)
            except (NoSuchDomainError, ResolutionError):
                continue
            for address in addresses:
                found |= V6 if ":" in address else V4
        if found:
            site.families = found


def _literal(route: Route) -> int:
    """The families of a route whose hops are addresses; 0 if one is a name."""
    found = 0
    for hop in route.hops:
        if ":" in hop.host:
            found |= V6
        elif hop.host.replace(".", "").isdigit():
            found |= V4
        else:
            return 0
    return found
