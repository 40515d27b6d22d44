"""Delivery to the next hop: which connection to use, and whom to try next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.attempt import Delivery, Disposition, Hop, Outcome, Route, Source, Times
from gateway.delivery.candidates import Candidates
from gateway.delivery.ceilings import Ceilings, Place
from gateway.delivery.connection import Connection, Timeouts, open_connection
from gateway.delivery.envelope import unsendable
from gateway.delivery.failures import Failures
from gateway.delivery.identity import Identity
from gateway.delivery.pool import Pool
from gateway.delivery.protection import Protection
from gateway.delivery.tls import Tls
from gateway.delivery.transaction import transact
from gateway.delivery.waiters import Busy, Key
from gateway.limits import Limits
from gateway.resolver import Resolver

__all__ = ["Busy", "Connections"]

_HANDED_OVER = 3
"""Connections, just used by others, that one delivery may find broken before it gives up."""


_CANCEL_AGAIN = 0.05
"""Seconds until a cancellation that was not heard is repeated."""


class Connections:
    """Delivers messages, and keeps connections open for the next ones.

    A connection serves one message at a time. Afterwards it waits for another one to the same
    site from the same source that asks for the same TLS.

    Args:
        resolver: finds the addresses of hops.
        tls: says how connections are protected.
        limits: where connections are counted that `delivery.ceilings` bounds.
        timeouts: how long to wait for a server.
        identity: who we are, so that no mail comes back to us.
        idle: seconds that a connection waits for another message.
        messages_per_connection: transactions before a connection is closed.
        lifetime: seconds of use before a connection is closed, so that a server that was
            passed over gets its turn again.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        resolver: Resolver,
        tls: Tls,
        limits: Limits,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (it is frozen)
        *,
        identity: Identity = Identity(),  # noqa: B008 (it is frozen)
        idle: float = 5.0,
        messages_per_connection: int = 1000,
        lifetime: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._timeouts = timeouts
        self._identity = identity
        self._clock = clock
        self._failures = Failures()
        self._pool = Pool(
            Ceilings(limits, clock),
            idle=idle,
            messages=messages_per_connection,
            lifetime=lifetime,
        )
        self._opening: set[asyncio.Task[Connection | Outcome]] = set()
        self._opened = asyncio.Event()

    @property
    def count(self) -> int:
        """How many connections are open, in use or idle."""
        return self._pool.count

    async def deliver(
        self, delivery: Delivery, route: Route, source: Source, times: Times
    ) -> list[Outcome] | Busy:
        """Tries the hops of a route in turn until one takes or refuses the message.

        Returns one outcome per recipient, in order; sets `connect`, `connected` and `done` in
        `times`. An idle connection is used if there is one; if it turns out to be dead, a new one
        is made. If no hop lets us come as far as MAIL, the outcome is FAILED if all of them said
        so (5xx), otherwise DEFERRED. A recipient that the server left out because there were
        enough in one transaction is DEFERRED with 4.5.3; it may be tried again at once.

        Where `delivery.ceilings` allow no further connection, or the servers take no more than
        those that there are, it waits for a few seconds until somebody else is done with one;
        then it is Busy, which tells nothing about the message.

        Raises:
            CancelledError: whether the message was delivered is unknown.
            OSError, LimitsFullError: the limits cannot be read; nothing was tried.
        """
        times.connect = self._clock()
        outcomes = await self._deliver(delivery, route, source, times)
        times.done = self._clock()
        if not times.connected:
            times.connected = times.done
        return outcomes

    def retry(self) -> None:
        """Servers that did not let us in are tried again at once: a person says so."""
        self._failures.clear()

    async def close(self, timeout: float) -> None:
        """Closes what is idle, waits up to `timeout` seconds for the rest, then cuts it off.

        What is cut off is DEFERRED. Connections that are used afterwards close after one message.
        """
        self._pool.stop()
        try:
            async with asyncio.timeout(timeout):
                await self._all_closed()
        except TimeoutError:
            for task in self._opening:
                _give_up(task)
            self._pool.cut_off("the gateway is stopping")
            await self._all_closed()

    async def _deliver(
        self, delivery: Delivery, route: Route, source: Source, times: Times
    ) -> list[Outcome] | Busy:
        refusal = unsendable(delivery)
        if refusal is not None:
            return [refusal] * len(delivery.recipients)
        requirement = await self._tls.requirement(delivery, route)
        key = Key(route.site, source, requirement)
        connection = self._pool.take(key, route.hops, delivery)
        if connection is not None:
            times.connected = times.connect
            outcomes = await self._use(connection, delivery, times)
            if isinstance(outcomes, list):
                return outcomes
        candidates = Candidates(
            route,
            source,
            requirement,
            resolver=self._resolver,
            failures=self._failures,
            identity=self._identity,
        )
        result = await self._search(delivery, route, key, candidates, times)
        return [result] * len(delivery.recipients) if isinstance(result, Outcome) else result

    async def _search(
        self, delivery: Delivery, route: Route, key: Key, candidates: Candidates, times: Times
    ) -> list[Outcome] | Outcome | Busy:
        """Opens new connections in turn until one takes or refuses the message."""
        place: Place | None = None
        broken = 0
        try:
            candidate = await candidates.next()
            while candidate is not None:
                hop, address = candidate
                protection = await self._tls.protection(key.requirement, hop)
                if isinstance(protection, Outcome):
                    candidates.leave(hop, protection)
                    candidate = await candidates.next()
                    continue
                if place is None:
                    given = await self._pool.obtain(key, route.hops, delivery)
                    if isinstance(given, Busy):
                        return given
                    if isinstance(given, Connection):
                        outcomes = await self._use(given, delivery, times)
                        broken += 1
                        if isinstance(outcomes, list) or broken == _HANDED_OVER:
                            return outcomes
                        continue
                    place = given
                candidates.begin(hop, address)
                opened = await self._open(hop, address, key.source, protection)
                if isinstance(opened, Connection):
                    if not opened.lost:
                        self._pool.add(opened, key, place)
                        place = None
                    outcomes = await self._use(opened, delivery, times)
                    if isinstance(outcomes, list):
                        candidates.succeeded(hop, address)
                        return outcomes
                    opened = outcomes
                candidates.failed(hop, address, opened)
                candidate = await candidates.next()
        finally:
            if place is not None:
                self._pool.release(place)
        # Where all was known before, nothing was waited for: others have their turn first.
        await asyncio.sleep(0)
        verdict = _verdict(candidates.refused)
        if verdict.disposition is Disposition.FAILED or not self._pool.has(key, route.hops):
            return verdict
        # Perhaps the servers take no more connections: then those that there are must do.
        given = await self._pool.obtain(key, route.hops, delivery, full=verdict.reply)
        if isinstance(given, Connection):
            return await self._use(given, delivery, times)
        assert isinstance(given, Busy)  # no place was wanted
        return given

    async def _use(
        self, connection: Connection, delivery: Delivery, times: Times
    ) -> list[Outcome] | Outcome:
        """Sends a message; a single outcome means that the connection is of no use for it."""
        times.connected = times.connected or self._clock()
        try:
            outcomes = await transact(connection, delivery, self._timeouts)
        except BaseException:
            connection.abort()
            raise
        self._pool.give_back(connection, delivery)
        if isinstance(outcomes, Outcome):
            times.connected = 0.0
        return outcomes

    async def _open(
        self, hop: Hop, address: str, source: Source, protection: Protection
    ) -> Connection | Outcome:
        # A task of its own, which can be cut off without the delivery.
        task = asyncio.create_task(
            open_connection(hop, address, source, self._timeouts, protection)
        )
        self._opening.add(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            delivering = asyncio.current_task()
            if delivering is None or delivering.cancelling():
                _give_up(task)
                raise
            text = f"connect to {hop}: the gateway is stopping"
            return Outcome(Disposition.DEFERRED, 0, "4.3.2", text, "connect")
        finally:
            self._opening.discard(task)
            self._opened.set()

    async def _all_closed(self) -> None:
        await self._pool.emptied()
        while self._opening:
            self._opened.clear()
            await self._opened.wait()
            await self._pool.emptied()


def _give_up(task: asyncio.Task[Connection | Outcome]) -> None:
    """Cancels a connection that is being opened, and closes it should it be open already."""
    if not task.done():
        task.cancel()
        # `asyncio.wait_for` overlooks a cancellation that comes as it ends (Python before 3.12).
        asyncio.get_running_loop().call_later(_CANCEL_AGAIN, _give_up, task)
    elif not task.cancelled():
        opened = task.result()
        if isinstance(opened, Connection):
            opened.abort()


def _verdict(failures: list[Outcome]) -> Outcome:
    """What it means that no hop could be used: the last word, but a no for good only from all."""
    for failure in reversed(failures):
        if failure.disposition is not Disposition.FAILED:
            return failure
    if failures:
        return failures[-1]
    return Outcome(Disposition.DEFERRED, 0, "4.4.4", "the route has no hops", "connect")
