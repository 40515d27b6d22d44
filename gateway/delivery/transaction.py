"""One mail transaction over a connection: MAIL, RCPT, DATA, the message (RFC 5321 3.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gateway.attempt import Delivery, Disposition, Outcome
from gateway.delivery.connection import Connection, Extensions, Timeouts, lost, refusal
from gateway.delivery.reply import Reply, code_of
from gateway.mail.address import domain_of
from gateway.mail.message import Recipient

# What would end a path or a command: control characters, what UTF-8 cannot say, and outside of
# quotes spaces and brackets.
_UNSAFE = re.compile('[\x00-\x1f\x7f\ud800-\udfff]|^[^"]*[ <>]')
_UNSAFE_VALUE = re.compile("[\x00-\x20\x7f\ud800-\udfff]")
_DUPLICATE = "the server may have taken the message, then it arrives twice"


def unsendable(delivery: Delivery) -> Outcome | None:
    """Why a message can be sent to nobody, whatever the server; None if it can.

    A bare CR or LF ends a line for some servers: a message could smuggle a second one through.
    """
    content = delivery.content
    lines = content.count(b"\r\n")
    if content.count(b"\n") != lines or content.count(b"\r") != lines:
        return _unsent("5.6.0", "the message contains a bare CR or LF (RFC 5321 2.3.8)", "data")
    if _UNSAFE.search(delivery.sender) is not None:
        return _unsent("5.1.7", "the sender's address cannot be sent as it is", "mail")
    return None


async def transact(
    connection: Connection, delivery: Delivery, timeouts: Timeouts
) -> list[Outcome] | Outcome:
    """Sends a message and returns the outcome for each recipient in order.

    A single outcome means that the server did not take the first step: it is gone, or about to go
    (421). Nothing was handed over, and another server may be asked.
    """
    envelope = _envelope(delivery, connection.extensions, connection.relay)
    outcomes = envelope.outcomes
    if not envelope.rcpt:
        return _all(outcomes)
    connection.transactions += 1
    replies = await _commands(connection, envelope, timeouts)
    if not replies:
        return lost(connection.lost, "mail", connection.relay)
    if code_of(replies[0]) // 100 != 2:
        refused = _refused(connection, replies[0], "mail")
        if refused.code == 421 or refused.code // 100 not in (4, 5):
            return refused
        if code_of(replies[-1]) == 354:
            # It waits for a message that nobody sends.
            connection.abort()
        return _all(outcomes, refused)
    count = len(envelope.rcpt)
    taken = _recipients(connection, envelope, replies[1 : count + 1])
    if len(replies) <= count:
        return _all(outcomes, lost(connection.lost, "rcpt", connection.relay))
    if len(replies) == count + 1:
        if taken:
            return _all(outcomes, lost(connection.lost, "data", connection.relay))
        return _all(outcomes)
    if code_of(replies[-1]) != 354:
        return _all(outcomes, _refused(connection, replies[-1], "data"))
    if not taken:
        # DATA was sent along with RCPT and is answered: only an empty message ends it (RFC 2920).
        await connection.send(b"", timeouts)
        connection.needs_reset = False
        return _all(outcomes)
    return _all(outcomes, await _message(connection, delivery.content, timeouts))


async def _message(connection: Connection, content: bytes, timeouts: Timeouts) -> Outcome:
    replies = await connection.send(content, timeouts)
    relay = connection.relay
    reply = Reply.parse(replies[0]) if replies else None
    kind = reply.code // 100 if reply is not None else 0
    if reply is not None and kind == 2 and connection.dot_sent:
        connection.needs_reset = False
        return Outcome(
            Disposition.DELIVERED,
            reply.code,
            reply.status,
            reply.text,
            "dot",
            relay,
            connection.extensions.dsn,
        )
    if reply is None:
        outcome = lost(connection.lost, "dot", relay)
    else:
        outcome = refusal(reply, "dot", relay)
        if connection.dot_sent and kind in (4, 5) and reply.code != 421:
            connection.needs_reset = False
        else:
            connection.abort()
    if connection.dot_sent and kind not in (4, 5):
        return replace(outcome, text=f"{outcome.text}; {_DUPLICATE}")
    return outcome


@dataclass(slots=True)
class _Envelope:
    """The commands of a transaction, and the outcomes for those that no command is sent for.

    `indexes` are the positions in `outcomes` of the recipients in `rcpt`.
    """

    mail: str
    rcpt: list[str]
    indexes: list[int]
    outcomes: list[Outcome | None]


def _envelope(delivery: Delivery, extensions: Extensions, relay: str) -> _Envelope:
    content = delivery.content
    sender = delivery.sender
    outcomes: list[Outcome | None] = []
    rcpt: list[str] = []
    indexes: list[int] = []
    wide = not content.isascii()
    utf8 = wide and delivery.smtputf8 and not _header(content).isascii()
    if not sender.isascii() and not extensions.smtputf8:
        sender = _in_ascii(sender)
    utf8 = utf8 or not sender.isascii()
    if utf8 and not extensions.smtputf8:
        text = "the sender or the header needs SMTPUTF8, which the server does not offer"
        outcome = _unsent("5.6.7", text, "mail", relay)
        return _Envelope("", rcpt, indexes, [outcome] * len(delivery.recipients))
    for index, recipient in enumerate(delivery.recipients):
        address = recipient.address
        outcome_: Outcome | None = None
        if not address.isascii() and not extensions.smtputf8:
            address = _in_ascii(address)
        if _UNSAFE.search(address) is not None:
            text = "the recipient's address cannot be sent as it is"
            outcome_ = _unsent("5.1.3", text, "rcpt", relay)
        elif not address.isascii() and not extensions.smtputf8:
            text = "the recipient's address needs SMTPUTF8, which the server does not offer"
            outcome_ = _unsent("5.6.7", text, "rcpt", relay)
        else:
            utf8 = utf8 or not address.isascii()
            dsn = _dsn(recipient) if extensions.dsn else ""
            rcpt.append(f"RCPT TO:<{address}>{dsn}\r\n")
            indexes.append(index)
        outcomes.append(outcome_)
    mail = f"MAIL FROM:<{sender}>"
    if extensions.size:
        mail = f"{mail} SIZE={len(content)}"
    if wide and extensions.eight_bit_mime:
        mail += " BODY=8BITMIME"
    if utf8:
        mail += " SMTPUTF8"
    if extensions.dsn and (delivery.ret or delivery.envid):
        mail += _parameter("RET", delivery.ret) + _parameter("ENVID", delivery.envid)
    return _Envelope(f"{mail}\r\n", rcpt, indexes, outcomes)


def _header(content: bytes) -> bytes:
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[:end]


def _dsn(recipient: Recipient) -> str:
    if recipient.notify is None and recipient.orcpt is None:
        return ""
    notify = ",".join(sorted(recipient.notify or ()))
    return _parameter("NOTIFY", notify) + _parameter("ORCPT", recipient.orcpt)


def _parameter(keyword: str, value: str | None) -> str:
    if not value or _UNSAFE_VALUE.search(value) is not None:
        return ""
    return f" {keyword}={value}"


def _in_ascii(address: str) -> str:
    """The address with its domain in A-labels: that much can be said without SMTPUTF8."""
    local, at, _ = address.rpartition("@")
    return f"{local}{at}{domain_of(address)}"


async def _commands(connection: Connection, envelope: _Envelope, timeouts: Timeouts) -> list[bytes]:
    """Sends what comes before the message; returns the replies to MAIL, each RCPT, and DATA.

    There are fewer if the connection is lost or the server says 421; without pipelining also after
    a MAIL that was refused, and none for DATA if every RCPT was.
    """
    reset = connection.needs_reset
    connection.needs_reset = True
    if connection.extensions.pipelining:
        rset = "RSET\r\n" if reset else ""
        commands = f"{rset}{envelope.mail}{''.join(envelope.rcpt)}DATA\r\n"
        count = len(envelope.rcpt) + 2 + reset
        replies = await connection.exchange(commands.encode(), count, timeouts.mail)
        if reset and replies and code_of(replies.pop(0)) // 100 != 2:
            connection.abort("it cannot start a new transaction")
            return []
        return replies
    if reset:
        replies = await connection.exchange(b"RSET\r\n", 1, timeouts.mail)
        if not replies or code_of(replies[0]) // 100 != 2:
            connection.abort("it cannot start a new transaction")
            return []
    replies = await connection.exchange(envelope.mail.encode(), 1, timeouts.mail)
    if not replies or code_of(replies[0]) // 100 != 2:
        return replies
    taken = False
    for command in envelope.rcpt:
        reply = await connection.exchange(command.encode(), 1, timeouts.rcpt)
        if not reply:
            return replies
        replies += reply
        code = code_of(reply[0])
        if code == 421:
            return replies
        taken = taken or code // 100 == 2
    if taken:
        replies += await connection.exchange(b"DATA\r\n", 1, timeouts.data)
    return replies


def _recipients(connection: Connection, envelope: _Envelope, replies: list[bytes]) -> bool:
    """Notes the outcome for each recipient that was refused; returns whether any was taken."""
    taken = False
    for index, raw in zip(envelope.indexes, replies, strict=False):
        if code_of(raw) // 100 == 2:
            taken = True
            continue
        outcome = _refused(connection, raw, "rcpt")
        if taken and _too_many(outcome):
            outcome = replace(outcome, disposition=Disposition.DEFERRED, status="4.5.3")
        envelope.outcomes[index] = outcome
    return taken


def _too_many(outcome: Outcome) -> bool:
    """Whether the server takes no more recipients in this transaction (RFC 5321 4.5.3.1.10)."""
    if outcome.status[1:] == ".5.3":
        return True
    return outcome.code in (452, 552) and outcome.status[1:] == ".0.0"


def _refused(connection: Connection, raw: bytes, stage: str) -> Outcome:
    """The outcome of a reply other than yes; closes where no more sense can come of it."""
    reply = Reply.parse(raw)
    if reply.code == 421 or reply.code // 100 not in (4, 5):
        connection.abort(f"{reply.code} {reply.text}" if reply.code else reply.text)
    return refusal(reply, stage, connection.relay)


def _all(outcomes: list[Outcome | None], otherwise: Outcome | None = None) -> list[Outcome]:
    """The outcomes, with `otherwise` for every recipient that has none yet."""
    complete = [outcome or otherwise for outcome in outcomes]
    assert None not in complete
    return complete  # type: ignore[return-value]


def _unsent(status: str, text: str, stage: str, relay: str = "none") -> Outcome:
    return Outcome(Disposition.FAILED, 0, status, text, stage, relay)
