"""Clicks on links in mail: how many one core redirects, each verified and recorded."""

from __future__ import annotations

import asyncio
import email
import email.policy
import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure
from bench.daemon import LOCALHOST, free_port
from bench.error import BenchError
from bench.load import Load, Sink, close
from bench.newsletter import Newsletter
from bench.systems.gateway import ClicksGateway
from bench.systems.system import System
from bench.throughput import DEADLINE_SECONDS, SETTLE_SECONDS

PER_CORE = Figure("redirects/s per core", 0, more_is_better=True, bar=3000)
RATE = Figure("redirects/s", 0, more_is_better=True)

_MESSAGES = 2000
_CONNECTIONS = 50
_CLICK = re.compile(r"https://[^/\"]+(/c/[\w-]+)")
_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36"
)


class Clicks(Case):
    """Follows a link in each of many copies of a newsletter, and all of these again and again.

    `requests` is how often in one measurement. Two links of one copy would look like a robot's
    work, and be recorded as such.
    """

    figures = (PER_CORE, RATE)
    alone: ClassVar[bool] = True

    def __init__(self, name: str, title: str, requests: int) -> None:
        super().__init__(name, title)
        self.requests = requests

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[ClicksTrial]:
        """Sends the newsletter through a gateway, and takes the links from what arrives."""
        gateway = ClicksGateway(system.key, free_port())
        content = Newsletter(html=2_000, links=10).message("8bit")
        message = folder / "message"
        message.write_bytes(content.replace(b"\r\n", b"\n"))
        port, next_hop = free_port(), free_port()
        record = folder / "record"
        try:
            with Sink(next_hop, folder, record) as sink:
                gateway.start(folder / "instance", port, next_hop)
                load = Load(len(content), message=message)
                load.run(_MESSAGES, port, sink, DEADLINE_SECONDS)
            paths = [_path(file.read_bytes()) for file in record.iterdir()]
            trial = ClicksTrial(gateway, paths, self.requests)
            trial.warm_up()
            yield trial
        except BenchError as error:
            raise BenchError(str(error), error.log or gateway.log()) from error
        finally:
            gateway.stop()


class ClicksTrial:
    """A gateway that runs, and links that lead to it."""

    def __init__(self, gateway: ClicksGateway, paths: Sequence[str], requests: int) -> None:
        self._gateway = gateway
        self._paths = itertools.cycle(paths)
        self._requests = requests
        self._clicks = 0

    def warm_up(self) -> None:
        """Follows each link once."""
        asyncio.run(self._click(_MESSAGES))

    def measure(self) -> Mapping[str, float]:
        """Clicks; raises BenchError unless each is redirected, and told to an observer once."""
        tree = self._gateway.tree()
        tree.settle(SETTLE_SECONDS)
        before, started = tree.cpu(), time.monotonic()
        asyncio.run(self._click(self._requests))
        seconds = time.monotonic() - started
        self._check_recorded()
        # Passing the clicks on to observers belongs to the cost.
        tree.settle(SETTLE_SECONDS)
        used = tree.cpu() - before
        return {PER_CORE.name: self._requests / used, RATE.name: self._requests / seconds}

    def _check_recorded(self) -> None:
        file = self._gateway.folder / "clicks"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (said := file.read_text() if file.exists() else "0") != str(self._clicks):
            if time.monotonic() > deadline:
                raise BenchError(f"{said or 0} of {self._clicks} clicks were recorded")
            time.sleep(0.05)

    async def _click(self, requests: int) -> None:
        each = -(-requests // _CONNECTIONS)
        counts = [min(each, requests - first) for first in range(0, requests, each)]
        await asyncio.gather(*[self._client(count) for count in counts])
        self._clicks += requests

    async def _client(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS * 4):
            reader, writer = await asyncio.open_connection(LOCALHOST, self._gateway.http)
            try:
                for _ in range(count):
                    path = f"/tracking{next(self._paths)}"
                    request = f"GET {path} HTTP/1.1\r\nHost: t\r\nUser-Agent: {_AGENT}\r\n\r\n"
                    writer.write(request.encode())
                    try:
                        head = await reader.readuntil(b"\r\n\r\n")
                    except asyncio.IncompleteReadError as error:
                        raise BenchError("a connection was closed without an answer") from error
                    if not head.startswith(b"HTTP/1.1 302 "):
                        raise BenchError(f"a click was answered {head[:200]!r}")
                    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                    await reader.readexactly(int(length[1]) if length else 0)
            finally:
                await close(writer)


def _path(message: bytes) -> str:
    """The path of the first tracked link in the HTML of a message."""
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    html = parsed.get_body(("html",))
    link = _CLICK.search(html.get_content()) if html is not None else None
    if link is None:
        raise BenchError("a message came without a tracked link")
    return link[1]
