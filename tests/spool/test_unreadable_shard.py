"""A shard that SQLite cannot read is named, and nothing else has to wait for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.queue import listing
from gateway.queue.selection import Selection
from gateway.spool.outbox import Outbox, count_waiting
from gateway.spool.shard_file import (
    PAGE_SIZE,
    SpoolError,
    UnreadableShard,
    examine,
    is_missing,
    open_database,
)
from gateway.spool.spool import Spool
from tests.assembly import configure, write_plugin
from tests.faults.queue_file import write_queue
from tests.spool.damage import hurt, no_header

OBSERVER = """
@hookimpl
def observe(self, events):
    with (Path(__file__).parent / "seen").open("a") as log:
        for event in events:
            log.write(event.message_id + "\\n")
"""


def _write(folder: Path, shard: int = 1) -> Path:
    # Half of it waits, and is in the indexes.
    write_queue(folder, shard, range(600), lambda number: 5.0 if number % 2 else None)
    return folder / f"{shard:04d}.db"


def _overwrite_root(name: str) -> Callable[[Path], None]:
    """Destroys the first page of a table or an index."""

    def damage(path: Path) -> None:
        with closing(apsw.Connection(os.fspath(path))) as db:
            root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name=?", (name,)).get
        with path.open("r+b") as file:
            file.seek((root - 1) * PAGE_SIZE)
            file.write(b"\xa5" * 64)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: hurt(path, no_header),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        *map(
            _overwrite_root,
            ("messages", "deliveries", "events", "deliveries_by_due", "deliveries_by_lane"),
        ),
    ],
)
async def test_what_workers_leave_is_what_is_called_damaged(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = _write(tmp_path)
    damage(path)
    octets = path.read_bytes()
    found = examine(path)
    assert isinstance(found, UnreadableShard)
    assert (found.path, found.number) == (path, 1)
    assert str(found).startswith(f"{path} cannot be read: ")
    assert path.read_bytes() == octets
    spool = Spool(tmp_path, "owner", 0)
    spool.open()
    spool.adopt()
    assert spool.left == {1}
    await spool.drain()
    spool.close()


def test_a_shard_that_is_well(tmp_path: Path) -> None:
    path = _write(tmp_path)
    octets = path.read_bytes()
    assert examine(path) is None
    assert path.read_bytes() == octets
    (tmp_path / "0002.db").touch()
    assert examine(tmp_path / "0002.db") is None


def test_a_shard_that_is_not_there_yet_or_any_more_is_no_damage(tmp_path: Path) -> None:
    path = _write(tmp_path)
    assert not is_missing(path)
    (tmp_path / "0002.db").touch()
    assert is_missing(tmp_path / "0002.db")
    assert is_missing(tmp_path / "0003.db")
    unreadable: set[int] = set()
    assert count_waiting(tmp_path, ["site"], unreadable) == {"site": 0}
    skipped: list[UnreadableShard] = []
    assert list(listing.read(tmp_path, Selection(), skipped=skipped))
    assert (unreadable, skipped) == (set(), [])
    path.write_bytes(b"no database" * 1000)
    assert not is_missing(path)


@pytest.mark.parametrize(
    ("statement", "text"),
    [("PRAGMA user_version=99", "format 99"), ("PRAGMA application_id=5", "no shard of a spool")],
)
def test_what_is_wrong_without_damage(tmp_path: Path, statement: str, text: str) -> None:
    path = _write(tmp_path)
    with closing(open_database(path)) as db:
        db.execute(statement)
    with pytest.raises(SpoolError, match=text):
        examine(path)
    with pytest.raises(SpoolError, match="cannot be read"):
        examine(tmp_path / "0009.db")


async def test_a_shard_that_was_repaired_is_taken_again(tmp_path: Path) -> None:
    path = _write(tmp_path)
    whole = path.read_bytes()
    hurt(path, no_header)
    spool = Spool(tmp_path, "owner", 0)
    spool.open()
    try:
        assert spool.adopt() == []
        assert spool.left == {1}
        repaired = tmp_path / "repaired"
        repaired.write_bytes(whole)
        repaired.replace(path)
        assert [shard.number for shard in spool.adopt()] == [1]
        assert spool.left == frozenset()
    finally:
        await spool.drain()
        spool.close()


async def test_observers_get_the_events_of_other_shards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = write_plugin(tmp_path, "watch", OBSERVER)
    config = configure(tmp_path, f"plugins:\n  - {plugin}: {{}}")
    folder = config.spool.path
    folder.mkdir(exist_ok=True)
    for number in (1, 2):
        with closing(open_database(folder / f"{number:04d}.db")) as db:
            text = Event("accepted", 5.0, f"event-{number}").to_json()
            db.execute("INSERT INTO events VALUES (?,?)", (number, text))
    whole = (folder / "0001.db").read_bytes()
    hurt(folder / "0001.db", no_header)
    outbox = Outbox(folder, Chain(load_plugins(config), Watchdog()))
    for _ in range(3):
        while await outbox.pass_on():
            pass
    assert (tmp_path / "seen").read_text() == "event-2\n"
    assert caplog.text.count("shard 0001: its events cannot be read") == 1
    (folder / "0001.db").write_bytes(whole)
    await outbox.pass_on()
    assert (tmp_path / "seen").read_text() == "event-2\nevent-1\n"
    outbox.close()
