"""From a message's last byte to its place on disk: content → chain → spool → reply.

The SMTP dialogue before that is in `session.py`; what happens to accepted mail in `dispatch.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.configuration.config import Limits
from gateway.events import Event
from gateway.hooks.actions import Quarantine, Reject, Tempfail
from gateway.hooks.chain import Chain, Copy, Filtered
from gateway.hooks.condition import Streams
from gateway.hooks.trace import Trace
from gateway.log import AcceptLog
from gateway.log_line import AcceptRecord
from gateway.mail.address import domain_of, is_path
from gateway.mail.body import Body
from gateway.mail.guard import OPEN
from gateway.mail.message import Message, Recipient
from gateway.queue.dispatch import Dispatcher
from gateway.smtp.allowance import Allowance
from gateway.smtp.attendance import Attendance
from gateway.smtp.content import flaw, flaw_of, received_field
from gateway.smtp.future_release import FutureReleaseError, from_field
from gateway.smtp.traffic import Traffic
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool

LONGEST_CAMPAIGN = 200
"""Characters of a campaign's name that are kept."""

log = logging.getLogger("gateway.ingress")


@dataclass(slots=True, eq=False)
class Transaction:
    """A mail transaction from MAIL to its end.

    `stream` is the stream that MAIL was sorted into, `discard` and `hold` are the reasons that
    hooks gave before the content was known, `dropped` the recipients that are answered with yes
    and get nothing, `claimed` the gateway's own addresses by the plugin that takes their mail.
    `size` is what MAIL declared, in octets; 0: nothing. `trace` is what plugins do to the message.
    """

    message: Message
    stream: str
    size: int = 0
    discard: str | None = None
    hold: str | None = None
    dropped: list[tuple[Recipient, str]] = field(default_factory=list)
    claimed: dict[str, list[Recipient]] = field(default_factory=dict)
    trace: Trace = field(default_factory=Trace)

    @property
    def recipients(self) -> int:
        """How many recipients the client believes to have."""
        count = len(self.message.recipients) + len(self.dropped)
        return count + sum(map(len, self.claimed.values())) if self.claimed else count


