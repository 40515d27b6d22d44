"""The SMTP server: any octets get well-formed replies however cut, and only sound mail is taken."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from random import Random
from typing import cast

import argon2

from fuzz.target import Target, law
from gateway.configuration.config import load_config
from gateway.configuration.network import NetworkSet
from gateway.configuration.users import Users
from gateway.hooks.chain import Chain, Copy
from gateway.hooks.watchdog import Watchdog
from gateway.log import AcceptLog
from gateway.queue.dispatch import Dispatcher
from gateway.smtp.ingress import Ingress
from gateway.smtp.listener import Listener
from gateway.smtp.reception import Reception
from gateway.spool.spool import Spool
from gateway.testing.corpus import samples
from gateway.testing.loopback import Loopback
from gateway.testing.memory_queue import MemoryQueue

_CONFIG = """
hostname: gw.example.com
listen: [{address: 127.0.0.1:25, allow: [127.0.0.0/8]}]
limits: {message_size: 32KiB, recipients: 5, errors: 30, connections: 100000}
"""
_LONGEST_WAIT = 30.0
_NOW = 1_790_000_000.0
_REPLY = re.compile(rb"(?:[2-5][0-9][0-9]-[^\r\n\0]*\r\n)*[2-5][0-9][0-9] [^\r\n\0]*\r\n")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_TRACE = re.compile(rb"Received: from .*?;\r\n\t[^\r\n]+\r\n", re.DOTALL)
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")

Outcome = tuple[bytes, list[Copy]]


class Server:
    """A listener whose mail goes into memory, and an event loop for it."""

    def __init__(self) -> None:
        self._config = load_config(Path("/nowhere/gateway.yaml"), _CONFIG)
        self._chain = Chain((), Watchdog())
        cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self._users = Users({"shop": cheap.hash("xyzzy")})
        self._loop = asyncio.new_event_loop()
        self._log = _ErrorLog()
        logging.getLogger("gateway").addHandler(self._log)

    def close(self) -> None:
        """Ends the event loop."""
        logging.getLogger("gateway").removeHandler(self._log)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def check(self, data: bytes) -> None:
        """Holds what is true of any dialogue against one.

        Raises:
            BrokenLawError: it is not true.
        """
        whole = self._talk([data])
        self._check(data, *whole)
        random = Random(len(data))  # noqa: S311 - to be repeated, not to be secret
        places = sorted(random.randrange(len(data) + 1) for _ in range(4))
        cut = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
        law(self._talk(cut)[0] == whole[0], "other pieces, other replies")
        if len(data) < 300:
            each = [data[i : i + 1] for i in range(len(data))]
            law(self._talk(each)[0] == whole[0], "octet by octet, other replies")

    def _check(self, data: bytes, said: bytes, copies: list[Copy]) -> None:
        law(
            b"".join(match[0] for match in _REPLY.finditer(said)) == said,
            "a reply is not well-formed",
        )
        said.decode()
        accepted = re.findall(rb"(?m)^250 2\.0\.0 [^\r]* as (\w+)\r$", said)
        taken = [copy.message.id.encode() for copy in copies]
        law(set(accepted) == set(taken), "what is said to be taken is not what is taken")
        for copy in copies:
            message = copy.message
            content = message.content
            law(not _BARE.search(content), "bare CR, bare LF or NUL was taken")
            law(max(map(len, content.split(b"\r\n"))) <= 998, "too long a line was taken")
            law(1 <= len(message.recipients) <= 5, "the number of recipients")
            for address in (message.sender, *(one.address for one in message.recipients)):
                law(not _CONTROLS.search(address), "a control character in an address")
                law(not any(octet in address for octet in "<>") or '"' in address, "a bracket")
            trace = _TRACE.match(content)
            law(trace, "no trace field on top")
            assert trace is not None
            for line in content[trace.end() :].split(b"\r\n"):
                # A chunk may end anywhere in a line.
                law(line in data or b"BDAT" in data.upper(), "a line that was not sent")

    def _talk(self, pieces: list[bytes]) -> Outcome:
        self._log.errors.clear()
        outcome = self._loop.run_until_complete(self._session(pieces))
        law(not self._log.errors, f"logged as an error: {''.join(self._log.errors)}")
        return outcome

    async def _session(self, pieces: list[bytes]) -> Outcome:
        queue = MemoryQueue()
        config = self._config
        ingress = Ingress(
            hostname=config.hostname,
            limits=config.limits,
            campaign_header=config.campaign_header,
            release_header=config.release_header,
            streams=config.compiled_streams,
            chain=self._chain,
            spool=cast(Spool, queue),
            dispatcher=cast(Dispatcher, queue),
            accept_log=AcceptLog(),
            clock=lambda: _NOW,
        )
        listener = Listener(
            name="fuzz",
            ingress=ingress,
            allow=NetworkSet(config.listen[0].allow),
            users=self._users,
            logins=True,
            plaintext_auth=True,
        )
        session = Reception(listener)
        connection = Loopback(session, ("127.0.0.1", 50000), tls=False)
        for piece in pieces:
            connection.send(piece)
            await asyncio.sleep(0)
        if not connection.is_closing():
            session.eof_received()
        async with asyncio.timeout(_LONGEST_WAIT):
            said = await connection.reader.read()
            await connection.closed
        return said, queue.copies


class _ErrorLog(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(self.format(record))


def _dialogue(content: bytes, sender: str, recipients: tuple[str, ...], utf8: bool) -> bytes:
    envelope = [
        "EHLO client.example.org",
        f"MAIL FROM:<{sender}>{' SMTPUTF8' if utf8 else ''}",
        *(f"RCPT TO:<{recipient}>" for recipient in recipients),
        "DATA",
    ]
    stuffed = b"\r\n".join(
        b"." + line if line.startswith(b".") else line for line in content.split(b"\r\n")
    )
    end = b"" if content.endswith(b"\r\n") else b"\r\n"
    return "".join(f"{line}\r\n" for line in envelope).encode() + stuffed + end + b".\r\nQUIT\r\n"


def target() -> Target:
    """The SMTP server."""
    seeds = [
        _dialogue(sample.content, sample.sender, sample.recipients, sample.smtputf8)
        for sample in samples()
        if len(sample.content) < 4096
    ]
    start = b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
    letter = b"Subject: x\r\n\r\nHello\r\n"
    seeds += [
        start + b"BDAT %d LAST\r\n" % len(letter) + letter + b"QUIT\r\n",
        start + b"BDAT 9\r\nSubject: BDAT 12 LAST\r\nx\r\n\r\nHello\r\nQUIT\r\n",
        start + b"DATA\r\n.\r\n",
        start + b"DATA\r\na\n.\nMAIL FROM:<x@y>\r\n.\r\n",
        start + b"DATA\r\na\r.\rMAIL FROM:<x@y>\r\n.\r\n",
        b"EHLO a\r\nAUTH PLAIN AHNob3AAeHl6enk=\r\nAUTH LOGIN\r\nc2hvcA==\r\neHl6enk=\r\n",
        b"HELO a\r\nNOOP x\r\nVRFY a\r\nEXPN b\r\nHELP\r\nRSET\r\nETRN x\r\nQUIT\r\n",
        b"EHLO a\r\nMAIL FROM:<> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=a+2Bb MT-PRIORITY=3\r\n"
        b"RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c\r\nRSET\r\n",
        b'EHLO [127.0.0.1]\r\nMAIL FROM:<"a b"@c.example>\r\nRCPT TO:<@x,@y:z@[1.2.3.4]>\r\n',
        "EHLO ü\r\nMAIL FROM:<ü@例え.jp> SMTPUTF8\r\nRCPT TO:<宛@例え.jp>\r\nDATA\r\n".encode(),
        b"EHLO a\r\nMAIL FROM:<a@b.c> HOLDFOR=60\r\nRCPT TO:<a@b.c>\r\nDATA\r\n\r\n.\r\n",
    ]
    tokens = [
        *(b"EHLO ", b"HELO a\r\n", b"MAIL FROM:<", b"RCPT TO:<", b"DATA\r\n", b"BDAT 0 LAST\r\n"),
        *(b"BDAT 10\r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"AUTH PLAIN\r\n", b"\r\n.\r\n"),
        *(b"STARTTLS\r\n", b" SIZE=", b" BODY=8BITMIME", b" SMTPUTF8", b" HOLDUNTIL=", b"*\r\n"),
        *(b" HOLDFOR=9", b" NOTIFY=NEVER", b" ORCPT=rfc822;", b" ENVID=+", b" REQUIRETLS", b"+0D"),
        *(b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n..\r\n", b"<>", b"@", b":"),
        *(b"\\", b'"', b"[IPv6:::1]", b"X-Deliver-At: Mon, 7 Sep 2026 09:00:00 +0900\r\n"),
    ]
    server = Server()
    return Target("smtp", server.check, seeds, tokens, server.close)
