"""Rows read out of single pages are those that SQLite has written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.spool.database_page import (
    DamagedRecordError,
    ReadPage,
    Record,
    Value,
    cells,
    free_pages,
    is_lost,
    page_count,
)

SIZE = 8192

INTEGERS = st.sampled_from([0, 1, -1, 127, -129, 1 << 20, -(1 << 30), 1 << 40, (1 << 63) - 1])
TEXTS = st.one_of(st.none(), st.text(max_size=40), st.integers(0, 40_000).map("ä".__mul__))
BLOBS = st.one_of(
    st.binary(max_size=40), st.sampled_from([8100, 8157, 8158, 20_000, 300_000]).map(bytes)
)
ROWS = st.lists(st.tuples(INTEGERS, st.floats(allow_nan=False), TEXTS, BLOBS), max_size=30)

_SCHEMA = """
PRAGMA page_size=8192;
CREATE TABLE by_rowid (key INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB) STRICT;
CREATE TABLE by_key (
  key INTEGER, number INTEGER, i INTEGER, r REAL, t TEXT, b BLOB, PRIMARY KEY (key, number)
) STRICT, WITHOUT ROWID;
"""


def _database(rows: Sequence[tuple[Any, ...]], then: Iterable[str] = ()) -> bytes:
    """A database with these rows in both tables, changed by some statements."""
    with closing(apsw.Connection(":memory:")) as db:
        db.execute(_SCHEMA)
        for key, row in enumerate(rows):
            db.execute("INSERT INTO by_rowid VALUES (?,?,?,?,?)", (key, *row))
            db.execute("INSERT INTO by_key VALUES (?,?,?,?,?,?)", (key, -key, *row))
        for statement in then:
            db.execute(statement)
        return db.serialize("main")


def _reader(octets: bytes) -> ReadPage:
    return lambda number: octets[(number - 1) * SIZE : number * SIZE] if number else b""


def _rows(octets: bytes, columns: int) -> list[list[Value]]:
    """The rows with so many columns on all pages but the first; a row's number is before them."""
    read = _reader(octets)
    count = len(octets) // SIZE
    free = free_pages(read, lambda number: 0, count)
    rows = []
    for number in range(2, count + 1):
        for cell in () if number in free else cells(read(number), number):
            assert cell is not None
            record = Record(cell, read)
            if len(record.shape) == columns:
                rows.append([cell.rowid, *record.values(range(columns))])
    return sorted(rows, key=lambda row: row[:2] if columns == 5 else row[1:2])


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_all_rows_are_found_as_they_were_written(rows: list[tuple[Any, ...]]) -> None:
    octets = _database(rows)
    found = _rows(octets, 5)
    assert [row[0] for row in found] == list(range(len(rows)))
    assert [row[2:] for row in found] == [list(row) for row in rows]
    found = _rows(octets, 6)
    assert [row[1:3] for row in found] == [[key, -key] for key in range(len(rows))]
    assert [row[3:] for row in found] == [list(row) for row in rows]


def test_rows_between_the_leaves_of_an_index_are_found() -> None:
    octets = _database([(key, 0.5, "text" * 50, b"") for key in range(2000)])
    assert [row[3] for row in _rows(octets, 6)] == list(range(2000))
    assert [row[2] for row in _rows(octets, 5)] == list(range(2000))


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("size", [10, 3000, 50_000])
def test_what_was_deleted_does_not_come_back(size: int, header: bool) -> None:
    """Neither rows of pages that are in use, nor those of free pages."""
    rows = [(key, 1.5, "x" * size, b"y" * size) for key in range(400)]
    kept = "key % 100 = 7"
    octets = _database(rows, [f"DELETE FROM {name} WHERE NOT {kept}" for name in _TABLES])
    assert int.from_bytes(octets[36:40]) > 0, "no page is free"
    if not header:
        octets = bytes(SIZE) + octets[SIZE:]
    assert [row[0] for row in _rows(octets, 5)] == [7, 107, 207, 307]
    assert [row[1] for row in _rows(octets, 6)] == [7, 107, 207, 307]