class Ingress:
    """Accepts messages.

    Args:
        hostname: our name in banner and trace fields.
        limits: sizes and counts.
        campaign_header: the field that names a message's campaign; None: none does.
        release_header: the field that says when a message is to go out; None: none does.
        accept_log: writes the line for each message.
        clock: seconds since the epoch.
        allowance: for large messages; None: all that `limits` allow.
        attendance: counts the clients that are connected; None: for this object alone.
    """

    def __init__(
        self,
        *,
        hostname: str,
        limits: Limits,
        campaign_header: str | None,
        streams: Streams,
        chain: Chain,
        spool: Spool,
        dispatcher: Dispatcher,
        accept_log: AcceptLog,
        clock: Callable[[], float],
        release_header: str | None,
        allowance: Allowance | None = None,
        attendance: Attendance | None = None,
    ) -> None:
        self.hostname = hostname
        self.limits = limits
        self.allowance = allowance or Allowance(max(limits.memory, limits.message_size))
        self.release_header = release_header
        self.streams = streams
        self.chain = chain
        self.spool = spool
        self.clock = clock
        self._campaign_header = campaign_header
        self._dispatcher = dispatcher
        self._accept_log = accept_log
        self._may_change = any(
            chain.steps[hook] for hook in ("mail", "claim", "rcpt", "message", "seal")
        )
        self.attendance = Attendance() if attendance is None else attendance
        self.accepted = 0
        self.traffic = Traffic()

    async def accept(
        self, transaction: Transaction, content: bytes | memoryview, problem: str | None = None
    ) -> str:
        """Passes a message through the chain and into the spool.

        A view is a large message, which must not change; `problem` is the flaw of one.

        Returns the reply to the client. 250 means that the message is on disk, fsynced.
        """
        message = transaction.message
        message.guard.rights = OPEN
        client = message.client
        if isinstance(content, bytes):
            problem = flaw(content, self.limits.line_length)
        if problem is not None:
            log.info("%s: message refused: %s", client.address, problem)
            return f"550 5.6.0 {problem}"
        now = self.clock()
        only = _only_recipient(transaction)
        field = received_field(client, self.hostname, message.id, only, now)
        if isinstance(content, bytes):
            message.receive(field + content)
        elif not message.receive_large(field, content):
            return "552 5.3.4 The header of the message is too large"
        if _is_looping(message, self.limits.hops):
            return f"554 5.4.6 More than {self.limits.hops} hops: a mail loop"
        problem = self._note(transaction, now)
        if problem is not None:
            log.info("%s: message refused: %s", message.id, problem)
            return f"550 5.6.0 {problem}"
        claims = _claims(transaction) if transaction.claimed else []
        body = message._body
        trace = transaction.trace
        if message.recipients:
            answer = await self.chain.message(message, trace)
            if isinstance(answer, Reject | Tempfail):
                return self._refusal(message, answer, trace)
            filtered = answer
        else:
            filtered = Filtered([])
        copies = filtered.copies
        dropped = transaction.dropped + filtered.discarded
        if transaction.discard is not None:
            dropped += [
                (recipient, transaction.discard)
                for copy in (*copies, *claims)
                for recipient in copy.message.recipients
            ]
            copies, claims = [], []
        for copy in copies:
            copy.held = copy.held or transaction.hold
            problem = self._flaw_of_plugins(copy, body) if self._may_change else None
            if problem is not None:
                log.error("%s: plugins made a message that cannot go out: %s", message.id, problem)
                return "451 4.3.0 The mail cannot be handled now, please try again later"
        received: list[Copy] = []
        # Last, when only the disk can refuse the rest: what a plugin has received stays with it.
        for copy in claims:
            refusal = await self._receive(copy)
            if refusal is not None:
                return self._refusal(message, refusal, trace)
            (received if copy.held is None else copies).append(copy)
        for copy in copies:
            release(copy.message)
        for recipient, _ in dropped:
            recipient.join(recipient.guard)
        error = await self._commit(message, copies, received, dropped, now, trace)
        if error is not None:
            log.error("%s: not accepted: %s", message.id, error)
            return storage_reply(error)
        self.accepted += 1
        if received and not copies:
            return "250 2.0.0 Ok"
        return f"250 2.0.0 Ok: queued as {message.id}"

    def _note(self, transaction: Transaction, now: float) -> str | None:
        """Notes what the header says: stream, campaign, release. Returns what is wrong in it."""
        message = transaction.message
        if message.stream == transaction.stream:
            # No hook has chosen another one; an earlier stream may ask for a header.
            stream = self.streams.classify(message, headers_known=True)
            if stream != transaction.stream:
                message.stream = stream
        if self._campaign_header is not None:
            campaign = message.headers.get(self._campaign_header)
            if campaign:
                message.notes["campaign"] = _on_one_line(campaign)[:LONGEST_CAMPAIGN]
        name = self.release_header
        if name is None or name not in message.headers or not message.recipients:
            return None
        times = message.headers.get_all(name)
        if len(times) > 1:
            return f"{name}: the field comes {len(times)} times"
        try:
            asked = from_field(times[0], now, self.limits.hold or 0.0)
        except FutureReleaseError as error:
            return f"{name}: {error}"
        message.release = max(message.release, asked)
        return None

    async def _receive(self, copy: Copy) -> Reject | Tempfail | None:
        """Gives a message to the plugin that claimed it; holds it if a person has to look at it."""
        if copy.held is not None:
            return None
        answer = await self.chain.receive(copy.claimed_by, copy.message.copy())
        if isinstance(answer, Quarantine):
            copy.held = answer.reason
            return None
        return answer

    def _refusal(self, message: Message, answer: Reject | Tempfail, trace: Trace) -> str:
        text = "%s: message refused: %s %s, client=%s, from=<%s>, plugins=%s"
        client, sender = message.client.address, message.sender
        log.info(text, message.id, answer.code, answer.text, client, sender, trace)
        return f"{answer.code} {answer.status} {answer.text}"

    def _flaw_of_plugins(self, copy: Copy, body: Body) -> str | None:
        """What plugins did that cannot go out; `body` is what came, and was checked then."""
        message = copy.message
        if not is_path(message.sender):
            return f"the address {message.sender!r}"
        for recipient in message.recipients:
            if not domain_of(recipient.address) or not is_path(recipient.address):
                return f"the address {recipient.address!r}"
        if message._body.shares(body):
            return flaw(message.headers.raw, self.limits.line_length)
        return flaw_of(message.octets, self.limits.line_length)

    def _commit(
        self,
        message: Message,
        copies: list[Copy],
        received: list[Copy],
        dropped: list[tuple[Recipient, str]],
        now: float,
        trace: Trace,
    ) -> asyncio.Future[SpoolError | None]:
        """Hands a message to the queue; the future is done when it is on disk, or cannot be."""
        waiter: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
        client = message.client

        def done(error: SpoolError | None) -> None:
            if error is None:
                if self._accept_log.enabled:
                    self._accept_log.write(_record(message, [*copies, *received], trace))
                for copy in received:
                    for recipient in copy.message.recipients:
                        log.info(
                            "%s: to=<%s>, received by plugin %s",
                            message.id,
                            recipient.address,
                            copy.claimed_by,
                        )
                for recipient, reason in dropped:
                    log.info(
                        "%s: to=<%s>, status=discarded (%s)", message.id, recipient.address, reason
                    )
            if not waiter.done():
                waiter.set_result(error)

        events = [
            Event(
                type="discarded",
                time=now,
                message_id=message.id,
                sender=message.sender,
                recipient=recipient.address,
                stream=message.stream,
                client=client.address,
                user=client.user or "",
                reason=reason,
                notes={**message.notes, **recipient.notes},
            )
            for recipient, reason in dropped
        ]
        self._dispatcher.accept(copies, now, events, done)
        return waiter


