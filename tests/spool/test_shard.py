"""A shard: group commit, and what happens when the disk, or somebody, takes it away."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from gateway.events import Event
from gateway.mail.message import Client, Recipient
from gateway.spool import queue_id
from gateway.spool.queue_entry import Entry, Envelope, Item, Placed, Settlement
from gateway.spool.shard import Shard
from gateway.spool.shard_file import ShardBusyError, SpoolError
from tests.assembly import until

NOW = 1_900_000_000.0


@asynccontextmanager
async def _shard(folder: Path, number: int = 1) -> AsyncIterator[Shard]:
    shard = Shard.claim(folder, number, "owner")
    shard.recover()
    try:
        yield shard
        if shard.failure is None:
            await shard.drain()
    finally:
        shard.close()


def _placed(
    shard: Shard,
    *recipients: str,
    content: bytes = b"Subject: x\r\n\r\n",
    due: float | None = None,
    held: str | None = None,
    lane: str = "lane",
) -> Placed:
    number = shard.next_id(NOW)
    envelope = Envelope(
        number, number, NOW, "a@example.com", "default", len(content), Client("::1")
    )
    items = [Item(n, Recipient(address)) for n, address in enumerate(recipients or ("b@c.d",))]
    return Placed(Entry(shard, envelope, lane, 1, items, content), due, held)


async def _append(shard: Shard, *placed: Placed, event: Event | None = None) -> SpoolError | None:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    shard.append(placed, [event] if event is not None else [], done.set_result)
    return await asyncio.wait_for(done, 30)


async def _settle(shard: Shard, settlement: Settlement) -> SpoolError | None:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    shard.settle(settlement, done.set_result)
    return await asyncio.wait_for(done, 30)


async def _change(shard: Shard, sql: str) -> None:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()

    def write(db: apsw.Connection) -> None:
        db.execute(sql)

    shard.change(write, done.set_result)
    assert await asyncio.wait_for(done, 30) is None


def _rows(shard: Shard, table: str = "deliveries") -> int:
    ((count,),) = shard.query(f"SELECT count(*) FROM {table}", ())
    return int(count)


# What is written.


async def test_what_is_appended_is_there_for_the_next_owner(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, "b@example.net", "c@example.net", content=b"one\r\n")
        envelope = placed.entry.envelope
        envelope.client = Client("::1", 4711, "l", "helo", True, "user", "TLSv1.3")
        envelope.notes, envelope.smtputf8 = {"n": "ü"}, True
        envelope.ret, envelope.envid = "FULL", "q+2B"
        recipient = placed.entry.items[0].recipient
        recipient.notify, recipient.orcpt = frozenset({"NEVER"}), "rfc822;x"
        recipient.notes["r"] = "1"
        assert await _append(shard, placed) is None
    async with _shard(tmp_path) as shard:
        (entry,), more = shard.load("lane", 1, NOW, set(), 10)
        assert not more
        loaded = entry.envelope
        for name in ("id", "received", "sender", "stream", "size", "notes", "smtputf8", "ret"):
            assert getattr(loaded, name) == getattr(envelope, name)
        assert loaded.client.user == "user"
        assert loaded.client.tls == "TLSv1.3"
        assert [item.recipient.address for item in entry.items] == [
            "b@example.net",
            "c@example.net",
        ]
        assert entry.items[0].recipient.notify == frozenset({"NEVER"})
        assert entry.items[0].recipient.orcpt == "rfc822;x"
        assert entry.items[0].recipient.notes == {"r": "1"}
        assert shard.content(loaded.copy) == b"one\r\n"


async def test_a_settlement_is_one_transaction(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, "b@example.net", "c@example.net", "d@example.net")
        await _append(shard, placed)
        entry = placed.entry
        one, two, three = entry.items
        two.attempts = 1
        report = _placed(shard, "a@example.com", content=b"report\r\n")
        settlement = Settlement(
            entry,
            done=[one],
            deferred=[(two, NOW + 5, None, "450 later"), (three, None, "look", "")],
            events=[Event("delivered", NOW, "x")],
            reports=[report],
        )
        assert await _settle(shard, settlement) is None
        assert (_rows(shard), _rows(shard, "messages"), _rows(shard, "events")) == (3, 2, 1)
        assert shard.next_due(NOW) == NOW + 5
        assert shard.due_lanes(-1, NOW) == []
        assert shard.due_lanes(-1, NOW + 5) == [("lane", 1)]
        assert await _settle(shard, Settlement(entry, done=[two, three])) is None
        assert _rows(shard, "messages") == 1
        assert not shard.is_empty()
        await _settle(shard, Settlement(report.entry, done=report.entry.items))
        assert not shard.is_empty()
        assert shard.has_events(2**62)
        await _change(shard, "DELETE FROM events")
        await until(shard.is_empty, "the shard to be empty")


async def test_a_settlement_that_is_written_twice_is_written_once(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        accepted, report = _placed(shard), _placed(shard, "a@example.com")
        await _append(shard, accepted)
        settlement = Settlement(accepted.entry, done=accepted.entry.items, reports=[report])
        # The disk may report an error for what it has kept all the same.
        for _ in range(2):
            assert await _settle(shard, settlement) is None
            assert (_rows(shard), _rows(shard, "messages")) == (1, 1)


async def test_many_writes_share_a_commit_and_all_are_answered(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        commits = 0

        def count() -> bool:
            nonlocal commits
            commits += 1
            return False

        assert shard._db is not None
        shard._db.set_commit_hook(count)
        results = await asyncio.gather(*(_append(shard, _placed(shard)) for _ in range(500)))
        assert results == [None] * 500
        assert _rows(shard) == 500
        assert commits < 50


async def test_the_answer_follows_the_commit(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        seen: list[int] = []
        for _ in range(50):
            placed = _placed(shard)

            def done(error: SpoolError | None, number: int = placed.entry.envelope.id) -> None:
                # By another connection: only what is committed can be seen.
                sql = "SELECT count(*) FROM messages WHERE id=?"
                ((count,),) = shard.query(sql, (number,))
                seen.append(count)

            shard.append([placed], [], done)
            await asyncio.sleep(0)
        await shard.drain()
        assert seen == [1] * 50


_APPEND_ONE = """
import asyncio, os, sys
from pathlib import Path
from gateway.mail.message import Client, Recipient
from gateway.spool.queue_entry import Entry, Envelope, Item, Placed
from gateway.spool.shard import Shard

