"""Clients that send numbered messages to a gateway and note exactly what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from gateway.testing import NextHop
from gateway.testing.nexthop import ReceivedMessage
from tests.e2e.conftest import DEADLINE, Gateway

_SUBJECT = re.compile(rb"(?m)^Subject: number (\d+)\r?$")


class Traffic:
    """Clients, each of which sends one message after the other on a connection.

    A client whose connection breaks connects again and goes on with the next message.

    Args:
        gateway: whose listener they connect to.
        clients: how many there are.
        size: octets of a body.
        recipient: of all messages.
        pause: seconds that a client waits after each message.

    Attributes:
        accepted: queue ids by the number of the message, as the reply told them.
        unanswered: messages that were sent, or begun, and not answered.
        refusals: whole replies other than 250, with how often they came.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        clients: int = 20,
        size: int = 500,
        recipient: str = "b@example.net",
        pause: float = 0.02,
    ) -> None:
        self._gateway = gateway
        self._clients = clients
        self._pause = pause
        self._envelope = f"MAIL FROM:<a@example.com>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
        self._body = (b"x" * 70 + b"\r\n") * max(1, size // 72)
        self._numbers = itertools.count()
        self._stopping = False
        self.accepted: dict[int, str] = {}
        self.unanswered: set[int] = set()
        self.refusals: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The clients send; at the end, each finishes the message that it is at."""
        self._stopping = False
        running = asyncio.gather(*(self._send() for _ in range(self._clients)))
        try:
            yield
            self._stopping = True
            async with asyncio.timeout(DEADLINE):
                await running
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def more(self, count: int) -> None:
        """Waits until so many more messages are accepted."""
        goal = len(self.accepted) + count
        async with asyncio.timeout(DEADLINE):
            while len(self.accepted) < goal:
                await asyncio.sleep(0.002)

    async def refused(self, times: int, pattern: str = ".") -> None:
        """Waits until so many more replies were refusals that begin with a pattern."""
        goal = self._matching(pattern) + times
        async with asyncio.timeout(DEADLINE):
            while self._matching(pattern) < goal:
                await asyncio.sleep(0.002)

    def _matching(self, pattern: str) -> int:
        return sum(n for reply, n in self.refusals.items() if re.match(pattern, reply))

    async def _send(self) -> None:
        while not self._stopping:
            try:
                address = ("127.0.0.1", self._gateway.port)
                reader, writer = await asyncio.open_connection(*address)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            try:
                await self._talk(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)
            finally:
                writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _reply(reader)
        writer.write(b"EHLO client.example.org\r\n")
        await _reply(reader)
        while not self._stopping:
            number = next(self._numbers)
            self.unanswered.add(number)
            writer.write(self._envelope)
            replies = [await _reply(reader) for _ in range(3)]
            if replies[2].startswith("354"):
                writer.write(f"Subject: number {number}\r\n\r\n".encode() + self._body + b".\r\n")
                replies.append(await _reply(reader))
            self.unanswered.discard(number)
            last = replies[-1]
            if len(replies) == 4 and last.startswith("250"):
                self.accepted[number] = last.split()[-1]
                await asyncio.sleep(self._pause)
                continue
            first = next(reply for reply in replies if reply[0] in "45")
            self.refusals[re.sub(r"\b[0-9A-Z]{13}\b", "ID", first)] += 1
            if first.startswith("421"):
                return
            await asyncio.sleep(0.01)
            writer.write(b"RSET\r\n")
            await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> str:
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] == b" ":
            return line.decode().rstrip()


def numbers(messages: Iterable[ReceivedMessage]) -> Counter[int]:
    """How often each numbered message is among those."""
    found = (_SUBJECT.search(message.content) for message in messages)
    return Counter(int(match[1]) for match in found if match is not None)


class Arrivals:
    """How often each numbered message has arrived at a next hop."""

    def __init__(self, hop: NextHop) -> None:
        self._hop = hop
        self._seen = 0
        self._count: Counter[int] = Counter()

    @property
    def count(self) -> Counter[int]:
        """By the number of the message, up to now."""
        messages = self._hop.messages[self._seen :]
        self._seen += len(messages)
        self._count.update(numbers(messages))
        return self._count

    async def wait(self, expected: Iterable[int]) -> None:
        """Waits until all of those have arrived."""
        missing = set(expected)
        async with asyncio.timeout(DEADLINE):
            while missing := missing - self.count.keys():
                await asyncio.sleep(0.01)
