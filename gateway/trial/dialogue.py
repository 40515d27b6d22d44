"""A client's session with the gateway, without a socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from gateway.smtp.listener import Listener
from gateway.smtp.reception import Reception
from gateway.trial.record import Reply


@dataclass(frozen=True, slots=True)
class Submission:
    """A message as a client hands it over.

    Attributes:
        content: with CRLF as line ends.
        client: its IP address; user: as whom it has logged in, None if it has not.
        helo: what it calls itself.
    """

    content: bytes
    sender: str
    recipients: tuple[str, ...]
    client: str = "127.0.0.1"
    user: str | None = None
    helo: str = "localhost"


class _Wire(asyncio.Transport):
    """Carries what the session says to the one who waits for it."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 0)})
        self._said = bytearray()
        self._news = asyncio.Event()
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._said += data
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closed

    def pause_reading(self) -> None:
        """A client without a socket cannot be kept waiting."""

    def resume_reading(self) -> None:
        """As `pause_reading`."""

    def get_write_buffer_size(self) -> int:
        return 0

    async def reply(self) -> str:
        """The next reply, its lines joined by LF; '' at the end of the session."""
        while True:
            end = 0
            for line in bytes(self._said).split(b"\r\n")[:-1]:
                end += len(line) + 2
                if line[3:4] != b"-":
                    said = bytes(self._said[: end - 2])
                    del self._said[:end]
                    return said.decode("utf-8", "replace").replace("\r\n", "\n")
            if self._closed:
                return ""
            self._news.clear()
            await self._news.wait()


class Dialogue:
    """Hands one message over.

    Attributes:
        replies: the commands so far, each with its reply.
    """

    def __init__(self, listener: Listener, submission: Submission) -> None:
        self._submission = submission
        self._wire = _Wire(submission.client)
        self._session = Reception(listener)
        self.replies: list[Reply] = []

    async def hold(self) -> None:
        """Says all of it, up to the first reply after which there is nothing left to say."""
        session, submission = self._session, self._submission
        session.connection_made(self._wire)
        try:
            if self._is_good("", await self._wire.reply(), "2"):
                await self._talk(submission)
        finally:
            self._wire.close()
            session.connection_lost(None)

    async def _talk(self, submission: Submission) -> None:
        if not await self._say(f"EHLO {submission.helo}"):
            return
        session = self._session
        # Nobody knows the password here, so the login itself is left out.
        session.client = replace(session.client, user=submission.user)
        addresses = (submission.sender, *submission.recipients)
        utf8 = "" if all(address.isascii() for address in addresses) else " SMTPUTF8"
        if not await self._say(f"MAIL FROM:<{submission.sender}>{utf8}"):
            return
        taken = 0
        for recipient in submission.recipients:
            taken += await self._say(f"RCPT TO:<{recipient}>")
        if not taken or not await self._say("DATA", "354"):
            return
        content = submission.content
        if not content.endswith(b"\r\n"):
            content += b"\r\n"
        dotted = content.replace(b"\r\n.", b"\r\n..")
        if dotted.startswith(b"."):
            dotted = b"." + dotted
        session.data_received(dotted + b".\r\n")
        self._is_good("(the message)", await self._wire.reply(), "2")

    async def _say(self, command: str, good: str = "2") -> bool:
        self._session.data_received(command.encode() + b"\r\n")
        return self._is_good(command, await self._wire.reply(), good)

    def _is_good(self, command: str, reply: str, good: str) -> bool:
        self.replies.append(Reply(command, reply))
        return reply.startswith(good)
