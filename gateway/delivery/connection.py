"""An SMTP connection to a next hop: how it opens, and what goes over it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import aiosmtplib

from gateway.attempt import Disposition, Hop, Outcome, Source
from gateway.delivery.greeting import await_banner, say_hello
from gateway.delivery.login import log_in
from gateway.delivery.protection import Protection, TlsError, failure
from gateway.delivery.reply import Reply, ReplyReader, one_line
from gateway.delivery.tcp import connect
from gateway.mail.large_content import BLOCK, Content, LargeContent, Octets
from gateway.mail.transparency import Dots

_ASKED = {
    "connect": "the connection",
    "ehlo": "EHLO",
    "auth": "AUTH",
    "mail": "MAIL",
    "rcpt": "RCPT",
    "data": "DATA",
    "dot": "the message",
}

log = logging.getLogger("gateway.tls")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a server, in seconds (RFC 5321 4.5.3.2).

    `connect` is for TCP; `tls` for STARTTLS and the handshake, where TLS begins at the first octet
    for handshake and banner; `block` for the server to take in a part of a message; the others for
    the reply to what they are named after.
    """

    connect: float = 30.0
    banner: float = 300.0
    ehlo: float = 300.0
    tls: float = 120.0
    auth: float = 120.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    dot: float = 600.0


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a server offers (RFC 2920, 1870, 6152, 6531, 3461, 8689, 6710)."""

    pipelining: bool
    size: bool
    eight_bit_mime: bool
    smtputf8: bool
    dsn: bool
    require_tls: bool
    mt_priority: bool

    @classmethod
    def of(cls, keywords: Mapping[str, str]) -> Extensions:
        """Picks those that matter from the EHLO keywords in lower case."""
        return cls(
            pipelining="pipelining" in keywords,
            size="size" in keywords,
            eight_bit_mime="8bitmime" in keywords,
            smtputf8="smtputf8" in keywords,
            dsn="dsn" in keywords,
            require_tls="requiretls" in keywords,
            mt_priority="mt-priority" in keywords,
        )


class Connection(asyncio.Protocol):
    """A connection after EHLO. Whoever holds it sends, and gets the replies.

    Every wait ends: with the replies, with a timeout, or with the connection. No exception says
    so; `lost` tells why the connection is of no more use, and is empty as long as it is.

    Attributes:
        hop, relay, extensions: the server, its name in outcomes, and what it offers.
        tls: how the connection is protected, such as `TLSv1.3 with TLS_AES_256_GCM_SHA384, verified
            by DANE`; '' if it is not.
        opened: when, on the loop's clock.
        transactions: how many were begun.
        needs_reset: whether the server may hold a transaction that was not finished.
        dot_sent: whether the last message was sent to its end.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        hop: Hop,
        relay: str,
        extensions: Extensions,
        tls: str = "",
    ) -> None:
        self.hop = hop
        self.relay = relay
        self.extensions = extensions
        self.tls = tls
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
        self._alarm_at = 0.0

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

    async def send(self, content: Content, timeouts: Timeouts) -> list[bytes]:
        """Sends a message, dot-stuffed, and the dot; returns the one reply, or none.

        If the reply comes before the end, the rest stays unsent and `dot_sent` is false.
        """
        self.dot_sent = False
        if self.lost:
            return []
        if not isinstance(content, bytes):
            return await self._send_blocks(content, timeouts)
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
                if not await self._take_in(octets[start : start + BLOCK], answered, timeouts):
                    return self._replies
            self._set_deadline(timeouts.dot)
            self._transport.write(end)
        else:
            self._transport.write(content + end)
        self.dot_sent = True
        await answered
        return self._replies

    async def _send_blocks(self, content: LargeContent, timeouts: Timeouts) -> list[bytes]:
        answered = self._expect(1, timeouts.dot)
        dots = Dots.added()
        dots.feed(b"\r\n")
        for block in content.blocks():
            if not await self._take_in(dots.feed(block), answered, timeouts):
                return self._replies
        end = dots.end()
        self._set_deadline(timeouts.dot)
        self._transport.write(end + (b".\r\n" if end.endswith(b"\n") else b"\r\n.\r\n"))
        self.dot_sent = True
        await answered
        return self._replies

    async def _take_in(
        self, octets: Octets, answered: asyncio.Future[None], timeouts: Timeouts
    ) -> bool:
        """Sends a part of a message; False if the reply has come before its end."""
        self._transport.write(octets)
        if self._paused:
            self._resumed = self._loop.create_future()
            self._set_deadline(timeouts.block)
            await self._resumed
        else:
            await asyncio.sleep(0)
        return not answered.done()

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
        if alarm is None or deadline < self._alarm_at:
            if alarm is not None:
                alarm.cancel()
            self._set_alarm()

    def _set_alarm(self) -> None:
        self._alarm_at = self._deadline  # uvloop's does not always know its own time
        self._alarm = self._loop.call_at(self._deadline, self._on_alarm)

    def _on_alarm(self) -> None:
        # The loop's clock ticks in milliseconds with uvloop.
        if self._loop.time() + 0.001 < self._deadline:
            self._set_alarm()
            return
        self._alarm = None
        if self._resting:
            self.quit()
        else:
            self.abort(f"timed out after {self._patience:g} seconds")


