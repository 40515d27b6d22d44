"""Whether everybody is well, asked over real sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.metrics import roll_call
from gateway.metrics.roll_call import RollCall
from gateway.metrics.workers import Workers
from gateway.process.control import ControlServer
from gateway.web.health import Health, OpenBreaker, Report

ALIVE = os.getpid()


@dataclass
class Worker:
    """A worker that says what a test has it say."""

    report: Any
    asked: int = 0

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked == {"command": "health"}
        self.asked += 1
        await asyncio.sleep(0)
        return {"report": self.report}


@asynccontextmanager
async def working(folder: Path, index: int = 0) -> AsyncIterator[Worker]:
    worker = Worker(Report().to_json())
    server = ControlServer(folder / f"worker-{index}-{ALIVE}.sock", worker.answer)
    await server.start()
    try:
        yield worker
    finally:
        await server.close()


def _roll_call(
    folder: Path, workers: int = 1, own: Report | None = None, reserve: int = 0
) -> RollCall:
    return RollCall(Workers(folder, workers), lambda: own or Report(), folder, reserve)


async def test_all_are_well(tmp_path: Path) -> None:
    async with working(tmp_path, 0), working(tmp_path, 1):
        roll = _roll_call(tmp_path, 2)
        await roll.call()
        assert roll.health == Health()


async def test_what_a_worker_reports(tmp_path: Path) -> None:
    async with working(tmp_path) as worker:
        roll = _roll_call(tmp_path)
        worker.report = Report("full").to_json()
        await roll.call()
        assert roll.health.problems == {
            "worker-0": "cannot write mail to the disk: the disk is full"
        }
        worker.report = Report().to_json()
        await roll.call()
        assert roll.health == Health()


async def test_shards_that_workers_cannot_read(tmp_path: Path) -> None:
    async with working(tmp_path, 0) as one, working(tmp_path, 1) as other:
        roll = _roll_call(tmp_path, 2)
        one.report, other.report = Report(left=(3, 4)).to_json(), Report(left=(4,)).to_json()
        await roll.call()
        assert roll.left == {3, 4}
        assert list(roll.health.problems) == ["0003.db", "0004.db"]
        one.report = other.report = Report().to_json()
        await roll.call()
        assert (roll.left, roll.health) == (frozenset(), Health())


async def test_what_the_service_reports(tmp_path: Path) -> None:
    own = Report(breakers=(OpenBreaker("report", "observe raised KeyError: x", 1.0, "tempfail"),))
    async with working(tmp_path):
        roll = _roll_call(tmp_path, own=own)
        await roll.call()
        assert list(roll.health.flaws) == ["plugin report"]
        assert roll.health.status == 200


async def test_who_is_silent_for_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with working(tmp_path, 0):
        roll = _roll_call(tmp_path, 2)
        await roll.call()
        # It may be being started again.
        assert roll.health == Health()
        monkeypatch.setattr(roll_call, "SILENCE", 0.0)
        await roll.call()
        assert roll.health.problems == {"worker-1": "has not answered for 0 s"}
        async with working(tmp_path, 1):
            await roll.call()
            assert roll.health == Health()


async def test_a_report_that_makes_no_sense_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(tmp_path) as worker:
        worker.report = {"storage": 1}
        roll = _roll_call(tmp_path)
        monkeypatch.setattr(roll_call, "SILENCE", 0.0)
        await roll.call()
        assert list(roll.health.problems) == ["worker-0"]
        assert "worker-0: how it is cannot be read" in caplog.text


async def test_a_worker_that_ends_is_heard_but_not_missed(tmp_path: Path) -> None:
    """A reload has fewer workers; the last of the old ones is still at work."""
    async with working(tmp_path, 0), working(tmp_path, 1) as old:
        old.report = Report("failed").to_json()
        roll = _roll_call(tmp_path)
        await roll.call()
        assert list(roll.health.problems) == ["worker-1-old"]


async def test_a_disk_without_room(tmp_path: Path) -> None:
    async with working(tmp_path):
        status = os.statvfs(tmp_path)
        roll = _roll_call(tmp_path, reserve=status.f_blocks * status.f_frsize * 2)
        await roll.call()
        assert roll.health.problems == {
            "spool": "less than spool.reserve is free on the disk: mail is refused for now"
        }


async def test_a_spool_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roll = _roll_call(tmp_path / "missing", workers=0)
    await roll.call()
    assert roll.health == Health()
    monkeypatch.setattr(roll_call, "SILENCE", 0.0)
    await roll.call()
    assert roll.health.problems == {"spool": "cannot be looked at: No such file or directory"}


async def test_the_roll_is_called_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(roll_call, "PERIOD", 0.01)
    reports: list[Report | Exception] = [RuntimeError("a defect")]

    def own() -> Report:
        report = reports.pop() if reports else Report()
        if isinstance(report, Exception):
            raise report
        return report

    async with working(tmp_path) as worker:
        roll = RollCall(Workers(tmp_path, 1), own, tmp_path, 0)
        seen: list[Health] = []
        calling = asyncio.create_task(roll.run())
        async with asyncio.timeout(60):
            while worker.asked < 5 or roll.health.problems:
                if roll.health not in seen:
                    seen.append(roll.health)
                await asyncio.sleep(0)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    # A defect of ours is red, not silent; and it does not end the watch.
    assert Health({"service": "RuntimeError; see the log"}) in seen
    assert "nobody can be asked how they are" in caplog.text
    assert roll.health == Health()
