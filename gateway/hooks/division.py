"""Copies of a message: parted where recipients are treated apart, joined where they need not be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.hooks.step import Step
from gateway.hooks.trace import Trace
from gateway.mail.message import Message, Recipient


@dataclass(slots=True, eq=False)
class Copy:
    """A message as it goes into the spool: held for a person, or not before `delay` seconds.

    `seal` is how many octets the `seal` hooks have put on top. `claimed_by` names the plugin that a
    message for the gateway itself belongs to; such a message is never relayed. `trace` is what
    plugins did to the message; all its copies share it.
    """

    message: Message
    held: str | None = None
    delay: float = 0.0
    seal: int = 0
    claimed_by: str = ""
    trace: Trace = field(default_factory=Trace)


@dataclass(slots=True)
class Filtered:
    """What the `message` and `seal` stages made of one message.

    `copies` go into the spool; `discarded` names the recipients that get nothing, and why.
    """

    copies: list[Copy]
    discarded: list[tuple[Recipient, str]] = field(default_factory=list)


def parts_for(step: Step, copy: Copy) -> Iterable[tuple[Copy, bool]]:
    """The copies that a hook needs of one, each with whether the hook applies to it.

    A condition on recipients that only some of them meet, and a plugin that works per recipient,
    part a message; everything else leaves it whole.
    """
    message = copy.message
    condition = step.condition
    matching: list[Recipient]
    others: list[Recipient]
    if condition is None:
        matching, others = message.recipients, []
    elif not condition.by_recipient:
        if not condition.matches(message):
            return ((copy, False),)
        matching, others = message.recipients, []
    else:
        matching, others = [], []
        for recipient in message.recipients:
            met = condition.matches_recipient(message, recipient)
            (matching if met else others).append(recipient)
    if len(matching) == 1 and not others:
        return ((copy, True),)
    groups: list[tuple[list[Recipient], bool]] = []
    if others:
        groups.append((others, False))
    if step.per_recipient:
        groups += [([recipient], True) for recipient in matching]
    elif matching:
        groups.append((matching, True))
    if len(groups) == 1:
        return ((copy, groups[0][1]),)
    return [
        (Copy(message.copy(recipients), copy.held, copy.delay, trace=copy.trace), applies)
        for recipients, applies in groups
    ]


def rejoined(copy: Copy, parts: Sequence[Copy]) -> list[Copy]:
    """The parts of a copy; those that a plugin left as they were are one message again."""
    joined: list[Copy] = []
    unchanged: Copy | None = None
    for part in parts:
        same = (part.held, part.delay) == (copy.held, copy.delay)
        if not (same and part.message.equals(copy.message)):
            joined.append(part)
        elif unchanged is None:
            unchanged = part
            joined.append(part)
        else:
            unchanged.message.take_recipients(part.message)
    return joined
