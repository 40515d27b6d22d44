"""Which events make entries, and of which kind. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from gateway.hooks import Event
from plugins.suppression.address import normal_address, normal_domain
from plugins.suppression.config import BounceRule, LearnedScope, LearningConfig
from plugins.suppression.entry import EVERYWHERE, Entry, sender_scope, stream_scope
from plugins.suppression.pattern import fits

SOURCE = "event"
LONGEST_NOTE = 200

# What the plugin bounces calls a failure of which it knows no more than its codes.
_UNKNOWN_CLASS = "other"

# With these a server says that it refused, and no more (RFC 3463 3).
_SAYS_NOTHING = ("", "5.0.0", "5.1.0", "5.2.0", "5.5.0")

Kind = Literal["bounce", "soft_bounce", "complaint", "unsubscribe", "delivered"]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened to an address.

    Attributes:
        kind: what it was; `delivered` sets the count of bounces back.
        address: whom it happened to, normal.
        event: the same for an event that comes again, and different for every other one.
        time: when it happened.
        entry: what it adds to the list; None for `delivered`.
        after, within: how many of its kind are needed, and in how many seconds.
    """

    kind: Kind
    address: str
    event: str
    time: float
    entry: Entry | None = None
    after: int = 1
    within: float = 0.0


class Rules:
    """What the configuration wants to be learned."""

    def __init__(self, config: LearningConfig) -> None:
        self._config = config
        rules: dict[Literal["bounce", "soft_bounce"], BounceRule | None]
        rules = {"bounce": config.bounces, "soft_bounce": config.soft_bounces}
        self._bounces = [
            (kind, rule, _matcher(kind, rule)) for kind, rule in rules.items() if rule is not None
        ]
        self._counting = any(rule.after > 1 for _, rule, _ in self._bounces)
        self.longest = max([0.0, *(rule.within for _, rule, _ in self._bounces)])

    @property
    def types(self) -> tuple[str, ...]:
        """The types of events that there can be something to learn from."""
        config = self._config
        wanted = {
            "bounced": bool(self._bounces),
            "expired": bool(self._bounces),
            "delivered": self._counting,
            "complained": config.complaints,
            "unsubscribed": config.unsubscribes,
        }
        return tuple([name for name, learned in wanted.items() if learned])

    def incidents(self, events: Iterable[Event]) -> list[Incident]:
        """What there is to learn from events, in their order.

        Events about what is no address are passed over: nothing can be sent to it.
        """
        found = []
        for event in events:
            try:
                incident = self._incident(event)
            except ValueError:
                continue
            if incident is not None:
                found.append(incident)
        return found

    def _incident(self, event: Event) -> Incident | None:
        kind = event.type
        if kind in ("delivered", "accepted", "deferred"):
            if kind != "delivered" or not self._counting:
                return None
            address = normal_address(event.recipient)
            return Incident("delivered", address, event.message_id, event.time)
        if kind in ("bounced", "expired"):
            return self._bounce(event)
        if kind == "complained" and self._config.complaints:
            return _objection("complaint", event, self._config.complaint_scope)
        if kind == "unsubscribed" and self._config.unsubscribes:
            return _objection("unsubscribe", event, self._config.unsubscribe_scope)
        return None

    def _bounce(self, event: Event) -> Incident | None:
        for kind, rule, matches in self._bounces:
            if matches(event):
                address = normal_address(event.recipient)
                expires = None if rule.expire is None else int(event.time + rule.expire)
                return Incident(
                    kind,
                    address,
                    # A message comes back once, whatever a crash makes of it.
                    event.message_id,
                    event.time,
                    _entry(address, EVERYWHERE, "bounce", expires, event),
                    rule.after,
                    rule.within,
                )
        return None


def _matcher(kind: Kind, rule: BounceRule) -> Callable[[Event], bool]:
    statuses = [status.split("*") for status in rule.status]
    texts = [text.lower().split("*") for text in rule.text]

    def matches(event: Event) -> bool:
        failure = event.notes.get("class", _UNKNOWN_CLASS)
        if failure != _UNKNOWN_CLASS:
            # Mail that was given up was never refused for good.
            lasting = event.type == "bounced" or kind == "soft_bounce"
            return lasting and failure in rule.classes
        if any(fits(pieces, event.status) for pieces in statuses):
            return True
        if event.type != "bounced" or event.status not in _SAYS_NOTHING:
            return False
        said = event.reason.lower()
        return any(fits(pieces, said) for pieces in texts)

    return matches


def _objection(
    kind: Literal["complaint", "unsubscribe"], event: Event, where: LearnedScope
) -> Incident:
    address = normal_address(event.recipient)
    entry = _entry(address, _scope(event, where), kind, None, event)
    # Who objects again, after somebody has removed the entry, means it.
    return Incident(kind, address, f"{event.message_id} {event.time!r}", event.time, entry)


def _scope(event: Event, where: LearnedScope) -> str:
    """The scope for an event; the next wider one if what it asks for is not known."""
    if where == "stream" and event.stream:
        return stream_scope(event.stream)
    if where == "everywhere":
        return EVERYWHERE
    try:
        return sender_scope(normal_domain(event.sender.rpartition("@")[2]))
    except ValueError:
        return EVERYWHERE


def _entry(address: str, scope: str, reason: str, expires: int | None, event: Event) -> Entry:
    note = f"message {event.message_id} from <{event.sender}>: {event.reason}"
    if not note.isprintable():
        note = "".join([character if character.isprintable() else " " for character in note])
    if len(note) > LONGEST_NOTE:
        note = f"{note[: LONGEST_NOTE - 1]}…"
    return Entry(address, scope, reason, expires, int(event.time), SOURCE, note)
