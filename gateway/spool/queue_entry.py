"""Mail in the queue, as values: copies of messages, their recipients by lane. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.events import Event
from gateway.mail.message import Client, Recipient
from gateway.spool import queue_id

if TYPE_CHECKING:
    from gateway.spool.shard import Shard


@dataclass(slots=True, eq=False)
class Envelope:
    """What is known of one copy of a message besides its bytes and recipients."""

    id: int
    copy: int
    received: float
    sender: str
    stream: str
    size: int
    client: Client
    notes: dict[str, str] = field(default_factory=dict)
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None

    @property
    def queue_id(self) -> str:
        """The queue id as people see it."""
        return queue_id.to_text(self.id)

    def to_json(self) -> str:
        """What the columns do not hold."""
        client = self.client
        data: dict[str, Any] = {
            "address": client.address,
            "port": client.port,
            "listener": client.listener,
            "helo": client.helo,
            "user": client.user,
            "tls": client.tls,
            "notes": self.notes,
            "smtputf8": self.smtputf8,
            "ret": self.ret,
            "envid": self.envid,
        }
        return json.dumps({name: value for name, value in data.items() if value})


@dataclass(slots=True, eq=False)
class Item:
    """One recipient in the queue."""

    number: int
    recipient: Recipient
    attempts: int = 0


@dataclass(slots=True, eq=False)
class Entry:
    """Recipients that share a copy of a message and a lane: what one attempt tries to deliver.

    `content` is None when it has to be read from the shard again.
    """

    shard: Shard
    envelope: Envelope
    lane: str
    priority: int
    items: list[Item]
    content: bytes | None = None


@dataclass(slots=True, eq=False)
class Placed:
    """One entry on its way into the spool: held, due at a time, or (both None) in memory now."""

    entry: Entry
    due: float | None = None
    held: str | None = None


@dataclass(slots=True)
class Settlement:
    """What an attempt, or a person, made of some recipients of one entry."""

    entry: Entry
    done: list[Item] = field(default_factory=list)
    deferred: list[tuple[Item, float | None, str | None, str]] = field(default_factory=list)
    """Item, due, held, reply."""
    events: list[Event] = field(default_factory=list)
    reports: list[Placed] = field(default_factory=list)


def parameters_of(recipient: Recipient) -> str | None:
    """What RCPT and plugins said of a recipient, as JSON; None if they said nothing."""
    if recipient.notify is None and recipient.orcpt is None and not recipient.notes:
        return None
    return json.dumps(
        {
            "notify": None if recipient.notify is None else sorted(recipient.notify),
            "orcpt": recipient.orcpt,
            "notes": recipient.notes,
        },
        ensure_ascii=False,
    )


def recipient_of(address: str, parameters: str | None) -> Recipient:
    """The recipient that the columns of `deliveries` hold."""
    if parameters is None:
        return Recipient(address)
    data = json.loads(parameters)
    notify = data["notify"]
    return Recipient(
        address,
        notify=None if notify is None else frozenset(notify),
        orcpt=data["orcpt"],
        notes=data["notes"],
    )


def envelope_of(
    copy: int, id_: int, received: float, sender: str, stream: str, size: int, text: str
) -> Envelope:
    """The envelope that the columns of `messages` hold."""
    data = json.loads(text)
    return Envelope(
        id=id_,
        copy=copy,
        received=received,
        sender=sender,
        stream=stream,
        size=size,
        client=Client(
            address=data.get("address", ""),
            port=data.get("port", 0),
            listener=data.get("listener", ""),
            helo=data.get("helo", ""),
            user=data.get("user"),
            tls=data.get("tls"),
        ),
        notes=data.get("notes", {}),
        smtputf8=data.get("smtputf8", False),
        ret=data.get("ret"),
        envid=data.get("envid"),
    )
