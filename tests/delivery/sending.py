"""What tests of delivery share: connections to scripted next hops, and messages to send."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.attempt import Delivery, Hop, Outcome, Route, Source, Times
from gateway.configuration.relay import RelayTls
from gateway.delivery.connection import Timeouts
from gateway.delivery.connections import Busy, Connections
from gateway.delivery.tls import Tls
from gateway.limits import Limits
from gateway.mail.message import Client, Recipient
from gateway.resolver import Resolver
from gateway.testing import NextHop

NOWHERE = "127.0.0.1:1"
SOURCE = Source(None, "gw.example.com")
CONTENT = b"From: a@example.com\r\nSubject: x\r\n\r\nHello\r\n"


@asynccontextmanager
async def delivering(
    timeouts: Timeouts | None = None,
    resolver: Resolver | None = None,
    limits: Path | None = None,
    **options: Any,
) -> AsyncIterator[Connections]:
    """Connections as a worker has them; `limits` is the file that workers share."""
    resolver = resolver or Resolver([NOWHERE], timeout=1.0)
    with tempfile.TemporaryDirectory() as folder:
        shared = Limits(limits or Path(folder, "limits"))
        tls = Tls(RelayTls(mta_sts=False, dane=False), resolver, Path(folder))
        connections = Connections(resolver, tls, shared, timeouts or Timeouts(), **options)
        try:
            yield connections
        finally:
            await connections.close(5.0)
            await resolver.close()
            shared.close()


def make_delivery(*recipients: str | Recipient, **options: Any) -> Delivery:
    """A message to the recipients; `options` are fields of `Delivery`."""
    values: dict[str, Any] = {
        "message_id": "1",
        "sender": "a@example.com",
        "client": Client("127.0.0.1"),
        "stream": "default",
        "received": 0.0,
        "attempts": 0,
        "content": CONTENT,
    }
    to = [Recipient(r) if isinstance(r, str) else r for r in recipients or ("b@example.net",)]
    return Delivery(recipients=to, **(values | options))


def make_route(*hops: NextHop | str, site: str = "site", **options: Any) -> Route:
    """A route over next hops, or over addresses; `options` are fields of `Route`."""
    addresses = (hop if isinstance(hop, str) else hop.address for hop in hops)
    return Route(tuple(map(Hop.parse, addresses)), site, **options)


async def attempt(
    connections: Connections,
    route: NextHop | Route,
    delivery: Delivery | None = None,
    source: Source = SOURCE,
    times: Times | None = None,
) -> list[Outcome] | Busy:
    """Delivers once, within half a minute."""
    route = make_route(route) if isinstance(route, NextHop) else route
    delivery = delivery or make_delivery()
    async with asyncio.timeout(30):
        outcomes = await connections.deliver(delivery, route, source, times or Times())
    assert isinstance(outcomes, Busy) or len(outcomes) == len(delivery.recipients)
    return outcomes


async def send(
    connections: Connections,
    route: NextHop | Route,
    delivery: Delivery | None = None,
    source: Source = SOURCE,
    times: Times | None = None,
) -> list[Outcome]:
    """Delivers, and is not Busy."""
    outcomes = await attempt(connections, route, delivery, source, times)
    assert not isinstance(outcomes, Busy), outcomes
    return outcomes


async def send_one(
    hop: NextHop | Route, delivery: Delivery | None = None, timeouts: Timeouts | None = None
) -> Outcome:
    """Delivers one message to one recipient over connections of its own."""
    async with delivering(timeouts) as connections:
        (outcome,) = await send(connections, hop, delivery)
    return outcome


def lines(hop: NextHop, connection: int = 1) -> list[str]:
    """What a next hop heard over one of its connections."""
    return [command.line for command in hop.commands if command.connection == connection]


async def until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Waits for a condition."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        await asyncio.sleep(0.005)
