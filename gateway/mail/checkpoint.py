"""What a message was like at one moment. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.mail.body import Body
from gateway.mail.body import State as BodyState
from gateway.mail.headers import State as HeadersState
from gateway.mail.recipient import Recipient
from gateway.mail.recipient import State as RecipientState


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A message's state at one moment, for `Message.restore`."""

    sender: str
    stream: str
    release: float
    notes: dict[str, str]
    recipients: tuple[tuple[Recipient, RecipientState], ...]
    headers: HeadersState
    separator: bytes
    body: Body
    edits: BodyState
