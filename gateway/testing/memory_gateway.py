"""A gateway in memory: the SMTP dialogue and the chain, used without `await`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self

from gateway.attempt import Outcome
from gateway.events import Event
from gateway.hooks.lifecycle import context_of
from gateway.hooks.plugin import Plugin
from gateway.mail.message import Client, Message
from gateway.resolver import Resolver
from gateway.smtp.reception import Reception
from gateway.testing.attempts import attempt, delivery_of, outcome_of
from gateway.testing.clock import Clock
from gateway.testing.dns import Failure, FakeDns, Records
from gateway.testing.envelope import message_of, recipients_of, sender_of
from gateway.testing.faults import Fault, complain
from gateway.testing.installation import Given, install, with_clock
from gateway.testing.loopback import Loopback
from gateway.testing.memory_process import MemoryProcess
from gateway.testing.observers import observe
from gateway.testing.requests import request
from gateway.testing.result import (
    AttemptResult,
    CommandResult,
    HttpResult,
    ObserveResult,
    QueuedMessage,
    Result,
)
from gateway.testing.smtp_client import Dialogue, SmtpClient, Submission
from gateway.testing.specimen import mail
from gateway.web.application import load_applications

PEER_PORT = 50000
"""The port that clients come from."""


class MemoryGateway:
    """A gateway in memory, for tests of plugins: nothing is on disk, and nothing is delivered.

    Everything up to the queue is as in a running gateway: the configuration and the plugins are
    checked, `start` hooks run, and mail passes the SMTP dialogue and the chain. Methods are plain
    functions; the gateway has an event loop of its own.

        with MemoryGateway(Footer(FooterConfig(text="Example Inc."))) as gateway:
            result = gateway.send(mail("Hello"))
        result.changes.only("text/plain")

    What a plugin does wrong (it raises, runs late, answers what it may not, or leaves a task
    running) fails the test: the method that noticed it raises AssertionError, with the plugin's
    exception as its cause. With `may_fail` it is in the result's `faults` instead, to see what the
    gateway makes of it.

    Args:
        plugins: instances, classes or references as in gateway.yaml; each may come with settings,
            as `(Footer, {"text": "x", "on_error": "skip"})`.
        config: the rest of gateway.yaml, as text; or all of it, its plugins too.
        base: the folder that relative paths in it start from; None: that of the gateway's files.
        clock: the wall clock; None: one that stands still until `clock.move(seconds)`.
        dns: names, and what the DNS says of them, as for `FakeDns`; all others do not exist.
        resolver: asks the DNS instead.
        role: the process that this is to the plugins.
        folder: for the gateway's files; None: one that is removed in the end.
        may_fail: whether what plugins do wrong is for the test to look at.

    Attributes:
        plugins: the instances, by the names of their entries.
        clock, dns, folder, config: as above.
        chain: the hooks.

    Raises:
        ConfigError: configuration or plugins are wrong.
        PluginStartError: a `start` hook failed.
        RuntimeError: it is made inside of a coroutine.
    """

    def __init__(
        self,
        *plugins: Given,
        config: str = "",
        base: Path | None = None,
        clock: Clock | None = None,
        dns: FakeDns | Mapping[str, Records | Failure] | None = None,
        resolver: Resolver | None = None,
        role: Literal["worker", "service"] = "worker",
        folder: Path | None = None,
        may_fail: bool = False,
    ) -> None:
        __tracebackhide__ = True
        self._open = ExitStack()
        if folder is None:
            folder = Path(self._open.enter_context(TemporaryDirectory(prefix="gateway-")))
        self.folder = folder
        self.clock = Clock() if clock is None else clock
        self.dns = dns if isinstance(dns, FakeDns) else FakeDns(dns or {})
        self._may_fail = may_fail
        try:
            self.config, loaded = install(folder, plugins, config, base)
            self._loaded = with_clock(loaded, self.clock)
            self._process = MemoryProcess(
                self.config,
                self._loaded,
                clock=self.clock,
                dns=self.dns,
                resolver=resolver,
                role=role,
            )
        except BaseException:
            self._open.close()
            raise
        self.plugins: dict[str, Plugin[Any]] = {p.entry.name: p.instance for p in loaded}
        self.chain = self._process.chain

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        try:
            self.close()
        except AssertionError:
            # What the test itself found wrong says more.
            if error is None:
                raise

    def close(self) -> None:
        """Runs the `stop` hooks and removes all files.

        Raises:
            AssertionError: a `stop` hook failed, or a task is left that the plugins made.
        """
        __tracebackhide__ = True
        if self._process.is_closed:
            return
        with self._open:
            faults = self._process.close()
        if not self._may_fail:
            complain(faults)

    # Sending.

    def send(
        self,
        content: bytes | Message | None = None,
        *,
        sender: str | None = None,
        to: str | Sequence[str] | None = None,
        client: str | Client = "127.0.0.1",
        user: str | None = None,
        password: str = "secret",  # noqa: S107 - what a test says if it says nothing
        tls: bool = False,
        mail_parameters: str = "",
        rcpt_parameters: str = "",
    ) -> Result:
        """Sends a message as a client does over SMTP, and returns what became of it.

        Args:
            content: its octets, which are sent as they are; of a `Message`, its envelope and client
                too. None: `mail()`.
            sender: the address in MAIL; None: that in From.
            to: the addresses in RCPT; None: those in To, Cc and Bcc.
            client: the IP address that it comes from, or a `Client` with address, port, helo, user
                and tls.
            user: who logs in, where a plugin has the hook `auth` or the listener has `users`;
                otherwise the client counts as logged in so.
            password: what it logs in with.
            tls: whether the connection is encrypted.
            mail_parameters: those of MAIL, such as `RET=HDRS`.
            rcpt_parameters: those of each RCPT, such as `NOTIFY=NEVER`.

        Raises:
            AssertionError: a plugin did something wrong, and the gateway has not `may_fail`.
        """
        __tracebackhide__ = True
        octets = mail() if content is None else content
        if isinstance(octets, Message):
            sender = octets.sender if sender is None else sender
            to = [recipient.address for recipient in octets.recipients] if to is None else to
            client = octets.client if isinstance(client, str) else client
            octets = octets.content
        who = client if isinstance(client, Client) else Client(client, PEER_PORT)
        user = user or who.user
        submission = Submission(
            octets,
            sender_of(octets) if sender is None else sender,
            recipients_of(octets) if to is None else [to] if isinstance(to, str) else to,
            who.helo or Submission.helo,
            (user, password) if user and self._process.listener.logins else None,
            mail_parameters,
            rcpt_parameters,
        )
        before = self._process.calls()
        dialogue, faults = self._process.run(
            self._submit(submission, who, user, tls or bool(who.tls))
        )
        copies, events = self._process.queue.take()
        discarded = {e.recipient: e.reason for e in events if e.type == "discarded"}
        messages = []
        for copy in copies:
            others = {
                r.address for one in copies if one is not copy for r in one.message.recipients
            }
            own = self._before(others.union(discarded) - set(_addresses(copy.message)))
            messages.append(QueuedMessage(own or copy.message, copy.message, copy.held, copy.delay))
        result = Result(
            dialogue.reply,
            dialogue.replies,
            tuple(messages),
            discarded,
            events,
            faults,
            self._process.timings(before),
            str(dialogue),
        )
        if not self._may_fail:
            complain(faults)
        return result

    def _before(self, elsewhere: set[str]) -> Message | None:
        """The last message as it came, without recipients that are in another copy of it."""
        before = self.chain.before
        if before is None:
            return None
        return before.copy([one for one in before.recipients if one.address not in elsewhere])

    async def _submit(
        self, submission: Submission, who: Client, user: str | None, tls: bool
    ) -> Dialogue:
        session = Reception(self._process.listener)
        connection = Loopback(session, (who.address, who.port or PEER_PORT), tls=tls)
        client = SmtpClient(connection.reader, connection.send)
        try:
            refusal = await client.greet(submission)
            if refusal:
                return client.dialogue(refusal)
            if user and not self._process.listener.logins:
                session.client = replace(session.client, user=user)
            dialogue = await client.submit(submission)
            await client.say("QUIT")
            return dialogue
        finally:
            connection.close()
            await connection.closed

    # The way out, and what is beside the way of mail.

    def attempt(
        self,
        message: QueuedMessage | Message | bytes | None = None,
        outcome: str | Outcome = "250 2.0.0 Ok",
        *,
        to: str | Sequence[str] | None = None,
        attempts: int = 0,
    ) -> AttemptResult:
        """Asks the hooks around an attempt at delivery: `route`, `source`, `admit`, `reply`.

        Args:
            message: what is delivered; of a result of `send`, its `message`. None: `mail()`.
            outcome: how the attempt ends, such as `452 4.2.2 Mailbox full`.
            to: its recipients, which share a domain; None: those of the message.
            attempts: how many attempts came before.

        Raises:
            AssertionError: as for `send`.
            ValueError: the outcome is no reply.
        """
        __tracebackhide__ = True
        how = outcome_of(outcome) if isinstance(outcome, str) else outcome
        given = message.message if isinstance(message, QueuedMessage) else message
        if not isinstance(given, Message):
            given = message_of(mail() if given is None else given)
        recipients = [to] if isinstance(to, str) else to
        delivery = delivery_of(given, recipients, attempts, self.clock())
        before = self._process.calls()
        result, faults = self._process.run(attempt(self.chain, delivery, how, self.config.hostname))
        events = self._process.queue.take()[1]
        if not self._may_fail:
            complain(faults)
        timings = self._process.timings(before)
        return replace(result, events=events, faults=faults, timings=timings)

    def observe(self, events: Event | Sequence[Event]) -> ObserveResult:
        """Gives events to the `observe` hooks that want them, as the service process does.

        Raises:
            AssertionError: as for `send`.
        """
        __tracebackhide__ = True
        given = [events] if isinstance(events, Event) else list(events)
        before = self._process.calls()
        (seen, again), faults = self._process.run(observe(self.chain, given))
        emitted = self._process.queue.take()[1]
        if not self._may_fail:
            complain(faults)
        return ObserveResult(seen, again, emitted, faults, self._process.timings(before))

    def http(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        client: str = "127.0.0.1",
    ) -> HttpResult:
        """Asks the ASGI application of a plugin: `http("GET", "/footer/status?x=1")`.

        Args:
            method: of the request.
            path: from the name of the plugin's entry on, with the query.
            body: of the request.
            headers: of the request.
            client: the IP address that it comes from.

        Raises:
            AssertionError: as for `send`.
            PluginStartError: the plugin gave no application.
            ValueError: no plugin is served at this path.
        """
        __tracebackhide__ = True
        applications = load_applications(self.chain.steps["http"], self._process.watchdog)
        result, faults = self._process.run(
            request(applications, method, path, body, headers or {}, client)
        )
        events = self._process.queue.take()[1]
        if not self._may_fail:
            complain(faults)
        return replace(result, events=events, faults=faults)

    def command(self, arguments: Sequence[str], stdin: str = "") -> CommandResult:
        """Runs a plugin's command: `command(["footer", "list"])` is `gateway footer list`.

        Raises:
            AssertionError: the command raised, and the gateway has not `may_fail`.
            ValueError: no plugin has a command of that name.
        """
        __tracebackhide__ = True
        from click.testing import CliRunner  # only tests of commands load click

        commands = {
            plugin.entry.name: plugin.hooks["commands"]
            for plugin in self._loaded
            if "commands" in plugin.hooks
        }
        name = arguments[0] if arguments else ""
        if name not in commands:
            raise ValueError(f"there is no command {name!r}; there are {', '.join(commands)}")
        context = context_of(
            name,
            self.config,
            "command",
            self._process.resolver,
            self._process.limits,
            self._process.queue.emit,
        )
        done = CliRunner().invoke(commands[name](context), arguments[1:], input=stdin)
        faults: tuple[Fault, ...] = ()
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            text = f"the command {' '.join(arguments)} raised {done.exception!r}"
            faults = (Fault(text, name, "commands", done.exception),)
        if not self._may_fail:
            complain(faults)
        return CommandResult(done.exit_code, done.stdout, done.stderr, faults)


def _addresses(message: Message) -> Iterator[str]:
    return (recipient.address for recipient in message.recipients)
