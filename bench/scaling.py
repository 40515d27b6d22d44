"""How much more four workers do than one."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import free_port
from bench.error import BenchError
from bench.load import Load, Sink
from bench.systems.gateway import OneWorkerGateway
from bench.systems.system import System
from bench.throughput import RATE, ThroughputTrial

ONE = Figure("one worker: messages/s", 0, more_is_better=True)
ALL = Figure("one for each core: messages/s", 0, more_is_better=True)
OTHERS = Figure("cores used by generator and sink", 2, more_is_better=False)
TIMES = Figure("times as much", 2, more_is_better=True)
CORRECTED = Figure("times as much, if these had cores of their own", 2, True, bar=3.2)


class Scaling(Case):
    """The same load on a gateway with one worker, and on one with a worker for each core.

    Generator and sink take cores from the workers, so the second is corrected for what they used.
    """

    figures = (ONE, ALL, OTHERS, TIMES, CORRECTED)
    alone: ClassVar[bool] = True

    def __init__(self, name: str, title: str, load: Load, seconds: float) -> None:
        super().__init__(name, title)
        self.load = load
        self.seconds = seconds

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[ScalingTrial]:
        """Starts both, and warms them up."""
        with ExitStack() as stack:
            parts: list[tuple[ThroughputTrial, Sink]] = []
            for gateway in (OneWorkerGateway(system.key), type(system)(system.key)):
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
        self, one: tuple[ThroughputTrial, Sink], every: tuple[ThroughputTrial, Sink]
    ) -> None:
        self._one = one
        self._every = every

    def measure(self) -> Mapping[str, float]:
        """Measures one after the other; raises BenchError as they do."""
        one, _ = self._rate(*self._one)
        every, others = self._rate(*self._every)
        cores = len(os.sched_getaffinity(0))
        return {
            ONE.name: one,
            ALL.name: every,
            OTHERS.name: others,
            TIMES.name: every / one,
            CORRECTED.name: every / one * cores / (cores - others),
        }

    @staticmethod
    def _rate(trial: ThroughputTrial, sink: Sink) -> tuple[float, float]:
        """Messages per second, and the cores that generator and sink used for them."""
        before = sink.cpu() + _children()
        rate = trial.measure()[RATE.name]
        used = sink.cpu() + _children() - before
        return rate, used / trial.messages * rate


def _children() -> float:
    """Seconds of CPU time of the children that have ended: the generator is the only one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
