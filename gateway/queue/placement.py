"""How a message is laid out in the queue: one entry for each copy and lane. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gateway.hooks.chain import Copy
from gateway.spool import queue_id
from gateway.spool.queue_entry import Entry, Envelope, Item
from gateway.spool.shard import Shard

RECIPIENTS_PER_ATTEMPT = 100
"""RFC 5321 4.5.3.1.8: what every server takes in one transaction."""


def entries_of(
    copies: Sequence[Copy],
    shard: Shard,
    received: float,
    lane_of: Callable[[str], str],
    priority_of: Callable[[str], int],
) -> Iterator[tuple[Copy, Entry]]:
    """The entries of a message, each with the copy that it delivers.

    Args:
        copies: the copies; the first one carries the queue id as its own.
        shard: where they are going to be.
        received: when the message was accepted, in seconds since the epoch.
        lane_of: the lane of a domain.
        priority_of: the priority of a stream.
    """
    number = 0
    for copy in copies:
        message = copy.message
        content = message.content
        id_ = queue_id.from_text(message.id)
        envelope = Envelope(
            id=id_,
            copy=id_ if copy is copies[0] else shard.next_id(received),
            received=received,
            sender=message.sender,
            stream=message.stream,
            size=len(content),
            client=message.client,
            notes=message.notes,
            smtputf8=message.smtputf8,
            ret=message.ret,
            envid=message.envid,
        )
        lanes: dict[str, list[Item]] = {}
        for recipient in message.recipients:
            lanes.setdefault(lane_of(recipient.domain), []).append(Item(number, recipient))
            number += 1
        priority = priority_of(message.stream)
        for lane, items in lanes.items():
            for part in parts_of(items):
                yield copy, Entry(shard, envelope, lane, priority, part, content)


def parts_of(items: list[Item]) -> list[list[Item]]:
    """Items in groups that one transaction can take."""
    if len(items) <= RECIPIENTS_PER_ATTEMPT:
        return [items]
    return [
        items[start : start + RECIPIENTS_PER_ATTEMPT]
        for start in range(0, len(items), RECIPIENTS_PER_ATTEMPT)
    ]
