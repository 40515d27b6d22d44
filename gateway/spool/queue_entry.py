"""Mail in the queue, as values: copies of messages, their recipients by lane. Pure.

What the columns of a row say is sealed by a CRC-32 in its JSON, as contents have theirs: an octet
that changes on the disk must not send mail to somebody else.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.events import Event
from gateway.mail.large_content import Content
from gateway.mail.message import Client, Recipient
from gateway.spool import queue_id

if TYPE_CHECKING:
    from gateway.spool.shard import Shard

_CHECKSUM = re.compile(r'(?:, )?"crc32": ([0-9]+)}\Z')


@dataclass(slots=True, eq=False)
class Envelope:
    """What is known of one copy of a message besides its bytes and recipients.

    `seal` is how many octets `seal` hooks have put on top; `trace` is the text of the message's
    trace: what plugins did to it; the others are as in `Message`.
    """

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
    require_tls: bool = False
    mt_priority: int | None = None
    release: float = 0.0
    seal: int = 0
    trace: str = ""

    @property
    def begins(self) -> float:
        """When the message's lifetime began: its arrival, or the time that it was held until."""
        return max(self.received, self.release)

    @property
    def queue_id(self) -> str:
        """The queue id as people see it."""
        return queue_id.to_text(self.id)

    def to_json(self) -> str:
        """What the columns do not hold."""
        client = self.client
        values: tuple[tuple[str, object], ...] = (
            ("address", client.address),
            ("port", client.port),
            ("listener", client.listener),
            ("helo", client.helo),
            ("user", client.user),
            ("tls", client.tls),
            ("notes", self.notes),
            ("smtputf8", self.smtputf8),
            ("ret", self.ret),
            ("envid", self.envid),
            ("require_tls", self.require_tls),
            ("mt_priority", None if self.mt_priority is None else str(self.mt_priority)),
            ("release", self.release),
            ("seal", self.seal),
            ("trace", self.trace),
        )
        text = json.dumps({name: value for name, value in values if value})
        return _with_checksum(text, self._columns)

    @property
    def _columns(self) -> str:
        """What the columns hold."""
        numbers = f"{self.id} {self.copy} {float(self.received)} {self.size}"
        return f"{numbers}\n{self.stream}\n{self.sender}"


@dataclass(slots=True, eq=False)
class Item:
    """One recipient in the queue.

    `warned` tells that the sender knows of the delay; `via` holds the hops that a person chose, and
    `home` the lane that it was in before.
    """

    number: int
    recipient: Recipient
    attempts: int = 0
    warned: bool = False
    via: tuple[str, ...] = ()
    home: str = ""


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
    content: Content | None = None


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
    warned: list[Item] = field(default_factory=list)
    """Recipients of whose delay the sender is told now."""
    events: list[Event] = field(default_factory=list)
    reports: list[Placed] = field(default_factory=list)


def parameters_of(item: Item) -> str:
    """What RCPT, plugins and people said of a recipient, as JSON."""
    recipient = item.recipient
    data: dict[str, Any] = {}
    if recipient.notify is not None:
        data["notify"] = sorted(recipient.notify)
    if recipient.orcpt is not None:
        data["orcpt"] = recipient.orcpt
    if recipient.notes:
        data["notes"] = recipient.notes
    if recipient.return_path is not None:
        data["return_path"] = recipient.return_path
    if item.warned:
        data["warned"] = True
    if item.via:
        data["via"] = item.via
    if item.home:
        data["home"] = item.home
    text = json.dumps(data, ensure_ascii=False) if data else "{}"
    return _with_checksum(text, f"{item.number} {recipient.address}")


def item_of(number: int, address: str, parameters: str | None, attempts: int) -> Item:
    """The recipient that the columns of `deliveries` hold.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: they are damaged.
    """
    if parameters is None:
        return Item(number, Recipient(address), attempts)
    _check(parameters, f"{number} {address}")
    data = json.loads(parameters)
    notify = data.get("notify")
    recipient = Recipient(
        address,
        notify=None if notify is None else frozenset(notify),
        orcpt=data.get("orcpt"),
        notes=data.get("notes", {}),
        return_path=data.get("return_path"),
    )
    return Item(
        number,
        recipient,
        attempts,
        data.get("warned", False),
        tuple(data.get("via", ())),
        data.get("home", ""),
    )


def envelope_of(
    copy: int, id_: int, received: float, sender: str, stream: str, size: int, text: str
) -> Envelope:
    """The envelope that the columns of `messages` hold.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: they are damaged.
    """
    data = json.loads(text)
    envelope = Envelope(
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
        require_tls=data.get("require_tls", False),
        mt_priority=int(data["mt_priority"]) if "mt_priority" in data else None,
        release=data.get("release", 0.0),
        seal=data.get("seal", 0),
        trace=data.get("trace", ""),
    )
    _check(text, envelope._columns)
    return envelope


def has_checksum(text: str) -> bool:
    """Whether a JSON object of a row tells its checksum; what an earlier version wrote does not."""
    return _CHECKSUM.search(text) is not None


def _with_checksum(text: str, columns: str) -> str:
    """A JSON object with a checksum of itself and of the columns beside it."""
    checksum = zlib.crc32(f"{columns}\n{text}".encode())
    return f'{text[:-1]}{", " if len(text) > 2 else ""}"crc32": {checksum}}}'


def _check(text: str, columns: str) -> None:
    """Compares what `_with_checksum` wrote; what an earlier version wrote has no checksum.

    Raises:
        ValueError: something has changed.
    """
    match = _CHECKSUM.search(text)
    if match is None:
        return
    checksum = zlib.crc32(f"{columns}\n{text[: match.start()]}}}".encode())
    if checksum != int(match[1]):
        raise ValueError("its checksum does not fit")