def _claims(transaction: Transaction) -> list[Copy]:
    """A copy of the message, as it is before any hook, for each plugin that claimed recipients."""
    return [
        Copy(transaction.message.copy(recipients), transaction.hold, claimed_by=plugin)
        for plugin, recipients in transaction.claimed.items()
    ]


def _is_looping(message: Message, hops: int) -> bool:
    """Whether a message has passed more servers than that."""
    headers = message.headers
    # Lines are quick to count, and a field takes one at least.
    return headers.raw.count(b"\n") > hops and len(headers.fields("Received")) > hops


def _only_recipient(transaction: Transaction) -> str | None:
    """The recipient's address, if there is one and no other."""
    if transaction.recipients > 1:
        return None
    for recipients in (transaction.message.recipients, *transaction.claimed.values()):
        if recipients:
            return recipients[0].address
    return None


def _on_one_line(text: str) -> str:
    """The text without control characters."""
    if not text.isprintable():
        text = "".join([character if character.isprintable() else " " for character in text])
    return " ".join(text.split())


def release(message: Message) -> None:
    """Lets go of a message that its recipients would keep in memory as long as they wait."""
    for recipient in message.recipients:
        recipient.join(recipient.guard)


def storage_reply(error: SpoolError) -> str:
    """The reply for mail that the disk does not take now: never 5xx."""
    if error.full:
        return "452 4.3.1 No room for mail now, please try again later"
    return "451 4.3.0 The mail cannot be stored now, please try again later"


def _record(message: Message, copies: list[Copy], trace: Trace) -> AcceptRecord:
    client = message.client
    return AcceptRecord(
        message.id,
        client.helo,
        client.address,
        client.user or "",
        message.sender,
        message.size,
        sum([len(copy.message.recipients) for copy in copies]),
        message.stream,
        str(trace),
    )
