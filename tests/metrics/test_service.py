"""What the service process tells of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.hooks.chain import Chain
from gateway.hooks.watchdog import Watchdog
from gateway.metrics.service import ServiceMetrics
from gateway.spool.spool import Spool
from tests.assembly import configure, until
from tests.metrics.text import Told


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    """That of the service process, which has no mail."""
    spool = Spool(tmp_path / "spool", "service-1", 0)
    spool.open(new=True)
    yield spool
    spool.close()


async def test_a_disk_that_takes_no_events(tmp_path: Path, spool: Spool) -> None:
    config = configure(tmp_path, "relay: {via: ['127.0.0.1:1']}\nworkers: 1")
    metrics = ServiceMetrics(config, Chain((), Watchdog()), spool)
    try:
        assert Told(await metrics.text()).sum("gateway_spool_failed", process="service") == 0
        spool.home.failure = "the disk is gone"
        metrics.start()
        await until(lambda: metrics.health().flaws, "the flaw")
        assert metrics.health().flaws == {"service": "cannot write events to the disk: see the log"}
        spool.home.failure = None
        await until(lambda: not metrics.health().flaws, "that it is well again")
    finally:
        spool.home.failure = None
        metrics.close()


async def test_shards_that_cannot_be_read(tmp_path: Path, spool: Spool) -> None:
    config = configure(tmp_path, "relay: {via: ['127.0.0.1:1']}")
    (spool.folder / "0007.db").write_bytes(b"no database" * 1000)
    metrics = ServiceMetrics(config, Chain((), Watchdog()), spool)
    told = Told(await metrics.text())
    assert told.sum("gateway_spool_unreadable_shards", process="service") == 1
    metrics.close()
