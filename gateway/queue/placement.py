"""How a message is laid out in the queue: one entry for each copy and lane. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from gateway.hooks.chain import Copy
from gateway.mail.message import Recipient
from gateway.spool import queue_id
from gateway.spool.queue_entry import Entry, Envelope, Item
from gateway.spool.shard import Shard

RECIPIENTS_PER_ATTEMPT = 100
"""RFC 5321 4.5.3.1.8: what every server takes in one transaction."""

_CLAIMED = "claimed:"


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
        content = message.octets
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
            require_tls=message.require_tls,
            mt_priority=message.priority,
            release=message.release,
            seal=copy.seal,
            trace=str(copy.trace),
        )
        lanes: dict[str, list[Item]] = {}
        for recipient in message.recipients:
            lanes.setdefault(lane_of(recipient.domain), []).append(Item(number, recipient))
            number += 1
        if copy.claimed_by:
            claimed = [item for items in lanes.values() for item in items]
            lanes = {f"{_CLAIMED}{copy.claimed_by}": claimed}
        priority = _priority(message.priority, priority_of(message.stream))
        for lane, items in lanes.items():
            for part in parts_of(items):
                yield copy, Entry(shard, envelope, lane, priority, part, content)


def held_apart(
    entries: Iterable[tuple[Copy, Entry]],
    reason_for: Callable[[Envelope, str, Recipient], str | None],
) -> Iterator[tuple[Copy, Entry]]:
    """The same entries; recipients for which there is a reason to hold them get some of their own.

    Args:
        entries: as `entries_of` gives them.
        reason_for: why a recipient in a lane is held; None if it is not.
    """
    for copy, entry in entries:
        if copy.held is not None or copy.claimed_by:
            yield copy, entry
            continue
        reasons: dict[str | None, list[Item]] = {}
        for item in entry.items:
            reason = reason_for(entry.envelope, entry.lane, item.recipient)
            reasons.setdefault(reason, []).append(item)
        for reason, items in reasons.items():
            yield replace(copy, held=reason), replace(entry, items=items)


def parts_of(items: list[Item]) -> list[list[Item]]:
    """Items in groups that one transaction can take: with one return path, and by one way."""
    if len(items) == 1:
        return [items]
    groups: dict[tuple[str | None, tuple[str, ...], str | None], list[Item]] = {}
    for item in items:
        recipient = item.recipient
        key = (recipient.return_path, item.via, recipient.notes.get("pool"))
        groups.setdefault(key, []).append(item)
    return [
        group[start : start + RECIPIENTS_PER_ATTEMPT]
        for group in groups.values()
        for start in range(0, len(group), RECIPIENTS_PER_ATTEMPT)
    ]


def claimant_of(lane: str) -> str | None:
    """The plugin whose own mail a lane holds; None for mail that is relayed."""
    return lane.removeprefix(_CLAIMED) if lane.startswith(_CLAIMED) else None


def _priority(mt_priority: int | None, of_stream: int) -> int:
    """The queue's priority: what the client asked for (RFC 6710), or that of the stream."""
    if mt_priority is None:
        return of_stream
    return 1 + (mt_priority > 0) - (mt_priority < 0)
