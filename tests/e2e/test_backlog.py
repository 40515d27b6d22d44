"""Very many messages that wait for one slow domain, and mail for others beside them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.spool import queue_id
from gateway.spool.shard_file import open_database
from gateway.testing import FakeDns, NextHop
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, MakeGateway

DebianProgram = Callable[[str], Path]

SHARDS = 4
CONTENT = b"Subject: late\r\n\r\n" + b"x" * 400 + b"\r\n"


def fill(folder: Path, number: int, messages: int, spread: float) -> None:
    """A shard with deferred mail, all of which becomes due within so many seconds."""
    db = open_database(folder / f"{number:04d}.db")
    now = time.time()
    first = queue_id.make(now - 3600, number, 0)
    step = queue_id.make(now - 3600, number, first) - first
    with db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i+1<?1)"
            " INSERT INTO messages SELECT ?2+i*?3, ?2+i*?3, ?4, 'a@example.com', 'default', ?5, ?6,"
            ' \'{"address": "127.0.0.1"}\', ?7 FROM n',
            (messages, first, step, now - 3600, len(CONTENT), zlib.crc32(CONTENT), CONTENT),
        )
        db.execute(
            "INSERT INTO deliveries (id,number,copy,lane,priority,recipient,due,attempts,reply)"
            " SELECT id, 0, copy, 'slow.example', 1, 'r@slow.example',"
            " ?1 + ?2 * ((id / ?3) % 1000) / 1000.0, 1, '451 later' FROM messages",
            (now, spread, step),
        )
    db.close()


def memory(pid: int) -> float:
    """The resident memory of a process that belongs to it alone, in MiB."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return (int(fields["RssAnon"].split()[0])) / 1024


@pytest.mark.timeout(400)
async def test_a_million_deferred_messages_disturb_nobody(
    make_gateway: MakeGateway, debian_program: DebianProgram, scale: Scale
) -> None:
    source = debian_program("smtp-source")
    messages, spread = scale((25_000, 200.0), (250_000, 600.0))
    quick, most = scale(1000, 3000), scale(100, 300)
    zones = {
        "slow.example": {"MX": ["10 mx.slow.example."]},
        "fast.example": {"MX": ["10 mx.fast.example."]},
        "mx.slow.example": {"A": ["127.0.0.7"]},
        "mx.fast.example": {"A": ["127.0.0.8"]},
    }
    async with (
        FakeDns(zones) as dns,
        NextHop(host="127.0.0.7", mail="451 4.3.2 Later") as slow,
    ):
        port = int(slow.address.rpartition(":")[2])
        async with NextHop(host="127.0.0.8", port=port) as fast:
            gateway = make_gateway(
                "",
                f"relay: {{mx_port: {port}, idle: 2s, tls: {{level: none}}}}\n"
                f"dns: {{nameservers: ['{dns.address}'], loopback: true}}\n",
                workers=SHARDS,
            )
            gateway.spool.mkdir(mode=0o700)
            try:
                filling = (
                    asyncio.to_thread(fill, gateway.spool, number, messages, spread)
                    for number in range(1, SHARDS + 1)
                )
                await asyncio.gather(*filling)
                started = time.monotonic()
                await asyncio.to_thread(gateway.start)
                assert time.monotonic() - started < 30
                await asyncio.to_thread(submit, source, gateway.port, quick)
                await fast.wait(quick, DEADLINE)
                while len(slow.commands) < 5000:
                    await asyncio.sleep(0.05)
                pids = await asyncio.to_thread(gateway.pids)
                used = {name: memory(pid) for name, pid in pids.items()}
                assert max(used.values()) < most, used
                await asyncio.to_thread(gateway.kill)
            finally:
                shutil.rmtree(gateway.spool, ignore_errors=True)


def submit(source: Path, port: int, count: int) -> None:
    """Sends mail for the quick domain."""
    command = [str(source), "-s", "10", "-m", str(count), "-f", "a@example.com"]
    command += ["-t", "r@fast.example", f"127.0.0.1:{port}"]
    subprocess.run(command, check=True, timeout=DEADLINE)
