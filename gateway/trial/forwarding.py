"""Which way a message would go: `route`, `source` and `admit`, and no connection is made."""

from __future__ import annotations

from gateway.attempt import Delivery, Route, Source
from gateway.configuration.config import Config
from gateway.delivery.identity import Identity
from gateway.delivery.route import Router
from gateway.hooks.chain import Chain, Copy
from gateway.mail.message import Recipient
from gateway.resolver import Resolver
from gateway.trial.record import Way


class Forwarding:
    """Asks for the way of each lane, as `queue.courier` does before an attempt."""

    def __init__(self, config: Config, chain: Chain, resolver: Resolver) -> None:
        self._chain = chain
        self._hostname = config.hostname
        identity = Identity(config.hostname, tuple(listen.address for listen in config.listen))
        self._router = Router(config.relay, resolver, identity)

    async def ways(self, copy: Copy, now: float) -> tuple[Way, ...]:
        """The ways of a copy's recipients, lane by lane."""
        lanes: dict[str, list[Recipient]] = {}
        for recipient in copy.message.recipients:
            lanes.setdefault(self._router.lane(recipient.domain), []).append(recipient)
        return tuple(
            [await self._way(copy, lane, recipients, now) for lane, recipients in lanes.items()]
        )

    async def _way(self, copy: Copy, lane: str, recipients: list[Recipient], now: float) -> Way:
        message = copy.message
        delivery = Delivery(
            message_id=message.id,
            sender=message.sender,
            recipients=recipients,
            client=message.client,
            stream=message.stream,
            received=now,
            attempts=0,
            content=message.content,
            notes=message.notes,
            smtputf8=message.smtputf8,
            ret=message.ret,
            envid=message.envid,
            return_path=recipients[0].return_path,
            require_tls=message.require_tls,
            priority=message.priority,
            lane=lane,
        )
        addresses = tuple([recipient.address for recipient in recipients])
        answer = await self._chain.route(delivery)
        found = await self._router.route(delivery.domain) if answer is None else answer
        if not isinstance(found, Route):
            return Way(addresses, lane, answer=found)
        delivery.route = found
        source = self._chain.source(delivery)
        if source is not None and not isinstance(source, Source):
            return Way(addresses, lane, found, answer=source)
        delivery.source = source or Source(None, self._hostname)
        refusal = self._chain.admit(delivery)
        return Way(addresses, lane, found, delivery.source, dict(delivery.ceilings), refusal)
