"""The write-ahead log of a SQLite database: which versions of pages in it are committed. Pure.

SQLite reads a log up to the first frame whose checksum does not fit. Here the frames behind it
count too: the checksum of a frame goes on from the one that stands in the frame before, so each
frame can be checked (https://www.sqlite.org/fileformat2.html#the_write_ahead_log).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Literal

ReadAt = Callable[[int, int], bytes]
"""Octets of a file by place and number; fewer where it ends, or where it cannot be read."""

_Order = Literal["<", ">"]

_MAGICS: dict[bytes, _Order] = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}
"""How the words that are summed up are written."""

_HEADER = 32
_FRAME_HEADER = 24


def committed_pages(read: ReadAt, length: int, page_size: int) -> dict[int, int]:
    """Where the newest committed version of each page is in a log.

    Args:
        read: gives octets of the log.
        length: how many it has.
        page_size: of the database.

    Returns:
        Places by the number of the page. A later place is a newer version.
    """
    order = _MAGICS.get(read(0, 4))
    orders = ["<", ">"] if order is None else [order]
    return max([_committed(read, length, page_size, order) for order in orders], key=len)


def _committed(read: ReadAt, length: int, page_size: int, order: str) -> dict[int, int]:
    found: dict[int, int] = {}
    pending: dict[int, int] = {}
    for number, is_commit, place in _frames(read, length, page_size, order):
        pending[number] = place
        if is_commit:
            found.update(pending)
            pending.clear()
    return found


def _frames(
    read: ReadAt, length: int, page_size: int, order: str
) -> Iterator[tuple[int, bool, int]]:
    """The frames whose checksum fits: number of the page, whether it ends a commit, place."""
    header = read(0, _HEADER).ljust(_HEADER, b"\0")
    before = header[24:32]
    if header[24:32] == _checksum(header[:24], bytes(8), order):
        salts = header[16:24]
    else:
        # The header is damaged. The first frame is as old as it; those of former logs come later.
        salts = read(_HEADER, _FRAME_HEADER)[8:16]
    for at in range(_HEADER, length, _FRAME_HEADER + page_size):
        frame = read(at, _FRAME_HEADER + page_size)
        if len(frame) < _FRAME_HEADER + page_size:
            before = b""
            continue
        stored = frame[16:24]
        if frame[8:16] == salts and len(before) == 8:
            summed = _checksum(frame[_FRAME_HEADER:], _checksum(frame[:8], before, order), order)
            if summed == stored:
                number, pages = struct.unpack_from(">II", frame)
                yield number, pages != 0, at + _FRAME_HEADER
        before = stored


def _checksum(octets: bytes, before: bytes, order: str) -> bytes:
    """The checksum of a log up to the end of some octets, from that of what comes before them."""
    first, second = struct.unpack(">II", before)
    words = struct.unpack(f"{order}{len(octets) // 4}I", octets)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = first + one + second & 0xFFFFFFFF
        second = second + other + first & 0xFFFFFFFF
    return struct.pack(">II", first, second)
