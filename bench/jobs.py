"""Work of a worker that is always the same: what a message costs can be counted with it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench.daemon import LOCALHOST
from bench.error import BenchError
from bench.exchange import Exchange
from bench.newsletter import SENDER, TRACKER, Newsletter
from bench.signature import DOMAIN, SELECTOR, SigningKey
from gateway.configuration.config import Config, load_config
from gateway.events import Event
from gateway.hooks import Client, Message
from gateway.hooks.chain import Chain, Filtered
from gateway.hooks.lifecycle import start_plugins, stop_plugins
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.limits import Limits
from gateway.log import setup as setup_log
from gateway.process.assignment import Assignment
from gateway.process.worker import Worker
from gateway.resolver import Resolver

_CAMPAIGN = "autumn-sale"
_SUPPRESSED = 1000


class Job(ABC):
    """One kind of work, ready to be done."""

    @abstractmethod
    async def run(self, messages: int, done: Callable[[], None]) -> None:
        """Does it for so many messages, one after the other; `done` is called after each.

        Raises:
            BenchError: it went wrong.
        """


class ChainJob(Job):
    """One message through the `message` and `seal` hooks of all plugins."""

    def __init__(self, chain: Chain, content: bytes) -> None:
        self._chain = chain
        self._content = content
        self._number = 0

    async def run(self, messages: int, done: Callable[[], None]) -> None:
        """Makes of each message the octets that would be written to the spool."""
        for _ in range(messages):
            self._number += 1
            message = Message(f"B{self._number:07}", SENDER, Client("127.0.0.1"))
            message.receive(self._content)
            message.add_recipient(f"{self._number}recipient@example.net")
            message.notes["campaign"] = _CAMPAIGN
            filtered = await self._chain.message(message)
            if not isinstance(filtered, Filtered) or len(filtered.copies) != 1:
                raise BenchError(f"the chain answered {filtered}")
            octets = filtered.copies[0].message.content
            if b"DKIM-Signature:" not in octets[:4096]:
                raise BenchError("the chain has not signed")
            done()


class RelayJob(Job):
    """One message from the client to the next hop: reception, spool and delivery."""

    def __init__(self, exchange: Exchange, content: bytes) -> None:
        self._exchange = exchange
        self._content = content

    async def run(self, messages: int, done: Callable[[], None]) -> None:
        """Sends the messages from a thread, in which `done` is called too."""

        def send() -> None:
            for _ in range(messages):
                self._exchange.send(self._content)
                done()

        await asyncio.to_thread(send)


@asynccontextmanager
async def dkim_job(folder: Path) -> AsyncIterator[Job]:
    """A message of 4 KB through the chain with `dkim`."""
    plain = Newsletter(html=2_900, links=10).message("quoted-printable")
    async with _chain(_configure(folder, [_dkim(folder)])) as chain:
        yield ChainJob(chain, plain)


@asynccontextmanager
async def content_job(folder: Path) -> AsyncIterator[Job]:
    """A message of 4 KB through the chain with `suppression`, `personalization`, `tracking`
    and `dkim`.
    """
    newsletter = Newsletter(html=2_400, links=10, values=True).message("quoted-printable")
    config = _configure(
        folder,
        [
            "suppression: {}",
            "personalization: {sources: [{header: {}}]}",
            f'tracking: {{base_url: "{TRACKER}"}}',
            _dkim(folder),
        ],
    )
    await asyncio.to_thread(_fill, config, folder / "suppressed.txt")
    async with _chain(config) as chain:
        yield ChainJob(chain, newsletter)


@asynccontextmanager
async def relay_job(folder: Path) -> AsyncIterator[Job]:
    """A message of 4 KB through a worker without plugins, which runs in this very process."""
    listening = socket.create_server((LOCALHOST, 0))
    port = listening.getsockname()[1]
    exchange = Exchange(port, folder / "spool")
    config = _configure(folder, [], port, exchange.next_hop)
    ready, tell_ready = os.pipe()
    parent_gone, parent = os.pipe()
    assignment = Assignment("worker", 0, folder, -1, tell_ready, parent_gone, {})
    handler = setup_log(config.log, config.hostname, "worker")
    worker = Worker(config, load_plugins(config), {f"{LOCALHOST}:{port}": listening}, 0, handler)
    running = asyncio.create_task(worker.run(assignment))
    try:
        while b"ready" not in await asyncio.to_thread(os.read, ready, 4096):
            pass
        yield RelayJob(exchange, b"Subject: relay\r\n\r\n" + (b"x" * 78 + b"\r\n") * 50)
    finally:
        exchange.close()
        os.close(parent)
        await running
        for descriptor in (ready, tell_ready, parent_gone):
            with suppress(OSError):
                os.close(descriptor)


JOBS = {"dkim": dkim_job, "content": content_job, "relay": relay_job}
"""All jobs by name; each is made in a folder of its own."""


def _fill(config: Config, addresses: Path) -> None:
    """Puts addresses on the suppression list, of which none gets mail."""
    addresses.write_text("".join(f"{n}@suppressed.example\n" for n in range(_SUPPRESSED)))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "-c", config.path, "suppression", "import", addresses],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise BenchError("the suppression list cannot be imported", done.stderr)


def _dkim(folder: Path) -> str:
    key = SigningKey.make(folder / "s1.pem")
    return f'dkim: {{keys: [{{domain: {DOMAIN}, selector: {SELECTOR}, file: "{key.file}"}}]}}'


def _configure(folder: Path, plugins: list[str], port: int = 2525, next_hop: int = 2600) -> Config:
    file = folder / "gateway.yaml"
    entries = "".join(f"  - {entry}\n" for entry in plugins)
    file.write_text(
        "hostname: gateway.bench.test\nspool: {path: spool, reserve: 1}\n"
        f"listen: [{{address: '{LOCALHOST}:{port}', allow: [127.0.0.0/8]}}]\n"
        f"relay: {{via: ['{LOCALHOST}:{next_hop}'], idle: 1h, tls: {{level: none}}}}\n"
        "log: {level: info, file: gateway.log}\nshutdown_timeout: 1s\n"
        + (f"plugins:\n{entries}" if plugins else "")
    )
    return load_config(file)


@asynccontextmanager
async def _chain(config: Config) -> AsyncIterator[Chain]:
    plugins = load_plugins(config)
    resolver = Resolver(["127.0.0.1:1"], 1.0)  # nothing here asks it
    limits = Limits(config.spool.limits)
    await start_plugins(plugins, config, "worker", resolver, limits, _no_event)
    try:
        yield Chain(plugins, Watchdog())
    finally:
        await stop_plugins(plugins)
        await resolver.close()
        limits.close()


def _no_event(event: Event) -> asyncio.Future[None]:
    raise BenchError(f"a plugin emitted {event.type}")
