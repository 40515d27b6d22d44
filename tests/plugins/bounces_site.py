"""A bounces plugin in a folder of its own, with a clock and an outbox that tests read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gateway.hooks import (
    Accept,
    Attempt,
    Client,
    Context,
    Delivery,
    Disposition,
    Event,
    Limits,
    Message,
    Outcome,
    Quarantine,
    Recipient,
    Reject,
    Resolver,
    Tempfail,
)
from plugins.bounces import Bounces, BouncesConfig

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
DAY = 86_400.0
FOLDER = Path(__file__).parent / "bounces"

ID = "06F8K2N4QXW7A"
HANAKO = "hanako@example.net"
SENDER = "news@shop.example.com"
DOMAIN = "bounce.example.com"

Answer = Reject | Tempfail | Quarantine | None


class Site:
    """The folder of one entry in gateway.yaml, and the processes that work on it.

    Attributes:
        now: what the clock shows.
        events: what plugins have emitted.
        disk_full: whether events cannot be written.
    """

    def __init__(self, folder: Path, now: float = NOW) -> None:
        self.folder = folder
        self.now = now
        self.events: list[Event] = []
        self.disk_full = False
        self._limits: list[Limits] = []

    @property
    def keys(self) -> Path:
        """The file of keys."""
        return self.folder / "data/keys.json"

    def context(self, role: Literal["worker", "service", "command"] = "worker") -> Context:
        """What a process of that role gives the plugin."""
        limits = Limits(self.folder / "limits")
        self._limits.append(limits)
        return Context(
            name="bounces",
            hostname="gw.example.com",
            role=role,
            folder=self.folder / "data",
            base=self.folder,
            clock=lambda: self.now,
            log=logging.getLogger("gateway.plugin.bounces"),
            resolver=Resolver(["127.0.0.1:1"], 0.1),
            limits=limits,
            emit=self._emit,
        )

    def _emit(self, event: Event) -> asyncio.Future[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.disk_full:
            written.set_exception(OSError(28, "No space left on device"))
        else:
            self.events.append(event)
            written.set_result(None)
        return written

    def plugin(
        self, role: Literal["worker", "service", "command"] = "worker", **config: Any
    ) -> Bounces:
        """A started plugin; without a configuration it has one domain of return paths."""
        plugin = Bounces(self.config(**config))
        if role != "command":
            plugin.start(self.context(role))
        return plugin

    def config(self, **config: Any) -> BouncesConfig:
        """A configuration; without settings it has one domain of return paths."""
        return BouncesConfig.model_validate(
            config or {"domain": DOMAIN}, context={"base": self.folder}
        )

    def close(self) -> None:
        """Gives the file of limits back."""
        for limits in self._limits:
            limits.close()


def mail(
    *recipients: str, sender: str = SENDER, stream: str = "default", message_id: str = ID
) -> Message:
    """A message to some recipients."""
    message = Message(message_id, sender, Client("192.0.2.1"), stream)
    for recipient in recipients:
        message.add_recipient(recipient)
    return message


def path_of(plugin: Bounces, recipient: str = HANAKO, **envelope: Any) -> str:
    """The return path that a message to a recipient gets."""
    message = mail(recipient, **envelope)
    plugin.message(message)
    (one,) = message.recipients
    assert one.return_path is not None
    return one.return_path


def report(name: str, return_path: str) -> bytes:
    """A message of the folder, as it comes to a return path."""
    content = (FOLDER / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n")
    return content.replace(b"RETURN_PATH", return_path.encode())


def claimed(plugin: Bounces, address: str) -> Accept | Reject | None:
    """What RCPT is answered to somebody outside."""
    message = Message("06F8K2N4QXW7B", "", Client("192.0.2.25"))
    return plugin.claim(Recipient(address, message=message))


async def come(
    plugin: Bounces, content: bytes, *recipients: str, sender: str | None = None
) -> Answer:
    """Gives the plugin a message, as the gateway does; without a sender, the one in its header."""
    if sender is None:
        sender = "" if content.startswith(b"Return-Path: <>") else "somebody@example.net"
    message = Message("06F8K2N4QXW7B", sender, Client("192.0.2.25"))
    for recipient in recipients:
        assert claimed(plugin, recipient) == Accept()
        message.add_recipient(recipient)
    message.receive(content)
    return await plugin.receive(message)


def attempt(outcome: Outcome, notes: dict[str, str] | None = None) -> Attempt:
    """The end of an attempt for one recipient."""
    recipient = Recipient(HANAKO, notes=dict(notes or {}))
    recipients: Sequence[Recipient] = [recipient]
    client = Client("192.0.2.1")
    delivery = Delivery(ID, SENDER, recipients, client, "default", NOW, 0, b"")
    return Attempt(delivery, recipient, None, None, outcome)


def refusal(code: int, status: str, text: str) -> Outcome:
    """What a server said in refusing a recipient."""
    disposition = Disposition.FAILED if code >= 500 else Disposition.DEFERRED
    return Outcome(disposition, code, status, text, "rcpt", "mx.example.net[192.0.2.25]:25")
