"""Kinds of damage to a shard's file that SQLite does not get over, and shards to do it to."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gateway.spool.shard_file import PAGE_SIZE, open_database
from tests.faults.queue_file import write_queue

Damage = Callable[[bytearray, random.Random], None]


def no_header(octets: bytearray, chance: random.Random) -> None:
    """The first page is zeroed."""
    octets[:PAGE_SIZE] = bytes(PAGE_SIZE)


def random_pages(octets: bytearray, chance: random.Random) -> None:
    """Every tenth page is overwritten, wherever it is."""
    count = len(octets) // PAGE_SIZE
    for number in chance.sample(range(count), max(1, count // 10)):
        octets[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] = chance.randbytes(PAGE_SIZE)


def page_headers(octets: bytearray, chance: random.Random) -> None:
    """Some pages lose their beginning."""
    for number in chance.sample(range(1, len(octets) // PAGE_SIZE), 5):
        octets[number * PAGE_SIZE : number * PAGE_SIZE + 64] = b"\xa5" * 64


def cut_at_a_third(octets: bytearray, chance: random.Random) -> None:
    """Two thirds of the file are gone."""
    del octets[len(octets) // 3 :]


def cut_at_two_thirds(octets: bytearray, chance: random.Random) -> None:
    """The last third of the file is gone."""
    del octets[len(octets) * 2 // 3 :]


def no_header_and_flipped_bits(octets: bytearray, chance: random.Random) -> None:
    """The first page is zeroed, and everywhere a few bits are wrong."""
    no_header(octets, chance)
    for _ in range(50):
        octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)


KINDS: tuple[Damage, ...] = (
    no_header,
    random_pages,
    page_headers,
    cut_at_a_third,
    cut_at_two_thirds,
    no_header_and_flipped_bits,
)


def hurt(path: Path, damage: Damage, seed: int = 0) -> None:
    """Damages a file."""
    octets = bytearray(path.read_bytes())
    damage(octets, random.Random(seed))
    path.write_bytes(octets)


def write_logged_queue(folder: Path, shard: int, numbers: range, size: int = 400) -> dict[int, str]:
    """As `write_queue`, but the second half is in the log only, as after a kill."""
    middle = (numbers.start + numbers.stop) // 2
    source = folder.parent / f"{folder.name}-source"
    ids = write_queue(source, shard, range(numbers.start, middle), lambda number: None, size)
    path = source / f"{shard:04d}.db"
    # Who closes last puts the log into the database.
    with closing(open_database(path)):
        for start in range(middle, numbers.stop, 10):
            part = range(start, min(start + 10, numbers.stop))
            ids |= write_queue(source, shard, part, lambda number: 5.0, size)
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in (path.name, f"{path.name}-wal"):
            shutil.copyfile(source / name, folder / name)
    shutil.rmtree(source)
    return ids
