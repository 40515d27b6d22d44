"""The log is read as SQLite reads it, and further where a frame is damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from gateway.spool.shard_file import PAGE_SIZE
from gateway.spool.write_ahead_log import committed_pages

FRAME = 24 + PAGE_SIZE


def _pages(log: bytes) -> dict[int, bytes]:
    places = committed_pages(lambda at, size: log[at : at + size], len(log), PAGE_SIZE)
    return {number: log[at : at + PAGE_SIZE] for number, at in places.items()}


@contextmanager
def _database(folder: Path) -> Iterator[apsw.Connection]:
    db = apsw.Connection(os.fspath(folder / "x.db"))
    try:
        db.pragma("page_size", PAGE_SIZE)
        db.pragma("journal_mode", "wal")
        db.wal_autocheckpoint(0)
        db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
        yield db
    finally:
        db.close()


def _fill(db: apsw.Connection, *keys: int) -> None:
    with db:
        for key in keys:
            db.execute("INSERT OR REPLACE INTO t VALUES (?,?)", (key, os.urandom(3000)))


def _log(folder: Path) -> bytes:
    return (folder / "x.db-wal").read_bytes()


def _as_sqlite_reads_it(folder: Path) -> bytes:
    """The database after SQLite has put the log into it."""
    copy = folder / "copy"
    copy.mkdir()
    for name in ("x.db", "x.db-wal"):
        shutil.copyfile(folder / name, copy / name)
    db = apsw.Connection(os.fspath(copy / "x.db"))
    db.pragma("schema_version")  # opens the log
    db.close()
    return (copy / "x.db").read_bytes()


def _check(folder: Path) -> None:
    """Pages of the file with those of the log over them are what SQLite makes of it."""
    octets = bytearray((folder / "x.db").read_bytes())
    for number, page in _pages(_log(folder)).items():
        end = number * PAGE_SIZE
        octets.extend(bytes(max(0, end - len(octets))))
        octets[end - PAGE_SIZE : end] = page
    assert bytes(octets) == _as_sqlite_reads_it(folder)


def test_the_newest_committed_version_of_each_page(tmp_path: Path) -> None:
    with _database(tmp_path) as db:
        for first in range(0, 40, 8):
            _fill(db, *range(first, first + 12))
        _check(tmp_path)


def test_what_was_not_committed_does_not_count(tmp_path: Path) -> None:
    with _database(tmp_path) as db:
        _fill(db, *range(5))
        committed = _pages(_log(tmp_path))
        db.pragma("cache_size", 2)
        db.execute("BEGIN")
        for key in range(100, 140):
            db.execute("INSERT INTO t VALUES (?,?)", (key, os.urandom(3000)))
        assert len(_log(tmp_path)) > 40 * 1000
        assert _pages(_log(tmp_path)) == committed
        db.execute("ROLLBACK")
        assert _pages(_log(tmp_path)) == committed
        # New frames over some of those that were given up.
        _fill(db, 7)
        _check(tmp_path)


def test_frames_of_an_earlier_log_do_not_count(tmp_path: Path) -> None:
    with _database(tmp_path) as db:
        _fill(db, *range(50))
        length = len(_log(tmp_path))
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        _fill(db, 3)
        assert len(_log(tmp_path)) == length
        _check(tmp_path)
        # The first frame tells which they are, too.
        whole = _log(tmp_path)
        assert _pages(whole[:4] + bytes(20) + whole[24:]) == _pages(whole)


def _flip(log: bytes, at: int) -> bytes:
    return log[:at] + bytes([log[at] ^ 4]) + log[at + 1 :]


@pytest.mark.parametrize("place", [30, 200, 5000])
def test_what_comes_behind_a_damaged_frame(tmp_path: Path, place: int) -> None:
    with _database(tmp_path) as db:
        for key in range(30):
            _fill(db, key)
        whole = _log(tmp_path)
    damaged = 20
    found = _pages(_flip(whole, 32 + damaged * FRAME + place))
    frames = [whole[at : at + FRAME] for at in range(32, len(whole), FRAME)]
    newest = {}
    for index, frame in enumerate(frames):
        if index != damaged:
            newest[int.from_bytes(frame[:4])] = frame[24:]
    assert found == newest


def test_a_checksum_that_is_damaged_itself_costs_one_frame_more(tmp_path: Path) -> None:
    with _database(tmp_path) as db:
        for key in range(30):
            _fill(db, key)
        whole = _log(tmp_path)
    found = _pages(_flip(whole, 32 + 20 * FRAME + 17))
    assert found.keys() == _pages(whole).keys()
    assert found != {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda log: _flip(log, 2),  # the magic number, which tells the order of octets
        lambda log: _flip(log, 18),  # a salt
        lambda log: log[:40_000],
    ],
)
def test_a_damaged_header_or_end(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with _database(tmp_path) as db:
        for key in range(30):
            _fill(db, key)
        whole = _log(tmp_path)
    assert _pages(damage(whole))


@pytest.mark.parametrize("log", [b"", b"x", bytes(32), b"\xa5" * 50_000])
def test_no_log_at_all(log: bytes) -> None:
    assert _pages(log) == {}


def test_a_disk_that_cannot_read_some_of_it(tmp_path: Path) -> None:
    with _database(tmp_path) as db:
        for key in range(30):
            _fill(db, key)
        whole = _log(tmp_path)

    def read(at: int, size: int) -> bytes:
        return b"" if at == 32 + 10 * FRAME else whole[at : at + size]

    assert committed_pages(read, len(whole), PAGE_SIZE).keys() == _pages(whole).keys()