def _nobody_cares(_: Connection) -> None:
    """What happens at the loss of a connection that has no owner yet."""


async def open_connection(
    hop: Hop,
    address: str,
    source: Source,
    timeouts: Timeouts,
    protection: Protection = Protection(),  # noqa: B008 (it is frozen)
) -> Connection | Outcome:
    """Connects to one IP address of a hop and comes as far as MAIL.

    That is EHLO, or HELO to a server that knows no other, TLS and login. Where TLS fails that
    nobody demands, a new connection is made without it.

    Returns the connection, or why there is none: FAILED if the server said so (5xx), or if a
    message with REQUIRETLS cannot go there; otherwise DEFERRED.
    """
    while True:
        opened = await _open(hop, address, source, timeouts, protection)
        if isinstance(opened, Connection):
            if opened.tls:
                log.info("connected to %s: %s", opened.relay, opened.tls)
            return opened
        if opened.stage != "tls" or protection.otherwise is None:
            return opened
        protection.failed(opened.text)
        protection = protection.otherwise


async def _open(
    hop: Hop, address: str, source: Source, timeouts: Timeouts, protection: Protection
) -> Connection | Outcome:
    relay = f"{hop.host}[{address}]:{hop.port}"
    stage = "connect"
    smtp: aiosmtplib.SMTP | None = None
    try:
        connected = await connect(address, hop.port, source.address, timeouts.connect)
    except TimeoutError:
        return _unreachable(relay, f"connect to {relay}: timed out")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return _unreachable(relay, f"connect to {relay}: {reason}")
    try:
        smtp = aiosmtplib.SMTP(
            sock=connected,
            hostname=protection.name,
            local_hostname=source.helo,
            timeout=timeouts.tls if protection.implicit else timeouts.banner,
            use_tls=protection.implicit,
            tls_context=protection.context,
            start_tls=False,
        )
        await await_banner(smtp)
        stage = "ehlo"
        tls = protection.check(smtp) if protection.implicit else ""
        await say_hello(smtp, timeouts.ehlo)
        if not tls and await protection.start(smtp, timeouts.tls):
            # What a server of TLS 1.3 dislikes about the handshake, it says after it.
            stage = "tls"
            tls = protection.check(smtp)
            await say_hello(smtp, timeouts.ehlo)
        if protection.require_tls and not smtp.supports_extension("requiretls"):
            return _without_require_tls(relay)
        if protection.login is not None:
            stage = "auth"
            refused = await log_in(smtp, protection.login, relay, timeouts.auth)
            if refused is not None:
                return refused
        return _take_over(smtp, hop, relay, tls)
    except TlsError as error:
        return protection.unmet(error, relay)
    except aiosmtplib.SMTPResponseException as error:
        asked = "ehlo" if stage == "tls" else stage
        return refusal(Reply.of(error.code, _octets(error.message)), asked, relay)
    except (aiosmtplib.SMTPException, OSError) as error:
        if stage == "tls":
            return protection.unmet(failure(error), relay)
        timed_out = isinstance(error, aiosmtplib.SMTPTimeoutError)
        reason = "timed out" if timed_out else one_line(_octets(str(error)))
        return lost(reason, stage, relay)
    except ValueError as error:
        text = f"EHLO cannot carry the name {source.helo!r}: {error}"
        return Outcome(Disposition.DEFERRED, 0, "4.3.5", text, stage, relay)
    finally:
        if smtp is None:
            connected.close()
        elif smtp.protocol is not None:
            smtp.close()


def _take_over(smtp: aiosmtplib.SMTP, hop: Hop, relay: str, tls: str) -> Connection:
    """Takes the transport from aiosmtplib, which discards replies that it has not asked for."""
    protocol, transport = smtp.protocol, cast("asyncio.Transport | None", smtp.transport)
    if protocol is None or transport is None or transport.is_closing():
        raise aiosmtplib.SMTPServerDisconnected("the server closed the connection")
    connection = Connection(transport, hop, relay, Extensions.of(smtp.esmtp_extensions), tls)
    early = bytes(protocol._buffer)
    transport.set_protocol(connection)
    smtp.protocol = smtp.transport = None
    if early:
        connection.data_received(early)
    return connection


def _without_require_tls(relay: str) -> Outcome:
    text = f"the message demands REQUIRETLS, which {relay} does not offer (RFC 8689)"
    return Outcome(Disposition.FAILED, 0, "5.7.30", text, "tls", relay)


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
