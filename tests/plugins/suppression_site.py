"""A suppression plugin in a folder of its own, with a clock and an outbox that tests read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast

from gateway.hooks import Client, Context, Discard, Event, Message, Recipient, Reject, Resolver
from gateway.limits import Limits
from plugins.suppression import Suppression, SuppressionConfig
from plugins.suppression.database import FILE_NAME
from plugins.suppression.entry import EVERYWHERE, Entry
from plugins.suppression.writer import Merged, Writer

NOW = 1_700_000_000.0

Answer = Reject | Discard | None


class Site:
    """The folder of one entry in gateway.yaml, and the processes that work on it.

    Attributes:
        now: what the clock shows.
        events: what plugins have emitted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.events: list[Event] = []
        self._started: list[Suppression] = []

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / "data" / FILE_NAME

    def context(
        self,
        role: Literal["worker", "service", "command"] = "worker",
        resolver: Resolver | None = None,
    ) -> Context:
        """What a process of that role gives the plugin."""
        return Context(
            name="suppression",
            hostname="gw.example.com",
            role=role,
            folder=self.folder / "data",
            base=self.folder,
            clock=lambda: self.now,
            log=logging.getLogger("gateway.plugin.suppression"),
            resolver=resolver or Resolver(["127.0.0.1:1"], 0.1),
            limits=Limits(self.folder / "limits"),
            emit=self._emit,
        )

    def _emit(self, event: Event) -> asyncio.Future[None]:
        self.events.append(event)
        # The plugin does not wait for it, and many tests have no event loop to make one.
        return cast("asyncio.Future[None]", None)

    def plugin(
        self,
        role: Literal["worker", "service"] = "worker",
        resolver: Resolver | None = None,
        **config: Any,
    ) -> Suppression:
        """A started plugin."""
        plugin = Suppression(
            SuppressionConfig.model_validate(config, context={"base": self.folder})
        )
        plugin.start(self.context(role, resolver))
        self._started.append(plugin)
        return plugin

    def add(self, *addresses: str, **fields: Any) -> Merged:
        """Puts entries on the list; the addresses have to be normal."""
        return self.add_entries(entry(address, **fields) for address in addresses)

    def add_entries(self, entries: Iterable[Entry]) -> Merged:
        """Puts entries on the list."""
        self.path.parent.mkdir(exist_ok=True)
        with Writer(self.path) as writer:
            return writer.add(entries)

    def close(self) -> None:
        """Stops what was started."""
        for plugin in self._started:
            plugin.stop()


def entry(address: str, scope: str = EVERYWHERE, reason: str = "manual", **fields: Any) -> Entry:
    """An entry with what does not matter filled in."""
    values = {"expires": None, "added": int(NOW), "source": "command", "note": "", **fields}
    return Entry(address, scope, reason, **values)


def mail(sender: str = "news@shop.example.com", stream: str = "default") -> Message:
    """A message without recipients."""
    return Message("ID1", sender, Client("192.0.2.1", user="shop"), stream)


def ask(plugin: Suppression, address: str, message: Message | None = None) -> Answer:
    """What RCPT is answered; who is not refused becomes a recipient."""
    message = message or mail()
    recipient = Recipient(address, message=message)
    answer = plugin.rcpt(recipient)
    if answer is None:
        message.recipients.append(recipient)
    return answer
