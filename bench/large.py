"""The memory that large messages take on their way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import LOCALHOST, free_port
from bench.error import BenchError
from bench.load import Sink
from bench.processes import Tree
from bench.signature import DOMAIN
from bench.systems.gateway import OneWorkerGateway
from bench.systems.system import System
from bench.throughput import SETTLE_SECONDS

ONE = Figure("one of 50 MB: MB above idle", 0, more_is_better=False, bar=75)
TWENTY = Figure("twenty at once: MB above idle", 0, more_is_better=False, bar=512)
TAKEN = Figure("of twenty, taken at once", 0, more_is_better=True)
LATER = Figure("of twenty, told 452", 0, more_is_better=False)

_DEADLINE = 120.0
_LOOK_SECONDS = 0.02
_BLOCK = 1 << 16


class LargeMessages(Case):
    """One large message, and twenty at the same time, signed and relayed by one worker.

    `size` is how many octets each has.
    """

    figures = (ONE, TWENTY, TAKEN, LATER)
    alone: ClassVar[bool] = True

    def __init__(self, name: str, title: str, size: int) -> None:
        super().__init__(name, title)
        self.size = size

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[LargeMessagesTrial]:
        """Names the folder; each measurement starts a gateway, for memory is kept for later."""
        yield LargeMessagesTrial(self, system, folder)


class LargeMessagesTrial:
    """A new gateway for each of the two parts."""

    def __init__(self, case: LargeMessages, system: System, folder: Path) -> None:
        self._case = case
        self._system = system
        self._folder = folder
        self._started = 0

    def measure(self) -> Mapping[str, float]:
        """Sends one, and then twenty; raises BenchError if what was taken does not arrive."""
        one, taken = self._part(1)
        if taken != 1:
            raise BenchError("a single large message was not taken")
        twenty, taken = self._part(20)
        return {
            ONE.name: one / 1e6,
            TWENTY.name: twenty / 1e6,
            TAKEN.name: taken,
            LATER.name: 20 - taken,
        }

    def _part(self, count: int) -> tuple[int, int]:
        """Octets above idle at the most, and how many messages were taken."""
        gateway = OneWorkerGateway(self._system.key)
        port, next_hop = free_port(), free_port()
        self._started += 1
        place = self._folder / str(self._started)
        place.mkdir()
        try:
            with Sink(next_hop, place) as sink:
                gateway.start(place / "instance", port, next_hop)
                asyncio.run(_send_all(port, 1, 4096))
                self._wait(sink, 1)
                tree = gateway.tree()
                tree.settle(SETTLE_SECONDS)
                idle = tree.memory()
                with _Peak(tree) as peak:
                    taken = asyncio.run(_send_all(port, count, self._case.size))
                    self._wait(sink, 1 + taken)
                return peak.octets - idle, taken
        except BenchError as error:
            raise BenchError(str(error), error.log or gateway.log()) from error
        finally:
            gateway.stop()

    @staticmethod
    def _wait(sink: Sink, goal: int) -> None:
        deadline = time.monotonic() + _DEADLINE
        while sink.count() < goal:
            if time.monotonic() > deadline:
                raise BenchError(f"{sink.count()} of {goal} messages arrived")
            time.sleep(0.01)


class _Peak:
    """Looks at the memory of a tree all the time, in a thread; `octets` is the most it saw."""

    def __init__(self, tree: Tree) -> None:
        self.octets = 0
        self._tree = tree
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self.octets = max(self.octets, self._tree.memory())


async def _send_all(port: int, count: int, size: int) -> int:
    """Sends as many messages at once; returns how many were taken, the others being told 452."""
    replies = await asyncio.gather(*[_send(port, number, size) for number in range(count)])
    for reply in replies:
        if not reply.startswith((b"250", b"452")):
            raise BenchError(f"a large message was answered {reply!r}")
    return sum(reply.startswith(b"250") for reply in replies)


async def _send(port: int, number: int, size: int) -> bytes:
    async with asyncio.timeout(_DEADLINE):
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        try:
            await _reply(reader)
            for line in (
                "EHLO large.bench.test",
                f"MAIL FROM:<sender@{DOMAIN}> SIZE={size}",
                f"RCPT TO:<{number}@example.net>",
                "DATA",
            ):
                writer.write(line.encode() + b"\r\n")
                reply = await _reply(reader)
                if not reply.startswith((b"250", b"354")):
                    return reply
            writer.write(f"From: sender@{DOMAIN}\r\nSubject: {number}\r\n\r\n".encode())
            block = (b"X" * 78 + b"\r\n") * (_BLOCK // 80)
            for _ in range(size // len(block) + 1):
                if reader.at_eof():
                    break
                writer.write(block)
                await writer.drain()
            writer.write(b".\r\n")
            return await _reply(reader)
        except ConnectionError as error:
            return str(error).encode()
        finally:
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> bytes:
    line = b"250-"
    while line[3:4] == b"-":
        line = await reader.readline()
    return line
