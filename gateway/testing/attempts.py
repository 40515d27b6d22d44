"""The stages around an attempt at delivery, asked without making it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.attempt import Attempt, Delivery, Disposition, Hop, Outcome, Route, Source
from gateway.hooks.chain import Chain
from gateway.mail.message import Message, Recipient
from gateway.testing.result import AttemptResult

_DISPOSITIONS = {"2": Disposition.DELIVERED, "4": Disposition.DEFERRED, "5": Disposition.FAILED}


def outcome_of(reply: str) -> Outcome:
    """What a reply of a next hop means, such as `452 4.2.2 Mailbox full`.

    Raises:
        ValueError: it does not begin with a code of 2xx, 4xx or 5xx.
    """
    code, _, text = reply.partition(" ")
    if len(code) != 3 or not code.isdecimal() or code[0] not in _DISPOSITIONS:
        raise ValueError(f"{reply!r} is no reply; for example: 452 4.2.2 Mailbox full")
    status, _, rest = text.partition(" ")
    if status.count(".") != 2 or not status.replace(".", "").isdecimal():
        status, rest = f"{code[0]}.0.0", text
    return Outcome(_DISPOSITIONS[code[0]], int(code), status, rest, "dot", "mx.example.net")


def default_route(delivery: Delivery) -> Route:
    """Where mail goes if no plugin says so: a mail exchanger of its domain."""
    return Route((Hop(f"mx.{delivery.domain}"),), delivery.domain, is_mx=True)


def delivery_of(message: Message, to: Sequence[str] | None, attempts: int, now: float) -> Delivery:
    """A message on its way out to its recipients, or to other ones, after some attempts."""
    recipients = message.recipients if to is None else [Recipient(address) for address in to]
    return Delivery(
        message_id=message.id,
        sender=message.sender,
        recipients=recipients,
        client=message.client,
        stream=message.stream,
        received=now,
        attempts=attempts,
        content=message.content,
        notes=message.notes,
        lane=recipients[0].domain,
    )


async def attempt(chain: Chain, delivery: Delivery, outcome: Outcome, helo: str) -> AttemptResult:
    """Asks `route`, `source` and `admit`, and `reply` about an outcome, as a courier does."""
    result = AttemptResult(delivery)
    route = await chain.route(delivery)
    result = replace(result, route=route)
    if route is not None and not isinstance(route, Route):
        return result
    delivery.route = route or default_route(delivery)
    source = chain.source(delivery)
    result = replace(result, source=source)
    if source is not None and not isinstance(source, Source):
        return result
    delivery.source = source or Source(None, helo)
    admit = chain.admit(delivery)
    if admit is not None:
        return replace(result, admit=admit)
    outcomes = {
        recipient.address: chain.reply(
            Attempt(delivery, recipient, delivery.route, delivery.source, outcome)
        )
        for recipient in delivery.recipients
    }
    return replace(result, outcomes=outcomes, made=True)
