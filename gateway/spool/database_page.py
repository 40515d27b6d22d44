"""Pages of a SQLite database, and the rows that are in them. Pure.

Each page is read for itself: which rows it has stands in the page, so those of a database whose
other pages are damaged can be found (https://www.sqlite.org/fileformat2.html). Only cells that a
page names are read, not what was deleted in it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

ReadPage = Callable[[int], bytes]
"""A page by its number, from 1; empty where it is not there, or cannot be read."""

Value = int | float | str | bytes | None

TABLE_LEAF = 13
_INDEX_LEAF = 10
_INDEX_INTERIOR = 2
_TABLE_INTERIOR = 5
_HEADER_SIZES = {TABLE_LEAF: 8, _INDEX_LEAF: 8, _INDEX_INTERIOR: 12}
"""The kinds of pages that have rows. A table WITHOUT ROWID is an index: it has some further up."""

_MAGIC = b"SQLite format 3\0"
_FILE_HEADER = 100
"""Octets at the beginning of the first page that are about the whole file."""

_MOST_PAGES = 1 << 24
"""Pages that a file may have: with more, its numbers would not begin with NUL, see `free_pages`."""

_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL = 7


class DamagedRecordError(Exception):
    """A row is not what SQLite has written."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A row as its page has it.

    Attributes:
        kind: of the page.
        rowid: the number of the row; 0 in an index.
        size: octets of the whole row.
        local: those that are in the page.
        overflow: the page where the others begin; 0 if there are none.
    """

    kind: int
    rowid: int
    size: int
    local: bytes
    overflow: int


def cells(page: bytes, number: int) -> Iterator[Cell | None]:
    """The rows of a page, in their order; None for one that is damaged. Other pages have none."""
    start = _FILE_HEADER if number == 1 else 0
    if len(page) > start and page[start] in _HEADER_SIZES:
        for index in range(int.from_bytes(page[start + 3 : start + 5])):
            yield cell(page, number, index)
            if start + _HEADER_SIZES[page[start]] + 2 * index > len(page):
                return  # no page has so many


def cell(page: bytes, number: int, index: int) -> Cell | None:
    """One row of a page; None if it is damaged, or not there."""
    start = _FILE_HEADER if number == 1 else 0
    kind = page[start] if len(page) > start else 0
    if kind not in _HEADER_SIZES:
        return None
    array = start + _HEADER_SIZES[kind]
    pointer = array + 2 * index
    at = int.from_bytes(page[pointer : pointer + 2])
    if at < array + 2 * int.from_bytes(page[start + 3 : start + 5]):
        return None
    try:
        return _cell(page, kind, at)
    except IndexError:
        return None


def _cell(page: bytes, kind: int, at: int) -> Cell:
    """The row that begins there.

    Raises:
        IndexError: it does not end in this page.
    """
    if kind == _INDEX_INTERIOR:
        at += 4  # the page to the left of it
    size, at = _varint(page, at)
    rowid = 0
    if kind == TABLE_LEAF:
        rowid, at = _varint(page, at)
    here = _local_size(size, kind, len(page))
    end = at + here
    overflow = 0
    if here < size:
        end += 4
        overflow = int.from_bytes(page[end - 4 : end])
    if end > len(page):
        raise IndexError
    return Cell(kind, rowid, size, page[at : at + here], overflow)


def _local_size(size: int, kind: int, usable: int) -> int:
    """How many octets of a row are in its page."""
    most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    here = least + (size - least) % (usable - 4)
    return here if here <= most else least


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine octets, and where it ends.

    Raises:
        IndexError: it does not end.
    """
    value = 0
    for place in range(at, at + 8):
        octet = octets[place]
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, place + 1
    value = value << 8 | octets[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


class Record:
    """The columns of a row.

    Args:
        cell: where it begins.
        read: gives the pages where it goes on.

    Attributes:
        shape: a letter for each column: `n`ull, `i`nteger, `r`eal, `t`ext, `b`lob.

    Raises:
        DamagedRecordError: the row does not say what its columns are.
    """

    def __init__(self, cell: Cell, read: ReadPage) -> None:
        self._cell = cell
        self._read = read
        self._octets = cell.local
        self._next = cell.overflow
        self._seen: set[int] = set()
        self._types: list[int] = []
        try:
            end, at = _varint(cell.local, 0)
            while at < end:
                kind, at = _varint(cell.local, at)
                self._types.append(kind)
        except IndexError:
            raise DamagedRecordError("it has no columns") from None
        self._starts = [end]
        for kind in self._types:
            self._starts.append(self._starts[-1] + _size_of(kind))
        if at != end or self._starts[-1] != cell.size:
            raise DamagedRecordError("its columns are not as long as it is")
        self.shape = "".join([_letter(kind) for kind in self._types])

    def octets(self, column: int) -> bytes:
        """The octets of a text or blob that are there; fewer than it had if pages are missing."""
        start, end = self._starts[column : column + 2]
        self._read_until(end)
        return self._octets[start:end]

    def value(self, column: int) -> Value:
        """What is in a column.

        Raises:
            DamagedRecordError: it is not there as a whole, or is a text that is no UTF-8.
        """
        kind = self._types[column]
        octets = self.octets(column)
        if len(octets) != _size_of(kind):
            raise DamagedRecordError("a part of it is missing")
        if kind == 0:
            return None
        if kind in (8, 9):
            return kind - 8
        if kind in _INTEGER_SIZES:
            return int.from_bytes(octets, signed=True)
        if kind == _REAL:
            real: float = struct.unpack(">d", octets)[0]
            return real
        if kind % 2 == 0:
            return octets
        try:
            return octets.decode()
        except UnicodeDecodeError as error:
            raise DamagedRecordError("it is no text") from error

    def values(self, columns: Iterable[int]) -> list[Value]:
        """What is in some columns.

        Raises:
            DamagedRecordError: as `value`.
        """
        return [self.value(column) for column in columns]

    def _read_until(self, end: int) -> None:
        """Follows the chain of pages for as far as is needed, and as there are any."""
        pieces = [self._octets]
        length = len(self._octets)
        while length < end and self._next and self._next not in self._seen:
            self._seen.add(self._next)
            page = self._read(self._next)
            piece = page[4 : 4 + self._cell.size - length]
            self._next = int.from_bytes(page[:4])
            pieces.append(piece)
            length += len(piece)
        if len(pieces) > 1:
            self._octets = b"".join(pieces)


def _size_of(kind: int) -> int:
    """Octets of a column.

    Raises:
        DamagedRecordError: there is no such kind.
    """
    if kind >= 12:
        return (kind - 12) // 2
    if kind in (0, 8, 9):
        return 0
    if kind == _REAL:
        return 8
    size = _INTEGER_SIZES.get(kind)
    if size is None:
        raise DamagedRecordError("a column is of no kind that there is")
    return size


def _letter(kind: int) -> str:
    if kind >= 12:
        return "bt"[kind % 2]
    return "n" if kind == 0 else "r" if kind == _REAL else "i"


def free_pages(read: ReadPage, version: Callable[[int], int], count: int) -> frozenset[int]:
    """The pages of a file of so many that are not in use: what is in them was deleted.

    The first page tells where their list begins. If the list cannot be followed to its end, all
    pages count that look like a part of it: they begin with two numbers below 2^24, whose first
    octet is NUL. No other page does: those with rows begin with their kind, and those in which a
    row goes on have a number and then text, which has no NUL.

    A page with a newer `version` than the list that names it has been taken into use since.
    """
    trunks = _listed(read)
    if trunks is None:
        every = ((number, _trunk(read(number))) for number in range(2, count + 1))
        trunks = {number: trunk[1] for number, trunk in every if trunk is not None}
    free = {
        one for number, named in trunks.items() for one in named if version(one) <= version(number)
    }
    return frozenset(free | trunks.keys())


def _listed(read: ReadPage) -> dict[int, list[int]] | None:
    """What each page of the list names; None if it cannot be followed to its end."""
    first = read(1)
    if not first.startswith(_MAGIC):
        return None
    number, count = struct.unpack_from(">II", first, 32)
    trunks: dict[int, list[int]] = {}
    while number:
        trunk = _trunk(read(number))
        if trunk is None or number in trunks:
            return None
        following, trunks[number] = trunk
        number = following
    return trunks if len(trunks) + sum(map(len, trunks.values())) == count else None


def _trunk(page: bytes) -> tuple[int, list[int]] | None:
    """The next page of the list, and the free pages that this one names; None if it is none."""
    if len(page) < 8 or page[0]:
        return None
    following, count = struct.unpack_from(">II", page)
    if 8 + 4 * count > len(page):
        return None
    entries = list(struct.unpack_from(f">{count}I", page, 8))
    named = {following, *entries} if following else set(entries)
    if len(named) != count + bool(following) or not all(1 < one < _MOST_PAGES for one in named):
        return None
    return following, entries


def is_lost(page: bytes) -> bool:
    """Whether a page in use is no page of a database any more.

    Of those that have no rows, tables' inner pages begin with their kind, too, and all others with
    NUL, see `free_pages`.
    """
    kinds = (0, _TABLE_INTERIOR, *_HEADER_SIZES)
    return not page or page[0] not in kinds or not page.strip(b"\0")


def page_count(first: bytes) -> int:
    """How many pages a file should have, as its first page says; 0 if that is not known."""
    return int.from_bytes(first[28:32]) if first.startswith(_MAGIC) else 0
