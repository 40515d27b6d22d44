"""Shards that are written before a gateway starts, as if it had been stopped with much mail."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.mail.message import Client, Recipient
from gateway.spool import queue_id
from gateway.spool.queue_entry import Envelope, Item, parameters_of
from gateway.spool.shard_file import open_database


def content_of(number: int, size: int) -> bytes:
    """The numbered message, whose body has its number all over."""
    body = f"body of {number:07d} ".encode() * (1 + size // 16)
    lines = b"\r\n".join(body[at : at + 64] for at in range(0, size, 64))
    return f"Subject: number {number}\r\n\r\n".encode() + lines + b"\r\n"


def write_queue(
    folder: Path,
    shard: int,
    numbers: range,
    due: Callable[[int], float | None],
    size: int = 400,
) -> dict[int, str]:
    """Writes a shard with numbered messages for one recipient each.

    Args:
        folder: the spool.
        shard: its number.
        numbers: the messages.
        due: when each of them becomes due; None: it was in memory.
        size: octets of a body.

    Returns:
        Queue ids by the number of the message.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    db = open_database(folder / f"{shard:04d}.db")
    received = time.time() - 3600
    ids: dict[int, str] = {}

    def rows() -> Iterator[tuple[int, int, bytes]]:
        last = 0
        for number in numbers:
            last = queue_id.make(received, shard, last)
            ids[number] = queue_id.to_text(last)
            yield number, last, content_of(number, size)

    with db:
        for number, id_, content in rows():
            envelope = Envelope(
                *(id_, id_, received, "a@example.com", "default", len(content)), Client("127.0.0.1")
            )
            item = Item(0, Recipient(f"r{number:07d}@example.net"))
            db.execute(
                "INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?)",
                (
                    *(id_, id_, received, envelope.sender, envelope.stream, envelope.size),
                    *(zlib.crc32(content), envelope.to_json(), content),
                ),
            )
            db.execute(
                "INSERT INTO deliveries (id,number,copy,lane,priority,recipient,parameters,due)"
                " VALUES (?,0,?,'smarthost',1,?,?,?)",
                (id_, id_, item.recipient.address, parameters_of(item), due(number)),
            )
    db.close()
    return ids
