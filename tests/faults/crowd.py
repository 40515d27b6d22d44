"""Clients in a process of their own that hold connections and hardly use them, each in its way.

    python -m tests.faults.crowd PORT SOURCES SECONDS KIND=COUNT …

They connect from as many addresses as SOURCES says, 127.1.0.1 and so on, and stay until they are
cut off, or for SECONDS. Standard output has a line `connected`, and in the end a line of JSON: for
each kind how many there were (`clients`), how many were cut off (`cut`), with which replies
(`replies`), and the longest time that it took (`longest`).
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

_HELLO = b"EHLO crowd.example.org\r\n"
_MESSAGE = _HELLO + b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"

PAUSE = 0.5
"""Seconds between two drops of a client that dribbles."""

PHASES = 499
"""Those that dribble do so independently of each other."""

PARALLEL = 200
"""Connections that are made at a time."""


@dataclass(frozen=True)
class Manner:
    """What a client sends at first, and then again and again; `deaf` if it reads nothing."""

    first: bytes = b""
    drop: bytes = b""
    deaf: bool = False


MANNERS = {
    "silent": Manner(),
    "greeted": Manner(_HELLO),
    "command": Manner(b"EHLO ", b"x"),
    "data": Manner(_MESSAGE + b"DATA\r\nSubject: ", b"x\r\n"),
    "chunk": Manner(_MESSAGE + b"BDAT 1000000 LAST\r\n", b"x"),
    "chunks": Manner(_MESSAGE, b"BDAT 1\r\nx"),
    "noop": Manner(_HELLO, b"NOOP\r\n"),
    "reset": Manner(_MESSAGE, b"RSET\r\nMAIL FROM:<a@example.com>\r\n"),
    "deaf": Manner(_HELLO + b"VRFY somebody\r\n" * 200_000, b"NOOP\r\n", deaf=True),
}


@dataclass
class Tally:
    """What became of the clients of a kind."""

    clients: int = 0
    cut: int = 0
    longest: float = 0.0
    replies: Counter[str] = field(default_factory=Counter)

    def record(self) -> dict[str, Any]:
        """The tally for JSON."""
        return {**vars(self), "replies": dict(self.replies)}


class Member(asyncio.Protocol):
    """A client of the crowd."""

    def __init__(self, manner: Manner, tally: Tally, phase: float) -> None:
        self._manner = manner
        self._tally = tally
        self._phase = phase
        self._loop = asyncio.get_running_loop()
        self._last = b""
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tally.clients += 1
        self._began = self._loop.time()
        if self._manner.deaf:
            self._transport.pause_reading()
        self._transport.write(self._manner.first)
        if self._manner.drop:
            self._loop.call_later(PAUSE + self._phase, self._drip)

    def _drip(self) -> None:
        if not self.gone.done():
            self._transport.write(self._manner.drop)
            self._loop.call_later(PAUSE, self._drip)

    def data_received(self, data: bytes) -> None:
        self._last = (self._last + data)[-200:]

    def connection_lost(self, error: Exception | None) -> None:
        tally = self._tally
        tally.cut += 1
        tally.longest = max(tally.longest, self._loop.time() - self._began)
        tally.replies[self._last.rstrip().rpartition(b"\n")[2][:9].decode()] += 1
        self.gone.set_result(None)


async def _stand(port: int, sources: int, seconds: float, counts: dict[str, int]) -> None:
    loop = asyncio.get_running_loop()
    tallies = {kind: Tally() for kind in counts}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    free = asyncio.Semaphore(PARALLEL)
    members: list[Member] = []

    async def join(number: int, kind: str) -> None:
        source = f"127.1.0.{number % sources + 1}"
        async with free:
            _, member = await loop.create_connection(
                lambda: Member(MANNERS[kind], tallies[kind], number % PHASES * PAUSE / PHASES),
                "127.0.0.1",
                port,
                local_addr=(source, 0),
            )
        members.append(member)

    await asyncio.gather(*(join(number, kind) for number, kind in enumerate(kinds)))
    print("connected", flush=True)  # noqa: T201
    await asyncio.wait([member.gone for member in members], timeout=seconds)
    tally = {kind: tally.record() for kind, tally in tallies.items()}
    print(json.dumps(tally), flush=True)  # noqa: T201


def main() -> None:
    """Stands in the way, as the command line says."""
    port, sources, seconds, *counts = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    by_kind = {kind: int(count) for kind, count in (one.split("=") for one in counts)}
    uvloop.run(_stand(int(port), int(sources), float(seconds), by_kind))


if __name__ == "__main__":
    main()
