"""What mail for one domain, which cannot be delivered, costs the mail for all others."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import LOCALHOST, free_port
from bench.dns_server import name_server
from bench.error import BenchError
from bench.load import POLL_SECONDS, Load, Sink
from bench.queue import Waiting
from bench.systems.gateway import DomainsGateway
from bench.systems.system import System
from bench.throughput import RATE, ThroughputTrial

DEAD = "127.0.0.99"
"""The address of a next hop that takes no mail."""

ALONE = Figure("alone: messages/s", 0, more_is_better=True)
BESIDE = Figure("beside: messages/s", 0, more_is_better=True)


def _share(bar: float) -> Figure:
    return Figure("share that is left, %", 1, more_is_better=True, bar=bar)


class BlackHole(Case):
    """A hundred domains, of which one has a server that takes connections and says nothing.

    All mail is in the queue when the gateway starts. What counts is the rate at which the mail of
    the 99 goes out, with and without mail for the other.
    """

    domains: ClassVar[Sequence[str]] = [f"d{number}.example" for number in range(99)]
    hole: ClassVar[str] = "hole.example"
    size: ClassVar[int] = 2048
    workers: ClassVar[int] = 2
    connections: ClassVar[int] = 4  # the sink takes a thousand
    share: ClassVar[Figure] = _share(95)
    figures = (ALONE, BESIDE, share)
    alone: ClassVar[bool] = True

    def __init__(self, name: str, title: str, messages: int) -> None:
        super().__init__(name, title)
        self.messages = messages

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[BlackHoleTrial]:
        """Starts the servers that the mail goes to."""
        port = free_port()
        hops = dict.fromkeys(self.domains, LOCALHOST) | {self.hole: DEAD}
        with (
            socket.create_server((DEAD, port), backlog=1024),
            name_server(hops) as dns,
            Sink(port, folder) as sink,
        ):
            yield BlackHoleTrial(self, system, folder, dns, port, sink)


class BlackHoleTrial:
    """The servers, and a new gateway for each measurement."""

    def __init__(
        self, case: BlackHole, system: System, folder: Path, dns: str, port: int, sink: Sink
    ) -> None:
        self._case = case
        self._system = system
        self._folder = folder
        self._dns = dns
        self._port = port
        self._sink = sink
        self._started = 0

    def measure(self) -> Mapping[str, float]:
        """Delivers the mail twice; raises BenchError if not all of it arrives."""
        case = self._case
        others = Waiting(case.domains, case.messages, case.size)
        hole = Waiting([case.hole], case.messages // 10, case.size)
        alone = self._rate([others])
        beside = self._rate([hole, others])
        return {ALONE.name: alone, BESIDE.name: beside, case.share.name: 100 * beside / alone}

    def _rate(self, waiting: Sequence[Waiting]) -> float:
        case = self._case
        gateway = DomainsGateway(
            self._system.key, self._dns, case.workers, case.connections, waiting
        )
        self._started += 1
        os.sync()
        before = self._sink.count()
        messages = case.messages // case.workers * case.workers
        # The first tenth finds the servers and connects to them.
        first, goal = before + messages // 10, before + messages
        try:
            gateway.start(self._folder / str(self._started), free_port(), self._port)
            self._wait(first)
            counted, started = self._sink.count(), time.monotonic()
            self._wait(goal)
            return (goal - counted) / (time.monotonic() - started)
        except BenchError as error:
            raise BenchError(str(error), error.log or gateway.log()) from error
        finally:
            gateway.stop()

    def _wait(self, goal: int) -> None:
        deadline = time.monotonic() + 120
        while (arrived := self._sink.count()) < goal:
            if time.monotonic() > deadline:
                raise BenchError(f"{goal - arrived} messages did not arrive")
            self._sink.check()
            time.sleep(POLL_SECONDS)


class Backlog(Case):
    """Fresh mail for one domain, while messages for another wait that is deferred all the time."""

    domain: ClassVar[str] = "example.net"
    slow: ClassVar[str] = "slow.example"
    size: ClassVar[int] = 400
    workers: ClassVar[int] = 4
    connections: ClassVar[int] = 20
    share: ClassVar[Figure] = _share(80)
    start: ClassVar[Figure] = Figure("start, seconds", 1, more_is_better=False, bar=30)
    memory: ClassVar[Figure] = Figure("MB in the largest process", 0, more_is_better=False, bar=300)
    figures = (ALONE, BESIDE, share, start, memory)
    alone: ClassVar[bool] = True

    def __init__(
        self, name: str, title: str, messages: int, spread: float, load: Load, seconds: float
    ) -> None:
        super().__init__(name, title)
        self.waiting = Waiting([self.slow], messages, self.size, spread)
        self.load = load
        self.seconds = seconds

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[BacklogTrial]:
        """Starts one gateway with an empty queue and one with a full one."""
        ports = free_port(), free_port()
        hops = {self.domain: LOCALHOST, self.slow: DEAD}
        with ExitStack() as stack:
            dns = stack.enter_context(name_server(hops))
            trials: list[ThroughputTrial] = []
            for port, waiting in zip(ports, ((), (self.waiting,)), strict=True):
                sink = stack.enter_context(Sink(port, folder))
                stack.enter_context(Sink(port, folder, host=DEAD, deferring=True))
                gateway = DomainsGateway(system.key, dns, self.workers, self.connections, waiting)
                stack.callback(gateway.stop)
                try:
                    gateway.start(folder / f"instance-{len(trials)}", free_port(), port)
                except BenchError as error:
                    raise BenchError(str(error), error.log or gateway.log()) from error
                trials.append(ThroughputTrial(self.load, gateway, sink, self.seconds / 2))
            yield BacklogTrial(self, trials[0], trials[1], gateway)


class BacklogTrial:
    """Both gateways, warm."""

    def __init__(
        self,
        case: Backlog,
        alone: ThroughputTrial,
        beside: ThroughputTrial,
        gateway: DomainsGateway,
    ) -> None:
        self._case = case
        self._alone = alone
        self._beside = beside
        self._gateway = gateway

    def measure(self) -> Mapping[str, float]:
        """Measures one after the other; raises BenchError as they do."""
        case = self._case
        alone = self._alone.measure()[RATE.name]
        beside = self._beside.measure()[RATE.name]
        return {
            ALONE.name: alone,
            BESIDE.name: beside,
            case.share.name: 100 * beside / alone,
            case.start.name: self._gateway.daemons[0].start_seconds,
            case.memory.name: self._gateway.tree().largest() / 1e6,
        }
