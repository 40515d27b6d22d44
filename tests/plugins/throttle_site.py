"""Throttle plugins in a folder of their own, with a clock that tests move."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from gateway.hooks import (
    Attempt,
    Client,
    Context,
    Delay,
    Delivery,
    Disposition,
    Event,
    Hop,
    Limits,
    Message,
    Outcome,
    Recipient,
    Reject,
    Resolver,
    Route,
    Source,
)
from plugins.throttle import Throttle, ThrottleConfig

NOW = 1_764_000_000.0  # 2025-11-24 16:00 UTC


class Site:
    """The folder of one entry in gateway.yaml, and the processes that work on it.

    Attributes:
        now: what the clock shows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self._limits: list[Limits] = []
        self._started: list[Throttle] = []

    def context(
        self, role: Literal["worker", "command"] = "worker", resolver: Resolver | None = None
    ) -> Context:
        """What a process of that role gives the plugin. Each has opened the limits for itself."""
        limits = Limits(self.folder / "limits", places=1024)
        self._limits.append(limits)
        return Context(
            name="throttle",
            hostname="gw.example.com",
            role=role,
            folder=self.folder / "data",
            base=self.folder,
            clock=lambda: self.now,
            log=logging.getLogger("gateway.plugin.throttle"),
            resolver=resolver or Resolver(["127.0.0.1:1"], 0.1),
            limits=limits,
            emit=_emit,
        )

    def config(self, **config: Any) -> ThrottleConfig:
        """The configuration of such an entry; without the shipped receivers unless asked for."""
        values = {"shipped": False, **config}
        return ThrottleConfig.model_validate(values, context={"base": self.folder})

    def plugin(self, **config: Any) -> Throttle:
        """A started plugin in a worker of its own."""
        plugin = Throttle(self.config(**config))
        plugin.start(self.context())
        self._started.append(plugin)
        return plugin

    def close(self) -> None:
        """Stops what was started."""
        for plugin in self._started:
            plugin.stop()
        for limits in self._limits:
            limits.close()


def _emit(event: Event) -> asyncio.Future[None]:
    raise AssertionError(f"the plugin emits nothing: {event}")


_ids = count()


def delivery(
    domain: str = "one.example",
    *,
    hosts: Sequence[str] = (),
    site: str | None = None,
    source: str | None = None,
    lane: str | None = None,
    recipients: int = 1,
    mx: bool = True,
) -> Delivery:
    """A new message to a domain; without more, over its one mail exchanger."""
    hosts = hosts or (f"mx.{domain}",)
    return Delivery(
        message_id=f"ID{next(_ids)}",
        sender="news@shop.example.com",
        recipients=[Recipient(f"r{number}@{domain}") for number in range(recipients)],
        client=Client("192.0.2.1", user="shop"),
        stream="default",
        received=NOW,
        attempts=0,
        content=b"\r\n",
        lane=domain if lane is None else lane,
        route=Route(tuple(Hop(host) for host in hosts), site or ",".join(sorted(hosts)), is_mx=mx),
        source=Source(source, "gw.example.com"),
    )


def refusal(text: str, stage: str = "mail") -> Outcome:
    """What a server said, such as `421 4.7.0 Try later`; without a status one is made up."""
    code, _, rest = text.partition(" ")
    status, _, words = rest.partition(" ")
    if status.count(".") != 2 or not status.replace(".", "").isdigit():
        status, words = f"{code[0]}.0.0", rest
    kind = Disposition.DEFERRED if code[0] == "4" else Disposition.FAILED
    return Outcome(kind, int(code), status, words, stage, "mx.example[192.0.2.25]:25")


DELIVERED = Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot", "mx.example[192.0.2.25]:25")


def answer(plugin: Throttle, of: Delivery, outcome: Outcome | str) -> Outcome:
    """What the plugin makes of what the server said to each recipient."""
    if isinstance(outcome, str):
        outcome = refusal(outcome)
    made = [
        plugin.reply(Attempt(of, one, of.route, of.source, outcome)) or outcome
        for one in of.recipients
    ]
    assert made == [made[0]] * len(made)
    return made[0]


def admitted(plugin: Throttle, of: Delivery) -> bool:
    """Whether an attempt may start now."""
    said = plugin.admit(of)
    assert said is None or isinstance(said, Delay)
    return said is None


def delayed(plugin: Throttle, of: Delivery) -> Delay:
    """The delay that a delivery gets."""
    said = plugin.admit(of)
    assert isinstance(said, Delay)
    return said


def refused(plugin: Throttle, of: Delivery) -> Reject:
    """The refusal that a delivery gets."""
    said = plugin.admit(of)
    assert isinstance(said, Reject)
    return said


def again(of: Delivery) -> Delivery:
    """The same message, asked about anew."""
    return replace(of, ceilings={}, messages_per_connection=None, recipients_per_message=None)


def passed(plugin: Throttle, count: int, **kind: Any) -> int:
    """How many of so many new messages are admitted at this moment."""
    return sum(admitted(plugin, delivery(**kind)) for _ in range(count))


BUSY = "421 4.7.0 Busy, come later"


def rule(action: Any, **more: Any) -> dict[str, Any]:
    """A configuration with a rule on that code."""
    return {"rules": {"busy": {"code": 421, "action": action, **more}}}


def mail(
    *recipients: str, user: str | None = "shop", sender: str = "news@shop.example.com"
) -> Message:
    """A message as the `message` hook gets it."""
    message = Message("ID1", sender, Client("192.0.2.1", user=user), "bulk")
    for recipient in recipients or ("hanako@one.example",):
        message.add_recipient(recipient)
    return message
