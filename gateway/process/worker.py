"""One worker process: its objects, wired top to bottom.

Workers are equal: each accepts, filters, spools and delivers its own mail.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from gateway.configuration.config import Config, ConfigError, Listen, load_config
from gateway.configuration.network import NetworkSet
from gateway.configuration.retry import Retry
from gateway.configuration.users import load_users
from gateway.delivery.connections import Connections
from gateway.delivery.identity import Identity
from gateway.delivery.route import Router
from gateway.delivery.tls import Tls
from gateway.hooks.chain import Chain
from gateway.hooks.lifecycle import PluginStartError, resolver_of, start_plugins, stop_plugins
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.limits import Limits
from gateway.log import AcceptLog, AttemptLog, LineHandler
from gateway.log import setup as setup_log
from gateway.metrics.worker import WorkerMetrics
from gateway.process.assignment import BACKLOG, Assignment
from gateway.process.control import ControlError, ControlServer
from gateway.process.handover import Factory, Handover
from gateway.queue.administration import QueueService
from gateway.queue.courier import Courier
from gateway.queue.dispatch import Dispatcher
from gateway.queue.lane import Bounds
from gateway.queue.pauses import Pauses
from gateway.queue.schedule import RetryPolicy
from gateway.queue.settle import Settler
from gateway.smtp.allowance import Allowance
from gateway.smtp.attendance import Attendance
from gateway.smtp.guesses import PLACES, Guesses
from gateway.smtp.ingress import Ingress
from gateway.smtp.listener import Listener
from gateway.smtp.reception import Reception
from gateway.spool.emitter import Emitter
from gateway.spool.outbox import forget_events
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool

ADOPT_SECONDS = 5.0
"""How often a worker looks for shards that nobody holds."""

SILENCE_SECONDS = 1.0
"""How often clients that have been silent for too long are looked for."""

YOUNG_OBJECTS = 20_000
"""New objects until the garbage collector looks for cycles: mail in work makes none, so looking
every 700 objects, the default, is work for nothing."""

SWITCH_INTERVAL = 0.0005
"""Seconds until a thread that waits for the interpreter gets it: the commit thread waits for it
after each fsync, and 5 ms, the default, is thirty times the fsync."""

log = logging.getLogger("gateway.worker")


class Worker:
    """What one worker process is made of."""

    def __init__(
        self,
        config: Config,
        plugins: Sequence[LoadedPlugin],
        sockets: Mapping[str, socket.socket],
        index: int,
        log_handler: LineHandler,
        handover: Handover | None = None,
    ) -> None:
        self._config = config
        self._handover = handover
        self._plugins = plugins
        self._sockets = sockets
        clock = time.time
        self._watchdog = Watchdog()
        self._chain = Chain(plugins, self._watchdog)
        folder = config.spool.path
        control = folder / f"worker-{index}-{os.getpid()}.sock"
        self._spool = Spool(folder, str(control), config.spool.reserve)
        streams = config.compiled_streams
        self._resolver = resolver_of(config)
        self._limits = Limits(config.spool.limits)
        identity = Identity(config.hostname, tuple(listen.address for listen in config.listen))
        router = Router(config.relay, self._resolver, identity)
        self._tls = Tls(config.relay.tls, self._resolver, folder / "mta-sts", clock)
        self._connections = Connections(
            self._resolver,
            self._tls,
            self._limits,
            identity=identity,
            idle=config.relay.idle,
            messages_per_connection=config.relay.messages_per_connection,
        )
        events = self._chain.interest
        self._emitter = Emitter(self._spool, wanted=bool(events))
        self._settler = Settler(
            hostname=config.hostname,
            retry_of=_retry_policies(config),
            events=events,
            chain=self._chain,
            spool=self._spool,
            attempt_log=AttemptLog(log_handler),
            clock=clock,
        )
        courier = Courier(
            chain=self._chain,
            router=router,
            connections=self._connections,
            settler=self._settler,
            hostname=config.hostname,
            clock=clock,
        )
        pauses = Pauses(folder, clock)
        self._dispatcher = Dispatcher(
            spool=self._spool,
            courier=courier,
            settler=self._settler,
            pauses=pauses,
            bounds=Bounds(runners_per_lane=config.relay.connections),
            lane_of=router.lane,
            priority_of=streams.priority,
            events=events,
            clock=clock,
        )
        self._ingress = Ingress(
            hostname=config.hostname,
            limits=config.limits,
            campaign_header=config.campaign_header,
            release_header=config.release_header,
            streams=streams,
            chain=self._chain,
            spool=self._spool,
            dispatcher=self._dispatcher,
            accept_log=AcceptLog(log_handler),
            clock=clock,
            allowance=_allowance(config),
            attendance=Attendance(handover.note) if handover is not None else None,
        )
        logins = bool(self._chain.steps["auth"])
        # A file of its own: guessers must not fill the one that plugins need.
        self._logins = Limits(config.spool.logins, places=PLACES)
        limits = config.limits
        guesses = Guesses(self._logins, limits.login_failures, limits.login_pause, clock)
        self._listeners = [
            _listener(listen, self._ingress, logins or listen.users is not None, guesses)
            for listen in config.listen
        ]
        self._queue = QueueService(
            self._spool,
            self._dispatcher,
            self._settler,
            self._ingress,
            self._chain,
            pauses,
            self._connections,
        )
        self._metrics = WorkerMetrics(
            chain=self._chain,
            ingress=self._ingress,
            settler=self._settler,
            dispatcher=self._dispatcher,
            connections=self._connections,
            spool=self._spool,
        )
        self._control = ControlServer(control, self._answer)
        self._servers: list[asyncio.Server] = []
        self._stop = asyncio.Event()
        self._log_handler = log_handler

    async def run(self, assignment: Assignment) -> None:
        """Works until SIGTERM, or until the supervisor is gone.

        Raises:
            PluginStartError, SpoolError, ControlError, OSError: it cannot start.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._log_handler.reopen)
        attendance = loop.create_task(assignment.attend())
        attendance.add_done_callback(lambda _: self._stop.set())
        self._watchdog.start()
        try:
            await start_plugins(
                self._plugins,
                self._config,
                "worker",
                self._resolver,
                self._limits,
                self._emitter.emit,
            )
            self._spool.open()
            _remove_dead_sockets(self._config.spool.path)
            await self._control.start()
            self._dispatcher.adopt(self._spool.shards)
            await self._listen()
            chores = [loop.create_task(self._adopt()), loop.create_task(self._watch_silence())]
            gc.freeze()
            gc.set_threshold(YOUNG_OBJECTS, 20, 20)
            assignment.report_ready()
            log.info("ready")
            await self._stop.wait()
            for chore in chores:
                chore.cancel()
            await self._finish()
        finally:
            attendance.cancel()
            self._watchdog.stop()

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Answers a request over the control socket: about this process, or about its mail."""
        told = self._metrics.answer(asked)
        return await self._queue.answer(asked) if told is None else told

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for listener, listen in zip(self._listeners, self._config.listen, strict=True):
            implicit = listen.tls is not None and listen.tls.mode == "implicit"
            session: Factory = functools.partial(Reception, listener)
            if self._handover is not None and not implicit:
                session = self._handover.factory(session)
            server = await loop.create_server(
                session,
                sock=self._sockets[str(listen.address)],
                backlog=BACKLOG,
                ssl=listener.tls if implicit else None,
            )
            self._servers.append(server)
        if self._handover is not None:
            self._handover.start()

    async def _watch_silence(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SILENCE_SECONDS)
            for listener in self._listeners:
                await listener.dismiss_silent(loop.time)

    async def _adopt(self) -> None:
        while True:
            await asyncio.sleep(ADOPT_SECONDS)
            try:
                self._dispatcher.adopt(self._spool.adopt())
                forget_events(
                    self._config.spool.path,
                    [step.plugin for step in self._chain.steps["observe"]],
                    self._spool.shards,
                )
                self._dispatcher.release(self._spool.release_empty())
            except Exception:
                log.exception("looking for shards failed")

    async def _finish(self) -> None:
        """Ends what is under way, within `shutdown_timeout`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.shutdown_timeout
        if self._handover is not None:
            self._handover.leave()
        # At once: a client that takes its time must not take it from the attempts under way.
        deliveries = loop.create_task(self._dispatcher.stop(self._config.shutdown_timeout))
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            listener.stopping = True
            for session in list(listener.sessions):
                if not session.busy:
                    session.dismiss("421 4.3.2 The gateway is shutting down, please come again")
        # Sessions end one by one, in any listener; there is no one event to wait for.
        while any(listener.sessions for listener in self._listeners) and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for listener in self._listeners:
            for session in list(listener.sessions):
                session.dismiss("421 4.3.2 The gateway is shutting down, please come again")
        await deliveries
        if self._handover is not None:
            await self._handover.close()
        await self._connections.close(1.0)
        await self._tls.close()
        await self._control.close()
        await self._spool.drain()
        self._spool.close()
        await stop_plugins(self._plugins)
        self._limits.close()
        self._logins.close()
        log.info("stopped")


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


