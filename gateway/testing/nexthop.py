"""An SMTP server on loopback that records what it is sent and answers as a test scripts it."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Self

from gateway.testing.nexthop_session import Command, ReceivedMessage, Session
from gateway.testing.script import DEFAULTS, EXTENSIONS, STAGES, Answer, Script

__all__ = ["Answer", "Command", "NextHop", "ReceivedMessage", "Script"]


class NextHop:
    """A next hop for tests, on a real socket of the loopback interface.

        async with NextHop(rcpt={"full@*": "452 4.2.2 Mailbox full"}, dot=Drop()) as hop:
            ...  # deliver to hop.address
            await hop.wait(1)
            assert hop.messages[0].content == b"..."

    Args:
        extensions: the lines of the EHLO reply after the first.
        host: the IP address to listen at.
        port: the port to listen at; 0 for any.
        tls: what to do TLS with, such as `Certificate.make("mx.example.net").server()`; STARTTLS is
            offered then.
        implicit_tls: TLS begins at the first octet instead.
        users: the passwords of those who may log in; AUTH is offered then.
        mechanisms: those that are offered, of PLAIN, LOGIN, CRAM-MD5.
        latency: seconds that pass before each reply.
        rcpt: the answer to each RCPT, or by pattern of the address (as in a shell), in order.
        script: the answers to `banner`, `ehlo`, `helo`, `starttls`, `auth`, `mail`, `data`, `dot`,
            `rset`, `noop`, `quit`; `handshake` acts instead of TLS when the first bytes of its
            handshake arrive, and `content` when those of a message do. What is not given is
            answered as a server does that likes everything. After a 421 it hangs up.

    Attributes:
        address: `ip:port`, once it runs.
        messages: what was received, in the order of the final dots.
        commands: every line outside message contents.
        connections: how many connections were made so far.
        handshakes: how many handshakes of TLS were begun.
    """

    def __init__(
        self,
        *,
        extensions: Sequence[str] = EXTENSIONS,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        users: Mapping[str, str] | None = None,
        mechanisms: Sequence[str] = ("PLAIN", "LOGIN", "CRAM-MD5"),
        latency: float = 0.0,
        rcpt: Script | Mapping[str, Script] = DEFAULTS["rcpt"],
        **script: Script,
    ) -> None:
        self.extensions = tuple(extensions)
        self.messages: list[ReceivedMessage] = []
        self.commands: list[Command] = []
        self.connections = 0
        self.handshakes = 0
        self.address = ""
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.users = dict(users or {})
        self.mechanisms = tuple(mechanisms)
        self.latency = latency
        unknown = set(script) - STAGES
        if unknown:
            raise TypeError(f"no such stage: {', '.join(sorted(unknown))}")
        self._recipients = rcpt if isinstance(rcpt, Mapping) else {"*": rcpt}
        self._script = script
        self._asked: Counter[str] = Counter()
        self._listen_at = (host, port)
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closing = False

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._sessions)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, *self._listen_at)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._closing = True
        self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await self._server.wait_closed()

    async def wait(self, count: int, timeout: float = 10.0) -> list[ReceivedMessage]:
        """Waits until `count` messages have been received since the start, and returns all.

        Raises:
            TimeoutError: there were fewer after `timeout` seconds; the text says how many.
        """
        await self._until(lambda: len(self.messages) >= count, timeout, f"{count} messages")
        return self.messages

    async def wait_closed(self, timeout: float = 10.0) -> None:
        """Waits until no connection is open.

        Raises:
            TimeoutError: some still were after `timeout` seconds.
        """
        await self._until(lambda: not self._sessions, timeout, "all connections to close")

    async def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(
                f"waited {timeout} s for {what}; there are {len(self.messages)} messages "
                f"and {len(self._sessions)} open connections"
            ) from None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        session = Session(self, self.connections, reader, writer)
        task = asyncio.create_task(session.run())
        self._sessions.add(task)
        # Not in the task itself: one that is cancelled before it begins runs no line of it.
        task.add_done_callback(lambda _: self._ended(task, writer))
        if self._closing:
            task.cancel()

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        writer.close()
        self._sessions.discard(task)
        self._changed.set()

    def received(self, message: ReceivedMessage) -> None:
        """Records a message and wakes who waits for it."""
        self.messages.append(message)
        self._changed.set()

    def answer(self, stage: str, recipient: str = "") -> Answer | None:
        """What the script says to a stage at this time; None if it says nothing."""
        script: Script | None
        key = stage
        if stage == "rcpt":
            patterns = (p for p in self._recipients if fnmatchcase(recipient, p))
            pattern = next(patterns, None)
            script = DEFAULTS["rcpt"] if pattern is None else self._recipients[pattern]
            key = f"rcpt {pattern}"
        else:
            script = self._script.get(stage)
        if isinstance(script, list):
            script = script[min(self._asked[key], len(script) - 1)]
        self._asked[key] += 1
        return script
