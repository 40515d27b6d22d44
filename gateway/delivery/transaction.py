"""One mail transaction over a connection: MAIL, RCPT, DATA, the message (RFC 5321 3.3)."""

from __future__ import annotations

from dataclasses import replace

from gateway.attempt import Delivery, Disposition, Outcome
from gateway.delivery.connection import Connection, Timeouts, lost, refusal
from gateway.delivery.envelope import Envelope, envelope_of, unsent
from gateway.delivery.reply import Reply, code_of
from gateway.mail.large_content import Content

_DUPLICATE = "the server may have taken the message, then it arrives twice"


async def transact(
    connection: Connection, delivery: Delivery, timeouts: Timeouts
) -> list[Outcome] | Outcome:
    """Sends a message and returns the outcome for each recipient in order.

    A single outcome means that the server did not take the first step: it is gone, or about to go
    (421). Nothing was handed over, and another server may be asked.
    """
    extensions, relay = connection.extensions, connection.relay
    if delivery.require_tls and not extensions.require_tls:
        connection.quit()
        text = "the message demands REQUIRETLS, which the server does not offer (RFC 8689)"
        return unsent("5.7.30", text, "mail", relay)
    envelope = envelope_of(delivery, extensions, relay)
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
    return _all(outcomes, await _message(connection, envelope.content, timeouts))


async def _message(connection: Connection, content: Content, timeouts: Timeouts) -> Outcome:
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


async def _commands(connection: Connection, envelope: Envelope, timeouts: Timeouts) -> list[bytes]:
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


def _recipients(connection: Connection, envelope: Envelope, replies: list[bytes]) -> bool:
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
