"""Listens for HTTP on the socket that the supervisor holds."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence

from uvicorn.config import Config as UvicornConfig

from gateway.configuration.config import Http
from gateway.configuration.network import NetworkSet
from gateway.hooks.step import Step
from gateway.hooks.watchdog import Watchdog
from gateway.process.assignment import BACKLOG
from gateway.web.application import load_applications
from gateway.web.connection import LINGER, Connection, Connections
from gateway.web.health import Health
from gateway.web.mount import HEALTH, METRICS
from gateway.web.site import Site

MOST_CONNECTIONS = 10_000

LOOK_SECONDS = 1.0
"""How often clients whose time is up are looked for."""

log = logging.getLogger("gateway.web")


class WebServer:
    """Serves a site on one listening socket, until it is closed."""

    def __init__(self, site: Site, http: Http) -> None:
        self._http = http
        self._config = UvicornConfig(
            site,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            # What uvicorn would log of a request is logged with the plugin's name, or is noise that
            # any client can make.
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=0,
        )
        self._config.load()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The other half is for what this process does beside.
        most = min(MOST_CONNECTIONS, files // 2)
        self._connections = Connections(most, http.max_body, http.timeout)
        self._server: asyncio.Server | None = None
        self._chore: asyncio.Task[None] | None = None

    async def open(self, listener: socket.socket) -> None:
        """Takes connections from now on.

        Raises:
            OSError: the socket or the certificate cannot be used.
        """
        tls = self._http.tls
        context: ssl.SSLContext | None = None
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tls.certificate, tls.key)
            context.set_alpn_protocols(["http/1.1"])
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._config, self._connections, {}, loop),
            sock=listener,
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=self._http.timeout if tls else None,
            ssl_shutdown_timeout=self._http.timeout if tls else None,
        )
        self._chore = loop.create_task(self._look())

    async def close(self, timeout: float) -> None:
        """Takes no more connections; requests under way have `timeout` seconds to finish."""
        assert self._server is not None
        assert self._chore is not None
        loop = asyncio.get_running_loop()
        start = loop.time()
        self._server.close()
        self._connections.end()
        # A client that is shaking hands is in no list yet.
        least = start + (LINGER if self._http.tls else 0.0)
        while (now := loop.time()) < start + timeout:
            if not self._connections.connections and now >= least:
                break
            await asyncio.sleep(0.02)
            self._connections.look()
        if self._connections.tasks:
            log.warning("%d requests are cut short", len(self._connections.tasks))
        await self._connections.cut()
        self._chore.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self._http.timeout / 4))
            try:
                self._connections.tick()
                self._connections.look()
            except Exception:
                log.exception("looking for slow clients failed")


async def start_server(
    http: Http | None,
    steps: Sequence[Step],
    watchdog: Watchdog,
    sockets: Mapping[str, socket.socket],
    health: Callable[[], Health],
    metrics: Callable[[], Awaitable[bytes]],
) -> WebServer | None:
    """Serves what the `http` hooks give, on the socket of its address; None if nothing listens.

    `health` tells how the gateway is, `metrics` what it has counted, in Prometheus's format.

    Raises:
        PluginStartError: a plugin cannot be served.
        OSError: the socket or the certificate cannot be used.
    """
    if http is None:
        for step in steps:
            log.warning("plugin %s is not served: gateway.yaml has no section http", step.plugin)
        return None
    applications = load_applications(steps, watchdog)
    site = Site(
        applications,
        NetworkSet(http.proxies).__contains__,
        http.max_body,
        health,
        metrics,
        NetworkSet(http.metrics).__contains__,
    )
    server = WebServer(site, http)
    await server.open(sockets[str(http.address)])
    paths = ", ".join([f"/{HEALTH}", f"/{METRICS}", *(f"/{name}/" for name in applications)])
    log.info("HTTP on %s: %s", http.address, paths)
    return server
