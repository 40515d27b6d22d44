"""Row 5: entries that are damaged on disk wait for a person; all others are delivered."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.spool import queue_id
from gateway.testing import NextHop
from tests.e2e.conftest import DEADLINE, MakeGateway, free_port, until
from tests.faults.conftest import Scale
from tests.faults.figures import Figures
from tests.faults.health import Health
from tests.faults.queue_file import write_queue
from tests.faults.traffic import numbers
from tests.metrics.text import Told

SHARDS = 2


def _flip(data: bytearray, pattern: bytes, bits: range, chance: random.Random) -> None:
    """Flips one of those bits in the only group of a pattern, in the text that the database has."""
    bit = chance.choice(bits)
    # Pages keep what was in them before: all copies are damaged, one of which is in use.
    matches = list(re.finditer(pattern, data, re.DOTALL))
    assert matches, pattern
    at = chance.randrange(len(matches[0][1]))
    for match in matches:
        data[match.start(1) + at] ^= 1 << bit


def _damage(
    spool: Path, victims: Iterable[tuple[int, int]], bits: range, chance: random.Random
) -> None:
    """Damages entries, given with their shards: contents, recipients, and what is beside them."""
    files = {
        shard: bytearray((spool / f"{shard:04d}.db").read_bytes()) for shard in range(1, SHARDS + 1)
    }
    for place, (number, shard) in enumerate(victims):
        text = f"{number:07d}".encode()
        # The message comes first in the file's cells: size, checksum, envelope, content.
        patterns = (
            rb"body of " + text + rb" body( of) " + text,
            rb"(r" + text + rb"@example\.net)",
            rb'\{"address": "(127\.0\.0\.1)", "crc32": \d+\}Subject: number ' + b"%d\r" % number,
            rb'(a@example\.com)default.{0,20}\{"address": "127\.0\.0\.1", "crc32": \d+\}'
            rb"Subject: number " + b"%d\r" % number,
        )
        _flip(files[shard], patterns[place % len(patterns)], bits, chance)
    for shard, data in files.items():
        (spool / f"{shard:04d}.db").write_bytes(data)


def _truncate(spool: Path, victims: Iterable[tuple[str, int]]) -> None:
    """Cuts the contents of entries, given by queue id with their shards, in half."""
    for id_, shard in victims:
        with closing(apsw.Connection(os.fspath(spool / f"{shard:04d}.db"))) as db:
            db.execute(
                "UPDATE messages SET content=CAST(substr(content, 1, size/2) AS BLOB) WHERE id=?",
                (queue_id.from_text(id_),),
            )


@pytest.mark.parametrize(
    "bits",
    [
        pytest.param(range(7), id="text"),
        pytest.param(range(7, 8), id="no-text"),
    ],
)
async def test_damaged_entries_wait_for_a_person(
    make_gateway: MakeGateway, scale: Scale, figures: Figures, bits: range
) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")  # noqa: T201 (shown if the test fails)
    chance = random.Random(seed)
    count, damaged = scale(1_000, 10_000), scale(20, 100)
    async with NextHop() as hop:
        port = free_port()
        http = f"http: {{address: '127.0.0.1:{port}'}}"
        gateway = make_gateway(hop.address, http, workers=2)
        ids: dict[int, str] = {}
        for shard in range(1, SHARDS + 1):
            part = range((shard - 1) * count // SHARDS, shard * count // SHARDS)
            ids |= write_queue(gateway.spool, shard, part, lambda number: None)
        victims = chance.sample(sorted(ids), damaged)
        placed = [(number, 1 + number * SHARDS // count) for number in victims]
        cut = damaged // 5
        _truncate(gateway.spool, [(ids[number], shard) for number, shard in placed[:cut]])
        _damage(gateway.spool, placed[cut:], bits, chance)
        await asyncio.to_thread(gateway.start)
        pids = await asyncio.to_thread(gateway.pids)
        await hop.wait(count - damaged, DEADLINE)

        def only_damaged() -> bool:
            return {row["state"] for row in gateway.queue()} == {"held"}

        await asyncio.to_thread(until, only_damaged, "the damaged to be held")
        held = await asyncio.to_thread(gateway.queue, "--state", "held")
        assert {row["id"] for row in held} == {ids[number] for number in victims}
        assert all(row["held"].startswith("damaged on disk: ") for row in held)

        def told() -> Told | None:
            """The queue is counted now and then."""
            read = _metrics(port)
            count = read.sum("gateway_queue_held_recipients", holder="damaged")
            return read if count == damaged else None

        metrics = await asyncio.to_thread(until, told, "the metrics to tell of the damaged")
        assert metrics.sum("gateway_queue_held_recipients") == damaged
        assert metrics.sum("gateway_spool_unreadable_shards") == 0
        arrived = numbers(hop.messages)
        assert arrived.keys() == ids.keys() - set(victims)
        assert set(arrived.values()) == {1}
        for message in hop.messages:
            (number,) = numbers([message])
            assert message.sender == "a@example.com"
            assert [to for to, _ in message.recipients] == [f"r{number:07d}@example.net"]
        # New mail passes, and no process has ended.
        await asyncio.to_thread(gateway.submit, "number 9999999")
        await hop.wait(count - damaged + 1, DEADLINE)
        assert await asyncio.to_thread(gateway.pids) == pids
        # A person can drop them.
        await asyncio.to_thread(gateway.command, "queue", "drop", "--all", "--yes")
        await asyncio.to_thread(gateway.wait_empty)
        assert await asyncio.to_thread(gateway.stop) == 0
    figures(5, entries=count, damaged=damaged, held=len(held), delivered=len(arrived))


def _metrics(port: int) -> Told:
    address = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(address, timeout=DEADLINE) as answer:
        return Told(answer.read())


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 8192):
            file.seek(page * 8192)
            file.write(b"\xa5" * 64)


@pytest.mark.parametrize("hurt", [_cut, _overwrite])
async def test_a_shard_that_cannot_be_read_is_left_as_it_is(
    make_gateway: MakeGateway, hurt: Callable[[Path], None]
) -> None:
    """A person may save what is in it; the others work, and `/health` says so."""
    async with NextHop() as hop:
        with Health() as health:
            gateway = make_gateway(hop.address, health.configuration, workers=2)
            write_queue(gateway.spool, 1, range(200), lambda number: None)
            whole = write_queue(gateway.spool, 2, range(200, 400), lambda number: None)
            damaged = gateway.spool / "0001.db"
            hurt(damaged)
            octets = damaged.read_bytes()
            await asyncio.to_thread(gateway.start)
            await asyncio.to_thread(gateway.submit, "number 9999999")
            await hop.wait(len(whole) + 1, DEADLINE)
            await asyncio.to_thread(health.seen, 503, time.monotonic())
            assert list(health.last["problems"]) == ["0001.db"]
            assert "waits for a person: gateway doctor" in health.last["problems"]["0001.db"]

            def told() -> Told | None:
                read = _metrics(health.port)
                return read if read.sum("gateway_spool_unreadable_shards") else None

            metrics = await asyncio.to_thread(until, told, "the metrics to tell of the shard")
            assert metrics.sum("gateway_spool_unreadable_shards") == 1
            # What can be read is told all the same.
            assert metrics.sum("gateway_spool_bytes") > 0
            doctor = await asyncio.to_thread(
                gateway.command, "doctor", "--only", "shards", "--no-dns", status=1
            )
            assert "gateway queue salvage 0001 saves what is whole in it" in doctor
            assert await asyncio.to_thread(gateway.stop) == 0
    assert numbers(hop.messages).keys() == {*whole, 9999999}
    assert "shard 0001 is left for a person" in gateway.log
    assert damaged.read_bytes() == octets
