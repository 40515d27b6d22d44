"""An SMTP server on loopback that records what it is sent and answers as a test scripts it."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Self

EXTENSIONS = (
    "PIPELINING",
    "SIZE 52428800",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "ENHANCEDSTATUSCODES",
)

_BLOCK = 65536
_PATH = re.compile(r"(?:FROM|TO):\s*<([^>]*)>\s*(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULTS = {
    "banner": "220 nexthop.test ESMTP",
    "helo": "250 nexthop.test",
    "mail": "250 2.1.0 Ok",
    "rcpt": "250 2.1.5 Ok",
    "data": "354 End data with <CR><LF>.<CR><LF>",
    "dot": "250 2.0.0 Ok: queued",
    "rset": "250 2.0.0 Ok",
    "noop": "250 2.0.0 Ok",
    "quit": "221 2.0.0 Bye",
}


@dataclass(frozen=True, slots=True)
class Drop:
    """Closes the connection: in an orderly way (FIN), or with `reset` at once (RST)."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Says nothing more until the client closes or the test ends.

    Without `reads` it does not take in what the client sends either, and nobody sees it close.
    """

    reads: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """Answers `then` after `seconds`."""

    seconds: float
    then: str | Drop | Raw | Trickle


@dataclass(frozen=True, slots=True)
class Raw:
    """Sends bytes as they are, then reads on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Trickle:
    """Sends a reply one byte at a time, each in a packet of its own."""

    reply: str


Answer = str | Drop | Hang | Wait | Raw | Trickle
"""What to do at a stage. A text is a reply such as `550 5.1.1 Unknown`; LF separates its lines."""

Script = Answer | list[Answer]
"""An answer for every time, or a list: one answer for each time, the last one ever after."""


@dataclass(frozen=True, slots=True)
class Command:
    """A line that a client sent, and the number of its connection, from 1."""

    connection: int
    line: str


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message that was sent up to its final dot, whatever the answer.

    Attributes:
        sender: the address in MAIL, '' for the null sender.
        parameters: those of MAIL, as sent.
        recipients: those that were accepted, in order, each with its parameters.
        content: the bytes between the reply to DATA and the final dot, without dot-stuffing.
        pipelined: whether MAIL came together with the command after it.
        connection: its number, from 1.
        helo: the name that the client gave.
        peer: the client's IP address.
    """

    sender: str
    parameters: tuple[str, ...]
    recipients: tuple[tuple[str, tuple[str, ...]], ...]
    content: bytes
    pipelined: bool
    connection: int
    helo: str
    peer: str


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
        rcpt: the answer to each RCPT, or by pattern of the address (as in a shell), in order.
        script: the answers to `banner`, `ehlo`, `helo`, `mail`, `data`, `dot`, `rset`, `noop`,
            `quit`; `content` acts when the first bytes of a message arrive. What is not given
            is answered as a server does that likes everything. After a 421 it hangs up.

    Attributes:
        address: `ip:port`, once it runs.
        messages: what was received, in the order of the final dots.
        commands: every line outside message contents.
        connections: how many connections were made so far.
    """

    def __init__(
        self,
        *,
        extensions: Sequence[str] = EXTENSIONS,
        host: str = "127.0.0.1",
        port: int = 0,
        rcpt: Script | Mapping[str, Script] = _DEFAULTS["rcpt"],
        **script: Script,
    ) -> None:
        self.extensions = tuple(extensions)
        self.messages: list[ReceivedMessage] = []
        self.commands: list[Command] = []
        self.connections = 0
        self.address = ""
        unknown = set(script) - set(_DEFAULTS) - {"ehlo", "content"}
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
        session = _Session(self, self.connections, reader, writer)
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
            script = _DEFAULTS["rcpt"] if pattern is None else self._recipients[pattern]
            key = f"rcpt {pattern}"
        else:
            script = self._script.get(stage)
        if isinstance(script, list):
            script = script[min(self._asked[key], len(script) - 1)]
        self._asked[key] += 1
        return script


class _ClosedError(Exception):
    """The conversation is over."""


