"""One client's SMTP session (RFC 5321): connection, EHLO, STARTTLS, AUTH.

Its mail transactions are in `reception.py`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from asyncio.streams import StreamReaderProtocol
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

from aiosmtpd.smtp import SMTP

from gateway.hooks.actions import Reject, Tempfail
from gateway.hooks.plugin import Login
from gateway.mail.message import Client
from gateway.smtp.attendance import place_of
from gateway.smtp.authentication import authenticate
from gateway.smtp.future_release import advertisement
from gateway.smtp.guesses import TooManyGuessesError
from gateway.smtp.ingress import Transaction
from gateway.smtp.line_reader import LineReader
from gateway.smtp.listener import Listener
from gateway.smtp.patience import Patience

READ_BLOCK = 64 << 10
COMMAND_LENGTH = 4096
"""Octets in a command line. RFC 5321 4.5.3.1.4 asks for 512, extensions add to it."""
AUTH_LENGTH = 12288
"""Octets in an answer to AUTH (RFC 4954 4)."""
TLS_HANDSHAKE_SECONDS = 30.0
COMMANDS_IN_A_ROW = 4
"""Commands that a client may send at a time before it is the turn of others."""

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")

_LAST_COMMANDS = frozenset({b"DATA", b"BDAT"})

log = logging.getLogger("gateway.session")

Command = Callable[[Any, str], Awaitable[None]]
"""A command of the session, with its argument."""


class EndError(Exception):
    """The session ends here; what had to be said has been said."""


class _Peer:
    """What aiosmtpd's connection handling wants to know of a session."""

    __slots__ = ("peer",)


class _NoTimer:
    """Stands in for aiosmtpd's timer: `Listener.dismiss_silent` does its work."""

    def cancel(self) -> None:
        """Nothing to cancel."""


