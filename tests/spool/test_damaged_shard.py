"""What is found in a damaged shard is what was written, and nothing else."""

from __future__ import annotations

import asyncio
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.large_content import Pieces
from gateway.mail.message import Client, Recipient
from gateway.spool import queue_id
from gateway.spool.damaged_shard import DamagedShard, FoundMessage
from gateway.spool.queue_entry import (
    Entry,
    Envelope,
    Item,
    Placed,
    envelope_of,
    has_checksum,
    item_of,
)
from gateway.spool.shard import Shard
from gateway.spool.shard_file import PAGE_SIZE, SpoolError, open_database
from tests.faults.queue_file import content_of, write_queue
from tests.spool.damage import KINDS, Damage, hurt, no_header, write_logged_queue


def _found(path: Path) -> list[FoundMessage]:
    with DamagedShard(path) as shard:
        shard.find()
        found = list(shard.messages())
        assert shard.count <= len(found)
        return found


def _check(message: FoundMessage, ids: dict[int, str], size: int) -> int | None:
    """What was found as whole is what was written; returns the number of a whole message."""
    assert len(message.deliveries) <= 1
    texts = {text: number for number, text in ids.items()}
    number = texts.get(queue_id.to_text(message.id))
    if message.envelope is not None:
        assert number is not None
        assert message.envelope.sender == "a@example.com"
        assert message.envelope.client == Client("127.0.0.1")
        if message.content is not None:
            assert message.content == content_of(number, size)
    if message.envelope is None or message.content is None or not message.deliveries:
        return None
    assert number is not None
    (delivery,) = message.deliveries
    assert delivery.item.recipient.address == f"r{number:07d}@example.net"
    return number


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("size", [400, 20_000])
def test_a_whole_file(tmp_path: Path, logged: bool, size: int) -> None:
    write = write_logged_queue if logged else _write
    ids = write(tmp_path / "spool", 1, range(200), size)
    with DamagedShard(tmp_path / "spool" / "0001.db") as shard:
        shard.find()
        assert (shard.lost_pages, shard.lost_rows) == (0, 0)
        found = list(shard.messages())
        assert [_check(message, ids, size) for message in found] == list(range(200))
        rows = [row for message in found for row in message.deliveries]
        assert {(row.lane, row.priority, row.held) for row in rows} == {("smarthost", 1, None)}
        assert sorted(shard.found_keys()) == [(queue_id.from_text(ids[n]), 0) for n in range(200)]


def _write(folder: Path, shard: int, numbers: range, size: int) -> dict[int, str]:
    return write_queue(folder, shard, numbers, lambda number: None, size)


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("size", [400, 20_000])
@pytest.mark.parametrize("damage", KINDS)
def test_damage(tmp_path: Path, damage: Damage, size: int, logged: bool) -> None:
    write = write_logged_queue if logged else _write
    ids = write(tmp_path / "spool", 1, range(200), size)
    path = tmp_path / "spool" / "0001.db"
    before = path.read_bytes()
    hurt(path, damage)
    whole = {_check(message, ids, size) for message in _found(path)} - {None}
    if damage is no_header:
        assert len(whole) == 200
    # What SQLite still reads by its key, with the first page and the length as they were.
    octets = path.read_bytes()
    path.write_bytes(before[:PAGE_SIZE] + octets[PAGE_SIZE:].ljust(len(before) - PAGE_SIZE, b"\0"))
    legible = set(_legible(path, ids, size))
    assert legible <= whole
    # Where the page that leads to all others is destroyed, it finds nothing.
    assert bool(legible) == (damage.__name__ not in _NO_WAY[size, logged])


_NO_WAY = {
    (400, False): ("page_headers", "cut_at_a_third"),
    (400, True): (),
    (20_000, False): ("random_pages", "cut_at_a_third"),
    (20_000, True): (),
}


def _legible(path: Path, ids: dict[int, str], size: int) -> Iterator[int]:
    """The numbers of messages that SQLite itself finds in a damaged file, whole."""
    with closing(apsw.Connection(os.fspath(path))) as db:
        for number, text in ids.items():
            key = (queue_id.from_text(text),)
            try:
                *columns, content, checksum = next(iter(db.execute(_MESSAGE, key)))
                envelope_of(key[0], *columns)
                recipient, parameters = next(iter(db.execute(_DELIVERY, key)))
                item_of(0, recipient, parameters, 0)
                if not (has_checksum(columns[-1]) and has_checksum(parameters)):
                    continue
            except (apsw.Error, StopIteration, ValueError, TypeError, LookupError, AttributeError):
                continue  # as in a shard that a worker holds
            if checksum == zlib.crc32(content) and recipient == f"r{number:07d}@example.net":
                yield number


