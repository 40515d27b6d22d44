"""IP pool plugins over one file of limits, with a clock and an outbox that tests read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from gateway.hooks import (
    Attempt,
    Client,
    Context,
    Delay,
    Delivery,
    Disposition,
    Event,
    Hop,
    Limits,
    Outcome,
    Recipient,
    Resolver,
    Route,
    Source,
)
from plugins.ippool import IpPool, IpPoolConfig

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0

NOWHERE = "192.0.2.77"
"""An address that no machine has: it is for documents (RFC 5737)."""

SPAMHAUS = "Service unavailable, Client host [192.0.2.1] blocked using Spamhaus"


class Site:
    """The processes of a gateway, each with its own plugin and its own view of the limits.

    Attributes:
        now: what the clock shows.
        events: what plugins have emitted.
    """

    def __init__(self, folder: Path, now: float = NOON) -> None:
        self.folder = folder
        self.now = now
        self.events: list[Event] = []
        self._limits: list[Limits] = []

    def limits(self) -> Limits:
        """The limits as one more process has them."""
        limits = Limits(self.folder / "limits")
        self._limits.append(limits)
        return limits

    def context(
        self,
        role: Literal["worker", "service", "command"] = "worker",
        resolver: Resolver | None = None,
    ) -> Context:
        """What a process of that role gives the plugin."""
        return Context(
            name="ippool",
            hostname="gw.example.com",
            role=role,
            folder=self.folder / "data",
            base=self.folder,
            clock=lambda: self.now,
            log=logging.getLogger("gateway.plugin.ippool"),
            resolver=resolver or Resolver(["127.0.0.1:1"], 0.1),
            limits=self.limits(),
            emit=self._emit,
        )

    def _emit(self, event: Event) -> asyncio.Future[None]:
        self.events.append(event)
        # The plugin does not wait for it.
        return cast("asyncio.Future[None]", None)

    @asynccontextmanager
    async def plugin(
        self,
        config: dict[str, Any],
        role: Literal["worker", "service"] = "worker",
        resolver: Resolver | None = None,
    ) -> AsyncIterator[IpPool]:
        """A started plugin."""
        plugin = IpPool(IpPoolConfig.model_validate(config))
        await plugin.start(self.context(role, resolver))
        try:
            yield plugin
        finally:
            await plugin.stop()

    def told(self) -> list[tuple[str, str, str]]:
        """The events so far: type, source and provider."""
        return [(one.type, one.notes["source"], one.notes["provider"]) for one in self.events]

    def close(self) -> None:
        """Closes the limits of all processes."""
        for limits in self._limits:
            limits.close()


def sources(*names: str, **fields: Any) -> dict[str, dict[str, Any]]:
    """Sources at 127.0.0.2 and up, named so, each with some fields."""
    return {
        name: {"address": f"127.0.0.{number}", "helo": f"{name}.example.com", **fields}
        for number, name in enumerate(names, 2)
    }


def route_to(*hosts: str) -> Route:
    """A way to mail exchangers."""
    return Route(tuple(map(Hop, hosts)), ",".join(sorted(hosts)), is_mx=True)


def mail(
    recipients: str | Sequence[str] = "taro@example.net",
    *,
    sender: str = "news@shop.example.com",
    route: Route | None = None,
    number: int = 1,
    notes: dict[str, str] | None = None,
    **fields: Any,
) -> Delivery:
    """A message on its way."""
    addresses = [recipients] if isinstance(recipients, str) else recipients
    values: dict[str, Any] = {"stream": "default", "content": b"Subject: x\r\n\r\nx\r\n", **fields}
    delivery = Delivery(
        message_id=f"ID{number}",
        sender=sender,
        recipients=[Recipient(address) for address in addresses],
        client=Client("192.0.2.1", user="shop"),
        received=NOON,
        attempts=0,
        notes=notes or {},
        **values,
    )
    delivery.route = route or route_to("mx.example.net")
    return delivery


def send(plugin: IpPool, delivery: Delivery) -> Source | Delay:
    """What the hooks before an attempt say; the delivery's source is set if it may be made."""
    answer = plugin.source(delivery)
    if isinstance(answer, Delay):
        return answer
    delivery.source = answer
    return plugin.admit(delivery) or answer


def sent_from(plugin: IpPool, delivery: Delivery) -> str:
    """The first label of the EHLO name that a delivery comes from; the attempt succeeds."""
    answer = send(plugin, delivery)
    assert isinstance(answer, Source), answer
    outcome = Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot")
    for recipient in delivery.recipients[: delivery.recipients_per_message]:
        assert plugin.reply(Attempt(delivery, recipient, delivery.route, answer, outcome)) is None
    return answer.helo.partition(".")[0]


def answered(
    plugin: IpPool, delivery: Delivery, code: int, status: str, text: str, stage: str = "rcpt"
) -> Outcome | None:
    """What the plugin makes of a refusal of the first recipient."""
    disposition = Disposition.FAILED if code // 100 == 5 else Disposition.DEFERRED
    outcome = Outcome(disposition, code, status, text, stage, "mx.example.net[192.0.2.9]:25")
    attempt = Attempt(delivery, delivery.recipients[0], delivery.route, delivery.source, outcome)
    return plugin.reply(attempt)


def blocked(plugin: IpPool, delivery: Delivery, text: str = SPAMHAUS) -> Outcome | None:
    """The same for a receiver that blocks the source."""
    return answered(plugin, delivery, 550, "5.7.1", text)
