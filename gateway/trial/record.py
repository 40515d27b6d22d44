"""What a trial saw, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.attempt import Route, Source
from gateway.events import Event
from gateway.testing.changes import Changes


@dataclass(frozen=True, slots=True)
class Fact:
    """Something besides the content that a hook has changed; None where it was not, or is not."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one hook.

    Attributes:
        about: the recipients that the hook was given, or what else it was about.
        seconds: how long it took.
        answer: what it answered; None if nothing.
        changes: what it changed in the message; None where it was given none.
        facts: what else it changed.
        fault: how it failed; '' if it did not. on_error: what the entry says of that.
        traceback: where, innermost last: the lines of the plugin and what it called.
    """

    plugin: str
    hook: str
    about: str
    seconds: float
    answer: Any = None
    changes: Changes | None = None
    facts: tuple[Fact, ...] = ()
    fault: str = ""
    on_error: str = ""
    traceback: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        data: dict[str, Any] = {
            "plugin": self.plugin,
            "hook": self.hook,
            "about": self.about,
            "seconds": self.seconds,
            "answer": answer_of(self.answer),
        }
        if self.changes is not None:
            data["changed"] = sorted(self.changes.what)
            data["diff"] = str(self.changes) if self.changes else ""
        data["facts"] = [
            {"name": fact.name, "before": fact.before, "after": fact.after} for fact in self.facts
        ]
        if self.fault:
            data |= {"fault": self.fault, "on_error": self.on_error}
            data["traceback"] = list(self.traceback)
        return data


@dataclass(frozen=True, slots=True)
class Way:
    """How some recipients of a copy would go out.

    `answer` is what a plugin said instead of letting it go, or why there is no way; `ceilings` are
    those that `admit` hooks have set.
    """

    recipients: tuple[str, ...]
    lane: str
    route: Route | None = None
    source: Source | None = None
    ceilings: Mapping[str, int] = field(default_factory=dict)
    answer: Any = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        route, source = self.route, self.source
        return {
            "recipients": list(self.recipients),
            "lane": self.lane,
            "hops": [] if route is None else list(map(str, route.hops)),
            "site": None if route is None else route.site,
            "source": None if source is None else {"address": source.address, "helo": source.helo},
            "ceilings": dict(self.ceilings),
            "answer": answer_of(self.answer),
        }


@dataclass(frozen=True, slots=True)
class ResultingCopy:
    """A copy of the message as it would wait in the queue.

    `held` is why it is held, `delay` the seconds until it goes out, `claimed_by` the plugin that
    its recipients belong to.
    """

    sender: str
    recipients: tuple[str, ...]
    stream: str
    content: bytes
    held: str | None = None
    delay: float = 0.0
    claimed_by: str = ""
    ways: tuple[Way, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sender": self.sender,
            "recipients": list(self.recipients),
            "stream": self.stream,
            "size": len(self.content),
            "held": self.held,
            "delay": self.delay,
            "claimed_by": self.claimed_by,
            "ways": [way.to_dict() for way in self.ways],
            "content": self.content.decode("utf-8", "surrogateescape")
            .encode("utf-8", "backslashreplace")
            .decode(),
        }


@dataclass(frozen=True, slots=True)
class Reply:
    """A command of the client, and what the gateway replied."""

    command: str
    reply: str


@dataclass(frozen=True, slots=True)
class Trial:
    """All that a trial saw.

    Attributes:
        replies: the SMTP dialogue; the last is the reply to the message, or to what ended it.
        calls: of hooks, in their order.
        copies: what would be in the queue.
        discarded: recipients that get nothing, and why.
        events: those that would be in the outbox.
        log: what the gateway and its plugins would have logged.
        notes: what was not as it would be in production.
    """

    replies: tuple[Reply, ...]
    calls: tuple[Call, ...]
    copies: tuple[ResultingCopy, ...]
    discarded: tuple[tuple[str, str], ...]
    events: tuple[Event, ...]
    log: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reply(self) -> str:
        """What the client is told in the end."""
        return self.replies[-1].reply if self.replies else ""

    @property
    def is_accepted(self) -> bool:
        """Whether the client was told that the gateway takes the message."""
        return self.reply.startswith("250")

    @property
    def faults(self) -> int:
        """How many calls failed."""
        return sum(1 for call in self.calls if call.fault)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accepted": self.is_accepted,
            "reply": self.reply,
            "dialogue": [{"command": one.command, "reply": one.reply} for one in self.replies],
            "calls": [call.to_dict() for call in self.calls],
            "copies": [copy.to_dict() for copy in self.copies],
            "discarded": [
                {"recipient": recipient, "reason": reason} for recipient, reason in self.discarded
            ],
            "events": [_event(event) for event in self.events],
            "log": list(self.log),
            "notes": list(self.notes),
        }


def answer_of(answer: Any) -> dict[str, Any] | None:
    """An answer for JSON: the name of its type, and its values."""
    if answer is None:
        return None
    names = getattr(answer, "__dataclass_fields__", None)
    if names is None:
        return {"type": type(answer).__name__, "value": repr(answer)[:200]}
    values = {name: getattr(answer, name) for name in names}
    return {"type": type(answer).__name__} | {
        name: value if isinstance(value, str | int | float | bool | None) else str(value)
        for name, value in values.items()
        if name != "login"
    }


def _event(event: Event) -> dict[str, Any]:
    names = ("type", "time", "message_id", "sender", "recipient", "stream", "reason")
    return {name: getattr(event, name) for name in names} | {"notes": dict(event.notes)}
