"""What a client has sent comes out as it came, however it was cut; too much waits outside."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.smtp.line_reader import LineReader

LIMIT = 16
DOT = b"\r\n.\r\n"


class Connection:
    """Counts how a reader stops and resumes what it is fed from."""

    def __init__(self, reader: LineReader) -> None:
        self._paused = False
        self.resumed = asyncio.Event()
        reader.transport = self

    def is_paused(self) -> bool:
        """Whether nothing comes now."""
        return self._paused

    def pause_reading(self) -> None:
        """Nothing must come now."""
        assert not self._paused
        self._paused = True

    def resume_reading(self) -> None:
        """More may come."""
        assert self._paused
        self._paused = False
        self.resumed.set()


async def _reader() -> tuple[LineReader, Connection]:
    reader = LineReader(LIMIT, asyncio.get_running_loop())
    return reader, Connection(reader)


@given(
    data=st.text("ab\r\n.", max_size=120).map(str.encode),
    cuts=st.lists(st.integers(0, 120), max_size=6),
    end=st.sampled_from([b"\n", DOT]),
)
def test_octets_come_out_in_order_and_no_end_is_missed(
    data: bytes, cuts: list[int], end: bytes
) -> None:
    places = [0, *sorted(cuts), len(data)]

    async def read() -> list[bytes]:
        reader, _ = await _reader()
        pieces: list[bytes] = []

        async def take() -> None:
            while True:
                pieces.append(await reader.read_to(end))

        taking = asyncio.create_task(take())
        for start, stop in pairwise(places):
            reader.feed_data(data[start:stop])
            await asyncio.sleep(0)
        reader.feed_eof()
        with pytest.raises(asyncio.IncompleteReadError):
            await taking
        assert reader.octets == len(data)
        return [*pieces, bytes(reader.unread)]

    pieces = asyncio.run(read())
    assert b"".join(pieces) == data
    assert end not in pieces[-1]
    stretch = b""
    for piece in pieces[:-1]:
        stretch += piece
        assert stretch.find(end) in (-1, len(stretch) - len(end))
        if piece.endswith(end):
            stretch = b""
        else:
            assert len(piece) > LIMIT


async def test_what_is_far_too_much_waits_in_the_connection() -> None:
    reader, connection = await _reader()
    reader.feed_data(b"x" * 2 * LIMIT)
    assert not connection.is_paused()
    reader.feed_data(b"x")
    assert connection.is_paused()
    assert await reader.read(LIMIT) == b"x" * LIMIT
    assert connection.is_paused()
    assert await reader.read(LIMIT) == b"x" * LIMIT
    assert not connection.is_paused()


async def test_who_waits_while_the_connection_is_stopped_has_it_go_on() -> None:
    reader, connection = await _reader()
    reader.feed_data(b"x" * (2 * LIMIT + 1))
    reader.unread.clear()
    waiting = asyncio.create_task(reader.read_to(b"\n"))
    await connection.resumed.wait()
    reader.feed_data(b"y\nz")
    assert await waiting == b"y\n"
    assert reader.unread == b"z"


async def test_a_reader_that_was_cancelled_loses_nothing() -> None:
    reader, _ = await _reader()
    waiting = asyncio.create_task(reader.read_to(b"\n"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    reader.feed_data(b"a line\n")
    assert await reader.read_to(b"\n") == b"a line\n"


async def test_what_came_before_the_end_is_read_and_then_no_more() -> None:
    reader, _ = await _reader()
    reader.feed_data(b"one\ntwo")
    reader.feed_eof()
    assert await reader.read_to(b"\n") == b"one\n"
    with pytest.raises(asyncio.IncompleteReadError):
        await reader.read_to(b"\n")
    assert await reader.read(100) == b"two"
    with pytest.raises(asyncio.IncompleteReadError):
        await reader.read(100)