class _Session:
    """One connection to a `NextHop`."""

    def __init__(
        self,
        hop: NextHop,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._hop = hop
        self._number = number
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        self._helo = ""
        self._reset()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._parameters: tuple[str, ...] = ()
        self._recipients: list[tuple[str, tuple[str, ...]]] = []
        self._pipelined = False

    async def run(self) -> None:
        try:
            await self._converse()
        except (ConnectionError, _ClosedError):
            pass  # the client went away, or the script said so

    async def _converse(self) -> None:
        await self._say("banner")
        while True:
            line = await self._line()
            verb, _, argument = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    self._helo = argument
                    self._reset()
                    lines = "\n".join(("nexthop.test", *self._hop.extensions))
                    await self._say("ehlo", f"250 {lines}")
                case "HELO":
                    self._helo = argument
                    self._reset()
                    await self._say("helo")
                case "MAIL":
                    await self._mail(argument)
                case "RCPT":
                    await self._rcpt(argument)
                case "DATA":
                    await self._data()
                case "RSET":
                    self._reset()
                    await self._say("rset")
                case "NOOP":
                    await self._say("noop")
                case "QUIT":
                    await self._say("quit")
                    return
                case _:
                    await self._act("502 5.5.2 Unknown command")

    async def _mail(self, argument: str) -> None:
        path = _PATH.fullmatch(argument)
        if path is None:
            await self._act("501 5.5.4 Syntax: MAIL FROM:<address>")
        elif self._sender is not None:
            await self._act("503 5.5.1 Nested MAIL")
        else:
            self._pipelined = bool(self._buffer)
            if await self._say("mail"):
                self._sender, self._parameters = path[1], tuple(path[2].split())

    async def _rcpt(self, argument: str) -> None:
        path = _PATH.fullmatch(argument)
        if path is None:
            await self._act("501 5.5.4 Syntax: RCPT TO:<address>")
        elif self._sender is None:
            await self._act("503 5.5.1 Need MAIL first")
        elif await self._say("rcpt", recipient=path[1]):
            self._recipients.append((path[1], tuple(path[2].split())))

    async def _data(self) -> None:
        if self._sender is None:
            unready = "503 5.5.1 Need MAIL first"
        else:
            unready = "" if self._recipients else "554 5.5.1 No valid recipients"
        if not await self._say("data", unready or _DEFAULTS["data"]):
            return
        content = await self._content()
        message = ReceivedMessage(
            sender=self._sender or "",
            parameters=self._parameters,
            recipients=tuple(self._recipients),
            content=content,
            pipelined=self._pipelined,
            connection=self._number,
            helo=self._helo,
            peer=str(self._writer.get_extra_info("peername")[0]),
        )
        self._reset()
        self._hop.received(message)
        await self._say("dot")

    async def _content(self) -> bytes:
        # With the line end of DATA in front, a dot on the first line is like any other.
        content = bytearray(b"\r\n")
        if not self._buffer:
            await self._read()
        if (interruption := self._hop.answer("content")) is not None:
            await self._act(interruption)
        while True:
            seen = max(0, len(content) - 4)
            content += self._buffer
            self._buffer.clear()
            end = content.find(b"\r\n.\r\n", seen)
            if end >= 0:
                self._buffer += content[end + 5 :]
                return bytes(content[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
            await self._read()

    async def _line(self) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            await self._read()
        line = bytes(self._buffer[:end]).rstrip(b"\r").decode("utf-8", "backslashreplace")
        del self._buffer[: end + 1]
        self._hop.commands.append(Command(self._number, line))
        return line

    async def _read(self) -> None:
        data = await self._reader.read(_BLOCK)
        if not data:
            raise _ClosedError
        self._buffer += data

    async def _say(self, stage: str, otherwise: str = "", recipient: str = "") -> bool:
        """Answers a stage as scripted; returns whether that was a yes (2xx or 3xx)."""
        scripted = self._hop.answer(stage, recipient)
        answer = scripted if scripted is not None else otherwise or _DEFAULTS[stage]
        await self._act(answer)
        if isinstance(answer, Wait):
            answer = answer.then
        if isinstance(answer, Trickle):
            answer = answer.reply
        return isinstance(answer, str) and answer[:1] in ("2", "3")

    async def _act(self, answer: Answer) -> None:
        match answer:
            case str():
                await self._send(_wire(answer))
                if answer.startswith("421"):
                    raise _ClosedError
            case Raw():
                await self._send(answer.data)
            case Trickle():
                for octet in _wire(answer.reply):
                    await self._send(bytes([octet]))
                    # Another turn of the loop, so that the client's end reads it alone.
                    await asyncio.sleep(0)
            case Wait():
                await asyncio.sleep(answer.seconds)
                await self._act(answer.then)
            case Hang():
                while answer.reads:
                    await self._read()
                    self._buffer.clear()
                self._writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.Event().wait()
            case Drop():
                if answer.reset:
                    # A socket that lingers for no time is reset instead of closed.
                    self._writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                raise _ClosedError

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


def _wire(reply: str) -> bytes:
    code, *lines = reply[:3], *reply[4:].split("\n")
    separators = ["-"] * (len(lines) - 1) + [" "]
    text = "".join(f"{code}{s}{line}\r\n" for s, line in zip(separators, lines, strict=True))
    return text.encode()
