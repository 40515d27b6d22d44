"""A worker in the test's own process: its objects on a real socket and real files."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict

from gateway.configuration.config import Config
from gateway.configuration.network import NetworkSet, parse_network
from gateway.configuration.retry import Retry
from gateway.configuration.users import Users
from gateway.delivery.connections import Connections
from gateway.delivery.route import Router
from gateway.delivery.tls import Tls
from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.lifecycle import start_plugins, stop_plugins
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.limits import Limits
from gateway.log import AcceptLog, AttemptLog
from gateway.queue.courier import Courier
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
from gateway.testing.clock import Clock
from gateway.testing.installation import with_clock
from gateway.testing.moved_dispatcher import MovedDispatcher

SILENCE_SECONDS = 0.05
"""How often clients that have been silent for too long are looked for."""

UNREACHABLE = "127.0.0.1:1"
"""A name server that nobody asks in vain for long: nothing listens there."""


class Options(TypedDict, total=False):
    """How a worker listens and works; see `Worker`."""

    bounds: Bounds | None
    retry: RetryPolicy | None
    allow: Sequence[str]
    tls: ssl.SSLContext | None
    implicit: bool
    users: Users | None
    plaintext_auth: bool
    host: str


class Worker:
    """What a worker is made of, wired as in `gateway run`.

    Args:
        config: what to build; its `listen` is not used.
        plugins: those of `config`; None: as it names them.
        clock: the wall clock; None: the system's.
        bounds: how much the dispatcher does at a time.
        retry: when deferred mail is tried again; None: as `config` says.
        allow: the networks that may relay without a login.
        tls, implicit: what clients may do TLS with, and whether it begins at the first octet.
        users, plaintext_auth: who may log in, and whether also without TLS.
        host: the IP address to listen at.

    Attributes:
        port: where it listens, once it runs; host: the IP address of that.
    """

    def __init__(
        self,
        config: Config,
        *,
        plugins: Sequence[LoadedPlugin] | None = None,
        clock: Clock | None = None,
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
        self.clock = Clock(None) if clock is None else clock
        self.watchdog = Watchdog()
        loaded = load_plugins(config) if plugins is None else plugins
        self.plugins = with_clock(loaded, self.clock)
        self.chain = Chain(self.plugins, self.watchdog)
        self.spool = Spool(config.spool.path, "nobody", config.spool.reserve)
        dns = config.dns
        self.resolver = Resolver(
            list(map(str, dns.nameservers)) or [UNREACHABLE], 1.0, loopback=dns.loopback
        )
        self.limits = Limits(config.spool.limits)
        folder = config.spool.path
        self.tls = Tls(config.relay.tls, self.resolver, folder / "mta-sts", self.clock)
        self.connections = Connections(
            self.resolver,
            self.tls,
            self.limits,
            idle=config.relay.idle,
            messages_per_connection=config.relay.messages_per_connection,
        )
        router = Router(config.relay, self.resolver)
        self.pauses = Pauses(folder, self.clock)
        events = self.chain.interest
        self.emitter = Emitter(self.spool, wanted=bool(events))
        self.settler = Settler(
            hostname=config.hostname,
            retry_of=_retry_policies(config) if retry is None else lambda _stream: retry,
            events=events,
            chain=self.chain,
            spool=self.spool,
            attempt_log=AttemptLog(),
            clock=self.clock,
        )
        self.dispatcher = MovedDispatcher(
            spool=self.spool,
            courier=Courier(
                chain=self.chain,
                router=router,
                connections=self.connections,
                settler=self.settler,
                hostname=config.hostname,
                clock=self.clock,
            ),
            settler=self.settler,
            pauses=self.pauses,
            bounds=bounds or Bounds(runners_per_lane=config.relay.connections),
            lane_of=router.lane,
            priority_of=config.compiled_streams.priority,
            events=events,
            clock=self.clock,
        )
        self.ingress = Ingress(
            hostname=config.hostname,
            limits=config.limits,
            campaign_header=config.campaign_header,
            release_header=config.release_header,
            streams=config.compiled_streams,
            chain=self.chain,
            spool=self.spool,
            dispatcher=self.dispatcher,
            accept_log=AcceptLog(),
            clock=self.clock,
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
        self.port = 0
        self._implicit = implicit
        self.host = host

    async def __aenter__(self) -> Self:
        await start_plugins(
            self.plugins, self.config, "worker", self.resolver, self.limits, self.emitter.emit
        )
        self.spool.open()
        self.dispatcher.adopt(self.spool.shards)
        self.clock.listen(self.dispatcher.moved)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self.make_session,
            self.host,
            0,
            ssl=self.listener.tls if self._implicit else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._housekeeping = asyncio.create_task(self._dismiss_silent())
        return self

    async def _dismiss_silent(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SILENCE_SECONDS)
            await self.listener.dismiss_silent(loop.time)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self._housekeeping.cancel()
        self.clock.forget(self.dispatcher.moved)
        for session in list(self.listener.sessions):
            session.dismiss("421 4.3.2 The test is over")
        await asyncio.gather(self._housekeeping, return_exceptions=True)
        await self.dispatcher.stop(0.0)
        await self.connections.close(0.0)
        await self.tls.close()
        await self.resolver.close()
        await self.spool.drain()
        self.spool.close()
        await stop_plugins(self.plugins)
        self.limits.close()
        async with asyncio.timeout(60.0):
            while self.listener.sessions:  # noqa: ASYNC110 - sessions end one by one
                await asyncio.sleep(0.005)

    def make_session(self) -> Reception:
        """A session for a connection that has just come."""
        return Reception(self.listener)

    def rows(self, **selection: Any) -> list[Row]:
        """What is in the queue, one row for each recipient; `selection` is that of `Selection`."""
        return list(read(self.config.spool.path, Selection(**selection)))

    def events(self) -> list[Event]:
        """What is in the outbox, oldest first in each shard."""
        return [
            Event.from_json(text)
            for shard in self.spool.shards
            for (text,) in shard.query("SELECT event FROM events ORDER BY number", ())
        ]


def _retry_policies(config: Config) -> Callable[[str], RetryPolicy]:
    """When mail of a stream is tried again."""

    def policy(retry: Retry) -> RetryPolicy:
        return RetryPolicy(retry.schedule, retry.jitter, retry.lifetime, retry.delay_warning)

    default = policy(config.retry)
    by_stream = {
        name: policy(stream.retry)
        for name, stream in config.streams.items()
        if stream.retry is not None
    }
    return lambda stream: by_stream.get(stream, default)
