"""Delivery to the next hop: which connection to use, and whom to try next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.attempt import Delivery, Disposition, Hop, Outcome, Route, Source, Times
from gateway.delivery.connection import Connection, Timeouts, open_connection
from gateway.delivery.transaction import transact, unsendable
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

_ADDRESSES_PER_HOP = 5
_ADDRESSES_PER_DELIVERY = 10

_Key = tuple[str, str | None, str]


class Connections:
    """Delivers messages, and keeps connections open for the next ones.

    A connection serves one message at a time. Afterwards it waits for another one to the same
    site from the same source.

    Args:
        resolver: finds the addresses of hops.
        timeouts: how long to wait for a server.
        idle: seconds that a connection waits for another message.
        messages_per_connection: transactions before a connection is closed.
        lifetime: seconds of use before a connection is closed, so that a server that was
            passed over gets its turn again.
        clock: seconds since the epoch, for `Times`.
    """

    def __init__(
        self,
        resolver: Resolver,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (it is frozen)
        *,
        idle: float = 5.0,
        messages_per_connection: int = 1000,
        lifetime: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._resolver = resolver
        self._timeouts = timeouts
        self._idle_for = idle
        self._messages_per_connection = messages_per_connection
        self._lifetime = lifetime
        self._clock = clock
        self._idle: dict[_Key, list[Connection]] = {}
        self._open: dict[Connection, _Key] = {}
        self._opening: set[asyncio.Task[Connection | Outcome]] = set()
        self._closing = False
        self._changed = asyncio.Event()

    async def deliver(
        self, delivery: Delivery, route: Route, source: Source, times: Times
    ) -> list[Outcome]:
        """Tries the hops of a route in turn until one takes or refuses the message.

        Returns one outcome per recipient, in order; sets `connect`, `connected` and `done` in
        `times`. An idle connection is used if there is one; if it turns out to be dead, a new one
        is made. If no hop lets us come as far as MAIL, the outcome is FAILED if all of them said
        so (5xx), otherwise DEFERRED. A recipient that the server left out because there were
        enough in one transaction is DEFERRED with 4.5.3; it may be tried again at once.

        Raises:
            CancelledError: whether the message was delivered is unknown.
        """
        times.connect = self._clock()
        outcomes = await self._deliver(delivery, route, source, times)
        times.done = self._clock()
        if not times.connected:
            times.connected = times.done
        return outcomes

    async def close(self, timeout: float) -> None:
        """Closes what is idle, waits up to `timeout` seconds for the rest, then cuts it off.

        What is cut off is DEFERRED. Connections that are used afterwards close after one message.
        """
        self._closing = True
        for connections in list(self._idle.values()):
            for connection in list(connections):
                connection.quit()
        try:
            async with asyncio.timeout(timeout):
                await self._all_closed()
        except TimeoutError:
            for task in self._opening:
                task.cancel()
            for connection in list(self._open):
                connection.abort("the gateway is stopping")
            await self._all_closed()

    async def _deliver(
        self, delivery: Delivery, route: Route, source: Source, times: Times
    ) -> list[Outcome]:
        refusal = unsendable(delivery)
        if refusal is not None:
            return [refusal] * len(delivery.recipients)
        key = (route.site, source.address, source.helo)
        connection = self._take(key, route)
        if connection is not None:
            times.connected = times.connect
            outcomes = await self._transact(connection, delivery, key)
            if isinstance(outcomes, list):
                return outcomes
            times.connected = 0.0
        failures: list[Outcome] = []
        tried = 0
        for hop in route.hops:
            addresses = await self._addresses(hop, source)
            if isinstance(addresses, Outcome):
                failures.append(addresses)
                continue
            for address in addresses[: _ADDRESSES_PER_DELIVERY - tried]:
                tried += 1
                opened = await self._connect(hop, address, source, key)
                if isinstance(opened, Outcome):
                    failures.append(opened)
                    continue
                times.connected = self._clock()
                outcomes = await self._transact(opened, delivery, key)
                if isinstance(outcomes, list):
                    return outcomes
                failures.append(outcomes)
        return [_verdict(failures)] * len(delivery.recipients)

    def _take(self, key: _Key, route: Route) -> Connection | None:
        """The connection that was used last, to the first hop that has any."""
        idle = self._idle.get(key)
        if not idle:
            return None
        for hop in route.hops:
            for index in reversed(range(len(idle))):
                if idle[index].hop == hop and not idle[index].lost:
                    connection = idle.pop(index)
                    connection.wake()
                    return connection
        return None

    async def _transact(
        self, connection: Connection, delivery: Delivery, key: _Key
    ) -> list[Outcome] | Outcome:
        try:
            outcomes = await transact(connection, delivery, self._timeouts)
        except BaseException:
            connection.abort()
            raise
        if connection.lost:
            return outcomes
        if (
            self._closing
            or connection.transactions >= self._messages_per_connection
            or asyncio.get_running_loop().time() - connection.opened >= self._lifetime
        ):
            connection.quit()
        else:
            connection.rest(self._idle_for)
            self._idle.setdefault(key, []).append(connection)
        return outcomes

    async def _addresses(self, hop: Hop, source: Source) -> list[str] | Outcome:
        try:
            addresses = await self._resolver.addresses(hop.host)
        except NoSuchDomainError:
            # Perhaps a mistake in the configuration or in the DNS: no reason to give up the mail.
            return _unresolved("4.4.4", f"host {hop.host} does not exist")
        except ResolutionError as error:
            return _unresolved("4.4.3", f"DNS has no answer for {hop.host}: {error}")
        if source.address is not None:
            is_version_6 = ":" in source.address
            addresses = [address for address in addresses if (":" in address) == is_version_6]
        if not addresses:
            reach = f" that {source.address} can reach" if source.address is not None else ""
            return _unresolved("4.4.4", f"host {hop.host} has no address{reach}")
        return addresses[:_ADDRESSES_PER_HOP]

    async def _connect(
        self, hop: Hop, address: str, source: Source, key: _Key
    ) -> Connection | Outcome:
        # A task of its own, which can be cut off without the delivery.
        task = asyncio.create_task(open_connection(hop, address, source, self._timeouts))
        self._opening.add(task)
        try:
            opened = await task
        except asyncio.CancelledError:
            # Both may happen at once: the connection is there and nobody wants it any more.
            if task.done() and not task.cancelled():
                unwanted = task.result()
                if isinstance(unwanted, Connection):
                    unwanted.abort()
            delivering = asyncio.current_task()
            if delivering is None or delivering.cancelling():
                raise
            text = f"connect to {hop}: the gateway is stopping"
            return Outcome(Disposition.DEFERRED, 0, "4.3.2", text, "connect")
        finally:
            self._opening.discard(task)
            self._changed.set()
        if isinstance(opened, Connection) and not opened.lost:
            self._open[opened] = key
            opened.on_lost = self._lost
        return opened

    def _lost(self, connection: Connection) -> None:
        key = self._open.pop(connection)
        idle = self._idle.get(key, [])
        if connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(key, None)
        self._changed.set()

    async def _all_closed(self) -> None:
        while self._open or self._opening:
            self._changed.clear()
            await self._changed.wait()


def _verdict(failures: list[Outcome]) -> Outcome:
    """What it means that no hop could be used: the last word, but a no for good only from all."""
    for failure in reversed(failures):
        if failure.disposition is not Disposition.FAILED:
            return failure
    return failures[-1] if failures else _unresolved("4.4.4", "the route has no hops")


def _unresolved(status: str, text: str) -> Outcome:
    return Outcome(Disposition.DEFERRED, 0, status, text, "connect")
