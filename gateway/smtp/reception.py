"""The mail transactions of a session: MAIL, RCPT, DATA and BDAT (RFC 5321 3.3, RFC 3030).

mail → rcpt → the message's bytes; then `ingress.py` accepts the message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter
from typing import ClassVar

from gateway.hooks.actions import Discard, Quarantine, Reject, Tempfail
from gateway.hooks.trace import Trace
from gateway.mail.address import AddressSyntaxError, domain_of, parse_parameters, parse_path
from gateway.mail.large_content import LARGE
from gateway.mail.message import Message, Recipient
from gateway.smtp.arrival import NO_MEMORY, TOO_LARGE, Arrival
from gateway.smtp.content import unstuff
from gateway.smtp.esmtp import apply_mail_parameters, apply_rcpt_parameters
from gateway.smtp.ingress import Transaction, release, storage_reply
from gateway.smtp.listener import Listener
from gateway.smtp.session import READ_BLOCK, Command, Session
from gateway.spool import queue_id

_DOT = b"\r\n.\r\n"

log = logging.getLogger("gateway.session")


class Reception(Session):
    """A session that takes mail."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self._arrival: Arrival | None = None
        self._chunks_failed = False

    def _set_rset_state(self) -> None:
        if self.transaction is not None:
            release(self.transaction.message)
            self.ingress.spool.expected.messages -= 1
        super()._set_rset_state()
        self._chunks_failed = False
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.close()

    async def _mail(self, arg: str) -> None:
        """MAIL FROM."""
        client = self.client
        if not client.helo:
            self.wrong("503 5.5.1 Send EHLO first")
            return
        if self.transaction is not None:
            self.wrong("503 5.5.1 A mail transaction is open already")
            return
        if arg[:5].upper() != "FROM:":
            self.wrong("501 5.5.4 Syntax: MAIL FROM:<address>")
            return
        try:
            sender, rest = parse_path(arg[5:])
            parameters = parse_parameters(rest) if rest else {}
        except AddressSyntaxError as error:
            self.wrong(f"501 5.1.7 {error}")
            return
        ingress = self.ingress
        now = ingress.clock()
        message = Message(queue_id.to_text(ingress.spool.home.next_id(now)), sender, client)
        size, refusal = apply_mail_parameters(
            message,
            parameters,
            max_size=self.limits.message_size,
            now=now,
            longest_hold=self.limits.hold or 0.0,
        )
        if refusal is None and message.release and not self.listener.may_relay(client):
            refusal = self._not_allowed("554 5.7.1 Mail is kept for later for those who may relay")
        if refusal is None and not sender.isascii() and not message.smtputf8:
            refusal = "553 5.6.7 This address needs SMTPUTF8 (RFC 6531)"
        if refusal is not None:
            self.wrong(refusal)
            return
        failure = ingress.spool.refusal(size)
        if failure is not None:
            log.warning("mail is refused for now: %s", failure)
            self.refuse(storage_reply(failure))
            return
        if size > LARGE and not ingress.allowance.has_room(size):
            self.refuse(NO_MEMORY)
            return
        stream = ingress.streams.classify(message, headers_known=False)
        if stream != message.stream:
            message.stream = stream
        trace = Trace()
        answer = await ingress.chain.mail(message, trace)
        if isinstance(answer, Reject | Tempfail):
            log.info("%s: MAIL from <%s> refused: %s", client.address, sender, answer.text)
            self.refuse(f"{answer.code} {answer.status} {answer.text}")
            return
        transaction = Transaction(message, stream, size=size, trace=trace)
        if isinstance(answer, Discard):
            transaction.discard = answer.reason
        elif isinstance(answer, Quarantine):
            transaction.hold = answer.reason
        self.transaction = transaction
        ingress.spool.expected.messages += 1
        self.say("250 2.1.0 Ok")

    async def _rcpt(self, arg: str) -> None:
        """RCPT TO."""
        transaction = self.transaction
        if transaction is None:
            self.wrong("503 5.5.1 Send MAIL first")
            return
        if self._arrival is not None:
            self.wrong("503 5.5.1 The message has begun, no recipient can be added")
            return
        if arg[:3].upper() != "TO:":
            self.wrong("501 5.5.4 Syntax: RCPT TO:<address>")
            return
        message = transaction.message
        try:
            address, rest = parse_path(arg[3:])
            recipient = Recipient(address)
            refusal = apply_rcpt_parameters(recipient, parse_parameters(rest)) if rest else None
            recipient.join(message.guard, message)
        except AddressSyntaxError as error:
            self.wrong(f"501 5.1.3 {error}")
            return
        if refusal is not None:
            self.wrong(refusal)
            return
        chain = self.ingress.chain
        plugin = chain.claim(recipient) if chain.steps["claim"] and address else None
        if isinstance(plugin, Reject | Tempfail):
            # Who guesses at addresses of ours does not get far.
            say = self.wrong if isinstance(plugin, Reject) else self.refuse
            self._refuse_recipient(recipient, plugin, say)
        elif plugin is None and not self.listener.may_relay(self.client):
            if not self.may_log_in():
                log.warning("%s: relaying to <%s> denied", self.client.address, address)
            self.wrong(self._not_allowed("550 5.7.1 Relaying is not allowed for you"))
        elif plugin is None and not domain_of(address):
            self.wrong("550 5.1.3 The address needs a domain")
        elif not address.isascii() and not message.smtputf8:
            self.wrong("553 5.6.7 This address needs SMTPUTF8 (RFC 6531)")
        elif transaction.recipients >= self.limits.recipients:
            self.refuse("452 4.5.3 Too many recipients for one message")
        elif plugin is None:
            await self._take_recipient(transaction, recipient)
        else:
            transaction.claimed.setdefault(plugin, []).append(recipient)
            self._say_taken()

    def _not_allowed(self, reply: str) -> str:
        """The reply to a client that may not relay: first of all it should log in."""
        return "530 5.7.0 Authentication is required" if self.may_log_in() else reply

    def _refuse_recipient(
        self, recipient: Recipient, answer: Reject | Tempfail, say: Callable[[str], None]
    ) -> None:
        log.info(
            "%s: RCPT to <%s> refused: %s", self.client.address, recipient.address, answer.text
        )
        say(f"{answer.code} {answer.status} {answer.text}")

    async def _take_recipient(self, transaction: Transaction, recipient: Recipient) -> None:
        answer = await self.ingress.chain.rcpt(recipient, transaction.trace)
        if isinstance(answer, Reject | Tempfail):
            self._refuse_recipient(recipient, answer, self.refuse)
            return
        if isinstance(answer, Discard):
            recipient.join(recipient.guard)
            transaction.dropped.append((recipient, answer.reason))
        else:
            if isinstance(answer, Quarantine):
                transaction.hold = transaction.hold or answer.reason
            transaction.message.take(recipient)
        self._say_taken()

    def _say_taken(self) -> None:
        self.ingress.traffic.recipients += 1
        self.say("250 2.1.5 Ok")

    # A message's content.

    def _expects_content(self) -> bool:
        transaction = self.transaction
        if transaction is None:
            self.wrong("503 5.5.1 Send MAIL first")
        elif not transaction.recipients:
            self.wrong("554 5.5.1 No valid recipients")
        else:
            return True
        return False

    def _new_arrival(self, dots: bool) -> Arrival:
        limits = self.limits
        return Arrival(
            self.ingress.allowance,
            most=limits.message_size,
            line_length=limits.line_length,
            dots=dots,
        )

    async def _data(self, arg: str) -> None:
        """DATA: everything up to CR LF . CR LF, and nothing else, ends the message."""
        if arg.strip(" "):
            self.wrong("501 5.5.4 DATA takes no argument")
            return
        if self._arrival is not None:
            self.wrong("503 5.5.1 DATA and BDAT do not go together (RFC 3030)")
            return
        if not self._expects_content():
            return
        declared = self._declared()
        if declared > LARGE and not self._begin_large().expect(declared):
            self._set_rset_state()
            self.refuse(NO_MEMORY)
            return
        self.say("354 End data with <CR><LF>.<CR><LF>")
        block = await self._read_content()
        if block is None:
            await self._accept_arrival()
        elif len(block) - 2 > self.limits.message_size:
            self._answer(TOO_LARGE, 0, perf_counter())
        else:
            assert self.transaction is not None
            ended = perf_counter()
            content = unstuff(block)
            reply = await self.ingress.accept(self.transaction, content)
            self._answer(reply, len(content), ended)

    def _begin_large(self) -> Arrival:
        """What takes a message that comes in more than one block."""
        arrival = self._arrival = self._new_arrival(dots=True)
        return arrival

    def _declared(self) -> int:
        """The size that MAIL declared, in octets; 0 without one."""
        return 0 if self.transaction is None else self.transaction.size

    async def _accept_arrival(self) -> None:
        """Answers a message that has come to its end in blocks."""
        arrival = self._arrival
        assert arrival is not None
        ended = perf_counter()
        reply = arrival.refusal or await self._pass_on(arrival)
        self._answer(reply, 0 if arrival.refusal else arrival.size, ended)

    async def _pass_on(self, arrival: Arrival) -> str:
        # Nothing but this call keeps the content: its memory is given back right afterwards.
        assert self.transaction is not None
        content = arrival.end()
        return await self.ingress.accept(self.transaction, content, arrival.flaw)

    def _answer(self, reply: str, size: int, ended: float) -> None:
        """Answers a message of so many octets, which ended at that moment."""
        self._set_rset_state()
        self.say(reply)
        self.ingress.traffic.answered(reply, size, perf_counter() - ended)

    async def _read_content(self) -> bytes | None:
        """Reads up to the dot; None for what comes in many blocks, which the arrival has then."""
        reader = self.reader
        # The CRLF of the DATA line belongs to the terminator of an empty message.
        reader.unread[:0] = b"\r\n"
        while True:
            self._reset_timeout(self.limits.data_timeout)
            block = await reader.read_to(_DOT)
            if block.endswith(_DOT):
                break
            arrival = self._arrival or self._begin_large()
            arrival.add(block)
        self._reset_timeout()
        block = block[:-3]
        if self._arrival is None:
            return block
        self._arrival.add(block)
        return None

    async def _bdat(self, arg: str) -> None:
        """BDAT: a chunk of known size (RFC 3030)."""
        size_text, _, last = arg.strip(" ").partition(" ")
        if not size_text.isascii() or not size_text.isdigit() or last.upper() not in ("", "LAST"):
            # The size of what follows is unknown, so nothing that follows can be understood.
            self.end("501 5.5.4 Syntax: BDAT size [LAST]")
        size = int(size_text)
        refusal = ""
        arrival = self._arrival
        if arrival is None:
            arrival = self._arrival = self._new_arrival(dots=False)
        if self._chunks_failed:
            refusal = "503 5.5.1 An earlier chunk has failed, send RSET"
        elif self.transaction is None or not self.transaction.recipients:
            refusal = "503 5.5.1 Send MAIL and RCPT first"
        elif arrival.size + size > self.limits.message_size:
            refusal = TOO_LARGE
        elif not arrival.expect(max(self._declared(), arrival.size + size)):
            refusal = NO_MEMORY
        if refusal:
            arrival.refuse(refusal)
        # The octets come whatever we think of the command.
        await self._read_chunk(size, arrival)
        refusal = refusal or arrival.refusal
        if refusal:
            self._chunks_failed = self.transaction is not None
            if self.transaction is None:
                self._arrival = None
            if refusal[0] == "4":
                self.refuse(refusal)
            else:
                self.wrong(refusal)
        elif not last:
            self.say(f"250 2.0.0 {size} octets received")
        else:
            await self._accept_arrival()

    async def _read_chunk(self, size: int, arrival: Arrival) -> None:
        while size:
            self._reset_timeout(self.limits.data_timeout)
            block = await self.reader.read(min(size, READ_BLOCK))
            size -= len(block)
            arrival.add(block)
        self._reset_timeout()

    commands: ClassVar[dict[bytes, Command]] = {
        **Session.commands,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"BDAT": _bdat,
    }
