"""The addresses of a route's hops, in the order in which they are tried."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

from gateway.attempt import Disposition, Hop, Outcome, Route, Source
from gateway.delivery.failures import Failures
from gateway.delivery.identity import Identity
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

_PER_HOP = 5
_PER_DELIVERY = 10

# What an attempt ended in through no fault of the server: we stop, or our EHLO name is none.
_OURS = ("4.3.2", "4.3.5")


class Candidates:
    """Finds addresses for one delivery, and remembers for others how attempts at them ended.

    The hops come in their order, the addresses of each alternate between the versions of IP. Those
    that have not let us in lately come last, and not at all if there are no others.

    Args:
        route, source: what the delivery takes.
        requirement: what TLS is required, which only some servers may fail in.

    Attributes:
        refused: why no address has let us in so far.
    """

    def __init__(
        self,
        route: Route,
        source: Source,
        requirement: Hashable,
        *,
        resolver: Resolver,
        failures: Failures,
        identity: Identity,
    ) -> None:
        self._route = route
        self._source = source
        self._requirement = requirement
        self._resolver = resolver
        self._failures = failures
        self._identity = identity
        self._hops = deque(route.hops)
        self._addresses: deque[tuple[Hop, str]] = deque()
        self._last: deque[tuple[Hop, str, Outcome]] = deque()
        self._given = 0
        self._began = 0.0
        self.refused: list[Outcome] = []

    async def next(self) -> tuple[Hop, str] | None:
        """The next hop and IP address to try; None if there is none."""
        now = asyncio.get_running_loop().time
        while self._given < _PER_DELIVERY:
            if self._addresses:
                hop, address = self._addresses.popleft()
                reason = self._reason(hop, address, now())
                if reason is not None:
                    self._last.append((hop, address, reason))
                    continue
            elif self._hops:
                await self._resolve(self._hops.popleft())
                continue
            elif self._last and self._given:
                hop, address, _ = self._last.popleft()
            else:
                break
            self._given += 1
            return hop, address
        self.refused += [reason for _, _, reason in self._last]
        self._last.clear()
        return None

    def begin(self, hop: Hop, address: str) -> None:
        """An attempt at the address that was given last begins."""
        self._began = asyncio.get_running_loop().time()
        for place in self._places(hop, address):
            self._failures.begin(place, self._began)

    def leave(self, hop: Hop, outcome: Outcome) -> None:
        """The hop of the address that was given last must not be used for this delivery."""
        self._given -= 1
        self.refused.append(outcome)
        self._addresses = deque(entry for entry in self._addresses if entry[0] != hop)
        self._last = deque(entry for entry in self._last if entry[0] != hop)

    def failed(self, hop: Hop, address: str, outcome: Outcome) -> None:
        """That attempt did not come so far that MAIL was answered."""
        self.refused.append(outcome)
        if outcome.disposition is Disposition.FAILED:
            return  # it said so at once, and does to each message by itself
        if not outcome.code and outcome.status in _OURS:
            return
        anyone, ours = self._places(hop, address)
        late = outcome.stage in ("tls", "auth")
        now = asyncio.get_running_loop().time()
        # A login that is refused again and again may be locked.
        slow = outcome.stage == "auth"
        self._failures.add(ours if late else anyone, outcome, self._began, now, slow=slow)

    def succeeded(self, hop: Hop, address: str) -> None:
        """That attempt did."""
        for place in self._places(hop, address):
            self._failures.forget(place)

    def _places(self, hop: Hop, address: str) -> tuple[Hashable, Hashable]:
        """What fails as one: for everybody from this source, and for those of this requirement."""
        place = (address, hop.port, self._source.address)
        return place, (place, self._requirement)

    def _reason(self, hop: Hop, address: str, now: float) -> Outcome | None:
        for place in self._places(hop, address):
            reason = self._failures.reason(place, now)
            if reason is not None:
                return reason
        return None

    async def _resolve(self, hop: Hop) -> None:
        host, own = hop.host, self._source.address
        try:
            addresses = await self._resolver.addresses(host)
        except NoSuchDomainError:
            # Perhaps a mistake in the configuration or in the DNS: no reason to give up the mail.
            self.refused.append(_unresolved("4.4.4", f"host {host} does not exist"))
            return
        except ResolutionError as error:
            self.refused.append(_unresolved("4.4.3", f"DNS has no answer for {host}: {error}"))
            return
        if own is not None:
            addresses = [address for address in addresses if (":" in address) == (":" in own)]
        if not addresses:
            reach = f" that {own} can reach" if own is not None else ""
            self.refused.append(_unresolved("4.4.4", f"host {host} has no address{reach}"))
        elif any(self._identity.listens_at(address, hop.port) for address in addresses):
            self._return(hop)
        else:
            self._addresses.extend((hop, address) for address in alternating(addresses)[:_PER_HOP])

    def _return(self, hop: Hop) -> None:
        """A hop is this gateway: of exchangers, those that come later would send to us again."""
        text = f"mail loops back to this gateway, which is {hop.host} at port {hop.port}"
        if self._route.is_mx:
            self._hops.clear()
            self.refused.append(Outcome(Disposition.FAILED, 0, "5.4.6", text, "connect"))
        else:
            self.refused.append(_unresolved("4.4.6", text))


def alternating(addresses: list[str]) -> list[str]:
    """Addresses by turns of both versions of IP, so that neither hides the other; order is kept."""
    first = ":" in addresses[0]
    same = [address for address in addresses if (":" in address) == first]
    other = [address for address in addresses if (":" in address) != first]
    if not other:
        return same
    paired = [address for pair in zip(same, other, strict=False) for address in pair]
    shorter = min(len(same), len(other))
    return paired + same[shorter:] + other[shorter:]


def _unresolved(status: str, text: str) -> Outcome:
    return Outcome(Disposition.DEFERRED, 0, status, text, "connect")
