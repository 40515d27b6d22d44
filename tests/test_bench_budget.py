"""The budget of work for a message: what is compared, and that real work is counted alike."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import budget
from bench.budget import CALLS_MARGIN, CPU_MARGIN, FILE, Budget, Cost, Line, compare, table
from bench.error import BenchError
from bench.jobs import JOBS, Job

ROOT = Path(__file__).parent.parent
RECORDED = Budget({"3.11": {"relay": 800.0}}, {"relay": 2.0})


class Counting(Job):
    """Calls so many functions for each message."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    async def run(self, messages: int, done: Callable[[], None]) -> None:
        for _ in range(messages):
            for _ in range(self.calls):
                os.getpid()
            done()


class Sleeping(Job):
    """Takes long, and next to no CPU time."""

    async def run(self, messages: int, done: Callable[[], None]) -> None:
        for _ in range(messages):
            await asyncio.sleep(0.001)
            done()


class TestCompare:
    def lines(self, calls: float, cpu: float, python: str = "3.11") -> list[Line]:
        return compare({"relay": Cost(calls, cpu)}, RECORDED, python)

    def test_what_is_as_recorded_is_well(self) -> None:
        assert [line.too_much for line in self.lines(800, 2.0)] == [False, False]

    @pytest.mark.parametrize(
        ("calls", "cpu", "too_much"),
        [
            (839, 2.0, [False, False]),
            (841, 2.0, [True, False]),
            (800, 2.0 * (1 + CPU_MARGIN / 100) - 0.01, [False, False]),
            (800, 2.0 * (1 + CPU_MARGIN / 100) + 0.01, [False, True]),
            (100, 0.1, [False, False]),
        ],
    )
    def test_margins(self, calls: float, cpu: float, too_much: list[bool]) -> None:
        assert [line.too_much for line in self.lines(calls, cpu)] == too_much

    def test_calls_of_another_python_are_not_compared(self) -> None:
        calls, cpu = self.lines(9000, 9.0, "3.99")
        assert calls.recorded is None
        assert not calls.too_much
        assert calls.cells()[-1] == "not recorded"
        assert cpu.too_much

    def test_the_table_says_what_to_do(self) -> None:
        text = table([*self.lines(900, 2.1), *self.lines(400, 2.0)])
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert lines == [
            "one message now recorded change verdict",
            "relay: calls 900.00 800.00 +12.5 % TOO MUCH (up to +5 %)",
            f"relay: CPU units 2.10 2.00 +5.0 % ok (up to +{CPU_MARGIN:.0f} %)",
            "relay: calls 400.00 800.00 -50.0 % less: renew (up to +5 %)",
            f"relay: CPU units 2.00 2.00 +0.0 % ok (up to +{CPU_MARGIN:.0f} %)",
        ]

    @given(st.floats(1, 1e6), st.floats(0.01, 100))
    def test_a_renewed_budget_is_just_filled(self, calls: float, cpu: float) -> None:
        costs = {"relay": Cost(calls, cpu), "dkim": Cost(calls / 2, cpu * 2)}
        renewed = RECORDED.renewed("3.12", costs)
        assert renewed.calls["3.11"] == RECORDED.calls["3.11"]
        assert not any(line.too_much for line in compare(costs, renewed, "3.12"))
        assert renewed.holds({"relay": cpu})
        assert not renewed.holds({"relay": 3 * cpu + 1})


class TestRecord:
    def test_written_and_read(self, tmp_path: Path) -> None:
        assert Budget.read(tmp_path / "none.json") == Budget({}, {})
        RECORDED.write(tmp_path / "budget.json")
        assert Budget.read(tmp_path / "budget.json") == RECORDED

    def test_ours_has_all_jobs_for_all_pythons(self) -> None:
        ours = Budget.read(FILE)
        assert set(ours.cpu) == set(JOBS)
        assert set(ours.calls) == {"3.11", "3.12", "3.13"}
        assert all(set(calls) == set(JOBS) for calls in ours.calls.values())


class TestMeters:
    async def test_calls_are_counted_exactly(self) -> None:
        few, many = await budget._counted(Counting(10)), await budget._counted(Counting(110))
        assert many - few == 100
        assert sys.getprofile() is None

    async def test_calls_of_a_job_that_fails_are_counted_no_more(self) -> None:
        class Broken(Job):
            async def run(self, messages: int, done: Callable[[], None]) -> None:
                raise BenchError("broken")

        with pytest.raises(BenchError):
            await budget._counted(Broken())
        assert sys.getprofile() is None

    async def test_cpu_time_is_not_the_time_that_passes(self) -> None:
        cpu = await budget._timed({"busy": Counting(20_000), "idle": Sleeping()}, 1, lambda _: True)
        assert cpu["busy"] > 4 * cpu["idle"]

    async def test_it_goes_on_until_there_is_enough(self) -> None:
        asked = 0

        def enough(_: object) -> bool:
            nonlocal asked
            asked += 1
            return asked == 3

        await budget._timed({"busy": Counting(10)}, 1, enough)
        assert asked == 3


def test_the_same_work_is_counted_each_time_and_more_is_found(tmp_path: Path) -> None:
    """Real jobs in a process of their own, against a record, and against one of less work."""
    file = tmp_path / "budget.json"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench.budget", "--file", file, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    renewed = run("--renew")
    assert renewed.returncode == 0, renewed.stderr
    recorded = json.loads(file.read_text())
    [calls] = recorded["calls"].values()
    assert set(calls) == set(recorded["cpu"]) == set(JOBS)
    calls["relay"] = round(calls["relay"] / (1 + 2 * CALLS_MARGIN / 100))
    # A machine that is busy now and was not then must not fail this test.
    recorded["cpu"] = dict.fromkeys(JOBS, 100.0)
    file.write_text(json.dumps(recorded))
    result = run()
    assert result.returncode == 1, result.stdout
    assert "A message costs more than it did" in result.stderr
    verdicts = {line.split("  ")[0]: "TOO MUCH" in line for line in result.stdout.splitlines()}
    assert verdicts == {
        "one message": False,
        **{f"{name}: {what}": False for name in JOBS for what in ("calls", "CPU units")},
        "relay: calls": True,
    }
