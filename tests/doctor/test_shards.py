from __future__ import annotations

import fcntl
import os
import time
import zlib
from pathlib import Path

import apsw
import pytest

from gateway.doctor.running import Running
from gateway.doctor.shards import unowned
from gateway.mail.large_content import LARGE
from gateway.spool import queue_id
from tests.doctor.sites import found, site_of, texts
from tests.queue.served import Left, leave, shard_database


async def test_sound_shards(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    leave(site.config.spool.path, [Left() for _ in range(50)])
    leave(site.config.spool.path, [Left()], number=2)
    (finding,) = await found("shards", site)
    assert (finding.severity, finding.text) == ("ok", "2 shards without damage")


async def test_no_shards(tmp_path: Path) -> None:
    (finding,) = await found("shards", site_of(tmp_path))
    assert finding.severity == "ok"


async def test_a_message_with_another_octet_is_found(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    ids = leave(site.config.spool.path, [Left() for _ in range(50)])
    with shard_database(site.config.spool.path) as db:
        copy = db.execute("SELECT copy FROM messages ORDER BY copy LIMIT 1 OFFSET 30").get
        db.execute(
            "UPDATE messages SET content = CAST(content || 'x' AS BLOB) WHERE copy=?", (copy,)
        )
    (text,) = await texts("shards", site, "problem")
    assert text == f"damaged in shard 0001, as the checksum does not fit: 1 message ({ids[30]})"


async def test_large_messages_are_in_parts(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    folder = site.config.spool.path
    sound, damaged, gone = leave(folder, [Left() for _ in range(3)])
    parts = [b"a" * LARGE, b"b"]
    with shard_database(folder) as db:
        db.execute(
            "UPDATE messages SET content=x'', size=?, checksum=?",
            (LARGE + 1, zlib.crc32(b"".join(parts))),
        )
        for id_, present in ((sound, parts), (damaged, [parts[0], b"c"]), (gone, parts[:1])):
            copy = queue_id.from_text(id_)
            rows = [(copy, number, part) for number, part in enumerate(present)]
            db.executemany("INSERT INTO parts VALUES (?,?,?)", rows)
    (text,) = await texts("shards", site, "problem")
    assert text.endswith(f"2 messages ({damaged}, {gone})")


async def test_a_shard_of_the_first_format_is_sound(tmp_path: Path) -> None:
    """A worker that takes it makes it one of this format."""
    site = site_of(tmp_path)
    leave(site.config.spool.path, [Left()])
    with shard_database(site.config.spool.path) as db:
        db.execute("DROP TRIGGER parts_go_with_their_message; DROP TABLE parts")
        db.pragma("user_version", 1)
    assert await texts("shards", site, "ok") == ["1 shard without damage"]


async def test_a_page_that_was_overwritten_is_found(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    leave(site.config.spool.path, [Left() for _ in range(500)])
    path = site.config.spool.path / "0001.db"
    with path.open("r+b") as file:
        file.seek(8192 * 3)
        file.write(b"\xa5" * 8192 * 3)
    leave(site.config.spool.path, [Left()], number=2)
    (text,) = await texts("shards", site, "problem")
    assert text.startswith(("shard 0001 is damaged", "shard 0001 cannot be read"))
    (finding,) = [one for one in await found("shards", site) if one.severity == "problem"]
    assert "gateway queue salvage 0001" in finding.remedy
    assert await texts("shards", site, "ok") == ["1 shard without damage"]


async def test_what_is_no_shard(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    folder = site.config.spool.path
    folder.mkdir()
    (folder / "0001.db").write_bytes(b"no database" * 1000)
    apsw.Connection(str(folder / "0002.db")).execute("CREATE TABLE x (y)")
    leave(folder, [Left()], number=3)
    with shard_database(folder, 3) as db:
        db.pragma("user_version", 99)
    told = await texts("shards", site, "problem")
    assert [text.split(":")[0] for text in told] == [
        "shard 0001 cannot be read",
        "shard 0002 is another program's database",
        "shard 0003 has format 99, and this version reads format 2",
    ]


async def test_a_shard_that_no_process_holds(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    leave(folder, [Left()])
    leave(folder, [Left()], number=2)
    with (folder / "0001.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (folder / "0002.lock").touch()
        assert unowned(folder, [1, 2]) == [2]
        old = Running(workers=(os.getpid(),), since=time.time() - 100)
        (text,) = await texts("shards", site_of(tmp_path, running=old), "problem")
        assert "no process holds shard 0002" in text
        # A gateway that has just begun adopts it yet.
        young = Running(workers=(os.getpid(),), since=time.time())
        assert await texts("shards", site_of(tmp_path, running=young), "problem") == []
    assert unowned(folder, [1, 2]) == [1, 2]


async def test_a_large_queue_is_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of(tmp_path)
    leave(site.config.spool.path, [Left() for _ in range(200)])
    monkeypatch.setattr("gateway.doctor.shards.SECONDS", -1.0)
    (finding,) = await found("shards", site)
    assert finding.severity == "note"
    assert "not to its end" in finding.text
