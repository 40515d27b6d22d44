"""Messages per second from the sender to the next hop, and what they cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import free_port
from bench.error import BenchError
from bench.load import Load, Sink
from bench.processes import Tree
from bench.systems.gateway import Gateway
from bench.systems.system import System

RATE = Figure("messages/s", 0, more_is_better=True)
CPU = Figure("CPU ms/message", 2, more_is_better=False)
MEMORY = Figure("peak memory MB", 0, more_is_better=False)

DEADLINE_SECONDS = 30.0
SETTLE_SECONDS = 5.0
MEMORY_SECONDS = 1.0
FIRST_MESSAGES = 200
"""Enough to start every process of every system."""

_MOST_MESSAGES = 60_000


def messages_for(rate: float, seconds: float) -> int:
    """How many messages take about `seconds` at `rate` per second."""
    return max(FIRST_MESSAGES, min(_MOST_MESSAGES, round(rate * seconds)))


class Throughput(Case):
    """Every message goes in, is signed, is made durable, and comes out at the next hop.

    Args:
        name, title: of the case.
        load: what is sent.
        seconds: how long one measurement should take about.
        cpu: the CPU time that a message may cost the gateway, in milliseconds.
        ahead: see `Case`.
        content: the message that is sent, instead of lines of one letter.
        gateway: what takes the place of the gateway with one plugin.
        check: raises BenchError if what comes out of that is not what it should be.
    """

    figures = (RATE, CPU, MEMORY)
    signs: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        title: str,
        load: Load,
        seconds: float,
        *,
        cpu: float | None = None,
        ahead: Mapping[str, float] | None = None,
        content: bytes | None = None,
        gateway: type[Gateway] | None = None,
        check: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__(name, title)
        self.figures = (RATE, replace(CPU, bar=cpu), MEMORY)
        self.load = load
        self.seconds = seconds
        self.ahead = ahead or {}
        self.content = content
        self.gateway = gateway
        self.check = check

    def load_from(self, folder: Path) -> Load:
        """The load; where it is a message of its own, that is written into a file in `folder`."""
        if self.content is None:
            return self.load
        message = folder / "message"
        message.write_bytes(self.content.replace(b"\r\n", b"\n"))
        return replace(self.load, message=message)

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[ThroughputTrial]:
        """Starts the system, checks the signature of one message, and warms it up."""
        port, next_hop = free_port(), free_port()
        load = self.load_from(folder)
        check = None
        if self.gateway is not None and isinstance(system, Gateway):
            system, check = self.gateway(system.key), self.check
        try:
            received = start_signing(system, load, folder, port, next_hop)
            if check is not None:
                check(received)
            with Sink(next_hop, folder) as sink:
                yield ThroughputTrial(load, system, sink, self.seconds)
        except BenchError as error:
            raise BenchError(str(error), error.log or system.log()) from error
        finally:
            system.stop()


def start_signing(system: System, load: Load, folder: Path, port: int, next_hop: int) -> bytes:
    """Starts a system and sends one message through it.

    Returns:
        The message as it arrived, with the fields that the sink puts on top.

    Raises:
        BenchError: it did not start, or its signature does not fit.
    """
    record = folder / "record"
    with Sink(next_hop, folder, record) as sink:
        system.start(folder / "instance", port, next_hop)
        load.run(1, port, sink, DEADLINE_SECONDS)
        system.tree().settle(SETTLE_SECONDS)
    [message] = record.iterdir()
    received = message.read_bytes()
    system.key.verify(received)
    return received


class ThroughputTrial:
    """A running system, warm; `messages` is how many it gets in each measurement."""

    def __init__(self, load: Load, system: System, sink: Sink, seconds: float) -> None:
        self._load = load
        self._system = system
        self._sink = sink
        # The first messages start processes and compile code: they say little about the rate.
        # Those after them go on with that for half a measurement, and say enough.
        first = FIRST_MESSAGES / self._send(FIRST_MESSAGES)
        warm = messages_for(first, seconds / 2)
        self.messages = messages_for(warm / self._send(warm), seconds)

    def measure(self, meanwhile: Callable[[], None] = lambda: None) -> Mapping[str, float]:
        """Sends the messages once; raises BenchError if not exactly all of them arrive.

        `meanwhile` is called every hundredth of a second while they are on their way.
        """
        os.sync()  # nobody pays for what the system before left to be written
        tree = self._system.tree()
        tree.settle(SETTLE_SECONDS)
        goal = self._sink.count() + self.messages
        peak = Peak(tree)
        before = tree.cpu()

        def look() -> None:
            peak.sample()
            meanwhile()

        seconds = self._send(self.messages, look)
        # What is still done when the last message has arrived, such as emptying the queue,
        # belongs to the cost of the messages.
        tree.settle(SETTLE_SECONDS)
        used = tree.cpu() - before
        peak.take()
        if (surplus := self._sink.count() - goal) != 0:
            raise BenchError(f"{surplus} messages came twice")
        return {
            RATE.name: self.messages / seconds,
            CPU.name: used / self.messages * 1e3,
            MEMORY.name: peak.bytes / 1e6,
        }

    def _send(self, messages: int, meanwhile: Callable[[], None] = lambda: None) -> float:
        return self._load.run(messages, self._system.port, self._sink, DEADLINE_SECONDS, meanwhile)


class Peak:
    """The most memory that a tree was seen to use, in bytes."""

    def __init__(self, tree: Tree) -> None:
        self.bytes = 0
        self._tree = tree
        self._next = time.monotonic() + MEMORY_SECONDS / 2

    def sample(self) -> None:
        """Looks once a second: looking costs some milliseconds of a core."""
        if time.monotonic() >= self._next:
            self.take()
            self._next = time.monotonic() + MEMORY_SECONDS

    def take(self) -> None:
        """Looks now."""
        self.bytes = max(self.bytes, self._tree.memory())
