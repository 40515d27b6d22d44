"""The HTTP service in the test's own process, on a real socket, and a client of octets for it."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, Self

import uvloop

from gateway.configuration.config import Http
from gateway.configuration.endpoint import Endpoint
from gateway.hooks.step import Step
from gateway.hooks.watchdog import Watchdog
from gateway.web.asgi import ASGIApplication, Receive, Scope, Send
from gateway.web.health import Health
from gateway.web.server import WebServer, start_server

DEADLINE = 60.0

P = ParamSpec("P")


def on_uvloop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test on the loop that the service runs on."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*args, **kwargs), DEADLINE))

    return run


def step(app: object, name: str = "site", timeout: float = DEADLINE) -> Step:
    """The `http` hook of a plugin, which gives `app`."""
    return Step(name, "http", lambda: app, False, (object,), None, timeout, "tempfail", False)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that says hello."""
    await answer(send, b"hello")


async def answer(send: Send, body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    """Sends an answer with its length."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire; header fields by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Reader(asyncio.StreamReader):
    """A reader that gives what came before a reset."""

    def set_exception(self, exc: BaseException) -> None:
        self.feed_eof()


class Client:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    def request(self, path: str, *fields: str, method: str = "GET", body: str = "") -> None:
        self.send(
            "\r\n".join([f"{method} {path} HTTP/1.1", "Host: t.example.com", *fields, "", body])
        )

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer.

        Raises:
            EOFError: the connection was closed instead.
        """
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *fields = head.split("\r\n")[:-2]
        headers: dict[str, str] = {}
        for field in fields:
            name, _, value = field.partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        length = 0 if method == "HEAD" else int(headers["content-length"])
        return Answer(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, path: str, *fields: str, method: str = "GET", body: str = "") -> Answer:
        """Sends a request and gets its answer."""
        if body:
            fields = (*fields, f"Content-Length: {len(body)}")
        self.request(path, *fields, method=method, body=body)
        return await self.answer(method)

    async def closed(self) -> bytes:
        """Waits for the end of the connection, and returns what came before it."""
        return await self.reader.read()


class Service:
    """What `http` hooks give, served on a free port.

    Attributes:
        health: how the gateway is.
        text: the metrics, or what is raised instead.
    """

    def __init__(
        self, *steps: Step, send_buffer: int = 0, watched: bool = False, **http: Any
    ) -> None:
        self._steps = steps or (step(hello),)
        self._http = Http(address=Endpoint("127.0.0.1", 0), **http)
        self._send_buffer = send_buffer
        self._watchdog = Watchdog()
        self._watched = watched
        self._server: WebServer | None = None
        self._clients: list[Client] = []
        self.port = 0
        self.health = Health()
        self.text: bytes | Exception = b"gateway_up 1\n"

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        if self._send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self.port = listener.getsockname()[1]
        # It takes the signal by which pytest ends a test that hangs.
        if self._watched:
            self._watchdog.start()
        sockets = {str(self._http.address): listener}
        self._server = await start_server(
            self._http, self._steps, self._watchdog, sockets, lambda: self.health, self._metrics
        )
        return self

    async def _metrics(self) -> bytes:
        if isinstance(self.text, Exception):
            raise self.text
        return self.text

    @property
    def connections(self) -> int:
        """How many it has."""
        assert self._server is not None
        return len(self._server._connections.connections)

    async def connect(self, receive_buffer: int = 0) -> Client:
        """A new connection."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        reader = _Reader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
        client = Client(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        self._clients.append(client)
        return client

    async def ask(self, path: str, *fields: str, method: str = "GET", body: str = "") -> Answer:
        """Asks over a new connection."""
        client = await self.connect()
        return await client.ask(path, *fields, method=method, body=body)

    async def close(self, timeout: float = 0.0) -> None:
        """Ends the service."""
        assert self._server is not None
        server, self._server = self._server, None
        await server.close(timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            await self.close()
        for client in self._clients:
            client.writer.transport.abort()
        if self._watched:
            self._watchdog.stop()
        await asyncio.sleep(0)


def apps(**applications: ASGIApplication) -> list[Step]:
    """A plugin for each application, by its name."""
    return [step(app, name) for name, app in applications.items()]
