"""An SMTP connection to a next hop: how it opens, and what goes over it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import aiosmtplib

from gateway.attempt import Disposition, Hop, Outcome, Source
from gateway.delivery.reply import Reply, ReplyReader, one_line

BLOCK = 1 << 18
"""Octets of a message that are handed to the transport at a time."""

# Linux: the port is chosen at connect(2), so that all of them serve for each destination.
_IP_BIND_ADDRESS_NO_PORT = 24

_ASKED = {
    "connect": "the connection",
    "ehlo": "EHLO",
    "mail": "MAIL",
    "rcpt": "RCPT",
    "data": "DATA",
    "dot": "the message",
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a server, in seconds (RFC 5321 4.5.3.2).

    `connect` is for TCP; `block` for the server to take in a part of a message; the others for the
    reply to what they are named after.
    """

    connect: float = 30.0
    banner: float = 300.0
    ehlo: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    dot: float = 600.0


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a server offers (RFC 2920, 1870, 6152, 6531, 3461)."""

    pipelining: bool
    size: bool
    eight_bit_mime: bool
    smtputf8: bool
    dsn: bool

    @classmethod
    def of(cls, keywords: Mapping[str, str]) -> Extensions:
        """Picks those that matter from the EHLO keywords in lower case."""
        return cls(
            pipelining="pipelining" in keywords,
            size="size" in keywords,
            eight_bit_mime="8bitmime" in keywords,
            smtputf8="smtputf8" in keywords,
            dsn="dsn" in keywords,
        )


class Connection(asyncio.Protocol):
    """A connection after EHLO. Whoever holds it sends, and gets the replies.

    Every wait ends: with the replies, with a timeout, or with the connection. No exception says
    so; `lost` tells why the connection is of no more use, and is empty as long as it is.

    Attributes:
        hop, relay, extensions: the server, its name in outcomes, and what it offers.
        opened: when, on the loop's clock.
        transactions: how many were begun.
        needs_reset: whether the server may hold a transaction that was not finished.
        dot_sent: whether the last message was sent to its end.
    """

    def __init__(
        self, transport: asyncio.Transport, hop: Hop, relay: str, extensions: Extensions
    ) -> None:
        self.hop = hop
        self.relay = relay
        self.extensions = extensions
        self.lost = ""
        self.transactions = 0
        self.needs_reset = False
        self.dot_sent = False
        self.on_lost: Callable[[Connection], None] = _nobody_cares
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.time()
        self._reader = ReplyReader()
        self._replies: list[bytes] = []
        self._expected = 0
        self._answered: asyncio.Future[None] | None = None
        self._resting = False
        self._paused = False
        self._resumed: asyncio.Future[None] | None = None
        self._patience = 0.0
        self._deadline = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def exchange(self, commands: bytes, count: int, timeout: float) -> list[bytes]:
        """Sends commands and returns their `count` replies, for `Reply.parse`.

        There are fewer if the connection is lost, if `timeout` seconds pass without another reply,
        and after a 421, which says that the server hangs up.
        """
        if self.lost:
            return []
        answered = self._expect(count, timeout)
        self._transport.write(commands)
        await answered
        return self._replies

    async def send(self, content: bytes, timeouts: Timeouts) -> list[bytes]:
        """Sends a message, dot-stuffed, and the dot; returns the one reply, or none.

        If the reply comes before the end, the rest stays unsent and `dot_sent` is false.
        """
        self.dot_sent = False
        if self.lost:
            return []
        # Looking for two octets is faster than for three; all line ends are CRLF.
        if b"\n." in content or content.startswith(b"."):
            content = content.replace(b"\r\n.", b"\r\n..")
            if content.startswith(b"."):
                content = b"." + content
        end = b".\r\n" if not content or content.endswith(b"\r\n") else b"\r\n.\r\n"
        answered = self._expect(1, timeouts.dot)
        if len(content) > BLOCK:
            octets = memoryview(content)
            for start in range(0, len(content), BLOCK):
                self._transport.write(octets[start : start + BLOCK])
                if self._paused:
                    self._resumed = self._loop.create_future()
                    self._set_deadline(timeouts.block)
                    await self._resumed
                if answered.done():
                    return self._replies
            self._set_deadline(timeouts.dot)
            self._transport.write(end)
        else:
            self._transport.write(content + end)
        self.dot_sent = True
        await answered
        return self._replies

    def rest(self, seconds: float) -> None:
        """Nobody holds the connection; after `seconds` it closes."""
        self._resting = True
        self._answered = None
        self._set_deadline(seconds)

    def wake(self) -> None:
        """Somebody holds the connection again."""
        self._resting = False

    def quit(self) -> None:
        """Takes leave and closes; what the server says to that does not matter."""
        if not self.lost:
            self.lost = "closed"
            self._transport.write(b"QUIT\r\n")
            self._transport.close()

    def abort(self, reason: str = "closed") -> None:
        """Closes at once. A server that is in the middle of a message throws it away."""
        if not self.lost:
            self.lost = reason
        self._transport.abort()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """Collects replies, and wakes who waits for them."""
        answered = self._answered
        replies = self._replies
        if answered is None or answered.done():
            self.abort(f"the server spoke out of turn: {one_line(data)}")
            return
        before = len(replies)
        replies += self._reader.feed(data)
        if len(replies) < self._expected and not self._reader.too_long:
            if len(replies) == before:
                return
            if not replies[-1].startswith(b"421"):
                self._set_deadline(self._patience)
                return
        elif self._reader.too_long:
            self.abort("the server sent a reply without end")
        elif len(replies) > self._expected or self._reader.pending:
            # What is left over must not pass for the reply to the next command.
            del replies[self._expected :]
            self.abort("the server sent more replies than there were commands")
        self._wake_up()

    def eof_received(self) -> None:
        """The server says no more, so there is nothing more to say to it."""
        # Closing in an orderly way would wait until the server takes in what is still unsent.
        self.abort("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wakes who waits, and tells the owner."""
        if not self.lost:
            reason = "the server closed the connection"
            self.lost = f"the connection was lost: {exc}" if exc is not None else reason
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._wake_up()
        self.on_lost(self)

    def pause_writing(self) -> None:
        """The transport holds more than enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """The server has taken in most of it."""
        self._paused = False
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def _wake_up(self) -> None:
        for waiting in (self._answered, self._resumed):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _expect(self, count: int, timeout: float) -> asyncio.Future[None]:
        self._replies = []
        self._expected = count
        self._answered = answered = self._loop.create_future()
        self._set_deadline(timeout)
        return answered

    # One timer serves all waits: it is not moved when a deadline moves on, but looks at the
    # deadline when it fires. So most waits cost no timer at all.

    def _set_deadline(self, seconds: float) -> None:
        self._patience = seconds
        self._deadline = deadline = self._loop.time() + seconds
        alarm = self._alarm
        if alarm is None or deadline < alarm.when():
            if alarm is not None:
                alarm.cancel()
            self._alarm = self._loop.call_at(deadline, self._on_alarm)

    def _on_alarm(self) -> None:
        # The loop's clock ticks in milliseconds with uvloop.
        if self._loop.time() + 0.001 < self._deadline:
            self._alarm = self._loop.call_at(self._deadline, self._on_alarm)
            return
        self._alarm = None
        if self._resting:
            self.quit()
        else:
            self.abort(f"timed out after {self._patience:g} seconds")


def _nobody_cares(_: Connection) -> None:
    """What happens at the loss of a connection that has no owner yet."""


async def open_connection(
    hop: Hop, address: str, source: Source, timeouts: Timeouts
) -> Connection | Outcome:
    """Connects to one IP address of a hop and says EHLO, or HELO to a server that knows no other.

    Returns the connection, or why there is none: FAILED if the server said so (5xx), otherwise
    DEFERRED.
    """
    relay = f"{hop.host}[{address}]:{hop.port}"
    stage = "connect"
    smtp: aiosmtplib.SMTP | None = None
    try:
        connected = await _tcp(address, hop.port, source.address, timeouts.connect)
    except TimeoutError:
        return _unreachable(relay, f"connect to {relay}: timed out")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return _unreachable(relay, f"connect to {relay}: {reason}")
    try:
        smtp = aiosmtplib.SMTP(
            sock=connected,
            local_hostname=source.helo,
            timeout=timeouts.banner,
            start_tls=False,
        )
        await smtp.connect()
        stage = "ehlo"
        await _greet(smtp, timeouts.ehlo)
        # STARTTLS and AUTH have their place here, as long as aiosmtplib speaks.
        return _take_over(smtp, hop, relay)
    except aiosmtplib.SMTPResponseException as error:
        return refusal(Reply.of(error.code, _octets(error.message)), stage, relay)
    except aiosmtplib.SMTPTimeoutError:
        return lost("timed out", stage, relay)
    except (aiosmtplib.SMTPException, OSError) as error:
        return lost(one_line(_octets(str(error))), stage, relay)
    except ValueError as error:
        text = f"EHLO cannot carry the name {source.helo!r}: {error}"
        return Outcome(Disposition.DEFERRED, 0, "4.3.5", text, stage, relay)
    finally:
        if smtp is None:
            connected.close()
        elif smtp.protocol is not None:
            smtp.close()


async def _tcp(address: str, port: int, source: str | None, timeout: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        if source is not None:
            if family == socket.AF_INET:
                connecting.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            connecting.bind((source, 0))
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(connecting, (address, port))
    except BaseException:
        connecting.close()
        raise
    return connecting


async def _greet(smtp: aiosmtplib.SMTP, timeout: float) -> None:
    try:
        await smtp.ehlo(timeout=timeout)
    except aiosmtplib.SMTPHeloError as error:
        if error.code // 100 != 5:
            raise
        try:
            await smtp.helo(timeout=timeout)
        except aiosmtplib.SMTPServerDisconnected:
            # It hung up after its no, which therefore is its last word.
            raise error from None


def _take_over(smtp: aiosmtplib.SMTP, hop: Hop, relay: str) -> Connection:
    """Takes the transport from aiosmtplib, which discards replies that it has not asked for."""
    protocol, transport = smtp.protocol, cast("asyncio.Transport | None", smtp.transport)
    if protocol is None or transport is None or transport.is_closing():
        raise aiosmtplib.SMTPServerDisconnected("the server closed the connection")
    connection = Connection(transport, hop, relay, Extensions.of(smtp.esmtp_extensions))
    early = bytes(protocol._buffer)
    transport.set_protocol(connection)
    smtp.protocol = smtp.transport = None
    if early:
        connection.data_received(early)
    return connection


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def refusal(reply: Reply, stage: str, relay: str) -> Outcome:
    """What a reply other than yes means: FAILED at 5xx, DEFERRED at 4xx and at nonsense."""
    match reply.code // 100:
        case 5:
            disposition, status, text = Disposition.FAILED, reply.status, reply.text
        case 4:
            disposition, status, text = Disposition.DEFERRED, reply.status, reply.text
        case _:
            text = f"unexpected reply: {reply.text}"
            disposition, status = Disposition.DEFERRED, "4.5.0"
    return Outcome(disposition, reply.code, status, text, stage, relay)


def lost(reason: str, stage: str, relay: str) -> Outcome:
    """What it means that the connection ended before the reply to a stage."""
    text = f"{relay} gave no reply to {_ASKED[stage]}: {reason}"
    return Outcome(Disposition.DEFERRED, 0, "4.4.2", text, stage, relay)


def _unreachable(relay: str, text: str) -> Outcome:
    return Outcome(Disposition.DEFERRED, 0, "4.4.1", text, "connect", relay)
