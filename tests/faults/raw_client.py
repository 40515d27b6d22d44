"""Clients that say to a running gateway exactly what a test says, octet by octet."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.assembly import Client
from tests.e2e.conftest import Gateway


def anybody() -> ssl.SSLContext:
    """TLS with a server whatever its certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def connected(
    gateway: Gateway, *, tls: bool = False, source: str = "127.0.0.1"
) -> AsyncIterator[Client]:
    """A connection to the gateway that has said EHLO; `source` is the client's address."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", gateway.port, limit=1 << 20, local_addr=(source, 0)
    )
    client = Client(reader, writer)
    try:
        reply = await client.reply()
        assert reply.startswith("220 "), reply
        await client.say("EHLO client.example.org")
        if tls:
            assert (await client.say("STARTTLS")).startswith("220 ")
            await writer.start_tls(anybody())
            await client.say("EHLO client.example.org")
        yield client
    finally:
        writer.close()