_TABLES = ("by_rowid", "by_key")


def test_a_long_list_of_free_pages_is_followed_or_found() -> None:
    rows = [(key, 1.5, "", b"y" * 200_000) for key in range(100)]
    octets = _database(rows, [f"DELETE FROM {name}" for name in _TABLES])
    count = len(octets) // SIZE
    free = free_pages(_reader(octets), lambda number: 0, count)
    assert len(free) == int.from_bytes(octets[36:40]) > 2 * SIZE // 4
    assert page_count(octets) == count
    damaged = bytes(SIZE) + octets[SIZE:]
    assert free_pages(_reader(damaged), lambda number: 0, count) == free
    assert page_count(damaged) == 0


def test_a_page_that_is_newer_than_the_list_is_in_use() -> None:
    octets = _database([(1, 1.5, "", b"y" * 50_000)], [f"DELETE FROM {name}" for name in _TABLES])
    count = len(octets) // SIZE
    read = _reader(octets)
    free = free_pages(read, lambda number: 0, count)
    newer = max(free)
    assert free_pages(read, lambda number: number == newer, count) == free - {newer}


def test_a_chain_of_pages_that_breaks_off_or_turns_back() -> None:
    octets = bytearray(_database([(1, 1.5, "", os.urandom(100_000))]))
    read = _reader(bytes(octets))
    leaf = next(
        number
        for number in range(2, len(octets) // SIZE)
        if any(
            cell is not None and Record(cell, read).shape == "nirtb"
            for cell in cells(read(number), number)
        )
    )
    (cell,) = cells(read(leaf), leaf)
    assert cell is not None
    whole = Record(cell, read).value(4)
    second = int.from_bytes(read(cell.overflow)[:4])
    for following, least in ((0, SIZE), (1 << 31, SIZE), (cell.overflow, SIZE), (second, SIZE)):
        at = (second - 1) * SIZE
        octets[at : at + 4] = following.to_bytes(4)
        record = Record(cell, _reader(bytes(octets)))
        piece = record.octets(4)
        assert least < len(piece) < 100_000
        assert isinstance(whole, bytes)
        assert whole.startswith(piece[:SIZE])
        with pytest.raises(DamagedRecordError):
            record.value(4)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_pages_do_no_harm(data: st.DataObject) -> None:
    """Whatever is in a page, reading it ends, and gives rows or says that they are damaged."""
    octets = bytearray(_SAMPLE)
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.integers(SIZE, len(octets) - 1))
        span = data.draw(st.sampled_from([1, 2, 8, 100]))
        octets[at : at + span] = data.draw(st.binary(min_size=span, max_size=span))
    read = _reader(bytes(octets[: len(_SAMPLE)]))
    count = len(_SAMPLE) // SIZE
    free_pages(read, lambda number: 0, count)
    for number in range(1, count + 1):
        page = read(number)
        is_lost(page)
        for cell in cells(page, number):
            if cell is None:
                continue
            try:
                record = Record(cell, read)
                record.values(range(len(record.shape)))
            except DamagedRecordError:
                pass


_SAMPLE = _database(
    [(key, 1.5, "x" * key, b"y" * (key * 300)) for key in range(60)],
    ["DELETE FROM by_rowid WHERE key % 3"],
)


def test_pages_that_are_destroyed_are_known_from_those_without_rows(tmp_path: Path) -> None:
    count = len(_SAMPLE) // SIZE
    read = _reader(_SAMPLE)
    free = free_pages(read, lambda number: 0, count)
    assert not any(is_lost(read(number)) for number in range(2, count + 1) if number not in free)
    assert all(map(is_lost, (b"", bytes(SIZE), b"\xa5" * SIZE, b"Subject: x".ljust(SIZE))))
