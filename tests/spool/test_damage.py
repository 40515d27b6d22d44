"""Damage on disk is found, and keeps no other mail up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.message import Client, Recipient
from gateway.queue.alarm_clock import AlarmClock
from gateway.spool.queue_entry import (
    Entry,
    Envelope,
    Item,
    Placed,
    Settlement,
    envelope_of,
    item_of,
    parameters_of,
)
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError

NOW = 1_900_000_000.25


def _envelope(number: int, size: int = 3) -> Envelope:
    client = Client("::1", user="ä")
    return Envelope(number, number, NOW, "a@example.com", "default", size, client, {"x": '"crc32'})


def _flipped(text: str, bit: int) -> str | None:
    """The text with one bit flipped; None if it is no text any more."""
    octets = bytearray(text.encode())
    octets[bit // 8 % len(octets)] ^= 1 << bit % 8
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return None


@given(st.integers(0, 5000), st.sampled_from(["sender", "stream", "text"]))
def test_a_flipped_bit_in_an_envelope_is_found(bit: int, column: str) -> None:
    envelope = _envelope(7)
    columns = {"sender": envelope.sender, "stream": "default", "text": envelope.to_json()}
    flipped = _flipped(columns[column], bit)
    if flipped is None:
        return
    columns[column] = flipped
    try:
        read = envelope_of(7, 7, NOW, columns["sender"], columns["stream"], 3, columns["text"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return
    # Only what was to find it has changed: all else is as it was.
    assert column == "text"
    assert read.to_json() == envelope.to_json()


@given(st.integers(0, 5000), st.sampled_from(["address", "text"]), st.booleans())
def test_a_flipped_bit_in_a_recipient_is_found(bit: int, column: str, notes: bool) -> None:
    item = Item(3, Recipient("b@example.net", notes={"crc32": "1}"} if notes else {}))
    columns = {"address": item.recipient.address, "text": parameters_of(item)}
    flipped = _flipped(columns[column], bit)
    if flipped is None:
        return
    columns[column] = flipped
    try:
        read = item_of(3, columns["address"], columns["text"], 0)
    except (ValueError, TypeError, KeyError, AttributeError):
        return
    assert column == "text"
    assert parameters_of(read) == parameters_of(item)


@pytest.mark.parametrize(
    "numbers", [(8, 7, NOW, 3), (7, 8, NOW, 3), (7, 7, 1.0, 3), (7, 7, NOW, 4)]
)
def test_numbers_of_an_envelope_are_checked(numbers: tuple[int, int, float, int]) -> None:
    copy, id_, received, size = numbers
    text = _envelope(7).to_json()
    with pytest.raises(ValueError, match="checksum"):
        envelope_of(copy, id_, received, "a@example.com", "default", size, text)


def test_what_an_earlier_version_wrote_is_read() -> None:
    text = '{"address": "::1"}'
    assert envelope_of(7, 7, NOW, "a@b.c", "default", 3, text).client.address == "::1"
    assert item_of(0, "b@c.d", None, 0).recipient.address == "b@c.d"
    assert item_of(0, "b@c.d", '{"warned": true}', 0).warned


def _placed(shard: Shard, number: int, due: float | None = None) -> Placed:
    content = b"x" * 100_000
    items = [Item(0, Recipient("b@c.d"))]
    envelope = _envelope(number, len(content))
    return Placed(Entry(shard, envelope, f"lane {shard.number}", 1, items, content), due)


async def _written(submit: Callable[[Callable[[SpoolError | None], None]], None]) -> bool:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    submit(done.set_result)
    return await asyncio.wait_for(done, 30) is None


async def test_a_damaged_page_keeps_up_no_other_write(tmp_path: Path) -> None:
    shard = Shard.claim(tmp_path, 1, "")
    entries = [_placed(shard, number) for number in (1, 2)]
    for placed in entries:
        assert await _written(lambda done, p=placed: shard.append([p], [], done))  # type: ignore[misc]
    await shard.drain()
    shard.close()
    path = tmp_path / "0001.db"
    data = bytearray(path.read_bytes())
    # The pages of a long content begin with the number of the next one.
    for page in range(1, len(data) // 8192):
        if data[page * 8192 + 4 : page * 8192 + 8192] == b"x" * 8188:
            data[page * 8192 : page * 8192 + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    shard = Shard.claim(tmp_path, 1, "")
    try:
        damaged, whole = entries[0].entry, _placed(shard, 3)
        results = await asyncio.gather(
            _written(lambda done: shard.settle(Settlement(damaged, done=damaged.items), done)),
            _written(lambda done: shard.append([whole], [], done)),
        )
        assert results[1]
        assert shard.failure is None
        settled = Settlement(whole.entry, done=whole.entry.items)
        assert await _written(lambda done: shard.settle(settled, done))
    finally:
        shard.close()


async def test_a_damaged_shard_keeps_up_no_mail_in_the_others(tmp_path: Path) -> None:
    for number in (1, 2):
        shard = Shard.claim(tmp_path, number, "")
        placed = _placed(shard, number, due=NOW - 10)
        assert await _written(lambda done, p=placed, s=shard: s.append([p], [], done))  # type: ignore[misc]
        shard.close()
    size = (tmp_path / "0001.db").stat().st_size
    with (tmp_path / "0001.db").open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (size - 8192))
    shards = [Shard.claim(tmp_path, number, "") for number in (1, 2)]
    told: list[tuple[str, int]] = []
    alarm = AlarmClock(lambda lane, priority: told.append((lane, priority)), lambda: NOW)
    try:
        alarm.adopt(shards)
        assert told == [("lane 2", 1)]
    finally:
        alarm.stop()
        for shard in shards:
            shard.close()


async def test_a_lane_that_cannot_be_read_keeps_up_no_other(tmp_path: Path) -> None:
    shards = [Shard.claim(tmp_path, number, "") for number in (1, 2)]
    for shard in shards:
        placed = _placed(shard, shard.number, due=NOW - 10)
        assert await _written(lambda done, p=placed, s=shard: s.append([p], [], done))  # type: ignore[misc]
    told: list[str] = []

    def due(lane: str, priority: int) -> None:
        told.append(lane)
        raise OSError(lane)

    alarm = AlarmClock(due, lambda: NOW)
    try:
        alarm.adopt(shards)
        assert sorted(told) == ["lane 1", "lane 2"]
        alarm.look_again()
        assert sorted(told) == ["lane 1", "lane 1", "lane 2", "lane 2"]
    finally:
        alarm.stop()
        for shard in shards:
            shard.close()
