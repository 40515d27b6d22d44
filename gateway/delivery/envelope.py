"""What a transaction says before the message, and for whom it says nothing (RFC 5321 3.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gateway.attempt import Delivery, Disposition, Outcome
from gateway.delivery.connection import Extensions
from gateway.mail.address import domain_of
from gateway.mail.large_content import Content
from gateway.mail.line_end import bare_line_end
from gateway.mail.message import Recipient

# What would end a path or a command: control characters, what UTF-8 cannot say, and outside of
# quotes spaces and brackets.
_UNSAFE = re.compile('[\x00-\x1f\x7f\ud800-\udfff]|^[^"]*[ <>]')
_UNSAFE_VALUE = re.compile("[\x00-\x20\x7f\ud800-\udfff]")
_WIDE = re.compile("[^\x00-\x7f]")


@dataclass(slots=True)
class Envelope:
    """The commands of a transaction, and the outcomes for those that no command is sent for.

    `indexes` are the positions in `outcomes` of the recipients in `rcpt`; where there are none,
    nothing is sent. `content` is the message as the server can take it.
    """

    mail: str
    rcpt: list[str]
    indexes: list[int]
    outcomes: list[Outcome | None]
    content: Content


def unsendable(delivery: Delivery) -> Outcome | None:
    """Why a message can be sent to nobody, whatever the server; None if it can.

    A bare CR or LF ends a line for some servers: a message could smuggle a second one through.
    """
    if not _is_clean(delivery.octets):
        return unsent("5.6.0", "the message contains a bare CR or LF (RFC 5321 2.3.8)", "data")
    if _UNSAFE.search(_return_path(delivery)) is not None:
        return unsent("5.1.7", "the sender's address cannot be sent as it is", "mail")
    return None


def envelope_of(delivery: Delivery, extensions: Extensions, relay: str) -> Envelope:
    """The commands for a server with these extensions."""
    content = delivery.octets
    sender = _return_path(delivery)
    wide = not (content.isascii() if isinstance(content, bytes) else content.is_ascii)
    if not sender.isascii() and not extensions.smtputf8:
        sender = _in_ascii(sender)
    utf8 = not sender.isascii() or (wide and delivery.smtputf8 and not _header(content).isascii())
    if utf8 and not extensions.smtputf8:
        text = "the sender or the header needs SMTPUTF8, which the server does not offer"
        return _for_nobody(delivery, unsent("5.6.7", text, "mail", relay))
    if wide and not extensions.eight_bit_mime and delivery.in_seven_bits is not None:
        converted = delivery.in_seven_bits()
        if isinstance(converted, Outcome):
            return _for_nobody(delivery, replace(converted, relay=relay))
        content = converted
    rcpt: list[str] = []
    indexes: list[int] = []
    outcomes: list[Outcome | None] = []
    for index, recipient in enumerate(delivery.recipients):
        address = recipient.address
        outcome: Outcome | None = None
        if not address.isascii() and not extensions.smtputf8:
            address = _in_ascii(address)
        if _UNSAFE.search(address) is not None:
            text = "the recipient's address cannot be sent as it is"
            outcome = unsent("5.1.3", text, "rcpt", relay)
        elif not address.isascii() and not extensions.smtputf8:
            text = "the recipient's address needs SMTPUTF8, which the server does not offer"
            outcome = unsent("5.6.7", text, "rcpt", relay)
        else:
            utf8 = utf8 or not address.isascii()
            dsn = _dsn(recipient) if extensions.dsn else ""
            rcpt.append(f"RCPT TO:<{address}>{dsn}\r\n")
            indexes.append(index)
        outcomes.append(outcome)
    mail = f"MAIL FROM:<{sender}>"
    if extensions.size:
        mail = f"{mail} SIZE={len(content)}"
    if wide and extensions.eight_bit_mime:
        mail += " BODY=8BITMIME"
    if utf8:
        mail += " SMTPUTF8"
    if extensions.dsn and (delivery.ret or delivery.envid):
        mail += _parameter("RET", delivery.ret) + _parameter("ENVID", delivery.envid)
    if delivery.require_tls:
        mail += " REQUIRETLS"
    if delivery.priority is not None and extensions.mt_priority:
        mail += f" MT-PRIORITY={delivery.priority}"
    return Envelope(f"{mail}\r\n", rcpt, indexes, outcomes, content)


def unsent(status: str, text: str, stage: str, relay: str = "none") -> Outcome:
    """The outcome where a command is not sent because it cannot be."""
    return Outcome(Disposition.FAILED, 0, status, text, stage, relay)


def _return_path(delivery: Delivery) -> str:
    return delivery.sender if delivery.return_path is None else delivery.return_path


def _for_nobody(delivery: Delivery, outcome: Outcome) -> Envelope:
    return Envelope("", [], [], [outcome] * len(delivery.recipients), b"")


def _is_clean(content: Content) -> bool:
    """Whether each CR and each LF is one of a pair."""
    return bare_line_end(content) is None if isinstance(content, bytes) else content.is_clean


def _header(content: Content) -> bytes:
    if not isinstance(content, bytes):
        return content.header()
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[:end]


def _dsn(recipient: Recipient) -> str:
    if recipient.notify is None and recipient.orcpt is None:
        return ""
    notify = ",".join(sorted(recipient.notify or ()))
    original = recipient.orcpt
    if original is not None and not original.isascii():
        # This form is right with SMTPUTF8 and without (RFC 6533 3).
        original = _WIDE.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", original)
    return _parameter("NOTIFY", notify) + _parameter("ORCPT", original)


def _parameter(keyword: str, value: str | None) -> str:
    if not value or _UNSAFE_VALUE.search(value) is not None:
        return ""
    return f" {keyword}={value}"


def _in_ascii(address: str) -> str:
    """The address with its domain in A-labels: that much can be said without SMTPUTF8."""
    local, at, _ = address.rpartition("@")
    return f"{local}{at}{domain_of(address)}"