async def main():
    shard = Shard.claim(Path(sys.argv[1]), 1, "")
    for number in range(5):
        envelope = Envelope(number, number, 1.0, "a@b.c", "default", 3, Client("::1"))
        entry = Entry(shard, envelope, "lane", 1, [Item(0, Recipient("b@c.d"))], b"abc")
        done = asyncio.get_running_loop().create_future()
        os.write(2, b"BEGIN\\n")
        shard.append([Placed(entry)], [], done.set_result)
        assert await done is None
        os.write(2, b"DONE\\n")
    shard.close()

asyncio.run(main())
"""


def test_the_answer_follows_the_fsync(
    tmp_path: Path, debian_program: Callable[[str], Path]
) -> None:
    trace = tmp_path / "trace"
    command = [str(debian_program("strace")), "-f", "-y", "-o", str(trace)]
    command += ["-e", "trace=fsync,fdatasync,write"]
    done = subprocess.run(
        [*command, sys.executable, "-c", _APPEND_ONE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    text = trace.read_text()
    spans = re.findall(r'"BEGIN\\n"(.*?)"DONE\\n"', text, re.DOTALL)
    assert len(spans) == 5
    for span in spans:
        assert re.search(r"f(?:data)?sync\(\d+<[^>]*0001\.db-wal>\)\s+= 0|resumed>.*= 0", span), (
            span
        )


# Ids.


async def test_ids_are_unique_and_name_their_shard(tmp_path: Path) -> None:
    async with _shard(tmp_path, 7) as shard:
        ids = [shard.next_id(NOW) for _ in range(1000)]
        ids += [shard.next_id(NOW - 5) for _ in range(1000)]  # the clock was set back
        assert len(set(ids)) == 2000
        assert ids == sorted(ids)
        assert {number & ((1 << queue_id.SHARD_BITS) - 1) for number in ids} == {7}
        other = _placed(shard)
        other.entry.envelope.id = other.entry.envelope.copy = queue_id.make(NOW + 5, 9, 0)
        await _append(shard, other)
    async with _shard(tmp_path, 7) as shard:
        number = shard.next_id(NOW)
        assert number > other.entry.envelope.id
        assert number & ((1 << queue_id.SHARD_BITS) - 1) == 7


# Owners.


async def test_a_shard_has_one_owner(tmp_path: Path) -> None:
    async with _shard(tmp_path):
        with pytest.raises(ShardBusyError):
            Shard.claim(tmp_path, 1, "another")
        assert (tmp_path / "0001.lock").read_text() == "owner"
        command = [sys.executable, "-c", _APPEND_ONE, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "ShardBusyError" in done.stderr
    async with _shard(tmp_path):
        pass


async def test_recovery_makes_due_what_was_in_memory_and_nothing_else(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        await _append(shard, _placed(shard, lane="memory"))
        await _append(shard, _placed(shard, lane="held", held="why"))
        await _append(shard, _placed(shard, lane="later", due=NOW + 5))
        assert shard.due_lanes(-1, NOW) == []
    async with _shard(tmp_path) as shard:
        assert shard.due_lanes(-1, NOW) == [("memory", 1)]
        assert shard.next_due(NOW) == NOW + 5


async def test_what_is_no_shard_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "0001.db").write_bytes(b"This is a letter." * 1000)
    with pytest.raises(SpoolError):
        Shard.claim(tmp_path, 1, "")
    assert (tmp_path / "0001.db").read_bytes() == b"This is a letter." * 1000
    with apsw.Connection(str(tmp_path / "0002.db")) as db:
        db.execute("CREATE TABLE letters (text TEXT)")
    with pytest.raises(SpoolError, match="is no shard of a spool"):
        Shard.claim(tmp_path, 2, "")
    async with _shard(tmp_path, 3):
        pass
    with apsw.Connection(str(tmp_path / "0003.db")) as db:
        db.pragma("user_version", 99)
    with pytest.raises(SpoolError, match="has format 99"):
        Shard.claim(tmp_path, 3, "")


async def test_a_shard_with_a_commit_under_way_is_not_empty(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        results: list[SpoolError | None] = []
        for _ in range(200):
            shard.append([_placed(shard)], [], results.append)
            for _ in range(3):
                assert not shard.is_empty()
                await asyncio.sleep(0)
        await shard.drain()
        assert results == [None] * 200


# Damage and failure.


async def test_damage_is_noticed(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        placed = _placed(shard, content=b"Subject: whole\r\n\r\n")
        await _append(shard, placed)
        copy = placed.entry.envelope.copy
        assert shard.content(copy) == b"Subject: whole\r\n\r\n"
        await _change(shard, "UPDATE messages SET content=CAST('Subject: hurt' AS BLOB)")
        assert shard.content(copy) is None
        assert shard.content(copy + 1) is None


async def test_a_write_that_is_wrong_itself_harms_no_other(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        good = [_placed(shard) for _ in range(3)]
        twice = _placed(shard)
        twice.entry.envelope.copy = good[0].entry.envelope.copy
        unwritable = _placed(shard, "\ud800@example.net")
        results = await asyncio.gather(
            *(_append(shard, placed) for placed in (good[0], twice, good[1], unwritable, good[2]))
        )
        assert [error is None for error in results] == [True, False, True, False, True]
        assert shard.failure is None
        assert _rows(shard) == 3


async def test_a_waiter_that_breaks_harms_no_other(tmp_path: Path) -> None:
    async with _shard(tmp_path) as shard:
        given_up: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
        given_up.cancel()
        results: list[SpoolError | None] = []
        shard.append([_placed(shard)], [], results.append)
        shard.append([_placed(shard)], [], given_up.set_result)
        shard.append([_placed(shard)], [], results.append)
        await shard.drain()
        assert results == [None, None]


@pytest.mark.parametrize("pattern", ["0001.db", "0001.*"])
async def test_a_database_that_is_deleted_is_written_again(tmp_path: Path, pattern: str) -> None:
    async with _shard(tmp_path) as shard:
        for _ in range(3):
            await _append(shard, _placed(shard))
        waiting = _placed(shard)
        await _append(shard, waiting)
        for path in tmp_path.glob(pattern):
            path.unlink()
        # Never yes, and what is done with accepted mail waits.
        error = await _append(shard, _placed(shard))
        assert isinstance(error, SpoolError)
        assert not error.full
        assert isinstance(await _append(shard, _placed(shard)), SpoolError)
        settled = asyncio.create_task(
            _settle(shard, Settlement(waiting.entry, done=waiting.entry.items))
        )
        await until(lambda: shard.failure is None, "the shard to work again")
        assert await settled is None
        assert await _append(shard, _placed(shard)) is None
        assert _rows(shard) == 4  # the three, and the last
        assert _rows(shard, "messages") == 4
        with pytest.raises(ShardBusyError):
            Shard.claim(tmp_path, 1, "another")
    async with _shard(tmp_path) as shard:
        assert _rows(shard) == 4


async def test_a_folder_that_is_moved_away_and_back(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    folder.mkdir()
    async with _shard(folder) as shard:
        await _append(shard, _placed(shard))
        folder.rename(elsewhere)
        assert isinstance(await _append(shard, _placed(shard)), SpoolError)
        elsewhere.rename(folder)
        await until(lambda: shard.failure is None, "the shard to work again")
        assert await _append(shard, _placed(shard)) is None
        assert _rows(shard) == 2


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


async def test_a_full_disk(small_disk: Path) -> None:
    async with _shard(small_disk) as shard:
        accepted: list[Placed] = []
        error = None
        while error is None:
            placed = _placed(shard, content=b"x" * 50_000)
            error = await _append(shard, placed)
            if error is None:
                accepted.append(placed)
        assert error.full
        assert accepted
        assert _rows(shard) == len(accepted)
        # Outcomes wait until there is room.
        settled = asyncio.create_task(
            _settle(shard, Settlement(accepted[0].entry, done=accepted[0].entry.items))
        )
        await asyncio.sleep(0)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        await until(lambda: shard.failure is None, "the shard to work again")
        assert await settled is None
        assert _rows(shard) == len(accepted) - 1
        assert await _append(shard, _placed(shard)) is None


async def test_a_disk_that_becomes_read_only(small_disk: Path) -> None:
    # A bind mount can be made read-only while files on it are open; the disk itself cannot.
    async with _shard(small_disk) as shard:
        assert await _append(shard, _placed(shard)) is None
        assert shard._db is not None
        shard._db.pragma("query_only", True)
        error = await _append(shard, _placed(shard))
        assert isinstance(error, SpoolError)
        assert not error.full
        assert shard.failure is not None
        await until(lambda: shard.failure is None, "the shard to work again")
        assert await _append(shard, _placed(shard)) is None


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    program = _APPEND_ONE.replace("range(5)", "range(100000)")
    program = program.replace('os.write(2, b"DONE\\n")', 'os.write(1, b"%d\\n" % number)')
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        for _ in range(200):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout.read().split():
            last = int(line)

    async def check() -> None:
        async with _shard(tmp_path) as shard:
            assert _rows(shard) in (last + 1, last + 2)
            assert shard.query("PRAGMA integrity_check", ()) == [("ok",)]

    asyncio.run(check())
