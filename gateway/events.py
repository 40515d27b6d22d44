"""What happened to mail, as values that travel through the outbox to observers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        type: `accepted`, `delivered`, `deferred`, `bounced` (refused for good), `expired` (given up
            at the end of its lifetime), `discarded`, `held`, `released`, `dropped`. Plugins emit
            others, the bundled ones `suppressed`, `suspected` (of being misspelled), `opened`,
            `clicked`, `converted`, `unsubscribed`, `complained`, `replied`, `source_suspended` and
            `source_resumed`.
        time: seconds since the epoch.
        message_id: the queue id; '' where it is about no message.
        sender, recipient, stream, client, user: whose mail it was; `client` is an IP address.
        reason: the reply of the next hop, or why a plugin or a person did it, on one line.
        relay, code, status: the server that answered and what it said; empty and 0 without one.
        notes: what plugins noted on the message and on the recipient, and what an event of a
            plugin has to say besides; `campaign` is the campaign that the message belongs to.
    """

    type: str
    time: float
    message_id: str
    sender: str = ""
    recipient: str = ""
    stream: str = ""
    client: str = ""
    user: str = ""
    reason: str = ""
    relay: str = ""
    code: int = 0
    status: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One JSON object on one line."""
        return _encode(
            {
                "type": self.type,
                "time": self.time,
                "message_id": self.message_id,
                "sender": self.sender,
                "recipient": self.recipient,
                "stream": self.stream,
                "client": self.client,
                "user": self.user,
                "reason": self.reason,
                "relay": self.relay,
                "code": self.code,
                "status": self.status,
                "notes": dict(self.notes),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Event:
        """Reads what `to_json` wrote; keys that a newer version wrote are left out.

        Raises:
            ValueError: the text is no JSON object with at least type, time and message_id.
        """
        data: dict[str, Any] = json.loads(text)
        try:
            return cls(**{key: value for key, value in data.items() if key in _FIELDS})
        except TypeError as error:
            raise ValueError(f"not an event: {error}") from None


@dataclass(frozen=True, slots=True)
class Interest:
    """Which events somebody wants: those of `types`; None: all. False if none at all."""

    types: frozenset[str] | None = None

    def __contains__(self, event_type: object) -> bool:
        return self.types is None or event_type in self.types

    def __bool__(self) -> bool:
        return self.types is None or bool(self.types)

    def __or__(self, other: Interest) -> Interest:
        if self.types is None or other.types is None:
            return Interest()
        return Interest(self.types | other.types)


NOTHING = Interest(frozenset())
EVERYTHING = Interest()

_FIELDS = frozenset(Event.__dataclass_fields__)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
