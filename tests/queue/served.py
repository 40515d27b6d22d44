"""Gateways that commands find, and shards as they might have been left."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from gateway.process.control import ControlServer
from gateway.spool import queue_id
from gateway.spool.shard_file import open_database
from tests.assembly import Assembly, configure

NOWHERE = "relay: {via: ['127.0.0.1:1']}"

CONTENT = b"Subject: test\r\n\r\nHello\r\n"


@asynccontextmanager
async def served(folder: Path, text: str = NOWHERE, **options: Any) -> AsyncIterator[Assembly]:
    """A gateway in this process with the control socket that commands look for."""
    config = configure(folder, text)
    path = config.spool.path / "worker-0-1.sock"
    gateway = Assembly(config, **options)
    gateway.spool._owner = str(path)
    async with gateway:
        control = ControlServer(path, gateway.queue.answer)
        await control.start()
        try:
            yield gateway
        finally:
            await control.close()


@dataclass(frozen=True)
class Left:
    """A message in a shard that nobody owns; recipients with what their columns say."""

    recipients: Sequence[str] = ("b@example.net",)
    sender: str = "a@example.com"
    stream: str = "default"
    lane: str = "example.net"
    envelope: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)


@contextmanager
def shard_database(spool: Path, number: int = 1) -> Iterator[apsw.Connection]:
    """The database of a shard; made if it is not there."""
    spool.mkdir(exist_ok=True)
    db = open_database(spool / f"{number:04d}.db")
    try:
        db.pragma("synchronous", "off")  # nothing here has to survive a power failure
        yield db
    finally:
        db.close()


def leave(spool: Path, messages: Iterable[Left], number: int = 1) -> list[str]:
    """Leaves messages in a shard, and returns their queue ids."""
    with shard_database(spool, number) as db:
        db.execute("BEGIN")
        ids = [_leave(db, message, number) for message in messages]
        db.execute("COMMIT")
    return ids


def _leave(db: apsw.Connection, message: Left, shard: int) -> str:
    last = db.execute("SELECT coalesce(max(id), 0) FROM messages").get
    id_ = queue_id.make(time.time(), shard, last)
    row = (id_, id_, time.time(), message.sender, message.stream, len(CONTENT))
    envelope = {"address": "127.0.0.1", **message.envelope}
    db.execute(
        "INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?)",
        (*row, zlib.crc32(CONTENT), json.dumps(envelope), CONTENT),
    )
    for place, address in enumerate(message.recipients):
        columns = {
            "id": id_,
            "number": place,
            "copy": id_,
            "lane": message.lane,
            "priority": 1,
            "recipient": address,
            "due": 0.0,
            **message.columns,
        }
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        db.execute(f"INSERT INTO deliveries ({names}) VALUES ({marks})", [*columns.values()])
    return queue_id.to_text(id_)
