"""A stream reader for SMTP: it can take bytes back and forget what it holds."""

from __future__ import annotations

import asyncio


class LineReader(asyncio.StreamReader):
    """A stream reader that takes bytes back."""

    _buffer: bytearray

    def unread(self, data: bytes) -> None:
        """Puts bytes in front of what is read next."""
        self._buffer[:0] = data

    def discard(self) -> None:
        """Drops what has been received and not yet read."""
        self._buffer.clear()
