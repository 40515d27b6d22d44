"""The web server of a domain's MTA-STS policy, as a test scripts it."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

POLICY = "version: STSv1\nmode: enforce\nmx: *.example.com\nmax_age: 86400\n"


def answer(
    body: str = POLICY, status: str = "200 OK", headers: str = "Content-Type: text/plain\r\n"
) -> bytes:
    """A whole answer of HTTP/1.1."""
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body.encode())}\r\n\r\n"
    return (head + body).encode()


class PolicyHost:
    """A web server on loopback.

    Attributes:
        answer: what is said to any request; None: nothing, the connection stays open.
        closes: whether the connection is closed after that.
        requests: what came, up to the empty line.
        port: where it listens, once it runs.
    """

    def __init__(self, tls: ssl.SSLContext, answer: bytes | None = None) -> None:
        self.tls = tls
        self.answer = answer
        self.closes = True
        self.requests: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        for writer in self._writers:
            # Closed twice, it has nothing left to abort (Python before 3.11.5).
            if not writer.is_closing():
                writer.transport.abort()
        await asyncio.sleep(0)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._sessions.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if self.answer is None:
                await asyncio.Event().wait()
            writer.write(self.answer or b"")
            await writer.drain()
            if not self.closes:
                await asyncio.Event().wait()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has enough
        finally:
            writer.close()
