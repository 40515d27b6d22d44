"""Mail from damaged shards comes back into the queue once, held, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.events import Event
from gateway.queue.listing import read, read_content
from gateway.queue.salvage import Salvages
from gateway.queue.salvaged import Salvage
from gateway.queue.selection import Selection
from gateway.spool import queue_id
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError, open_database
from gateway.spool.spool import Spool, shard_numbers
from tests.faults.queue_file import content_of, write_queue
from tests.spool.damage import KINDS, Damage, hurt, no_header, write_logged_queue


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def _write(spool: Path, numbers: range, shard: int = 1, size: int = 400) -> dict[int, str]:
    return write_queue(spool, shard, numbers, lambda number: None, size)


def _change(spool: Path, *statements: str, shard: int = 1) -> None:
    with closing(open_database(spool / f"{shard:04d}.db")) as db, db:
        for statement in statements:
            db.execute(statement)


def _salvage(spool: Path, *names: str, into: Path | None = None) -> list[Salvage]:
    with Salvages(spool) as salvages:
        for name in names:
            salvages.choose(name)
        if not names:
            salvages.choose_damaged()
        salvages.find(lambda pages: None)
        salvages.judge(lambda messages: None)
        before = [(one.messages, one.recipients, one.known) for one in salvages.chosen]
        asyncio.run(salvages.put_back(into or spool / "salvaged", lambda messages: None))
        assert before == [(one.messages, one.recipients, one.known) for one in salvages.chosen]
        return salvages.chosen


def _ids(spool: Path) -> list[str]:
    return [row.id for row in read(spool, Selection())]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("logged", [False, True])
def test_what_is_whole_is_held_in_the_queue(spool: Path, logged: bool) -> None:
    numbers = range(450)
    ids = write_logged_queue(spool, 3, numbers) if logged else _write(spool, numbers, 3)
    whole = _write(spool, range(1000, 1010), 1)
    hurt(spool / "0003.db", no_header)
    octets = (spool / "0003.db").read_bytes()
    # SQLite finds the first page in the log.
    (one,) = _salvage(spool, *(["3"] if logged else []))
    assert (one.messages, one.recipients, one.known, one.apart) == (450, 450, 0, [])
    assert (one.name, one.lost_pages, one.lost_rows) == ("shard 0003", not logged, 0)
    assert one.reason == ("" if logged else "file is not a database")
    rows = {row.id: row for row in read(spool, Selection())}
    assert rows.keys() == {*ids.values(), *whole.values()}
    for number, id_ in ids.items():
        row = rows[id_]
        assert (row.state, row.recipient) == ("held", f"r{number:07d}@example.net")
        assert row.held == "salvaged from shard 0003: may have been delivered before"
        assert (row.lane, row.priority, row.sender) == ("smarthost", 1, "a@example.com")
        assert read_content(spool, row) == content_of(number, 400)
    assert {rows[id_].state for id_ in whole.values()} == {"active"}
    # The old files have other names.
    assert (spool / "0003.db.damaged").read_bytes() == octets
    assert (spool / "0003.db.damaged-wal").exists() == logged
    assert sorted(one.renamed)[0] == str(spool / "0003.db.damaged")
    assert shard_numbers(spool) == [1, 2]
    # Only what destroyed the first page is worth a report.
    assert _names(spool / "salvaged") == ([] if logged else ["0003.db.json"])


def test_it_can_be_done_again(spool: Path) -> None:
    ids = _write(spool, range(20))
    hurt(spool / "0001.db", no_header)
    _salvage(spool)
    assert _salvage(spool) == []
    (again,) = _salvage(spool, str(spool / "0001.db.damaged"))
    assert (again.messages, again.known, again.number, again.renamed) == (0, 20, None, [])
    assert sorted(_ids(spool)) == sorted(ids.values())
    assert shard_numbers(spool) == [2]
    # A second shard of that number does not get in the way of the first.
    _write(spool, range(20, 30))
    hurt(spool / "0001.db", no_header)
    (other,) = _salvage(spool)
    assert other.renamed == [str(spool / "0001.db.damaged.2")]
    assert len(_ids(spool)) == 30


def test_a_salvage_that_broke_off_goes_on(spool: Path) -> None:
    ids = _write(spool, range(20))
    hurt(spool / "0001.db", no_header)
    octets = (spool / "0001.db").read_bytes()
    _salvage(spool)
    # As if the files had not been renamed, and three recipients not been written.
    (spool / "0001.db").write_bytes(octets)
    _change(
        spool, "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries LIMIT 3)", shard=2
    )
    (one,) = _salvage(spool)
    assert (one.messages, one.recipients, one.known) == (3, 3, 17)
    assert sorted(_ids(spool)) == sorted(ids.values())


def test_a_file_and_its_copy(spool: Path, tmp_path: Path) -> None:
    ids = _write(spool, range(20))
    hurt(spool / "0001.db", no_header)
    copy = tmp_path / "copy.db"
    copy.write_bytes((spool / "0001.db").read_bytes())
    first, second = _salvage(spool, "1", str(copy), "0001")
    assert (first.messages, second.messages, second.known) == (20, 0, 20)
    assert (second.name, second.number) == ("copy.db", None)
    assert copy.exists()
    assert sorted(_ids(spool)) == sorted(ids.values())


def test_what_a_delivery_has_behind_it(spool: Path) -> None:
    """Attempts and replies; what it was held for; what makes no sense in it."""
    _write(spool, range(3))
    _change(
        spool,
        "UPDATE deliveries SET attempts=4, reply='450 Later', due=1.0"
        " WHERE recipient LIKE 'r0000000%'",
        "UPDATE deliveries SET held='suspicious' WHERE recipient LIKE 'r0000001%'",
        "UPDATE deliveries SET priority=77, attempts=-1 WHERE recipient LIKE 'r0000002%'",
    )
    hurt(spool / "0001.db", no_header)
    _salvage(spool)
    first, second, third = read(spool, Selection())
    assert (first.attempts, first.reply, first.state) == (4, "450 Later", "held")
    assert second.held == (
        "salvaged from shard 0001: may have been delivered before; it was held: suspicious"
    )
    assert (third.priority, third.attempts) == (1, 0)


def _apart(one: Salvage) -> list[tuple[str, str, list[str], list[str]]]:
    return [(apart.id, apart.problem, apart.recipients, apart.damaged) for apart in one.apart]


def test_what_cannot_be_put_back(spool: Path) -> None:
    ids = _write(spool, range(8))
    id_ = {number: queue_id.from_text(text) for number, text in ids.items()}
    (spool / "keep").mkdir()
    _change(
        spool,
        f"DELETE FROM deliveries WHERE id={id_[1]}",
        f"DELETE FROM messages WHERE id={id_[2]}",
        f"UPDATE messages SET sender='x@example.com' WHERE id={id_[3]}",
        f"UPDATE messages SET content=CAST('Subject: x' AS BLOB) WHERE id={id_[4]}",
        f"UPDATE deliveries SET recipient='x@example.net' WHERE id={id_[5]}",
        f"INSERT INTO deliveries SELECT id, 7, copy, lane, priority, 'y@example.net', parameters,"
        f" due, held, attempts, reply FROM deliveries WHERE id={id_[6]}",
    )
    hurt(spool / "0001.db", no_header)
    into = spool.parent / "out" / "here"
    (one,) = _salvage(spool, into=into)
    assert (one.messages, one.recipients) == (3, 3)
    assert sorted(_ids(spool)) == sorted(ids[number] for number in (0, 6, 7))
    to = [f"r{number:07d}@example.net" for number in range(8)]
    assert _apart(one) == [
        (ids[1], "the recipients are not there", [], []),
        (ids[2], "only the recipients are there", [to[2]], []),
        (ids[3], "the envelope is damaged", [to[3]], []),
        (ids[4], "the content is damaged", [to[4]], []),
        (ids[5], "some recipients are damaged", [], ["x@example.net"]),
        (ids[6], "some recipients are damaged", [], ["y@example.net"]),
    ]
    whole = [ids[number] for number in (1, 3, 5, 6)]
    files = {f"{text}.eml" for text in whole} | {f"{ids[4]}.damaged.eml", "0001.db.json"}
    assert {path.name for path in into.iterdir()} == files
    assert into.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in into.iterdir())
    for number in (1, 3, 5, 6):
        assert (into / f"{ids[number]}.eml").read_bytes() == content_of(number, 400)
    assert (into / f"{ids[4]}.damaged.eml").read_bytes() == b"Subject: x"
    report = json.loads((into / "0001.db.json").read_text())
    assert report["messages"] == 3
    assert [entry["id"] for entry in report["apart"]] == [ids[n] for n in range(1, 7)]
    assert report["apart"][0]["file"] == str(into / f"{ids[1]}.eml")
    # Once more: what is there stays, and another content gets a name of its own.
    (into / f"{ids[1]}.eml").write_bytes(b"mine")
    _salvage(spool, str(spool / "0001.db.damaged"), into=into)
    assert (into / f"{ids[1]}.eml").read_bytes() == b"mine"
    assert (into / f"{ids[1]}.2.eml").read_bytes() == content_of(1, 400)
    assert len(_ids(spool)) == 3


@pytest.mark.parametrize("damage", KINDS)
def test_no_damage_breaks_it(spool: Path, damage: Damage) -> None:
    ids = _write(spool, range(300), size=3000)
    hurt(spool / "0001.db", damage, 11)
    (one,) = _salvage(spool, "1")
    rows = list(read(spool, Selection()))
    assert len(rows) == one.recipients
    assert {row.state for row in rows} <= {"held"}
    numbers = {text: number for number, text in ids.items()}
    for row in rows:
        assert row.recipient == f"r{numbers[row.id]:07d}@example.net"
        assert read_content(spool, row) == content_of(numbers[row.id], 3000)


# Who holds what.


async def test_a_shard_that_is_held_is_left_to_its_owner(spool: Path) -> None:
    _write(spool, range(3))
    owner = Shard.claim(spool, 1, "owner")
    try:
        with Salvages(spool) as salvages:
            salvages.choose_damaged()
            assert salvages.chosen == []
            with pytest.raises(SpoolError, match="a process holds it"):
                salvages.choose("1")
    finally:
        owner.close()


def test_nobody_takes_what_is_being_salvaged(spool: Path) -> None:
    _write(spool, range(3))
    hurt(spool / "0001.db", no_header)
    with Salvages(spool) as salvages:
        salvages.choose_damaged()
        assert len(salvages.chosen) == 1
        with Salvages(spool) as others:
            others.choose_damaged()
            assert others.chosen == []


def test_a_shard_without_damage_is_chosen_by_name_only(spool: Path) -> None:
    ids = _write(spool, range(3))
    assert _salvage(spool) == []
    (one,) = _salvage(spool, "1")
    assert (one.messages, one.reason, one.is_complete) == (3, "", True)
    assert [row.id for row in read(spool, Selection(state="held"))] == list(ids.values())
    assert not (spool / "salvaged").exists()


def test_a_newer_version_is_no_damage(spool: Path) -> None:
    _write(spool, range(3))
    _change(spool, "PRAGMA user_version=99")
    with Salvages(spool) as salvages:
        salvages.choose_damaged()
        assert salvages.chosen == []
        assert "has format 99" in salvages.left[0]


@pytest.mark.parametrize("name", ["7", "no/such/file.db"])
def test_what_is_not_there(spool: Path, name: str) -> None:
    with Salvages(spool) as salvages, pytest.raises(SpoolError, match="there is no such file"):
        salvages.choose(name)


async def test_workers_take_it_over_and_forget_that_a_shard_was_broken(spool: Path) -> None:
    ids = _write(spool, range(30))
    hurt(spool / "0001.db", no_header)
    worker = Spool(spool, "worker", 0)
    worker.open()
    try:
        assert worker.adopt() == []
        assert worker.left == {1}
        await asyncio.to_thread(_salvage, spool)
        (adopted,) = worker.adopt()
        assert worker.left == frozenset()
        held = adopted.query("SELECT count(*) FROM deliveries WHERE held IS NOT NULL", ())
        assert held == [(len(ids),)]
        kinds = [Event.from_json(text).type for (text,) in adopted.query(_EVENTS, ())]
        assert kinds == ["held"] * len(ids)
    finally:
        await worker.drain()
        worker.close()


_EVENTS = "SELECT event FROM events"


def test_a_disk_without_room(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(spool, range(3))
    hurt(spool / "0001.db", no_header)
    before = _names(spool)
    monkeypatch.setattr("gateway.queue.salvage.room_of", lambda status: 10)
    with pytest.raises(SpoolError, match="make room") as raised:
        _salvage(spool)
    assert raised.value.full
    assert set(_names(spool)) - {"0001.lock"} == set(before)


def test_a_write_that_fails_leaves_the_files_as_they_are(spool: Path, tmp_path: Path) -> None:
    ids = _write(spool, range(3))
    _change(spool, f"DELETE FROM deliveries WHERE id={queue_id.from_text(ids[1])}")
    hurt(spool / "0001.db", no_header)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        _salvage(spool, into=tmp_path / "file" / "folder")
    assert (spool / "0001.db").exists()
    (one,) = _salvage(spool)
    assert one.messages + one.known == 2
    assert sorted(_ids(spool)) == sorted([ids[0], ids[2]])


def _recipients(rows: Sequence[Salvage]) -> int:
    return sum(one.recipients for one in rows)


def test_a_shard_that_can_be_read_in_part_loses_nothing(spool: Path) -> None:
    """What the commands still see in it is put back with the rest."""
    _write(spool, range(2000))
    path = spool / "0001.db"
    with closing(apsw.Connection(str(path))) as db:
        root: int = db.execute("SELECT rootpage FROM sqlite_schema WHERE name='messages'").get
    octets = bytearray(path.read_bytes())
    last = int.from_bytes(octets[(root - 1) * 8192 + 8 : (root - 1) * 8192 + 12])
    octets[(last - 1) * 8192 : (last - 1) * 8192 + 64] = b"\xa5" * 64
    path.write_bytes(octets)
    found = _salvage(spool)
    assert _recipients(found) > 1950
    assert len(_ids(spool)) == _recipients(found)
