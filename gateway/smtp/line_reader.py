"""What a client has sent and nobody has read yet: lines, and blocks of a message."""

from __future__ import annotations

import asyncio
from typing import Any


class LineReader:
    """Holds what comes, up to some size, and gives it out as it is asked for.

    As asyncio's `StreamReader`, with less work for each line.

    Args:
        limit: how many octets are kept to find the end of a line or a message in; while more than
            twice as many are here, nothing is read from the connection.
        loop: who waits for more waits in it.

    Attributes:
        octets: how many have been received.
        transport: where it comes from: set as soon as that is known, and after STARTTLS again.
        unread: what has been received and not yet read.
    """

    transport: Any

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self.octets = 0
        self._limit = limit
        self._loop = loop
        self.unread = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self._has_ended = False

    # For the connection.

    def feed_data(self, data: bytes) -> None:
        """Octets have been received."""
        unread = self.unread
        unread += data
        self.octets += len(data)
        self._wake_up()
        if len(unread) > 2 * self._limit and not self._is_paused:
            self.transport.pause_reading()
            self._is_paused = True

    def feed_eof(self) -> None:
        """Nothing comes any more."""
        self._has_ended = True
        self._wake_up()

    def end(self) -> None:
        """Nothing is given out any more, not even what has been received."""
        self.unread.clear()
        self.feed_eof()

    def _wake_up(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # For the session.

    async def read_to(self, end: bytes) -> bytes:
        """All octets up to and with `end`, or some of those before it if they exceed the limit.

        The octets that are returned end with `end` if and only if it has been reached.

        Raises:
            asyncio.IncompleteReadError: it does not come any more.
        """
        unread = self.unread
        looked_at = 0
        while (place := unread.find(end, looked_at)) < 0:
            looked_at = max(0, len(unread) - len(end) + 1)
            if looked_at > self._limit:
                return self._take(looked_at)
            await self._more()
        return self._take(place if place > self._limit else place + len(end))

    async def read(self, most: int) -> bytes:
        """What there is, up to so many octets, and at least one.

        Raises:
            asyncio.IncompleteReadError: nothing comes any more.
        """
        while not self.unread:
            await self._more()
        return self._take(min(most, len(self.unread)))

    def _more(self) -> asyncio.Future[None]:
        """Done when more has come, or nothing can come any more."""
        if self._has_ended:
            raise asyncio.IncompleteReadError(b"", None)
        if self._is_paused:
            self._resume()
        self._waiter = self._loop.create_future()
        return self._waiter

    def _take(self, octets: int) -> bytes:
        unread = self.unread
        if octets == len(unread):
            taken = bytes(unread)
            unread.clear()
        else:
            taken = bytes(unread[:octets])
            del unread[:octets]
        if self._is_paused and len(unread) <= self._limit:
            self._resume()
        return taken

    def _resume(self) -> None:
        self._is_paused = False
        self.transport.resume_reading()
