"""The shards of a worker: taken, adopted, given up."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from gateway.mail.message import Client, Recipient
from gateway.spool.queue_entry import Entry, Envelope, Item, Placed
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool, shard_numbers


@contextmanager
def _spool(folder: Path, reserve: int = 0) -> Iterator[Spool]:
    spool = Spool(folder, "owner", reserve)
    try:
        yield spool
    finally:
        spool.close()


def _placed(shard: Shard) -> Placed:
    number = shard.next_id(1_900_000_000.0)
    envelope = Envelope(number, number, 1.0, "a@b.c", "default", 3, Client("::1"))
    return Placed(Entry(shard, envelope, "lane", 1, [Item(0, Recipient("b@c.d"))], b"abc"))


async def _put(spool: Spool) -> int:
    placed = _placed(spool.home)
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    spool.home.append([placed], [], done.set_result)
    assert await done is None
    return placed.entry.envelope.id


async def test_each_spool_takes_a_shard_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "var" / "spool"
    with _spool(folder) as first, _spool(folder) as second:
        first.open()
        second.open()
        assert (first.home.number, second.home.number) == (1, 2)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "0001.db").stat().st_mode & 0o777 == 0o600
        assert first.adopt() == second.adopt() == []
        numbers = [first.home.next_id(5), second.home.next_id(5)]
        assert len(set(numbers)) == 2


async def test_shards_that_nobody_holds_are_adopted_and_removed_when_empty(tmp_path: Path) -> None:
    with _spool(tmp_path) as first, _spool(tmp_path) as second:
        first.open()
        with _spool(tmp_path) as third:
            second.open()
            third.open()
            number = await _put(third)
        assert shard_numbers(tmp_path) == [1, 2, 3]
        (adopted,) = second.adopt()
        assert adopted.number == 3
        assert second.home.number == 2
        assert first.adopt() == []
        assert second.release_empty() == []
        assert [entry.envelope.id for entry in adopted.load("lane", 1, 1.0, set(), 9)[0]] == [
            number
        ]
        done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()

        def empty(db: apsw.Connection) -> None:
            db.execute("DELETE FROM deliveries")
            db.execute("DELETE FROM messages")

        adopted.change(empty, done.set_result)
        await done
        await adopted.drain()
        assert second.release_empty() == [adopted]
        assert shard_numbers(tmp_path) == [1, 2]
        assert not list(tmp_path.glob("0003*"))


async def test_new_mail_goes_to_the_lowest_shard(tmp_path: Path) -> None:
    with _spool(tmp_path) as second:
        with _spool(tmp_path) as first:
            first.open()
            second.open()
            assert second.home.number == 2
        (adopted,) = second.adopt()
        assert second.home is adopted
        # A commit under way in the former home must not be taken for emptiness.
        assert [shard.number for shard in second.release_empty()] == [2]


async def test_a_shard_is_not_removed_while_mail_is_written_to_it(tmp_path: Path) -> None:
    with _spool(tmp_path) as second:
        with _spool(tmp_path) as first:
            first.open()
            second.open()
            home = second.home
        results: list[SpoolError | None] = []
        home.append([_placed(home)], [], results.append)
        while not results:
            second.adopt()
            assert second.home is not home
            assert second.release_empty() == []
            await asyncio.sleep(0)
        assert results == [None]
        await home.drain()
        assert second.release_empty() == []
        assert not home.is_empty()


async def test_a_broken_shard_is_left_for_a_person(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0001.db").write_bytes(b"no database " * 500)
    with _spool(tmp_path) as spool:
        spool.open()
        assert spool.home.number == 2
        assert "shard 0001 is left for a person" in caplog.text
        assert spool.adopt() == []
        assert (tmp_path / "0001.db").read_bytes() == b"no database " * 500


async def test_a_disk_without_room_is_noticed_before_mail_comes(tmp_path: Path) -> None:
    with _spool(tmp_path, 1 << 60) as spool:
        spool.open()
        refusal = spool.refusal(1)
        assert refusal is not None
        assert refusal.full
    with _spool(tmp_path) as spool:
        spool.open()
        assert spool.refusal(1) is None
        refusal = spool.refusal(1 << 60)
        assert refusal is not None
        assert refusal.full


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def run() -> None:
        with pytest.raises(SpoolError, match="file"):
            Spool(tmp_path / "file" / "spool", "", 0).open()

    asyncio.run(run())


async def test_a_read_only_folder(tmp_path: Path) -> None:
    with _spool(tmp_path) as spool:
        spool.open()
        await _put(spool)
    bind = ["mount", "--bind", str(tmp_path), str(tmp_path)]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
        with _spool(tmp_path) as spool, pytest.raises(SpoolError, match="Read-only file system"):
            spool.open()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    with _spool(tmp_path) as spool:
        spool.open()
        assert not spool.home.is_empty()
