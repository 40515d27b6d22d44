"""One connection to a scripted next hop."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.testing.script import DEFAULTS, Answer, Drop, Hang, Raw, Trickle, Wait

if TYPE_CHECKING:
    from gateway.testing.nexthop import NextHop

_BLOCK = 65536
_PATH = re.compile(r"(?:FROM|TO):\s*<([^>]*)>\s*(.*)", re.IGNORECASE | re.DOTALL)


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
        tls: the version of TLS, such as `TLSv1.3`; '' without it.
        user: who logged in; None if nobody did.
    """

    sender: str
    parameters: tuple[str, ...]
    recipients: tuple[tuple[str, tuple[str, ...]], ...]
    content: bytes
    pipelined: bool
    connection: int
    helo: str
    peer: str
    tls: str = ""
    user: str | None = None


class _ClosedError(Exception):
    """The conversation is over."""


class Session:
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
        self._tls = ""
        self._user: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._parameters: tuple[str, ...] = ()
        self._recipients: list[tuple[str, tuple[str, ...]]] = []
        self._pipelined = False

    async def run(self) -> None:
        """Converses until somebody hangs up."""
        try:
            if self._hop.implicit_tls:
                await self._handshake()
            await self._converse()
        except (ConnectionError, ssl.SSLError, _ClosedError):
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
                    lines = "\n".join(("nexthop.test", *self._offers()))
                    await self._say("ehlo", f"250 {lines}")
                case "HELO":
                    self._helo = argument
                    self._reset()
                    await self._say("helo")
                case "STARTTLS":
                    await self._starttls()
                case "AUTH":
                    await self._auth(argument)
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

    def _offers(self) -> list[str]:
        offers = list(self._hop.extensions)
        if self._hop.tls is not None and not self._tls:
            offers.append("STARTTLS")
        if self._hop.users:
            offers.append(f"AUTH {' '.join(self._hop.mechanisms)}")
        return offers

    async def _starttls(self) -> None:
        if self._hop.tls is None or self._tls:
            await self._act("502 5.5.1 No TLS here")
            return
        scripted = self._hop.answer("starttls")
        answer = DEFAULTS["starttls"] if scripted is None else scripted
        await self._act(answer)
        if _text(answer).startswith("220"):
            await self._handshake()
            self._helo = ""
            self._reset()

    async def _handshake(self) -> None:
        self._hop.handshakes += 1
        scripted = self._hop.answer("handshake")
        if scripted is not None:
            await self._read()
            self._buffer.clear()
            await self._act(scripted)
            return
        assert self._hop.tls is not None
        await self._writer.start_tls(self._hop.tls)
        # What came in the clear, after STARTTLS, is not believed.
        self._buffer.clear()
        self._tls = str(self._writer.get_extra_info("ssl_object").version())

    async def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        scripted = self._hop.answer("auth")
        if scripted is not None:
            await self._act(scripted)
            return
        match mechanism.upper():
            case "PLAIN":
                response = _decoded(initial) if initial else await self._ask("")
                _, user, password = response.split("\0")
            case "LOGIN":
                user = _decoded(initial) if initial else await self._ask("Username:")
                password = await self._ask("Password:")
            case "CRAM-MD5":
                challenge = f"<{self._number}@nexthop.test>"
                user, _, digest = (await self._ask(challenge)).partition(" ")
                password = self._hop.users.get(user, "")
                expected = hmac.new(password.encode(), challenge.encode(), "md5").hexdigest()
                password = password if digest == expected else ""
            case _:
                await self._act("504 5.5.4 Unknown mechanism")
                return
        if password and self._hop.users.get(user) == password:
            self._user = user
            await self._act("235 2.7.0 Welcome")
        else:
            await self._act("535 5.7.8 Bad credentials")

    async def _ask(self, prompt: str) -> str:
        await self._act(f"334 {base64.b64encode(prompt.encode()).decode()}")
        return _decoded(await self._line())

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
        if not await self._say("data", unready or DEFAULTS["data"]):
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
            tls=self._tls,
            user=self._user,
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
        answer = scripted if scripted is not None else otherwise or DEFAULTS[stage]
        await self._act(answer)
        if isinstance(answer, Wait):
            answer = answer.then
        if isinstance(answer, Trickle):
            answer = answer.reply
        return isinstance(answer, str) and answer[:1] in ("2", "3")

    async def _act(self, answer: Answer) -> None:
        match answer:
            case str():
                if self._hop.latency:
                    await asyncio.sleep(self._hop.latency)
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


def _text(answer: Answer) -> str:
    """What an answer says in the end; '' if nothing."""
    match answer:
        case str():
            return answer
        case Raw():
            return answer.data.decode("latin-1")
        case Trickle():
            return answer.reply
        case Wait():
            return _text(answer.then)
        case Drop() | Hang():
            return ""


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def _wire(reply: str) -> bytes:
    code, *lines = reply[:3], *reply[4:].split("\n")
    separators = ["-"] * (len(lines) - 1) + [" "]
    text = "".join(f"{code}{s}{line}\r\n" for s, line in zip(separators, lines, strict=True))
    return text.encode()
