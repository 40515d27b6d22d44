"""One client's connection, which has so much time and room and no more."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from time import monotonic
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.web.response import SECURITY, described

MAX_HEAD = 64 << 10
"""Octets of a request's line and header fields."""

MAX_FIELDS = 200
"""Header fields of a request."""

MAX_WAITING = 16
"""Requests that a client may send before it has the answer to the first (pipelining)."""

SPARE = 1 << 20
"""Octets of a body that are read and thrown away after it was refused, so that the client, which
still sends, hears why."""

LINGER = 1.0
"""Seconds that an idle client has for one last request when the service ends: it may have sent it
already."""

NEVER = float("inf")


class Connections(ServerState):
    """What all connections share.

    Attributes:
        most: how many there may be; more are answered with 503.
        max_body: octets of a body that may be needed.
        timeout: seconds that a client may take to send a request, take nothing, or be idle.
        ending: whether each answer is the last on its connection.
    """

    def __init__(self, most: int, max_body: int, timeout: float) -> None:
        super().__init__()
        self.most = most
        self.max_body = max_body
        self.timeout = timeout
        self.ending = False
        self.tick()

    def tick(self) -> None:
        """Sets the date that answers bear."""
        self.default_headers = [(b"date", formatdate(usegmt=True).encode())]

    def look(self) -> None:
        """Cuts clients whose time is up."""
        now = monotonic()
        for connection in list(self.connections):
            assert isinstance(connection, Connection)
            connection.look(now)

    def end(self) -> None:
        """Makes every connection end: after its request, or if it stays idle."""
        self.ending = True
        due = monotonic() + min(LINGER, self.timeout)
        for connection in self.connections:
            assert isinstance(connection, Connection)
            connection.end(due)

    async def cut(self) -> None:
        """Ends every request and connection now."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LINGER)
        for connection in list(self.connections):
            connection.transport.abort()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with limits for clients that are slow, greedy or mad."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, Connections)
        self._shared = server_state
        self._in_head = False
        self._receiving = False
        self._octets = 0
        self._due = self._moved = monotonic()
        self._unsent = 0

    @property
    def _answering(self) -> bool:
        """Whether the answer to a request is not out yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    # The client's time.

    def look(self, now: float) -> None:
        """Ends the connection if the client has used up its time (monotonic seconds)."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        if unsent:
            # Who still takes an answer is not idle, and not waited for in another way.
            self._due = max(self._due, now + self._shared.timeout)
        if now > self._moved + self._shared.timeout:
            self.transport.abort()
        elif now > self._due and not self.transport.is_closing():
            if self._in_head:
                self._refuse(408)
            else:
                self.transport.close()

    def end(self, due: float) -> None:
        """Makes the answer under way the last one; without one, the client has until `due`."""
        if self._answering:
            self.cycle.keep_alive = False
        elif not self._receiving:
            self._due = min(self._due, due)

    # What the transport and the parser tell.

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """Refuses the client if there are too many."""
        super().connection_made(transport)
        self._due = monotonic() + (LINGER if self._shared.ending else self._shared.timeout)
        if len(self.connections) > self._shared.most:
            self._refuse(503)

    def data_received(self, data: bytes) -> None:
        """Refuses requests that are too large, whatever of them it is that is."""
        if self.transport.is_closing():
            return
        self._octets += len(data)
        super().data_received(data)
        if not self._receiving:
            return
        if self._in_head:
            if self._octets > MAX_HEAD:
                self._refuse(431)
        elif self._octets > MAX_HEAD + 2 * self._shared.max_body + SPARE:
            # Twice: chunks may be small.
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Gives the client its time for one request."""
        super().on_message_begin()
        self._in_head = self._receiving = True
        self._octets = 0
        self._due = monotonic() + self._shared.timeout

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header field, and no trailer, which nobody may take for one."""
        if not self._in_head:
            return
        if len(self.headers) >= MAX_FIELDS:
            self._refuse(431)
            raise ValueError("too many header fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Starts the request, or lets it wait for those before it."""
        if len(self.pipeline) >= MAX_WAITING:
            self.transport.abort()
            raise ValueError("too many requests at a time")
        self._in_head = False
        super().on_headers_complete()
        if self._shared.ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Stops the client's time while its answer is made."""
        super().on_message_complete()
        self._receiving = False
        self._due = NEVER if self._answering else monotonic() + self._shared.timeout

    def on_response_complete(self) -> None:
        """Gives the client its time to be idle."""
        super().on_response_complete()
        # uvicorn's own timer, which sees less than `look`.
        self._unset_keepalive_if_required()
        if not self._answering:
            self._due = monotonic() + self._shared.timeout

    def resume_writing(self) -> None:
        """Notes that the client has taken something."""
        super().resume_writing()
        self._moved = monotonic()

    # Refusals.

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP."""
        self._refuse(400)

    def _refuse(self, status: int) -> None:
        """Says why, and ends the connection; says nothing where an earlier answer is not out."""
        if self.transport.is_closing():
            return
        if self._answering:
            self.transport.abort()
            return
        text = described(status)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
            (b"connection", b"close"),
            *SECURITY,
        ]
        lines = [f"HTTP/1.1 {status} {text}".rstrip().encode(), *map(b": ".join, headers)]
        self.transport.write(b"\r\n".join([*lines, b"", text.encode()]))
        self.transport.close()
