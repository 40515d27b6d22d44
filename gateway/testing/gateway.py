"""A gateway on real sockets, with a real spool, that delivers: for tests with `await`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, Unpack

from gateway.attempt import Hop
from gateway.configuration.config import Config
from gateway.events import Event
from gateway.hooks.plugin import Plugin
from gateway.mail.message import Message
from gateway.queue.listing import Row, State
from gateway.spool.outbox import Outbox
from gateway.testing.clock import Clock
from gateway.testing.dns import Failure, FakeDns, Records
from gateway.testing.envelope import recipients_of, sender_of
from gateway.testing.faults import Fault, FaultLog, complain
from gateway.testing.installation import Given, install
from gateway.testing.interruption import interrupting
from gateway.testing.nexthop import NextHop
from gateway.testing.smtp_client import SmtpClient, Submission
from gateway.testing.specimen import mail
from gateway.testing.worker import Options, Worker

WAIT = 10.0
"""Seconds that a test waits for something at most."""


@dataclass(frozen=True)
class Sent:
    """What a client was told.

    Attributes:
        reply: in the end, such as `250 2.0.0 Ok: queued as …`: the first refusal of the message,
            or the answer to its end.
        replies: the answers to RCPT, by recipient.
        dialogue: all that client and gateway said.
    """

    reply: str
    replies: Mapping[str, str]
    dialogue: str = field(default="", repr=False)

    @property
    def accepted(self) -> bool:
        """Whether the client was told that all is well."""
        return self.reply.startswith("250")

    @property
    def id(self) -> str:
        """The queue id.

        Raises:
            AssertionError: the message was not queued.
        """
        __tracebackhide__ = True
        if not self.accepted:
            raise AssertionError(f"the message was not queued:\n{self.dialogue}")
        return self.reply.rpartition(" ")[2]


class Gateway:
    """A gateway as it runs: mail comes over a socket, is on disk, and is delivered.

        async with NextHop() as hop, Gateway(Footer, next_hop=hop) as gateway:
            await gateway.send(mail("Hello"))
            (received,) = await hop.wait(1)

    Plugins run in the worker's role. Observers get events when the test calls `observe`.
    What plugins do wrong fails the test when the gateway is left, unless it `may_fail`; `faults`
    has it at any time.

    Args:
        plugins: as for `MemoryGateway`.
        config: the rest of gateway.yaml, as text; or all of it. Its `listen` is not used; without
            `relay`, mail goes to `next_hop`.
        base: the folder that relative paths in it start from; None: that of the gateway's files.
        next_hop: where mail is delivered; None: one of its own, that likes everything. It is
            started if it does not run.
        dns: a DNS server, or what one says; None: no name exists. It is started if need be.
        clock: the wall clock; None: one that stands still until `clock.move(seconds)`.
        folder: for the gateway's files; None: one that is removed in the end.
        may_fail: whether what plugins do wrong is for the test to look at.
        options: how it listens and works: `allow` (networks that may relay), `tls` and `implicit`
            (what clients may do TLS with, and whether from the first octet), `users`,
            `plaintext_auth`, `retry`, `bounds`.

    Attributes:
        next_hop, dns, clock: as above.
        config, worker, plugins: what it is made of, once it runs; plugins by their entries' names.
        address: `ip:port` where it takes mail, once it runs.
    """

    config: Config
    worker: Worker
    plugins: Mapping[str, Plugin[Any]]

    def __init__(
        self,
        *plugins: Given,
        config: str = "",
        base: Path | None = None,
        next_hop: NextHop | None = None,
        dns: FakeDns | Mapping[str, Records | Failure] | None = None,
        clock: Clock | None = None,
        folder: Path | None = None,
        may_fail: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.next_hop = NextHop() if next_hop is None else next_hop
        self.dns = dns if isinstance(dns, FakeDns) else FakeDns(dns or {})
        self.clock = Clock() if clock is None else clock
        self._given = plugins
        self._text = config
        self._base = base
        self._folder = folder
        self._may_fail = may_fail
        self._options = options
        self._log = FaultLog()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        __tracebackhide__ = True
        async with AsyncExitStack() as opening:
            folder = self._folder
            if folder is None:
                folder = Path(opening.enter_context(TemporaryDirectory(prefix="gateway-")))
            for server in (self.next_hop, self.dns):
                if not server.address:
                    await opening.enter_async_context(server)
            opening.enter_context(self._log.listening())
            defaults = {
                "relay": {"via": [self.next_hop.address]},
                "dns": {"nameservers": [self.dns.address], "loopback": True},
            }
            self.config, loaded = install(folder, self._given, self._text, self._base, defaults)
            self.plugins = {plugin.entry.name: plugin.instance for plugin in loaded}
            self.worker = Worker(self.config, plugins=loaded, clock=self.clock, **self._options)
            opening.enter_context(interrupting(self.worker.watchdog))
            await opening.enter_async_context(self.worker)
            self._outbox = Outbox(self.config.spool.path, self.worker.chain)
            opening.callback(self._outbox.close)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        await self._open.aclose()
        if error is None and not self._may_fail:
            complain(self.faults)

    @property
    def address(self) -> str:
        """Where it takes mail."""
        return str(Hop(self.worker.host, self.worker.port))

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What plugins did wrong so far."""
        return tuple(self._log.faults)

    async def send(
        self,
        content: bytes | Message | None = None,
        *,
        sender: str | None = None,
        to: str | Sequence[str] | None = None,
        user: str | None = None,
        password: str = "secret",  # noqa: S107 - what a test says if it says nothing
        tls: ssl.SSLContext | None = None,
        mail_parameters: str = "",
        rcpt_parameters: str = "",
    ) -> Sent:
        """Sends a message over SMTP, and returns what the client was told.

        Args:
            content: its octets, which are sent as they are; of a `Message`, its envelope too.
                None: `mail()`.
            sender: the address in MAIL; None: that in From.
            to: the addresses in RCPT; None: those in To, Cc and Bcc.
            user: who logs in; None: nobody does.
            password: what `user` logs in with.
            tls: what a client does TLS with from the first octet; None: it does not.
            mail_parameters: those of MAIL, such as `RET=HDRS`.
            rcpt_parameters: those of each RCPT, such as `NOTIFY=NEVER`.
        """
        octets = mail() if content is None else content
        if isinstance(octets, Message):
            sender = octets.sender if sender is None else sender
            to = [recipient.address for recipient in octets.recipients] if to is None else to
            octets = octets.content
        submission = Submission(
            octets,
            sender_of(octets) if sender is None else sender,
            recipients_of(octets) if to is None else [to] if isinstance(to, str) else to,
            login=(user, password) if user is not None else None,
            mail_parameters=mail_parameters,
            rcpt_parameters=rcpt_parameters,
        )
        reader, writer = await asyncio.open_connection(self.worker.host, self.worker.port, ssl=tls)
        try:
            client = SmtpClient(reader, writer.write)
            refusal = await client.greet(submission)
            dialogue = client.dialogue(refusal) if refusal else await client.submit(submission)
        finally:
            writer.close()
        return Sent(dialogue.reply, dialogue.replies, str(dialogue))

    def queue(self) -> list[Row]:
        """The recipients that wait in the queue, one row for each; states are by `clock`."""
        return [replace(row, state=self._state(row)) for row in self.worker.rows()]

    def _state(self, row: Row) -> State:
        if row.state == "held":
            return row.state
        if row.due is None or row.due <= self.clock.now:
            return "active"
        return "deferred" if row.attempts or row.reply else "scheduled"

    def events(self) -> list[Event]:
        """What is in the outbox; only events that some observer wants are."""
        return self.worker.events()

    async def observe(self) -> None:
        """Gives all events in the outbox that they have not seen to the observers."""
        while await self._outbox.pass_on():
            pass

    async def wait_empty(self, timeout: float = WAIT) -> None:
        """Waits until nothing is in the queue any more.

        Raises:
            TimeoutError: something still was after `timeout` seconds; the text says what.
        """
        await self.wait(lambda: not self.queue(), "the queue to be empty", timeout)

    async def wait(
        self, condition: Callable[[], object], what: str = "a condition", timeout: float = WAIT
    ) -> None:
        """Waits until a condition holds, such as `lambda: gateway.queue()[0].attempts == 1`.

        Raises:
            TimeoutError: it did not after `timeout` seconds; the text shows the queue.
        """
        try:
            async with asyncio.timeout(timeout):
                while not condition():  # noqa: ASYNC110 - it may be about anything
                    await asyncio.sleep(0.005)
        except TimeoutError:
            rows = "\n".join(
                f"  {row.recipient}: {row.state}, {row.attempts} attempts, {row.held or row.reply}"
                for row in self.queue()
            )
            raise TimeoutError(
                f"waited {timeout:g} s for {what}; in the queue:\n{rows or '  nothing'}"
            ) from None
