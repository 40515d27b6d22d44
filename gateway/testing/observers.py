"""Events, given to observers without an outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.condition import Condition
from gateway.mail.message import Client, Message, Recipient


async def observe(
    chain: Chain, events: Sequence[Event]
) -> tuple[Mapping[str, Sequence[Event]], Sequence[str]]:
    """Gives events to the observers that want them.

    Returns what each plugin was given, and the plugins that have to get theirs again.
    """
    seen: dict[str, Sequence[Event]] = {}
    again = []
    for step in chain.steps["observe"]:
        wanted = [e for e in events if e.type in step.interest and _meets(step.condition, e)]
        seen[step.plugin] = wanted
        if wanted and not await chain.observe(step, wanted):
            again.append(step.plugin)
    return seen, again


def _meets(condition: Condition | None, event: Event) -> bool:
    """Whether an event is about mail that a condition means; a header is not known any more."""
    if condition is None or "header" in condition.needs:
        return True
    client = Client(event.client, user=event.user or None)
    message = Message(event.message_id, event.sender, client, event.stream)
    message.recipients = [Recipient(event.recipient)]
    return condition.matches(message)
