"""How much more four workers do than one."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import free_port
from bench.error import BenchError
from bench.load import Load, Sink
from bench.systems.gateway import WorkersGateway
from bench.systems.system import System
from bench.throughput import RATE, ThroughputTrial

WORKERS = 4

ONE = Figure("one worker: messages/s", 0, more_is_better=True)
FOUR = Figure("four workers: messages/s", 0, more_is_better=True)
OTHERS = Figure("cores used by generator and sink beside four", 2, more_is_better=False)
IDLE = Figure("cores idle beside four", 2, more_is_better=False)
TIMES = Figure("times as much", 2, more_is_better=True)
CORRECTED = Figure("times as much, if these had cores of their own", 2, True, bar=3.2)


STAT = Path("/proc/stat")


class Scaling(Case):
    """The same load on a gateway with one worker, and on one with four.

    Generator and sink take cores from the workers, so the second is corrected for what they used.
    """

    figures = (ONE, FOUR, OTHERS, IDLE, TIMES, CORRECTED)
    alone: ClassVar[bool] = True

    def __init__(self, name: str, title: str, load: Load, seconds: float) -> None:
        super().__init__(name, title)
        self.load = load
        self.seconds = seconds

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[ScalingTrial]:
        """Starts both, and warms them up."""
        if (cores := len(os.sched_getaffinity(0))) < WORKERS:
            raise BenchError(f"{WORKERS} cores are needed, and there are {cores}")
        with ExitStack() as stack:
            parts: list[tuple[ThroughputTrial, Sink]] = []
            for workers in (1, WORKERS):
                gateway = WorkersGateway(system.key, workers)
                place = folder / str(len(parts))
                place.mkdir()
                port, next_hop = free_port(), free_port()
                sink = stack.enter_context(Sink(next_hop, place))
                stack.callback(gateway.stop)
                try:
                    gateway.start(place / "instance", port, next_hop)
                except BenchError as error:
                    raise BenchError(str(error), error.log or gateway.log()) from error
                trial = ThroughputTrial(self.load, gateway, sink, self.seconds / 2)
                parts.append((trial, sink))
            yield ScalingTrial(parts[0], parts[1])


class ScalingTrial:
    """Both gateways, warm, each with its sink."""

    def __init__(
        self, one: tuple[ThroughputTrial, Sink], four: tuple[ThroughputTrial, Sink]
    ) -> None:
        self._one = one
        self._four = four

    def measure(self) -> Mapping[str, float]:
        """Measures one after the other; raises BenchError as they do."""
        one, _, _ = self._rate(*self._one)
        four, others, idle = self._rate(*self._four)
        cores = len(os.sched_getaffinity(0))
        return {
            ONE.name: one,
            FOUR.name: four,
            OTHERS.name: others,
            IDLE.name: idle,
            TIMES.name: four / one,
            CORRECTED.name: corrected(four / one, cores, others, idle),
        }

    @staticmethod
    def _rate(trial: ThroughputTrial, sink: Sink) -> tuple[float, float, float]:
        """Messages per second, the cores that generator and sink used, and those not used."""
        before = sink.cpu() + _children()
        watch = _IdleCores()
        measured = trial.measure(watch)
        used = sink.cpu() + _children() - before
        rate = measured[RATE.name]
        return rate, used / trial.messages * rate, watch.cores


class _IdleCores:
    """How many cores had nothing to do, from the first to the last time that it was called."""

    def __init__(self) -> None:
        self.cores = 0.0
        self._first: tuple[float, float] | None = None

    def __call__(self) -> None:
        now = time.monotonic(), idle_seconds(STAT.read_text(), os.sched_getaffinity(0))
        if self._first is None:
            self._first = now
        elif now[0] > self._first[0]:
            self.cores = (now[1] - self._first[1]) / (now[0] - self._first[0])


def idle_seconds(stat: str, cores: Collection[int]) -> float:
    """Seconds that these cores have idled or waited for a disk, from the text of /proc/stat."""
    ticks = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
            ticks += int(fields[3]) + int(fields[4])
    return ticks / os.sysconf("SC_CLK_TCK")


def corrected(times: float, cores: int, others: float, idle: float) -> float:
    """How many times as much it were, if generator and sink had not used cores of the workers.

    Whatever idled could have been used already, so only the rest of what the others took counts:
    workers that wait for the disk would not have been quicker.
    """
    if idle >= others:
        return times
    used = cores - others - idle
    return times * (used + others - idle) / used


def _children() -> float:
    """Seconds of CPU time of the children that have ended: the generator is the only one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
