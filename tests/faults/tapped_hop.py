"""A next hop that keeps every octet that it was sent."""

from __future__ import annotations

import asyncio

from gateway.testing import NextHop


class TappedHop(NextHop):
    """A next hop that keeps every octet of each connection, without TLS around it."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.streams: list[bytearray] = []

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = bytearray()
        self.streams.append(stream)
        read = reader.read

        async def keep(most: int = -1) -> bytes:
            octets = await read(most)
            stream.extend(octets)
            return octets

        reader.read = keep  # type: ignore[method-assign, assignment]
        super()._accept(reader, writer)
