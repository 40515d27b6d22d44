"""All processes' numbers in one text."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.metrics import scrape
from gateway.metrics.readings import Readings
from gateway.metrics.scrape import Scrape
from gateway.metrics.spool_survey import SpoolSurvey
from gateway.metrics.workers import Workers
from gateway.process.control import ControlServer
from tests.metrics.text import Told

ALIVE = os.getpid()


class Worker:
    """A worker with one number, which says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.seconds = 0.0
        self.junk = False

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked == {"command": "metrics"}
        self.asked += 1
        await asyncio.sleep(self.seconds)
        readings = Readings()
        readings.put("gateway_smtp_sessions", self.asked)
        return {"readings": "junk" if self.junk else readings.to_json()}


@asynccontextmanager
async def working(folder: Path, index: int = 0) -> AsyncIterator[Worker]:
    worker = Worker()
    server = ControlServer(folder / f"worker-{index}-{ALIVE}.sock", worker.answer)
    await server.start()
    try:
        yield worker
    finally:
        await server.close()


def _own(readings: Readings) -> None:
    readings.put("process_max_fds", 7)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Scrape] = []

    def make(count: int, own: Any = _own) -> Scrape:
        made.append(Scrape(Workers(tmp_path, count), own, SpoolSurvey(tmp_path, 0, ())))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def test_every_process_tells(tmp_path: Path, make: Any) -> None:
    async with working(tmp_path, 0), working(tmp_path, 1):
        told = Told(await make(2).text())
    for process in ("worker-0", "worker-1"):
        assert told.sum("gateway_smtp_sessions", process=process) == 1
        assert told.sum("gateway_up", process=process) == 1
        assert told.sum("gateway_scrape_failures_total", process=process) == 0
        assert told.sum("gateway_scrape_seconds", process=process) > 0
    assert told.sum("process_max_fds", process="service") == 7
    assert told.sum("gateway_up", process="service") == 1
    assert told.sum("gateway_queue_recipients", process="service") == 0
    assert told.sum("gateway_scrape_failures_total", process="service") == 0


async def test_who_does_not_answer_is_missing(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "TIMEOUT", 0.2)
    monkeypatch.setattr(scrape, "FRESH", 0.0)
    async with working(tmp_path, 0), working(tmp_path, 1) as slow, working(tmp_path, 2) as odd:
        slow.seconds = 60.0
        odd.junk = True
        one = make(4)
        for times in (1, 2):
            started = time.monotonic()
            told = Told(await one.text())
            assert time.monotonic() - started < 30
            assert told.sum("gateway_up", process="worker-0") == 1
            for process in ("worker-1", "worker-2", "worker-3"):
                assert told.sum("gateway_up", process=process) == 0
                assert told.sum("gateway_scrape_failures_total", process=process) == times
                with pytest.raises(KeyError):
                    told.sum("gateway_smtp_sessions", process=process)
        slow.seconds = 0.0
        told = Told(await one.text())
        assert told.sum("gateway_up", process="worker-1") == 1
        assert told.sum("gateway_scrape_failures_total", process="worker-1") == 2


async def test_a_spool_that_cannot_be_read_is_counted(tmp_path: Path, make: Any) -> None:
    (tmp_path / "0001.db").mkdir()
    told = Told(await make(0).text())
    assert told.sum("gateway_scrape_failures_total", process="service") == 1
    assert "gateway_queue_recipients" not in told.samples


async def test_all_who_ask_at_the_same_time_get_one_answer(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as worker:
        one = make(1)
        texts = await asyncio.gather(*[one.text() for _ in range(20)])
        assert len(set(texts)) == 1
        await one.text()
        assert worker.asked == 1
        monkeypatch.setattr(scrape, "FRESH", 0.0)
        one._fresh_until = 0.0
        await one.text()
        assert worker.asked == 2


async def test_who_goes_away_takes_nobodys_answer(tmp_path: Path, make: Any) -> None:
    async with working(tmp_path) as worker:
        worker.seconds = 0.2
        one = make(1)
        first, second = asyncio.create_task(one.text()), asyncio.create_task(one.text())
        while not worker.asked:
            await asyncio.sleep(0)
        first.cancel()
        assert Told(await second).sum("gateway_up", process="worker-0") == 1
        assert worker.asked == 1
        assert first.cancelled()


async def test_a_defect_does_not_stay(tmp_path: Path, make: Any) -> None:
    broken = [True]

    def own(readings: Readings) -> None:
        if broken:
            raise RuntimeError("a defect")

    one = make(0, own)
    with pytest.raises(RuntimeError, match="a defect"):
        await one.text()
    broken.clear()
    assert Told(await one.text()).sum("gateway_up") == 1
