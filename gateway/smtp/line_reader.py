"""A stream reader for SMTP: it can take bytes back and forget what it holds."""

from __future__ import annotations

import asyncio
from typing import Any


class LineReader(asyncio.StreamReader):
    """A stream reader that takes bytes back.

    Attributes:
        octets: how many have been received.
    """

    _buffer: bytearray
    octets = 0

    def feed_data(self, data: Any) -> None:
        """Octets have been received."""
        self.octets += len(data)
        super().feed_data(data)

    def __len__(self) -> int:
        """How many octets have been received and not yet read."""
        return len(self._buffer)

    def __bool__(self) -> bool:
        """A reader is one, whether it holds something or not."""
        return True

    def unread(self, data: bytes) -> None:
        """Puts bytes in front of what is read next."""
        self._buffer[:0] = data

    def discard(self) -> None:
        """Drops what has been received and not yet read."""
        self._buffer.clear()
