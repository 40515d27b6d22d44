"""A gateway in the test's own process, and an SMTP client that does exactly what a test says."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

from gateway.configuration.config import Config, load_config
from gateway.queue.administration import QueueService
from gateway.testing.worker import Options, Worker

DEADLINE = 60.0

PLUGIN_HEAD = """
from __future__ import annotations
import asyncio, time
from pathlib import Path
from pydantic import BaseModel
from gateway.hooks import *

class Config(BaseModel):
    pass
"""


def below_trace(content: bytes) -> bytes:
    """A message as the client sent it: without the Received field on top, which is ours."""
    # The content may begin with white space: the field ends with its date, not where it unfolds.
    trace = re.match(rb"Received: .*?;\r\n\t[^\r\n]+\r\n", content, re.DOTALL)
    assert trace is not None
    return content[trace.end() :]


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Waits until the condition gives something true, and returns it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited in vain: {what}")


def write_plugin(folder: Path, name: str, body: str, base: str = "Plugin[Config]") -> str:
    """Writes a plugin of one class with `body` and returns its reference."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    (folder / f"{name}.py").write_text(f"{PLUGIN_HEAD}\nclass Site({base}):\n{lines}\n")
    return f"./{name}.py"


def configure(folder: Path, text: str = "") -> Config:
    """The configuration with `text` below what every test needs."""
    path = folder / "gateway.yaml"
    path.write_text(
        "hostname: gw.example.com\nspool: {path: spool, reserve: 1}\n"
        f"listen: [{{address: '127.0.0.1:0', allow: [127.0.0.0/8]}}]\n{text}\n"
    )
    return load_config(path)


class Assembly(Worker):
    """A worker's objects; the arguments are those of `Worker`.

    Attributes:
        queue: changes the queue by hand.
    """

    def __init__(self, config: Config, **options: Unpack[Options]) -> None:
        super().__init__(config, **options)
        self.queue = QueueService(
            self.spool,
            self.dispatcher,
            self.settler,
            self.ingress,
            self.chain,
            self.pauses,
            self.connections,
        )

    @asynccontextmanager
    async def client(self, greet: bool = True) -> AsyncIterator[Client]:
        """A connection to the gateway."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        client = Client(reader, writer)
        try:
            if greet:
                assert (await client.reply()).startswith("220 gw.example.com ESMTP")
                await client.say("EHLO client.example.org")
            yield client
        finally:
            writer.close()

    async def submit(
        self, *recipients: str, sender: str = "a@example.com", content: bytes = b"", **how: str
    ) -> str:
        """Sends a message over SMTP and returns the reply to its dot."""
        async with self.client() as client:
            reply = await client.say(f"MAIL FROM:<{sender}>{how.get('mail', '')}")
            assert reply.startswith("250"), reply
            for recipient in recipients:
                reply = await client.say(f"RCPT TO:<{recipient}>{how.get('rcpt', '')}")
                assert reply.startswith("250"), reply
            return await client.data(content or b"Subject: test\r\n\r\nHello\r\n")


class Client:
    """An SMTP client that does exactly what a test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)

    async def reply(self) -> str:
        """The next reply, its lines joined by LF; '' at the end of the connection."""
        lines = []
        async with asyncio.timeout(DEADLINE):
            while line := await self.reader.readline():
                assert line.endswith(b"\r\n")
                lines.append(line[:-2].decode())
                if line[3:4] != b"-":
                    break
        return "\n".join(lines)

    async def replies(self, count: int) -> list[str]:
        """The codes of the next replies."""
        return [(await self.reply())[:3] for _ in range(count)]

    async def say(self, line: str) -> str:
        """Sends a command and returns its reply."""
        self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def data(self, content: bytes) -> str:
        """Sends DATA and a message; returns the reply to the dot."""
        assert (await self.say("DATA")).startswith("354")
        self.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return await self.reply()

    async def begin(self, recipient: str = "b@example.net") -> None:
        """Opens a transaction."""
        assert (await self.say("MAIL FROM:<a@example.com>")).startswith("250")
        assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250")

    async def is_closed(self) -> bool:
        """Waits for the gateway to close the connection; anything else that it says is false."""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:  # closed while something that we sent was on its way
                return True
