"""A gateway in the test's own process: the objects of a worker on a real socket and real files."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.configuration.config import Config, load_config
from gateway.configuration.network import NetworkSet, parse_network
from gateway.configuration.users import Users
from gateway.delivery.connections import Connections
from gateway.delivery.route import Router
from gateway.delivery.tls import Tls
from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.lifecycle import start_plugins, stop_plugins
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.limits import Limits
from gateway.log import AcceptLog, AttemptLog
from gateway.queue.administration import QueueService
from gateway.queue.courier import Courier
from gateway.queue.dispatch import Dispatcher
from gateway.queue.lane import Bounds
from gateway.queue.listing import Row, read
from gateway.queue.pauses import Pauses
from gateway.queue.schedule import RetryPolicy
from gateway.queue.selection import Selection
from gateway.queue.settle import Settler
from gateway.resolver import Resolver
from gateway.smtp.ingress import Ingress
from gateway.smtp.listener import Listener
from gateway.smtp.reception import Reception
from gateway.spool.emitter import Emitter
from gateway.spool.spool import Spool

DEADLINE = 60.0

PLUGIN_HEAD = """
from __future__ import annotations
import asyncio, time
from pathlib import Path
from pydantic import BaseModel
from gateway.hooks import *

class Config(BaseModel):
    pass
"""


def below_trace(content: bytes) -> bytes:
    """A message as the client sent it: without the Received field on top, which is ours."""
    # The content may begin with white space: the field ends with its date, not where it unfolds.
    trace = re.match(rb"Received: .*?;\r\n\t[^\r\n]+\r\n", content, re.DOTALL)
    assert trace is not None
    return content[trace.end() :]


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Waits until the condition gives something true, and returns it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited in vain: {what}")


def write_plugin(folder: Path, name: str, body: str, base: str = "Plugin[Config]") -> str:
    """Writes a plugin of one class with `body` and returns its reference."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    (folder / f"{name}.py").write_text(f"{PLUGIN_HEAD}\nclass Site({base}):\n{lines}\n")
    return f"./{name}.py"


def configure(folder: Path, text: str = "") -> Config:
    """The configuration with `text` below what every test needs."""
    path = folder / "gateway.yaml"
    path.write_text(
        "hostname: gw.example.com\nspool: {path: spool, reserve: 1}\n"
        f"listen: [{{address: '127.0.0.1:0', allow: [127.0.0.0/8]}}]\n{text}\n"
    )
    return load_config(path)


