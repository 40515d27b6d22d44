"""The memory that large messages take on their way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import LOCALHOST, free_port
from bench.error import BenchError
from bench.load import Sink, close
from bench.processes import PeakMemory
from bench.signature import DOMAIN
from bench.systems.gateway import WorkersGateway
from bench.systems.system import System
from bench.throughput import SETTLE_SECONDS

ONE = Figure("one of 50 MB: MB above idle", 0, more_is_better=False, bar=75)
TWENTY = Figure("twenty at once: MB above idle", 0, more_is_better=False, bar=512)
TAKEN = Figure("of twenty, taken at once", 0, more_is_better=True)
LATER = Figure("of twenty, told 452", 0, more_is_better=False)
OTHERWISE = Figure("of twenty, answered otherwise", 0, more_is_better=False, bar=0)

_DEADLINE = 120.0
_BLOCK = 1 << 16


class LargeMessages(Case):
    """One large message, and twenty at the same time, signed and relayed by one worker.

    `size` is how many octets each has, up to one block of 64 KiB less.
    """

    figures = (ONE, TWENTY, TAKEN, LATER, OTHERWISE)
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
        one, [reply] = self._part(1)
        if not reply.startswith(b"250"):
            raise BenchError(f"a single large message was answered {reply!r}")
        twenty, replies = self._part(20)
        codes = Counter(reply[:3] for reply in replies)
        return {
            ONE.name: one / 1e6,
            TWENTY.name: twenty / 1e6,
            TAKEN.name: codes[b"250"],
            LATER.name: codes[b"452"],
            OTHERWISE.name: 20 - codes[b"250"] - codes[b"452"],
        }

    def _part(self, count: int) -> tuple[int, list[bytes]]:
        """Octets above idle at the most, and how each message was answered."""
        gateway = WorkersGateway(self._system.key, 1)
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
                peak = PeakMemory(tree)
                replies = asyncio.run(_send_all(port, count, self._case.size))
                self._wait(sink, 1 + sum(reply.startswith(b"250") for reply in replies))
                return peak.above(), replies
        except BenchError as error:
            raise BenchError(str(error), error.log or gateway.log()) from error
        finally:
            gateway.stop()

    @staticmethod
    def _wait(sink: Sink, goal: int) -> None:
        deadline = time.monotonic() + _DEADLINE
        while sink.count() < goal:
            sink.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{sink.count()} of {goal} messages arrived")
            time.sleep(0.01)


async def _send_all(port: int, count: int, size: int) -> list[bytes]:
    """Sends as many messages at once; returns how each was answered."""
    return await asyncio.gather(*[_send(port, number, size) for number in range(count)])


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
            for _ in range(max(1, size // len(block))):
                if reader.at_eof():
                    break
                writer.write(block)
                await writer.drain()
            writer.write(b".\r\n")
            return await _reply(reader)
        except ConnectionError as error:
            return str(error).encode()
        finally:
            await close(writer)


async def _reply(reader: asyncio.StreamReader) -> bytes:
    line = b"250-"
    while line[3:4] == b"-":
        line = await reader.readline()
    return line
