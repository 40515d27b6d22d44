"""Many connections: at work, and idle."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import LOCALHOST, free_port
from bench.error import BenchError
from bench.load import Load, Sink, close
from bench.systems.system import System
from bench.throughput import RATE, SETTLE_SECONDS, ThroughputTrial

FEW = Figure("20 connections: messages/s", 0, more_is_better=True)
MANY = Figure("500 connections: messages/s", 0, more_is_better=True)
SHARE = Figure("share of 500 by 20, %", 0, more_is_better=True, bar=90)
IDLE = Figure("KiB for each idle connection", 1, more_is_better=False, bar=15)
BANNER = Figure("banner beside them: median ms", 1, more_is_better=False)
SLOWEST = Figure("banner beside them: slowest of 50, ms", 1, more_is_better=False, bar=100)

_DEADLINE = 60.0
_AT_A_TIME = 200
_NEW_CLIENTS = 50


class ManyConnections(Case):
    """The load of 20 connections and of 500; and what connections that say nothing cost.

    `idle` is how many of these are opened.
    """

    figures = (FEW, MANY, SHARE, IDLE, BANNER, SLOWEST)
    alone: ClassVar[bool] = True

    def __init__(self, name: str, title: str, load: Load, seconds: float, idle: int) -> None:
        super().__init__(name, title)
        self.load = load
        self.seconds = seconds
        self.idle = idle

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[ManyConnectionsTrial]:
        """Starts a gateway for the loads, and one for the idle connections."""
        with ExitStack() as stack:
            stack.enter_context(_open_files(self.idle + 200))
            gateways = []
            for name in ("busy", "idle"):
                gateway = type(system)(system.key)
                place = folder / name
                place.mkdir()
                port, next_hop = free_port(), free_port()
                sink = stack.enter_context(Sink(next_hop, place))
                stack.callback(gateway.stop)
                try:
                    gateway.start(place / "instance", port, next_hop)
                except BenchError as error:
                    raise BenchError(str(error), error.log or gateway.log()) from error
                gateways.append((gateway, sink))
            busy, idle = gateways
            few = ThroughputTrial(self.load, *busy, self.seconds / 2)
            many = ThroughputTrial(replace(self.load, sessions=500), *busy, self.seconds / 2)
            yield ManyConnectionsTrial(self, few, many, idle[0])


@contextmanager
def _open_files(needed: int) -> Iterator[None]:
    """Raises the limit of open files as far as it goes; BenchError where that is not enough."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < needed:
        raise BenchError(f"{most} files can be open, {needed} are needed: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))


class ManyConnectionsTrial:
    """The gateways, of which the first is warm."""

    def __init__(
        self, case: ManyConnections, few: ThroughputTrial, many: ThroughputTrial, idle: System
    ) -> None:
        self._case = case
        self._few = few
        self._many = many
        self._idle = idle

    def measure(self) -> Mapping[str, float]:
        """Measures the loads, then opens the idle connections and closes them again."""
        few = self._few.measure()[RATE.name]
        many = self._many.measure()[RATE.name]
        tree = self._idle.tree()
        tree.settle(SETTLE_SECONDS)
        octets, banners = asyncio.run(self._open())
        return {
            FEW.name: few,
            MANY.name: many,
            SHARE.name: 100 * many / few,
            IDLE.name: octets / 1024,
            BANNER.name: statistics.median(banners) * 1e3,
            SLOWEST.name: max(banners) * 1e3,
        }

    async def _open(self) -> tuple[float, list[float]]:
        """Octets for each idle connection, and the seconds until new clients were greeted."""
        tree, port = self._idle.tree(), self._idle.port
        first, _ = await _converse(port)  # what it needs is there for all
        before = tree.memory()
        writers = [first]
        try:
            for _ in range(0, self._case.idle, _AT_A_TIME):
                conversations = [_converse(port) for _ in range(_AT_A_TIME)]
                writers += [writer for writer, _ in await asyncio.gather(*conversations)]
            after = tree.memory()
            banners = []
            for _ in range(_NEW_CLIENTS):
                writer, seconds = await _converse(port)
                writers.append(writer)
                banners.append(seconds)
        finally:
            await asyncio.gather(*[close(writer) for writer in writers])
        tree.settle(SETTLE_SECONDS)
        return (after - before) / self._case.idle, banners


async def _converse(port: int) -> tuple[asyncio.StreamWriter, float]:
    """Connects and says EHLO; returns the connection, and the seconds until the banner."""
    started = time.perf_counter()
    async with asyncio.timeout(_DEADLINE):
        reader, writer = await asyncio.open_connection(LOCALHOST, port, limit=1024)
        banner = await reader.readline()
        seconds = time.perf_counter() - started
        writer.write(b"EHLO idle.bench.test\r\n")
        line = b"250-"
        while line[3:4] == b"-":
            line = await reader.readline()
    if not banner.startswith(b"220") or not line.startswith(b"250"):
        await close(writer)
        raise BenchError(f"an idle connection was answered {banner!r} and {line!r}")
    return writer, seconds
