"""Large messages in a shard: in parts, read one by one, and gone with their message."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from gateway.mail.large_content import (
    BLOCK,
    LARGE,
    Content,
    DamagedContentError,
    LargeContent,
    Pieces,
)
from gateway.mail.message import Client, Recipient
from gateway.spool.queue_entry import Entry, Envelope, Item, Placed, Settlement
from gateway.spool.scratch_content import ScratchContent
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError

NOW = 1_900_000_000.0
CONTENT = b"Subject: large\r\n\r\n" + bytes(range(256)) * 6000


@asynccontextmanager
async def _shard(folder: Path) -> AsyncIterator[Shard]:
    shard = Shard.claim(folder, 1, "owner")
    shard.recover()
    try:
        yield shard
        await shard.drain()
    finally:
        shard.close()


def _placed(shard: Shard, content: Content, *recipients: str) -> Placed:
    number = shard.next_id(NOW)
    client = Client("::1")
    envelope = Envelope(number, number, NOW, "a@b.c", "default", len(content), client)
    items = [Item(n, Recipient(address)) for n, address in enumerate(recipients or ("b@c.d",))]
    return Placed(Entry(shard, envelope, "lane", 1, items, content), due=NOW)


async def _append(shard: Shard, *placed: Placed) -> SpoolError | None:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    shard.append(placed, (), done.set_result)
    return await asyncio.wait_for(done, 30)


async def _settle(shard: Shard, settlement: Settlement) -> None:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    shard.settle(settlement, done.set_result)
    assert await asyncio.wait_for(done, 30) is None


async def _change(shard: Shard, sql: str) -> None:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()

    def write(db: apsw.Connection) -> None:
        db.execute(sql)

    shard.change(write, done.set_result)
    assert await asyncio.wait_for(done, 30) is None


def _parts(shard: Shard) -> int:
    ((count,),) = shard.query("SELECT count(*) FROM parts", ())
    return int(count)


def _stored(shard: Shard, placed: Placed) -> LargeContent:
    content = shard.content(placed.entry.envelope.copy)
    assert isinstance(content, LargeContent)
    return content


@pytest.mark.parametrize(
    "content", [CONTENT, Pieces(CONTENT[:17], CONTENT[17:500], memoryview(CONTENT)[500:])]
)
async def test_what_was_stored_in_parts_is_read_in_parts(tmp_path: Path, content: Content) -> None:
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, content)
        assert await _append(shard, placed) is None
    async with _shard(tmp_path) as shard:
        stored = _stored(shard, placed)
        assert bytes(stored) == CONTENT
        assert len(stored) == len(CONTENT)
        assert max(map(len, stored.blocks())) <= BLOCK
        assert stored.header() == b"Subject: large\r\n"
        assert not stored.is_ascii
        assert not stored.is_clean
        assert shard.query("SELECT length(content), size FROM messages", ()) == [(0, len(CONTENT))]


@pytest.mark.parametrize(("more", "parts"), [(0, 0), (1, 5)])
async def test_only_what_is_large_is_stored_in_parts(tmp_path: Path, more: int, parts: int) -> None:
    content = b"x" * (LARGE + more)
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, Pieces(content))
        await _append(shard, placed)
        found = shard.content(placed.entry.envelope.copy)
        assert found is not None
        assert bytes(found) == content
        assert _parts(shard) == parts


async def test_parts_go_with_the_last_recipient(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        placed, other = _placed(shard, CONTENT, "b@c.d", "e@f.g"), _placed(shard, CONTENT)
        await _append(shard, placed, other)
        both = _parts(shard)
        first, second = placed.entry.items
        await _settle(shard, Settlement(placed.entry, done=[first]))
        assert _parts(shard) == both
        await _settle(shard, Settlement(placed.entry, done=[second]))
        assert _parts(shard) == both // 2
        assert bytes(_stored(shard, other)) == CONTENT


async def test_what_was_refused_is_withdrawn_with_its_parts(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, CONTENT)
        await _append(shard, placed)
        with apsw.Connection(str(shard.path)) as db:
            shard.withdraw(db, placed.entry.envelope.id)
        assert _parts(shard) == 0
        assert shard.content(placed.entry.envelope.copy) is None


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM parts WHERE number=2",
        "DELETE FROM parts WHERE number=(SELECT max(number) FROM parts)",
        "UPDATE parts SET octets=CAST(x'00' || substr(octets, 2) AS BLOB) WHERE number=0",
        "UPDATE parts SET octets=CAST(octets || x'00' AS BLOB) WHERE number=5",
        "UPDATE messages SET checksum=checksum+1",
    ],
)
async def test_damage_is_noticed_before_the_last_part_comes(tmp_path: Path, damage: str) -> None:
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, CONTENT)
        await _append(shard, placed)
        await _change(shard, damage)
        blocks = _stored(shard, placed).blocks()
        came: list[int] = []
        with pytest.raises(DamagedContentError):
            came.extend(len(block) for block in blocks)
        assert sum(came) < len(CONTENT)


async def test_who_reads_slowly_does_not_keep_the_log_from_being_written_back(
    tmp_path: Path,
) -> None:
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, CONTENT)
        await _append(shard, placed)
        blocks = _stored(shard, placed).blocks()
        first = next(blocks)
        await _append(shard, _placed(shard, b"later"))
        with apsw.Connection(str(shard.path)) as db:
            total, written_back = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        assert total == written_back
        assert b"".join([first, *blocks]) == CONTENT


_FIRST_FORMAT = """
DROP TRIGGER parts_go_with_their_message;
DROP TABLE parts;
PRAGMA user_version = 1;
"""


async def test_a_shard_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        placed, small = _placed(shard, CONTENT), _placed(shard, b"small")
        await _append(shard, placed, small)
    with apsw.Connection(str(tmp_path / "0001.db")) as db:
        db.execute(_FIRST_FORMAT)
        whole = "UPDATE messages SET content=?, checksum=? WHERE size=?"
        db.execute(whole, (CONTENT, zlib.crc32(CONTENT), len(CONTENT)))
    for _ in range(2):
        async with _shard(tmp_path) as shard:
            assert shard.content(placed.entry.envelope.copy) == CONTENT
            assert shard.content(small.entry.envelope.copy) == b"small"
    async with _shard(tmp_path) as shard:
        new = _placed(shard, CONTENT)
        await _append(shard, new)
        assert bytes(_stored(shard, new)) == CONTENT
        await _settle(shard, Settlement(placed.entry, done=placed.entry.items))
        await _settle(shard, Settlement(new.entry, done=new.entry.items))
        assert _parts(shard) == 0


def test_scratch_content_leaves_no_file(tmp_path: Path) -> None:
    scratch = ScratchContent(Pieces(CONTENT[:10], CONTENT[10:]), tmp_path)
    assert bytes(scratch) == CONTENT
    assert bytes(scratch) == CONTENT
    assert len(scratch) == len(CONTENT)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        ScratchContent(CONTENT, tmp_path / "nowhere")
