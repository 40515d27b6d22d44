"""A connection without a network: what a session writes is there for the client at once."""

from __future__ import annotations

import asyncio
from typing import Any


class _Tls:
    """What a session wants to know of the TLS of its connection."""

    def version(self) -> str:
        """The protocol."""
        return "TLSv1.3"


class Loopback(asyncio.Transport):
    """The server's end of a connection.

    Args:
        protocol: the server's side of the dialogue.
        peer: IP address and port of the client.
        tls: whether the connection counts as encrypted.

    Attributes:
        reader: what the server has said.
        closed: done when the connection is.
    """

    def __init__(
        self, protocol: asyncio.StreamReaderProtocol, peer: tuple[str, int], *, tls: bool
    ) -> None:
        super().__init__({"peername": peer, "ssl_object": _Tls() if tls else None})
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._closing = False
        self.reader = asyncio.StreamReader(loop=self._loop)
        self.closed: asyncio.Future[None] = self._loop.create_future()
        protocol.connection_made(self)

    def send(self, data: bytes) -> None:
        """The client says something."""
        if not self._closing:
            self._protocol.data_received(data)

    def write(self, data: Any) -> None:
        """The server says something."""
        if not self._closing:
            self.reader.feed_data(data)

    def is_closing(self) -> bool:
        """Whether either side has closed."""
        return self._closing

    def close(self) -> None:
        """Closes the connection, whichever side asks for it."""
        if not self._closing:
            self._closing = True
            self.reader.feed_eof()
            self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        self._protocol.connection_lost(None)
        self.closed.set_result(None)

    def pause_reading(self) -> None:
        """Nothing to pause: what the client says has arrived."""

    def resume_reading(self) -> None:
        """Nothing to resume."""