def _allowance(config: Config) -> Allowance:
    """A worker's part of `limits.memory`, in which at least one message fits."""
    limits = config.limits
    return Allowance(max(limits.memory // config.worker_count, limits.message_size))


def _remove_dead_sockets(folder: Path) -> None:
    """Removes the control sockets of workers that were killed."""
    for path in folder.glob("worker-*.sock"):
        if not Path("/proc", path.stem.rpartition("-")[2]).exists():
            path.unlink(missing_ok=True)


def _listener(listen: Listen, ingress: Ingress, logins: bool, guesses: Guesses) -> Listener:
    context: ssl.SSLContext | None = None
    if listen.tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(listen.tls.certificate, listen.tls.key)
    return Listener(
        name=str(listen.address),
        ingress=ingress,
        allow=NetworkSet(listen.allow),
        tls=context,
        users=load_users(listen.users) if listen.users is not None else None,
        logins=logins,
        plaintext_auth=listen.plaintext_auth,
        guesses=guesses,
    )


def main() -> int:
    """The process that `gateway run` starts for each worker."""
    assignment = Assignment.receive()
    # Ctrl-C reaches the whole group; the supervisor says what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_INTERVAL)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        config = load_config(assignment.config_path, assignment.config_text())
        handler = setup_log(config.log, config.hostname, "worker")
        plugins = load_plugins(config)

        async def run() -> None:
            seat, index = assignment.seat, assignment.index
            handover = Handover(seat, index) if seat is not None else None
            sockets = assignment.listen_sockets()
            worker = Worker(config, plugins, sockets, index, handler, handover)
            await worker.run(assignment)

        uvloop.run(run())
    except ConfigError as error:
        assignment.report_failure("; ".join(map(str, error.problems)))
        return 2
    except (PluginStartError, SpoolError, ControlError, OSError) as error:
        assignment.report_failure(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