class Assembly:
    """A worker's objects.

    Args:
        config: what to build; its `listen` is not used.
        bounds: how much the dispatcher does at a time.
        retry: when deferred mail is tried again.
        listener: attributes of the listener besides name and ingress.
    """

    def __init__(
        self,
        config: Config,
        *,
        bounds: Bounds | None = None,
        retry: RetryPolicy | None = None,
        allow: Sequence[str] = ("127.0.0.0/8", "::1"),
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        users: Users | None = None,
        plaintext_auth: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        self.config = config
        self.watchdog = Watchdog()
        self.plugins = load_plugins(config)
        self.chain = Chain(self.plugins, self.watchdog)
        self.spool = Spool(config.spool.path, "nobody", config.spool.reserve)
        dns = config.dns
        self.resolver = Resolver(
            list(map(str, dns.nameservers)) or ["127.0.0.1:1"], 1.0, loopback=dns.loopback
        )
        self.limits = Limits(config.spool.limits)
        folder = config.spool.path
        self.tls = Tls(config.relay.tls, self.resolver, folder / "mta-sts")
        self.connections = Connections(
            self.resolver,
            self.tls,
            self.limits,
            idle=config.relay.idle,
            messages_per_connection=config.relay.messages_per_connection,
        )
        router = Router(config.relay, self.resolver)
        self.pauses = Pauses(folder, time.time)
        events = self.chain.interest
        streams = config.compiled_streams
        default = RetryPolicy(
            config.retry.schedule,
            config.retry.jitter,
            config.retry.lifetime,
            config.retry.delay_warning,
        )
        self.emitter = Emitter(self.spool, wanted=bool(events))
        self.settler = Settler(
            hostname=config.hostname,
            retry_of=lambda stream: retry or default,
            events=events,
            chain=self.chain,
            spool=self.spool,
            attempt_log=AttemptLog(),
            clock=time.time,
        )
        self.dispatcher = Dispatcher(
            spool=self.spool,
            courier=Courier(
                chain=self.chain,
                router=router,
                connections=self.connections,
                settler=self.settler,
                hostname=config.hostname,
                clock=time.time,
            ),
            settler=self.settler,
            pauses=self.pauses,
            bounds=bounds or Bounds(runners_per_lane=config.relay.connections),
            lane_of=router.lane,
            priority_of=streams.priority,
            events=events,
            clock=time.time,
        )
        self.ingress = Ingress(
            hostname=config.hostname,
            limits=config.limits,
            campaign_header=config.campaign_header,
            release_header=config.release_header,
            streams=streams,
            chain=self.chain,
            spool=self.spool,
            dispatcher=self.dispatcher,
            accept_log=AcceptLog(),
            clock=time.time,
        )
        self.listener = Listener(
            name="test",
            ingress=self.ingress,
            allow=NetworkSet([parse_network(network) for network in allow]),
            tls=tls,
            users=users,
            logins=users is not None or bool(self.chain.steps["auth"]),
            plaintext_auth=plaintext_auth,
        )
        self.queue = QueueService(
            self.spool, self.dispatcher, self.settler, self.ingress, self.chain, self.pauses
        )
        self._implicit = implicit
        self._host = host
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await start_plugins(
            self.plugins, self.config, "worker", self.resolver, self.limits, self.emitter.emit
        )
        self.spool.open()
        self.dispatcher.adopt(self.spool.shards)
        self._server = await asyncio.get_running_loop().create_server(
            self.make_session,
            self._host,
            0,
            ssl=self.listener.tls if self._implicit else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._housekeeping = asyncio.create_task(self._dismiss_silent())
        return self

    async def _dismiss_silent(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.05)
            self.listener.dismiss_silent(loop.time())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._housekeeping.cancel()
        for session in list(self.listener.sessions):
            session.dismiss("421 4.3.2 The test is over")
        await self.dispatcher.stop(0.0)
        await self.connections.close(0.0)
        await self.tls.close()
        await self.resolver.close()
        await self.spool.drain()
        self.spool.close()
        await stop_plugins(self.plugins)
        self.limits.close()
        await until(lambda: not self.listener.sessions, "the sessions to end")

    def make_session(self) -> Reception:
        """A session for a connection that has just come."""
        return Reception(self.listener)

    def rows(self, **selection: Any) -> list[Row]:
        """What is in the queue."""
        return list(read(self.config.spool.path, Selection(**selection)))

    def events(self) -> list[Event]:
        """What is in the outbox, oldest first in each shard."""
        return [
            Event.from_json(text)
            for shard in self.spool.shards
            for (text,) in shard.query("SELECT event FROM events ORDER BY number", ())
        ]

    @asynccontextmanager
    async def client(self, greet: bool = True) -> AsyncIterator[Client]:
        """A connection to the gateway."""
        reader, writer = await asyncio.open_connection(self._host, self.port)
        client = Client(reader, writer)
        try:
            if greet:
                assert (await client.reply()).startswith("220 gw.example.com ESMTP")
                await client.say("EHLO client.example.org")
            yield client
        finally:
            writer.close()

    async def submit(
        self, *recipients: str, sender: str = "a@example.com", content: bytes = b"", **how: str
    ) -> str:
        """Sends a message over SMTP and returns the reply to its dot."""
        async with self.client() as client:
            reply = await client.say(f"MAIL FROM:<{sender}>{how.get('mail', '')}")
            assert reply.startswith("250"), reply
            for recipient in recipients:
                reply = await client.say(f"RCPT TO:<{recipient}>{how.get('rcpt', '')}")
                assert reply.startswith("250"), reply
            return await client.data(content or b"Subject: test\r\n\r\nHello\r\n")


class Client:
    """An SMTP client that does exactly what a test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)

    async def reply(self) -> str:
        """The next reply, its lines joined by LF; '' at the end of the connection."""
        lines = []
        async with asyncio.timeout(DEADLINE):
            while line := await self.reader.readline():
                assert line.endswith(b"\r\n")
                lines.append(line[:-2].decode())
                if line[3:4] != b"-":
                    break
        return "\n".join(lines)

    async def replies(self, count: int) -> list[str]:
        """The codes of the next replies."""
        return [(await self.reply())[:3] for _ in range(count)]

    async def say(self, line: str) -> str:
        """Sends a command and returns its reply."""
        self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def data(self, content: bytes) -> str:
        """Sends DATA and a message; returns the reply to the dot."""
        assert (await self.say("DATA")).startswith("354")
        self.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return await self.reply()

    async def begin(self, recipient: str = "b@example.net") -> None:
        """Opens a transaction."""
        assert (await self.say("MAIL FROM:<a@example.com>")).startswith("250")
        assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250")

    async def is_closed(self) -> bool:
        """Waits for the gateway to close the connection; anything else that it says is false."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read() == b""
