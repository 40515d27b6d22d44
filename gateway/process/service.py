"""The service process: observers learn here what happened, and plugins answer over HTTP.

It is apart from the mail's way, and cannot affect mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence

import uvloop

from gateway.configuration.config import Config, load_config
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.chain import Chain
from gateway.hooks.lifecycle import PluginStartError, resolver_of, start_plugins, stop_plugins
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.limits import Limits
from gateway.log import LineHandler
from gateway.log import setup as setup_log
from gateway.metrics.service import ServiceMetrics
from gateway.process.assignment import Assignment
from gateway.spool.emitter import Emitter
from gateway.spool.outbox import Outbox, forget_events
from gateway.spool.spool import Spool
from gateway.web.server import WebServer, start_server

LOOK_SECONDS = 0.5
"""How often the outbox is looked at."""

YOUNG_OBJECTS = 20_000
"""New objects until the garbage collector looks for cycles: requests make none."""

log = logging.getLogger("gateway.service")


class Service:
    """What the service process is made of."""

    def __init__(
        self, config: Config, plugins: Sequence[LoadedPlugin], log_handler: LineHandler
    ) -> None:
        self._config = config
        self._plugins = plugins
        self._log_handler = log_handler
        self._watchdog = Watchdog()
        self._chain = Chain(plugins, self._watchdog)
        self._observers = [step.plugin for step in self._chain.steps["observe"]]
        self._outbox = Outbox(config.spool.path, self._chain)
        self._resolver = resolver_of(config)
        self._limits = Limits(config.spool.limits)
        # A shard for what this process emits, and no mail; what it leaves there, a worker adopts.
        self._spool = Spool(config.spool.path, f"service-{os.getpid()}", config.spool.reserve)
        self._metrics = ServiceMetrics(config, self._chain, self._spool)
        self._stopping = False
        self._news = asyncio.Event()
        self._emitter = Emitter(
            self._spool,
            wanted=bool(self._chain.interest),
            open_spool=functools.partial(self._spool.open, new=True),
            written=self._news.set,
        )

    async def run(self, assignment: Assignment) -> None:
        """Works until SIGTERM, or until the supervisor is gone.

        Raises:
            PluginStartError, OSError: it cannot start.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, self._log_handler.reopen)
        attendance = loop.create_task(assignment.attend())
        attendance.add_done_callback(lambda _: self._stop())
        self._watchdog.start()
        try:
            await start_plugins(
                self._plugins,
                self._config,
                "service",
                self._resolver,
                self._limits,
                self._emitter.emit,
            )
            server = await self._listen(assignment)
            gc.freeze()
            gc.set_threshold(YOUNG_OBJECTS, 20, 20)
            assignment.report_ready()
            log.info("ready")
            await self._pass_on()
            await self._finish(server)
        finally:
            attendance.cancel()
            self._watchdog.stop()

    def _stop(self) -> None:
        self._stopping = True
        self._news.set()

    async def _listen(self, assignment: Assignment) -> WebServer | None:
        try:
            server = await start_server(
                self._config.http,
                self._chain.steps["http"],
                self._watchdog,
                assignment.listen_sockets(),
                self._metrics.health,
                self._metrics.text,
            )
        except Exception:
            await stop_plugins(self._plugins)
            raise
        if server is not None:
            self._metrics.start()
        return server

    async def _pass_on(self) -> None:
        """Gives events to observers until the end."""
        while not self._stopping:
            self._news.clear()
            try:
                if await self._outbox.pass_on():
                    await asyncio.sleep(0)  # requests have their turn between batches
                    continue
                forget_events(self._config.spool.path, self._observers, self._spool.shards)
            except Exception:
                log.exception("the outbox cannot be read")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOK_SECONDS)

    async def _finish(self, server: WebServer | None) -> None:
        # What the workers wrote last, while this process was told to stop, comes at the next start.
        self._outbox.close()
        if server is not None:
            await server.close(self._config.shutdown_timeout)
        self._metrics.close()
        await stop_plugins(self._plugins)
        await self._spool.drain()
        self._spool.close()
        await self._resolver.close()
        self._limits.close()
        log.info("stopped")


def main() -> int:
    """The process that `gateway run` starts once beside the workers."""
    assignment = Assignment.receive()
    # Ctrl-C reaches the whole group; the supervisor says what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        config = load_config(assignment.config_path, assignment.config_text())
        handler = setup_log(config.log, config.hostname, "service")
        plugins = load_plugins(config)

        async def run() -> None:
            await Service(config, plugins, handler).run(assignment)

        uvloop.run(run())
    except ConfigError as error:
        assignment.report_failure("; ".join(map(str, error.problems)))
        return 2
    except (PluginStartError, OSError) as error:
        assignment.report_failure(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
