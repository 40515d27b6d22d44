"""One thing that happened to a message, whoever tells of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.hooks.trace import TracedStep

Source = Literal["log", "outbox", "queue"]


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened.

    Attributes:
        time: seconds since the epoch.
        kind: `accepted`, `refused`, `delivered`, `deferred`, `bounced`, `expired`, `discarded`,
            `held`, `released`, `dropped`, `report` (one was written to the sender), `note` for
            everything else, or the type of a plugin's event.
        recipient: whom it is about; '' for all of them.
        text: a reply, a reason, or the line itself, on one line.
        source: who tells it.
        details: what else is known, by name: `client`, `helo`, `user`, `tls`, `sender`, `size`,
            `recipients` and `stream` of what was accepted; `relay`, `delay`, `delays` and `dsn` of
            an attempt; `report`, the queue id of a report; `plugin`, whose line it is.
        plugins: what plugins did to the message.
    """

    time: float
    kind: str
    recipient: str = ""
    text: str = ""
    source: Source = "log"
    details: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[TracedStep, ...] = ()

    def is_told_by(self, other: Happening) -> bool:
        """Whether another one is about the same thing: events and lines tell it a moment apart."""
        return (
            self.kind == other.kind
            and other.recipient in (self.recipient, "")
            and abs(self.time - other.time) < 2.0
        )
