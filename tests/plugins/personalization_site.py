"""What the tests of personalization's sources share: a context, messages, configurations."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.hooks import Client, Context, Event, Message, Recipient, Resolver
from gateway.limits import Limits
from plugins.personalization.sources import SourceConfig, Sources, build


def _emit(event: Event) -> asyncio.Future[None]:
    raise RuntimeError("nothing is to be emitted here")


def context(folder: Path) -> Context:
    """What a plugin gets at its start, with data in `folder`."""
    return Context(
        name="personalization",
        hostname="gw.example.com",
        role="worker",
        folder=folder / "data",
        base=folder,
        clock=time.time,
        log=logging.getLogger("gateway.plugin.personalization"),
        resolver=Resolver(["127.0.0.1:1"], 1.0),
        limits=Limits(folder / "limits"),
        emit=_emit,
    )


def configs(base: Path, *sources: dict[str, Any]) -> tuple[SourceConfig, ...]:
    """Sources as they stand in gateway.yaml."""
    return tuple(SourceConfig.model_validate(source, context={"base": base}) for source in sources)


@asynccontextmanager
async def started(folder: Path, *sources: dict[str, Any]) -> AsyncIterator[Sources]:
    """Sources that have been started."""
    running = Sources(build(configs(folder, *sources)))
    await running.start(context(folder))
    try:
        yield running
    finally:
        await running.stop()


def message(
    *addresses: str,
    header: bytes = b"",
    campaign: str = "",
    id: str = "ID1",  # noqa: A002 - as Message has it
) -> Message:
    """A message to some addresses."""
    new = Message(id, "shop@example.com", Client("127.0.0.1"), "bulk")
    new.content = header + b"Subject: Hello\r\n\r\nHello\r\n"
    for address in addresses:
        new.add_recipient(address)
    if campaign:
        new.notes["campaign"] = campaign
    return new


def copies(whole: Message) -> list[tuple[Message, Recipient]]:
    """What the hook of a plugin that works per recipient is called with, one after another."""
    parts = [whole.copy([recipient]) for recipient in whole.recipients]
    return [(part, part.recipients[0]) for part in parts]


async def values_of(sources: Sources, address: str, **of_message: Any) -> dict[str, Any]:
    """The values of the only recipient of a message."""
    whole = message(address, **of_message)
    return await sources.values(whole, whole.recipients[0])