_MESSAGE = (
    "SELECT id, received, sender, stream, size, envelope, content, checksum"
    " FROM messages WHERE copy=?"
)
_DELIVERY = "SELECT recipient, parameters FROM deliveries WHERE id=?"


def test_a_damaged_log_costs_what_is_in_its_damaged_frames(tmp_path: Path) -> None:
    """SQLite itself would forget all that comes behind the first one."""
    ids = write_logged_queue(tmp_path / "spool", 1, range(400), 4000)
    path = tmp_path / "spool" / "0001.db"
    log = path.with_name("0001.db-wal")
    octets = bytearray(log.read_bytes())
    octets[len(octets) // 4] ^= 1
    log.write_bytes(octets)
    whole = {_check(message, ids, 4000) for message in _found(path)} - {None}
    assert len(whole) >= 390
    with closing(apsw.Connection(os.fspath(path))) as db:
        assert db.execute("SELECT count(*) FROM messages").get < 300


@given(st.integers(0), st.integers(0, 7), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_flipped_bits_never_make_other_mail(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, span: int
) -> None:
    path, ids = _sample(tmp_path_factory)
    octets = bytearray(path.read_bytes())
    for place in range(at, at + span * 1013, 1013):
        octets[place % len(octets)] ^= 1 << bit
    hurt_path = path.with_name("0002.db")
    hurt_path.write_bytes(octets)
    for message in _found(hurt_path):
        _check(message, ids, 400)


_samples: dict[str, tuple[Path, dict[int, str]]] = {}


def _sample(factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    if "shard" not in _samples:
        folder = factory.mktemp("sample")
        _samples["shard"] = folder / "0001.db", _write(folder, 1, range(60), 400)
    return _samples["shard"]


@pytest.mark.parametrize("damage", [None, no_header])
def test_what_was_deleted_is_not_found_again(tmp_path: Path, damage: Damage | None) -> None:
    ids = _write(tmp_path, 1, range(1000), 3000)
    path = tmp_path / "0001.db"
    gone = {queue_id.from_text(ids[number]) for number in range(1000) if number % 50}
    with closing(open_database(path)) as db, db:
        db.executemany("DELETE FROM deliveries WHERE id=?", [(id_,) for id_ in gone])
        db.executemany("DELETE FROM messages WHERE id=?", [(id_,) for id_ in gone])
    if damage is not None:
        hurt(path, damage)
    whole = [_check(message, ids, 3000) for message in _found(path)]
    assert whole == list(range(0, 1000, 50))


def test_the_newest_version_of_a_row_counts(tmp_path: Path) -> None:
    """A page that became free, and is not known as such, has rows as they were before."""
    (id_,) = _write(tmp_path, 1, range(1), 400).values()
    path = tmp_path / "0001.db"
    keep = open_database(path)
    with closing(open_database(path)) as db, db:
        db.execute("UPDATE deliveries SET attempts=3, reply='450 Later', held='paused: 1 x'")
    for name in ("0001.db", "0001.db-wal"):
        shutil.copyfile(tmp_path / name, tmp_path / name.replace("0001", "0002"))
    keep.close()
    (message,) = _found(tmp_path / "0002.db")
    (delivery,) = message.deliveries
    assert queue_id.to_text(message.id) == id_
    assert (delivery.item.attempts, delivery.reply) == (3, "450 Later")
    assert delivery.held == "paused: 1 x"
    # Without the log it is what it was.
    (tmp_path / "0002.db-wal").unlink()
    (message,) = _found(tmp_path / "0002.db")
    assert message.deliveries[0].item.attempts == 0


def test_another_message_under_the_same_number(tmp_path: Path) -> None:
    """A bit of a row's number is wrong, and makes it that of another one."""
    path = tmp_path / "0001.db"
    ids = [queue_id.from_text(text) for text in _write(tmp_path, 1, range(2), 400).values()]
    octets = bytearray(path.read_bytes())
    # As a varint the number stands before its row, in the table and nowhere else.
    first, second = map(_varint, ids)
    assert octets.count(second + b"\x0b") == 1
    at = octets.index(second + b"\x0b")
    octets[at : at + 9] = first
    path.write_bytes(octets)
    whole, rest, other = sorted(_found(path), key=lambda one: (one.copy, one.envelope is None))
    assert (whole.copy, whole.content) == (ids[0], content_of(0, 400))
    assert len(whole.deliveries) == 1
    assert (rest.copy, rest.id, rest.envelope) == (ids[0], ids[1], None)
    assert (rest.content, rest.deliveries) == (content_of(1, 400), [])
    assert (other.copy, other.is_there, len(other.deliveries)) == (ids[1], False, 1)


def _varint(number: int) -> bytes:
    """A number of more than 56 bits as SQLite writes it."""
    low = number >> 8
    return bytes([low >> shift & 0x7F | 0x80 for shift in range(49, -1, -7)]) + bytes(
        [number & 255]
    )


# Columns.


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE messages SET sender='b@example.com'", "envelope"),
        ("UPDATE messages SET envelope='{}'", "envelope"),
        ("UPDATE messages SET content=x'00'", "content"),
        ("UPDATE messages SET checksum=5", "content"),
        ("UPDATE deliveries SET recipient='x@example.net'", "recipient"),
        ("UPDATE deliveries SET parameters=NULL", "recipient"),
        ("UPDATE deliveries SET parameters='{}'", "recipient"),
        ("UPDATE deliveries SET id=5", "recipient"),
        ("UPDATE deliveries SET attempts=-5, priority=900, reply=CAST(x'ff' AS TEXT)", "none"),
    ],
)
def test_what_its_checksum_does_not_fit_is_not_whole(
    tmp_path: Path, change: str, problem: str
) -> None:
    _write(tmp_path, 1, range(1), 400)
    with closing(open_database(tmp_path / "0001.db")) as db:
        db.execute(change)
    (message,) = _found(tmp_path / "0001.db")
    assert (message.envelope is None) == (problem == "envelope")
    assert (message.content is None) == (problem == "content")
    assert (not message.deliveries) == (problem == "recipient")
    assert bool(message.damaged) == (problem == "recipient")
    assert bool(b"".join(message.remains())) == (problem == "content")


# Large messages, several copies and recipients.

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 100_000


async def _put(folder: Path, contents: Sequence[bytes]) -> list[int]:
    """One message in several copies, each for two recipients."""
    shard = Shard.claim(folder, 1, "")
    id_ = shard.next_id(1_900_000_000.0)
    placed = []
    for number, content in enumerate(contents):
        copy = shard.next_id(1_900_000_000.0) if number else id_
        envelope = Envelope(id_, copy, 5.0, "a@b.c", "default", len(content), Client("::1"))
        items = [Item(2 * number + one, Recipient(f"{number}.{one}@b.c")) for one in (0, 1)]
        stored = Pieces(content) if len(content) > 1 << 20 else content
        placed.append(Placed(Entry(shard, envelope, "lane", 1, items, stored), due=5.0))
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    shard.append(placed, [], done.set_result)
    assert await done is None
    await shard.drain()
    shard.close()
    return [one.entry.envelope.copy for one in placed]


async def test_copies_and_large_messages(tmp_path: Path) -> None:
    contents = [LARGE, b"Subject: 1\r\n\r\n1\r\n", LARGE[::-1]]
    copies = await _put(tmp_path, contents)
    path = tmp_path / "0001.db"
    hurt(path, no_header)
    with DamagedShard(path) as shard:
        shard.find()
        found = list(shard.messages())
        assert [message.copy for message in found] == copies
        assert {message.id for message in found} == {copies[0]}
        assert [bytes(message.content or b"") for message in found] == contents
        names = [row.item.recipient.address for one in found for row in one.deliveries]
        assert names == [f"{number}.{one}@b.c" for number in range(3) for one in (0, 1)]


async def test_a_large_message_with_a_damaged_part(tmp_path: Path) -> None:
    (copy,) = await _put(tmp_path, [LARGE])
    path = tmp_path / "0001.db"
    octets = bytearray(path.read_bytes())
    at = octets.index(b"0123456789abcdef" * 200, len(octets) // 2)
    octets[at : at + 3] = b"xyz"
    path.write_bytes(octets)
    with DamagedShard(path) as shard:
        shard.find()
        (message,) = shard.messages()
        assert message.copy == copy
        assert message.content is None
        assert len(message.deliveries) == 2
        remains = b"".join(message.remains())
    assert len(remains) == len(LARGE)
    assert remains.count(b"xyz") == 1


def test_a_file_that_is_no_shard(tmp_path: Path) -> None:
    for octets in (b"", b"x", b"no database " * 10_000, bytes(5 * PAGE_SIZE)):
        path = tmp_path / "0001.db"
        path.write_bytes(octets)
        assert _found(path) == []
    with pytest.raises(FileNotFoundError):
        DamagedShard(tmp_path / "0009.db")