class Session(SMTP):
    """One client's connection.

    aiosmtpd gives its life, we the commands. Its constructor, which takes 0.3 ms, is not called.
    """

    _paused: bool
    _original_transport = None
    _tls_protocol = None
    _timeout_handle: Any = _NoTimer()
    session = None
    transport: asyncio.Transport | None = None

    def __init__(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self.reader = LineReader(READ_BLOCK, loop)
        no_stream: Any = None  # what comes goes to our reader instead
        StreamReaderProtocol.__init__(self, no_stream, self._cb_client_connected, loop)
        self.loop = loop
        self.listener = listener
        self.ingress = listener.ingress
        self.limits = listener.ingress.limits
        self.patience = Patience(self.limits, loop.time())
        self.client = Client("")
        self.transaction: Transaction | None = None
        self._errors = 0

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._peer = transport.get_extra_info("peername") or ("", 0)
        self._place = place_of(self._peer[0])
        self.ingress.attendance.come(self._place)
        self.ingress.traffic.connections += 1
        self.listener.sessions.add(self)
        self.reader.transport = transport
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, from whichever side."""
        self.ingress.attendance.go(self._place)
        self.listener.sessions.discard(self)
        self.reader.feed_eof()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        self.reader.feed_data(data)

    def eof_received(self) -> bool | None:
        """The client sends no more; what it has sent is still answered."""
        self.reader.feed_eof()
        return bool(StreamReaderProtocol.eof_received(self))

    def _create_session(self) -> Any:
        return _Peer()

    def _set_rset_state(self) -> None:
        self.transaction = None

    def _reset_timeout(self, duration: float | None = None) -> None:
        now = self.loop.time()
        if duration is None:
            self.patience.work(now)
        else:
            self.patience.await_content(now, self.reader.octets, duration)

    def say(self, reply: str) -> None:
        """Writes a reply; nobody hears it any more where the connection is gone."""
        if self.transport is not None:
            self.transport.write(reply.encode("utf-8", "replace") + b"\r\n")

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in."""
        return self.transaction is not None

    def dismiss(self, reply: str) -> None:
        """Says a last word and closes."""
        if self.transport is not None and not self.transport.is_closing():
            self.say(reply)
            # Mail that is taken from now on cannot be answered, and would come a second time.
            self.reader.end()
            self.transport.close()

    def expire(self, reply: str) -> None:
        """The client took too long: it is dismissed, and cut off if it does not take that in."""
        if self.transport is not None and self.transport.is_closing():
            self.transport.abort()
        self.dismiss(reply)

    async def _handle_client(self) -> None:
        try:
            await self._talk()
        except (EndError, ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception:
            log.exception("a session broke off")
            self.say("421 4.3.0 Internal error, please try again later")
        finally:
            self._set_rset_state()
        self._writer.close()

    async def _talk(self) -> None:
        await self._greet()
        commands = self.commands
        patience, now = self.patience, self.loop.time
        pipelined = 0
        while True:
            patience.await_command()
            if self.reader.unread:
                # What has arrived already is read without a pause, and others have to have a turn.
                pipelined += 1
                if not pipelined % COMMANDS_IN_A_ROW:
                    await asyncio.sleep(0)
            line = await self._read_line()
            verb, _, argument = line.partition(b" ")
            verb = verb.upper()
            command = commands.get(verb)
            patience.work(now())
            if command is None:
                self.wrong("500 5.5.2 Command not recognized")
            else:
                try:
                    text = argument.decode()
                except UnicodeDecodeError:
                    self.wrong("500 5.5.2 The command is not UTF-8")
                else:
                    await command(self, text)
            if self._paused:  # the client does not take in what it is told
                await self._writer.drain()
            if self.transaction is None:
                if verb in _LAST_COMMANDS:
                    patience.begin(now())
                if self.listener.stopping:
                    self.end("421 4.3.2 The gateway is shutting down, please come again")

    async def _greet(self) -> None:
        assert self.transport is not None
        address, port = self._peer[:2]
        tls = self.transport.get_extra_info("ssl_object")
        client = self.client = Client(
            address.removeprefix("::ffff:"),
            port,
            self.listener.name,
            tls=tls.version() if tls is not None else None,
        )
        ingress = self.ingress
        if ingress.attendance.connections > self.limits.connections:
            self.end("421 4.3.2 Too many connections, please try again later")
        if ingress.attendance.count(self._place) > self.limits.connections_per_client:
            log.info("%s: too many connections", client.address)
            self.end("421 4.7.0 Too many connections of yours, please try again later")
        answer = await ingress.chain.connect(client)
        if isinstance(answer, Reject):
            self.end(f"554 {answer.status} {answer.text}")
        if isinstance(answer, Tempfail):
            self.end(f"421 {answer.status} {answer.text}")
        self.say(f"220 {ingress.hostname} ESMTP")

    async def _read_line(self, limit: int = COMMAND_LENGTH) -> bytes:
        """The next line without its CRLF. What can be no command is answered here."""
        while True:
            line = await self.reader.read_to(b"\n")
            length = len(line)
            while not line.endswith(b"\n"):
                line = await self.reader.read_to(b"\n")
                length += len(line)
            if length > limit:
                self.wrong("500 5.5.6 Line too long")
            elif not line.endswith(b"\r\n"):
                self.wrong("500 5.5.2 A line ends with CR LF (RFC 5321 2.3.8)")
            elif _CONTROLS.search(line := line[:-2]):
                self.wrong("500 5.5.2 Control characters are not allowed")
            else:
                return line

    def wrong(self, reply: str) -> None:
        """Answers what breaks the protocol, and closes when it happens too often."""
        self._errors += 1
        if self._errors > self.limits.errors:
            self.end("421 4.7.0 Too many errors")
        self.refuse(reply)

    def refuse(self, reply: str) -> None:
        """Says no, or not now."""
        self.ingress.traffic.refuse(reply)
        self.say(reply)

    def end(self, reply: str) -> NoReturn:
        """Says a last word and ends the session."""
        if reply[0] == "2":
            self.say(reply)
        else:
            self.refuse(reply)
        raise EndError

    # Commands before a message.

    async def _introduce(self, name: str, esmtp: bool) -> bool:
        name = name.strip(" ")
        if not name or len(name) > 255 or " " in name:
            self.wrong("501 5.5.4 Say EHLO with your name: EHLO mail.example.com")
            return False
        self._set_rset_state()
        # Mail that was accepted keeps the client as it was then.
        client = self.client = replace(self.client, helo=name, esmtp=esmtp)
        answer = await self.ingress.chain.helo(client)
        if isinstance(answer, Reject | Tempfail):
            self.client = replace(client, helo="")
            self.refuse(f"{answer.code} {answer.status} {answer.text}")
            return False
        return True

    async def _helo(self, hostname: str) -> None:
        """HELO."""
        if await self._introduce(hostname, esmtp=False):
            self.say(f"250 {self.ingress.hostname}")

    async def _ehlo(self, hostname: str) -> None:
        """EHLO."""
        if await self._introduce(hostname, esmtp=True):
            lines = [self.ingress.hostname, *self._extensions()]
            reply = "\r\n".join(f"250-{line}" for line in lines[:-1])
            self.say(f"{reply}\r\n250 {lines[-1]}")

    def _extensions(self) -> Iterator[str]:
        yield "PIPELINING"
        yield f"SIZE {self.limits.message_size}"
        yield from ("8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "MT-PRIORITY")
        # Who has logged in need not say EHLO again, and has to know before.
        if self.limits.hold and (self.listener.may_relay(self.client) or self.may_log_in()):
            yield advertisement(self.ingress.clock(), self.limits.hold)
        if self.client.tls is not None:
            yield "REQUIRETLS"
        elif self.listener.tls is not None:
            yield "STARTTLS"
        if self.may_log_in():
            yield "AUTH PLAIN LOGIN"
        yield "CHUNKING"

    def may_log_in(self) -> bool:
        """Whether AUTH is offered now."""
        listener = self.listener
        return listener.logins and (self.client.tls is not None or listener.plaintext_auth)

    async def _starttls(self, arg: str) -> None:
        """STARTTLS (RFC 3207)."""
        context = self.listener.tls
        if arg.strip(" "):
            self.wrong("501 5.5.4 STARTTLS takes no argument")
            return
        if context is None or self.client.tls is not None:
            self.wrong("503 5.5.1 TLS is not available now")
            return
        # Commands sent ahead of the handshake were not protected by it: they are dropped.
        self.reader.unread.clear()
        self.say("220 2.0.0 Go ahead")
        assert self.transport is not None
        try:
            transport = await self.loop.start_tls(
                self.transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            log.info("%s: TLS handshake failed: %s", self.client.address, error)
            raise EndError from None
        if transport is None:
            raise EndError
        self.transport = transport
        self.reader.transport = transport
        for stream in (self._writer, self):
            vars(stream)["_transport"] = transport
        vars(self)["_over_ssl"] = True
        self._set_rset_state()
        version = transport.get_extra_info("ssl_object").version()
        # What was said before the handshake may have been said by somebody else (RFC 3207 4.2).
        self.client = replace(self.client, helo="", user=None, tls=version)

    async def _auth(self, arg: str) -> None:
        """AUTH PLAIN and AUTH LOGIN (RFC 4954)."""
        client = self.client
        if not client.esmtp or not client.helo:
            self.wrong("503 5.5.1 Send EHLO first")
        elif not self.may_log_in():
            if self.listener.logins:
                self.wrong("538 5.7.11 Encryption is required: send STARTTLS first")
            else:
                self.wrong("502 5.5.1 AUTH is not available here")
        elif client.user is not None:
            self.wrong("503 5.5.1 Already authenticated")
        elif self.transaction is not None:
            self.wrong("503 5.5.1 AUTH is not allowed during a mail transaction")
        else:
            mechanism, _, initial = arg.partition(" ")
            credentials = await self._credentials(mechanism.upper(), initial.strip(" "))
            if credentials is not None:
                await self._log_in(mechanism.upper(), *credentials)

    async def _credentials(self, mechanism: str, initial: str) -> tuple[str, str] | None:
        if mechanism not in ("PLAIN", "LOGIN"):
            self.wrong("504 5.5.4 Use AUTH PLAIN or AUTH LOGIN")
            return None
        try:
            if mechanism == "PLAIN":
                answer = await self._challenge("", initial)
                _, username, password = answer.split("\0")
            else:
                username = await self._challenge("Username:", initial)
                password = await self._challenge("Password:", "")
        except (binascii.Error, ValueError):
            self.wrong("501 5.5.2 The answer cannot be decoded, or was cancelled")
            return None
        return username, password

    async def _challenge(self, prompt: str, initial: str) -> str:
        """The client's decoded answer; raises ValueError for `*` and what is no base64."""
        if not initial:
            self.say(f"334 {base64.b64encode(prompt.encode()).decode()}")
            initial = (await self._read_line(AUTH_LENGTH)).decode()
        elif initial == "=":
            return ""
        return base64.b64decode(initial, validate=True).decode()

    async def _log_in(self, mechanism: str, username: str, password: str) -> None:
        login = Login(self.client, mechanism, username, password)
        try:
            refusal = await authenticate(self.listener, login)
        except TooManyGuessesError as error:
            if self._errors:
                self.end(f"421 4.7.0 {error}")
            self.wrong(f"454 4.7.0 {error}")
            return
        if refusal is None:
            # Mail that was accepted keeps the client as it was then.
            self.client = replace(self.client, user=login.user)
            self.say("235 2.7.0 Welcome")
        elif refusal[0] == "4":
            self.refuse(refusal)
        else:
            self.wrong(refusal)

    async def _noop(self, arg: str) -> None:
        """NOOP."""
        self.say("250 2.0.0 Ok")

    async def _quit(self, arg: str) -> None:
        """QUIT."""
        self.end("221 2.0.0 Bye")

    async def _rset(self, arg: str) -> None:
        """RSET."""
        self._set_rset_state()
        self.say("250 2.0.0 Ok")

    async def _vrfy(self, arg: str) -> None:
        """VRFY: we do not know before we try (RFC 5321 3.5.3)."""
        self.say("252 2.1.5 Send some mail, I will try")

    async def _expn(self, arg: str) -> None:
        """EXPN."""
        self.wrong("502 5.5.1 EXPN is not available")

    async def _help(self, arg: str) -> None:
        """HELP."""
        self.say("214 2.0.0 See RFC 5321")

    commands: ClassVar[dict[bytes, Command]] = {
        b"HELO": _helo,
        b"EHLO": _ehlo,
        b"STARTTLS": _starttls,
        b"AUTH": _auth,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"QUIT": _quit,
        b"VRFY": _vrfy,
        b"EXPN": _expn,
        b"HELP": _help,
    }
