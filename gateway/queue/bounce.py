"""Reports to the sender about what became of mail: delivery status notifications. Pure.

RFC 3461 (who wants one), 3464 (the machine-readable part), 6522 (the form), 6533 (non-ASCII).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum

from gateway.attempt import Delivery, Outcome
from gateway.mail.address import AddressSyntaxError, decode_xtext
from gateway.mail.encoded_word import encode_value
from gateway.mail.message import Recipient
from gateway.queue.explanation import Sentence, duration, explain
from gateway.queue.report_part import (
    ascii_text,
    boundary_for,
    domain_name,
    field_of,
    is_clean,
    is_utf8,
    mailbox,
    printable,
    quoted_printable,
    text_part,
    typed_address,
    typed_part,
)

FULL_LIMIT = 50_000
"""Up to this many octets, a whole message is returned to a sender who asked for it (RET=FULL)."""

HEADER_LIMIT = 65_536
"""What of a header is returned, in octets."""

_MAX_ADDRESS = 320
_MAX_REPLY = 2_000

_IDENTIFIER = re.compile(r"[A-Za-z0-9._-]{1,100}")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}", re.ASCII)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,200}@[!-;=?-~]{1,200}>")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,40}")


class Kind(StrEnum):
    """What a report tells.

    `FAILED`: refused for good. `EXPIRED`: given up at the end of the message's lifetime. `DELAYED`:
    not delivered yet. `RELAYED`: passed on to a server that will not report success itself.
    """

    FAILED = "failed"
    EXPIRED = "expired"
    DELAYED = "delayed"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Result:
    """How the last attempt ended for one recipient, and when, in seconds since the epoch."""

    recipient: Recipient
    outcome: Outcome
    attempted: float


def wants_report(sender: str, notify: frozenset[str] | None, kind: Kind) -> bool:
    """Whether the sender gets a report on a recipient (RFC 3461 4.1, RFC 5321 6.1).

    `notify` is the recipient's. The null sender never gets one; one who said nothing is told of
    failures only.
    """
    if not sender:
        return False
    if notify is None:
        return kind in (Kind.FAILED, Kind.EXPIRED)
    return _CONDITIONS[kind] in notify


def report(
    kind: Kind,
    delivery: Delivery,
    results: Sequence[Result],
    *,
    hostname: str,
    identifier: str,
    now: float,
    until: float | None = None,
    full_limit: int = FULL_LIMIT,
) -> bytes:
    """The whole report as it goes to `delivery.sender`, from the null sender; lines end in CRLF.

    It is 7-bit, except where it returns 8-bit content whole, or goes to a sender whose address is
    not ASCII: then it needs SMTPUTF8.

    Args:
        kind: what happened to all the recipients in `results`.
        delivery: the message that the report is about.
        results: the recipients, and what their servers said.
        hostname: the gateway's name.
        identifier: makes the report's Message-ID with `hostname`: letters, digits, `.`, `_`, `-`.
        now: when the report is written, in seconds since the epoch.
        until: how long a delayed message is still tried, in seconds since the epoch.
        full_limit: up to how many octets the whole message is returned.

    Raises:
        ValueError: there is no result, the sender is null, or the identifier has other characters.
    """
    if not results or not delivery.sender:
        raise ValueError("a report needs a recipient to tell about and a sender to go to")
    if not _IDENTIFIER.fullmatch(identifier):
        raise ValueError(f"{identifier!r} cannot stand in a Message-ID")
    international = not delivery.sender.isascii()
    name = domain_name(hostname, international)
    status_type = "message/global-delivery-status" if international else "message/delivery-status"
    parts = [
        text_part(_letter(kind, delivery, results, name, now, until)),
        typed_part(status_type, _status(kind, delivery, results, name, until, international)),
        _returned(kind, delivery, international, full_limit),
    ]
    boundary = boundary_for(identifier, parts)
    lines = [
        field_of("From", f"Mail Delivery System <MAILER-DAEMON@{name}>"),
        field_of("To", f"<{mailbox(delivery.sender)}>"),
        encode_value("Subject", f"{_SUBJECTS[kind].english} / {_SUBJECTS[kind].japanese}"),
        field_of("Date", _date(now)),
        field_of("Message-ID", f"<{identifier}@{name}>"),
    ]
    original_id = delivery.headers.get("Message-ID")
    if original_id is not None and _MESSAGE_ID.fullmatch(original_id):
        lines.append(field_of("References", original_id))
    lines += [
        field_of("Auto-Submitted", "auto-replied"),
        field_of("MIME-Version", "1.0"),
        b"Content-Type: multipart/report; report-type=delivery-status;\r\n"
        b'\tboundary="%b"\r\n' % boundary,
        field_of("Content-Transfer-Encoding", "7bit" if all(map(bytes.isascii, parts)) else "8bit"),
        b"\r\n",
    ]
    for part in parts:
        lines += [b"--%b\r\n" % boundary, part, b"\r\n"]
    lines.append(b"--%b--\r\n" % boundary)
    return b"".join(lines)


def _letter(
    kind: Kind,
    delivery: Delivery,
    results: Sequence[Result],
    hostname: str,
    now: float,
    until: float | None,
) -> str:
    """The text for people: first in English, then in Japanese."""
    tried = duration(now - delivery.received)
    rest = duration((until or now) - now)
    subject = printable(delivery.headers.get("Subject", ""), 200)
    english = [f"This is the mail system at {hostname}.", ""]
    japanese = [f"{hostname} のメールシステムからのお知らせです。", ""]
    english += [_OPENINGS[kind].english.format(tried=tried.english), ""]
    japanese += [_OPENINGS[kind].japanese.format(tried=tried.japanese), ""]
    if kind is Kind.DELAYED and until is not None and until > now:
        english += [f"We keep on trying for another {rest.english}.", ""]
        japanese += [f"あと{rest.japanese}の間、配送を続けます。", ""]
    if subject:
        english += [f"  Subject: {subject}", ""]
        japanese += [f"  件名: {subject}", ""]
    for result in results:
        address = printable(result.recipient.address, _MAX_ADDRESS)
        english.append(f"  To: {address}")
        japanese.append(f"  宛先: {address}")
        if kind is not Kind.RELAYED:
            explanation = explain(_enhanced(kind, result.outcome))
            english.append(f"    {explanation.happened.english}")
            japanese.append(f"    {explanation.happened.japanese}")
            if kind is not Kind.DELAYED:
                english.append(f"    {explanation.advice.english}")
                japanese.append(f"    {explanation.advice.japanese}")
        reply = printable(result.outcome.reply, _MAX_REPLY)
        host = _remote(result.outcome)
        if reply and host:
            english.append(f"    The server {host} said: {reply}")
            japanese.append(f"    サーバー {host} の応答: {reply}")
        elif reply:
            english.append(f"    The reason in detail: {reply}")
            japanese.append(f"    詳しい理由: {reply}")
        english.append("")
        japanese.append("")
    english += [f"Reference: {delivery.message_id}", ""]
    japanese += [f"受付番号: {delivery.message_id}", ""]
    return "\n".join([*english, "-" * 60, "", *japanese])


def _status(
    kind: Kind,
    delivery: Delivery,
    results: Sequence[Result],
    hostname: str,
    until: float | None,
    international: bool,
) -> bytes:
    """The fields for programs (RFC 3464 2): one block for the message, one for each recipient."""
    fields = [field_of("Reporting-MTA", f"dns; {hostname}")]
    envid = _decoded(delivery.envid)
    if envid:
        fields.append(field_of("Original-Envelope-Id", ascii_text(envid)))
    fields.append(field_of("Arrival-Date", _date(delivery.received)))
    for result in results:
        recipient, outcome = result.recipient, result.outcome
        fields.append(b"\r\n")
        address_type, _, original = (recipient.orcpt or "").partition(";")
        original = _decoded(original)
        if original and _ADDRESS_TYPE.fullmatch(address_type):
            original = typed_address(original, international, address_type)
            fields.append(field_of("Original-Recipient", original))
        final = typed_address(recipient.address, international)
        fields += [
            field_of("Final-Recipient", final),
            field_of("Action", _ACTIONS[kind]),
            field_of("Status", _enhanced(kind, outcome)),
        ]
        host = _remote(outcome)
        if host:
            fields.append(field_of("Remote-MTA", f"dns; {ascii_text(host)}"))
        reply = printable(outcome.reply, _MAX_REPLY)
        if reply:
            # Only what a server said is an SMTP reply; the rest is the gateway's own word.
            source = "smtp" if host and outcome.code else "x-mail-gateway"
            diagnostic = reply if international else ascii_text(reply)
            fields.append(field_of("Diagnostic-Code", f"{source}; {diagnostic}"))
        fields.append(field_of("Last-Attempt-Date", _date(result.attempted)))
        if kind is Kind.DELAYED and until is not None:
            fields.append(field_of("Will-Retry-Until", _date(until)))
    return b"".join(fields)


def _returned(kind: Kind, delivery: Delivery, international: bool, full_limit: int) -> bytes:
    """The third part: the message, if the sender asked for it and it fits, or else its header."""
    octets = delivery.octets
    header = delivery.headers.raw
    raw_utf8 = international and is_utf8(header)
    if (
        delivery.ret == "FULL"
        # RFC 3461 4.3: what arrives in the end is not returned whole.
        and kind in (Kind.FAILED, Kind.EXPIRED)
        and not delivery.require_tls  # RFC 8689 5: the content stays where it is protected
        and len(octets) <= full_limit
        and (header.isascii() or raw_utf8)
        and is_clean(content := bytes(octets))
    ):
        return typed_part("message/rfc822" if header.isascii() else "message/global", content)
    if len(header) > HEADER_LIMIT:
        header = header[: header.rfind(b"\r\n", 0, HEADER_LIMIT) + 2 or HEADER_LIMIT]
    if is_clean(header) and (header.isascii() or raw_utf8):
        return typed_part(
            "text/rfc822-headers" if header.isascii() else "message/global-headers", header
        )
    # Quoted-printable keeps every octet and lets none do harm (RFC 6522 4).
    charset = "utf-8" if is_utf8(header) else "unknown-8bit"
    return (
        b"Content-Type: text/rfc822-headers; charset=%b\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" % charset.encode()
    ) + quoted_printable(header)


def _remote(outcome: Outcome) -> str:
    """The server that answered, without its address and port; '' if none did."""
    host = outcome.relay.partition("[")[0] or outcome.relay
    if outcome.relay in ("", "none"):
        return ""
    return printable(host, 255)


def _enhanced(kind: Kind, outcome: Outcome) -> str:
    if _STATUS.fullmatch(outcome.status):
        return outcome.status
    return {Kind.FAILED: "5.0.0", Kind.RELAYED: "2.0.0"}.get(kind, "4.0.0")


def _decoded(xtext: str | None) -> str:
    try:
        return decode_xtext(xtext or "")
    except AddressSyntaxError:
        return ""


def _date(time: float) -> str:
    return format_datetime(datetime.fromtimestamp(time, UTC))


_CONDITIONS = {
    Kind.FAILED: "FAILURE",
    Kind.EXPIRED: "FAILURE",
    Kind.DELAYED: "DELAY",
    Kind.RELAYED: "SUCCESS",
}

_ACTIONS = {
    Kind.FAILED: "failed",
    Kind.EXPIRED: "failed",
    Kind.DELAYED: "delayed",
    Kind.RELAYED: "relayed",
}

_SUBJECTS = {
    Kind.FAILED: Sentence("Your message was not delivered", "メールをお届けできませんでした"),
    Kind.EXPIRED: Sentence("Your message was not delivered", "メールをお届けできませんでした"),
    Kind.DELAYED: Sentence("Your message is delayed", "メールの配送が遅れています"),
    Kind.RELAYED: Sentence("Your message was passed on", "メールを転送しました"),
}

_OPENINGS = {
    Kind.FAILED: Sentence(
        "Your message could not be delivered to the recipients named below.",
        "あなたが送ったメールは、次の宛先に届けることができませんでした。",
    ),
    Kind.EXPIRED: Sentence(
        "Your message could not be delivered to the recipients named below. We have tried for"
        " {tried} and now given up.",
        "あなたが送ったメールは、次の宛先に届けることができませんでした。{tried}の間、配送を試みました"
        "が、中止しました。",
    ),
    Kind.DELAYED: Sentence(
        "Your message has not been delivered to the recipients named below yet. We have tried for"
        " {tried}. You do not need to do anything, and please do not send it again.",
        "あなたが送ったメールは、次の宛先にまだ届いていません。{tried}の間、配送を試みています。何も"
        "していただく必要はありません。同じメールをもう一度お送りにならないでください。",
    ),
    Kind.RELAYED: Sentence(
        "Your message for the recipients named below was passed on to a mail system that does not"
        " confirm deliveries. You will not hear from us again about it.",
        "次の宛先へのメールは、配達の確認に対応していないメールシステムに渡されました。このメールに"
        "ついて、当方からこれ以上のお知らせはありません。",
    ),
}
