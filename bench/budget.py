"""Says whether a message costs more work than it did: `python -m bench.budget`.

The calls of functions are counted, which no other program disturbs, and the CPU time is measured in
units of fixed work, which takes as much longer on a slow or busy machine as the mail does.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from bench.error import BenchError
from bench.jobs import JOBS, Job
from bench.signature import BITS
from bench.table import aligned

MEMORY = Path("/dev/shm")
FILE = Path(__file__).with_name("budget.json")
PYTHON = ".".join(map(str, sys.version_info[:2]))
CALLS_MARGIN = 5.0
CPU_MARGIN = 50.0
"""Percent by which a message may cost more before the check fails."""

_WARM_UP = 40
_COUNTED = 21
_ROUNDS = 8
_TIMED = 31
_UNITS = 10
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one message costs: calls of functions, and CPU time in units of `Unit`."""

    calls: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What was recorded: the calls by Python's minor version and job, the CPU time by job."""

    calls: Mapping[str, Mapping[str, float]]
    cpu: Mapping[str, float]

    @classmethod
    def read(cls, file: Path) -> Budget:
        """Reads what `write` wrote; an empty one if there is no such file."""
        return cls(**json.loads(file.read_text())) if file.exists() else cls({}, {})

    def write(self, file: Path) -> None:
        """Writes it as JSON."""
        whole = {"calls": self.calls, "cpu": self.cpu}
        file.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")

    def holds(self, cpu: Mapping[str, float]) -> bool:
        """Whether no job takes more CPU time than its record and the margin allow."""
        lines = (Line(name, "", cost, self.cpu.get(name), CPU_MARGIN) for name, cost in cpu.items())
        return not any(line.too_much for line in lines)

    def renewed(self, python: str, costs: Mapping[str, Cost]) -> Budget:
        """The budget that `costs` just fill, for one version of Python; others stay."""
        calls = {name: cost.calls for name, cost in costs.items()}
        cpu = {name: round(cost.cpu, 3) for name, cost in costs.items()}
        return Budget({**self.calls, python: calls}, cpu)


@dataclass(frozen=True, slots=True)
class Line:
    """One figure beside what was recorded for it; `recorded` is None where nothing was."""

    job: str
    what: str
    measured: float
    recorded: float | None
    margin: float

    @property
    def percent(self) -> float:
        """By how much it is more than recorded; 0 without a record."""
        return 100 * (self.measured / self.recorded - 1) if self.recorded else 0.0

    @property
    def too_much(self) -> bool:
        """Whether that is more than the margin."""
        return self.percent > self.margin

    def cells(self) -> list[str]:
        """The line of the table."""
        if self.recorded is None:
            return [f"{self.job}: {self.what}", f"{self.measured:,.2f}", "-", "-", "not recorded"]
        verdict = "TOO MUCH" if self.too_much else "ok"
        if self.percent < -self.margin:
            verdict = "less: renew"
        change = f"{self.percent:+.1f} %"
        return [
            f"{self.job}: {self.what}",
            f"{self.measured:,.2f}",
            f"{self.recorded:,.2f}",
            change,
            f"{verdict} (up to {self.margin:+.0f} %)",
        ]


def compare(costs: Mapping[str, Cost], budget: Budget, python: str) -> list[Line]:
    """Every figure beside its record."""
    calls = budget.calls.get(python, {})
    return [
        line
        for job, cost in costs.items()
        for line in (
            Line(job, "calls", cost.calls, calls.get(job), CALLS_MARGIN),
            Line(job, "CPU units", cost.cpu, budget.cpu.get(job), CPU_MARGIN),
        )
    ]


def table(lines: Sequence[Line]) -> str:
    """The comparison for people."""
    head = ["one message", "now", "recorded", "change", "verdict"]
    return aligned([head, *(line.cells() for line in lines)])


