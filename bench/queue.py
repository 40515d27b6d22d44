"""A queue that is on disk before the gateway starts: mail that was accepted some time ago."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from bench.signature import DOMAIN
from gateway.spool import queue_id
from gateway.spool.shard_file import open_database

AGE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Messages for some domains, as many for each, mixed.

    `size` is the body's length in octets. They become due in even steps over `spread` seconds from
    now on; with 0 all are due.
    """

    domains: Sequence[str]
    messages: int
    size: int
    spread: float = 0.0


def fill(spool: Path, shards: int, waiting: Sequence[Waiting]) -> None:
    """Writes messages into a new spool, spread evenly over its shards."""
    spool.mkdir(mode=0o700)
    for shard in range(1, shards + 1):
        db = open_database(spool / f"{shard:04d}.db")
        now = time.time()
        # Ids are times: the second of them tells how far apart they are.
        first = queue_id.make(now - AGE_SECONDS, shard, 0)
        step = queue_id.make(now - AGE_SECONDS, shard, first) - first
        with db:
            for one in waiting:
                messages = one.messages // shards
                _append(db, one, first, step, messages, now)
                first += messages * step
        db.close()


def _append(
    db: apsw.Connection, one: Waiting, first: int, step: int, messages: int, now: float
) -> None:
    content = b"Subject: waiting\r\n\r\n" + b"x" * one.size + b"\r\n"
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
        " INSERT INTO messages SELECT ?2 + i * ?3, ?2 + i * ?3, ?4, ?5, 'default', ?6, ?7,"
        ' \'{"address": "127.0.0.1"}\', ?8 FROM n',
        (
            messages,
            first,
            step,
            now - AGE_SECONDS,
            f"sender@{DOMAIN}",
            len(content),
            zlib.crc32(content),
            content,
        ),
    )
    domains = len(one.domains)
    for index, domain in enumerate(one.domains):
        db.execute(
            "INSERT INTO deliveries (id, number, copy, lane, priority, recipient, due, attempts,"
            " reply) SELECT id, 0, copy, ?1, 1, 'recipient@' || ?1,"
            " ?2 + ?3 * ((id - ?4) / ?5) / ?6, 1, '451 4.3.2 Later' FROM messages"
            " WHERE id >= ?4 AND id < ?4 + ?6 * ?5 AND (id - ?4) / ?5 % ?7 = ?8",
            (domain, now - 1, one.spread, first, step, messages, domains, index),
        )
