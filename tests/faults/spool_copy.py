"""What a spool holds on disk, read from a copy: neither its owner nor its files are touched."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from gateway.spool import queue_id
from gateway.spool.spool import shard_numbers


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recipient on disk.

    Attributes:
        id: the queue id.
        due, held: as in the database.
        whole: whether its message is there and its checksum fits.
    """

    id: str
    recipient: str
    due: float | None
    held: str | None
    whole: bool


def waiting(spool: Path) -> list[Waiting]:
    """The recipients in all shards of a folder whose owners are gone or stopped.

    Raises:
        AssertionError: a database is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="spool-") as name:
        copy = Path(name)
        for path in spool.iterdir():
            # Not the shared index: it is made anew, as after a loss of power.
            if path.suffix in (".db", ".db-wal"):
                shutil.copyfile(path, copy / path.name)
        return [row for number in shard_numbers(copy) for row in _rows(copy / f"{number:04d}.db")]


def _rows(path: Path) -> Iterator[Waiting]:
    with closing(apsw.Connection(os.fspath(path))) as db:
        if not db.pragma("schema_version"):
            return  # its tables were not written yet, and nothing was accepted
        assert db.pragma("integrity_check") == "ok", path
        query = (
            "SELECT d.id, d.recipient, d.due, d.held, m.checksum, m.content"
            " FROM deliveries d LEFT JOIN messages m ON m.copy = d.copy"
        )
        for id_, recipient, due, held, checksum, content in db.execute(query):
            whole = content is not None and zlib.crc32(content) == checksum
            yield Waiting(queue_id.to_text(id_), recipient, due, held, whole)