class Unit:
    """A fixed piece of work like that of mail: Python, hashes, a signature, system calls."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
        self._near, self._far = socket.socketpair()
        self._octets = bytes(range(256)) * 16

    def close(self) -> None:
        """Closes its sockets."""
        self._near.close()
        self._far.close()

    def run(self) -> None:
        """Does it once: some half a millisecond."""
        fields: dict[str, tuple[int, bytes]] = {}
        for number in range(600):
            name = f"field-{number % 50}"
            count, _ = fields.get(name, (0, b""))
            fields[name.lower()] = (count + 1, self._octets[number : number + 60].strip())
        for _ in range(10):
            self._near.send(self._octets)
            self._far.recv(len(self._octets))
        hashlib.sha256(self._octets).digest()
        self._key.sign(self._octets, padding.PKCS1v15(), hashes.SHA256())


async def measure(
    folder: Path,
    rounds: int = _ROUNDS,
    enough: Callable[[Mapping[str, float]], bool] = lambda cpu: True,
) -> dict[str, Cost]:
    """Does all jobs in this thread, which has to be the main one, and says what they cost.

    The CPU time is measured in so many rounds, and in more while `enough` is not yet content.

    Raises:
        BenchError: one went wrong.
    """
    async with AsyncExitStack() as stack:
        jobs: dict[str, Job] = {}
        for name, make in JOBS.items():
            place = folder / name
            place.mkdir()
            jobs[name] = await stack.enter_async_context(make(place))
        for job in jobs.values():
            await job.run(_WARM_UP, lambda: None)
        calls = {name: await _counted(job) for name, job in jobs.items()}
        cpu = await _timed(jobs, rounds, enough)
    return {name: Cost(calls[name], cpu[name]) for name in jobs}


async def _counted(job: Job) -> float:
    """Calls of functions for a message, Python's own and those in C."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    sys.setprofile(count)
    try:
        return statistics.median(await _each(job, _COUNTED, lambda: calls))
    finally:
        sys.setprofile(None)


async def _timed(
    jobs: Mapping[str, Job], rounds_at_least: int, enough: Callable[[Mapping[str, float]], bool]
) -> dict[str, float]:
    """CPU time for a message, in units: the least seen by the least seen of the unit, in turn.

    What other programs do to the caches can only add to both. On a busy machine it takes longer
    until a message is seen undisturbed: so long as there is not `enough`, it is measured again.
    """
    clock_id = time.pthread_getcpuclockid(threading.get_ident())

    def clock() -> float:
        return time.clock_gettime(clock_id)

    unit = Unit()
    until = time.monotonic() + _PATIENCE
    try:
        least: dict[str, float] = {}
        shortest = float("inf")
        rounds = 0
        while True:
            for name, job in jobs.items():
                shortest = min(shortest, *_durations(unit.run, _UNITS, clock))
                took = min(await _each(job, _TIMED, clock))
                least[name] = min(least.get(name, took), took)
            rounds += 1
            cpu = {name: took / shortest for name, took in least.items()}
            if rounds >= rounds_at_least and (enough(cpu) or time.monotonic() > until):
                return cpu
    finally:
        unit.close()


def _durations(work: Callable[[], None], times: int, clock: Callable[[], float]) -> list[float]:
    took = []
    for _ in range(times):
        started = clock()
        work()
        took.append(clock() - started)
    return took


async def _each(job: Job, messages: int, reading: Callable[[], float]) -> list[float]:
    """By how much a meter goes up with each message after the first."""
    readings: list[float] = []
    await job.run(messages, lambda: readings.append(reading()))
    return [after - before for before, after in itertools.pairwise(readings)]


def main(words: Sequence[str] | None = None) -> int:
    """Measures and compares; the exit status is 1 if a message costs too much."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.budget",
        description="Says whether a message costs more work than was recorded.",
    )
    parser.add_argument("--renew", action="store_true", help="record what it costs now")
    parser.add_argument("--file", type=Path, default=FILE, help="the record (bench/budget.json)")
    options = parser.parse_args(words)
    # What plugins say that are measured in this process is no part of the report.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    rounds = _ROUNDS * 4 if options.renew else _ROUNDS
    # In memory, if there is such a place: a commit then never waits for a disk.
    parent = MEMORY if os.access(MEMORY, os.W_OK) else None
    budget = Budget.read(options.file)
    with tempfile.TemporaryDirectory(prefix="mail-gateway-budget-", dir=parent) as folder:
        try:
            costs = uvloop.run(measure(Path(folder), rounds, budget.holds))
        except BenchError as error:
            print(f"{error}\n{error.log}".rstrip(), file=sys.stderr)
            return 1
    lines = compare(costs, budget, PYTHON)
    print(table(lines))
    if options.renew:
        budget.renewed(PYTHON, costs).write(options.file)
        print(f"recorded in {options.file}, the calls for Python {PYTHON}")
        return 0
    if any(line.recorded is None for line in lines):
        print(f"For Python {PYTHON} not all is recorded: python -m bench.budget --renew")
    if any(line.too_much for line in lines):
        print(
            "A message costs more than it did. If it has to: python -m bench.budget --renew, "
            "and say why in the change.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
