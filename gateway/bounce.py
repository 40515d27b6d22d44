"""Reports to the sender about what became of mail: delivery status notifications. Pure.

RFC 3461 (who wants one), 3464 (the machine-readable part), 6522 (the form), 6533 (non-ASCII).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum

from gateway.address import AddressSyntaxError, decode_xtext
from gateway.attempt import Delivery, Outcome
from gateway.encoded_word import encode_value
from gateway.explanation import Sentence, duration, explain
from gateway.headers import split
from gateway.message import Recipient

FULL_LIMIT = 50_000
"""Up to this many octets, a whole message is returned to a sender who asked for it (RET=FULL)."""

HEADER_LIMIT = 65_536
"""What of a header is returned, in octets."""

_LINE = 76
_MAX_LINE = 998
_MAX_ADDRESS = 320
_MAX_REPLY = 2_000

_IDENTIFIER = re.compile(r"[A-Za-z0-9._-]{1,100}")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}", re.ASCII)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,200}@[!-;=?-~]{1,200}>")
_PLAIN_LOCAL = re.compile(r"[^\x00-\x20\x7f\"(),:;<>@\[\\\]]+")
_QUOTED_LOCAL = re.compile(r'"(?:[^\x00-\x1f\x7f"\\]|\\[ -~])*"')
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,40}")
_NO_DOMAIN_CHARACTER = re.compile(r"[\x00-\x20\x7f\"(),;<>@\\]")
_UNENCODED = re.compile(rb"[^\t -<>-~]|[\t ]$")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


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
    name = _domain(hostname, international)
    status_type = "message/global-delivery-status" if international else "message/delivery-status"
    parts = [
        _text_part(_letter(kind, delivery, results, name, now, until)),
        _part(status_type, _status(kind, delivery, results, name, until, international)),
        _returned(kind, delivery, international, full_limit),
    ]
    boundary = _boundary(identifier, parts)
    lines = [
        _field("From", f"Mail Delivery System <MAILER-DAEMON@{name}>"),
        _field("To", f"<{_mailbox(delivery.sender)}>"),
        encode_value("Subject", f"{_SUBJECTS[kind].english} / {_SUBJECTS[kind].japanese}"),
        _field("Date", _date(now)),
        _field("Message-ID", f"<{identifier}@{name}>"),
    ]
    original_id = delivery.headers.get("Message-ID")
    if original_id is not None and _MESSAGE_ID.fullmatch(original_id):
        lines.append(_field("References", original_id))
    lines += [
        _field("Auto-Submitted", "auto-replied"),
        _field("MIME-Version", "1.0"),
        b"Content-Type: multipart/report; report-type=delivery-status;\r\n"
        b'\tboundary="%b"\r\n' % boundary,
        _field("Content-Transfer-Encoding", "7bit" if all(map(bytes.isascii, parts)) else "8bit"),
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
    subject = _printable(delivery.headers.get("Subject", ""), 200)
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
        address = _printable(result.recipient.address, _MAX_ADDRESS)
        english.append(f"  To: {address}")
        japanese.append(f"  宛先: {address}")
        if kind is not Kind.RELAYED:
            explanation = explain(_enhanced(kind, result.outcome))
            english.append(f"    {explanation.happened.english}")
            japanese.append(f"    {explanation.happened.japanese}")
            if kind is not Kind.DELAYED:
                english.append(f"    {explanation.advice.english}")
                japanese.append(f"    {explanation.advice.japanese}")
        reply = _printable(result.outcome.reply, _MAX_REPLY)
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
    fields = [_field("Reporting-MTA", f"dns; {hostname}")]
    envid = _decoded(delivery.envid)
    if envid:
        fields.append(_field("Original-Envelope-Id", _ascii(envid)))
    fields.append(_field("Arrival-Date", _date(delivery.received)))
    for result in results:
        recipient, outcome = result.recipient, result.outcome
        fields.append(b"\r\n")
        address_type, _, original = (recipient.orcpt or "").partition(";")
        original = _decoded(original)
        if original and _ADDRESS_TYPE.fullmatch(address_type):
            original = _typed_address(original, international, address_type)
            fields.append(_field("Original-Recipient", original))
        final = _typed_address(recipient.address, international)
        fields += [
            _field("Final-Recipient", final),
            _field("Action", _ACTIONS[kind]),
            _field("Status", _enhanced(kind, outcome)),
        ]
        host = _remote(outcome)
        if host:
            fields.append(_field("Remote-MTA", f"dns; {_ascii(host)}"))
        reply = _printable(outcome.reply, _MAX_REPLY)
        if reply:
            # Only what a server said is an SMTP reply; the rest is the gateway's own word.
            source = "smtp" if host and outcome.code else "x-mail-gateway"
            diagnostic = reply if international else _ascii(reply)
            fields.append(_field("Diagnostic-Code", f"{source}; {diagnostic}"))
        fields.append(_field("Last-Attempt-Date", _date(result.attempted)))
        if kind is Kind.DELAYED and until is not None:
            fields.append(_field("Will-Retry-Until", _date(until)))
    return b"".join(fields)


def _returned(kind: Kind, delivery: Delivery, international: bool, full_limit: int) -> bytes:
    """The third part: the message, if the sender asked for it and it fits, or else its header."""
    content = delivery.content
    header = split(content)[0]
    raw_utf8 = international and _is_utf8(header)
    if (
        delivery.ret == "FULL"
        # RFC 3461 4.3: what arrives in the end is not returned whole.
        and kind in (Kind.FAILED, Kind.EXPIRED)
        and len(content) <= full_limit
        and (header.isascii() or raw_utf8)
        and _is_clean(content)
    ):
        return _part("message/rfc822" if header.isascii() else "message/global", content)
    if len(header) > HEADER_LIMIT:
        header = header[: header.rfind(b"\r\n", 0, HEADER_LIMIT) + 2 or HEADER_LIMIT]
    if _is_clean(header) and (header.isascii() or raw_utf8):
        return _part(
            "text/rfc822-headers" if header.isascii() else "message/global-headers", header
        )
    # Quoted-printable keeps every octet and lets none do harm (RFC 6522 4).
    charset = "utf-8" if _is_utf8(header) else "unknown-8bit"
    return (
        b"Content-Type: text/rfc822-headers; charset=%b\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" % charset.encode()
    ) + _quoted_printable(header)


def _text_part(text: str) -> bytes:
    encoded = base64.encodebytes(text.replace("\n", "\r\n").encode()).replace(b"\n", b"\r\n")
    return (
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded
    )


def _part(content_type: str, content: bytes) -> bytes:
    encoding = b"7bit" if content.isascii() else b"8bit"
    return b"Content-Type: %b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        content_type.encode(),
        encoding,
        content,
    )


def _boundary(identifier: str, parts: Sequence[bytes]) -> bytes:
    """A boundary that occurs in no part. Quoted-printable and base64 have no `=_` of their own."""
    number = 0
    while True:
        boundary = f"=_{identifier[:40]}/{number}".encode()
        if not any(boundary in part for part in parts):
            return boundary
        number += 1


def _field(name: str, value: str) -> bytes:
    """A header field, folded at white space; words that no line can hold are broken."""
    lines: list[str] = []
    line = f"{name}:"
    for word in value.split(" "):
        # Four octets a character at most; an address must stay in one piece.
        pieces = [word[at : at + _MAX_LINE // 4] for at in range(0, len(word), _MAX_LINE // 4)]
        for piece in pieces if len(word.encode()) > _MAX_LINE - 100 else [word]:
            if len(line) + 1 + len(piece) > _LINE and piece and line != f"{name}:":
                lines.append(line)
                line = ""
            line += " " + piece
    lines.append(line)
    return "\r\n".join(lines).encode() + b"\r\n"


def _printable(text: str, limit: int) -> str:
    """One line without anything that a terminal or a mail program could take for a command."""
    shown = "".join(character if character.isprintable() else " " for character in text[:limit])
    return " ".join(shown.split())


def _ascii(text: str) -> str:
    r"""Text with `\x{20AC}` for what is not printable ASCII, as in RFC 6533 3."""
    return "".join(
        character if " " <= character <= "~" else f"\\x{{{ord(character):02X}}}"
        for character in text
    )


def _typed_address(address: str, international: bool, address_type: str = "rfc822") -> str:
    """An address with its type (RFC 3464 2.3.2, RFC 6533 3)."""
    address = address[:_MAX_ADDRESS]
    if address.isascii() and address_type.lower() != "utf-8":
        return f"{address_type}; {_ascii(address)}"
    return "utf-8; " + "".join(
        character
        if "!" <= character <= "~" and character not in "+=\\"
        else character
        if international and not character.isascii() and character.isprintable()
        else f"\\x{{{ord(character):02X}}}"
        for character in address
    )


def _mailbox(address: str) -> str:
    """An address as it stands in a header field (RFC 5322 3.4.1); quoted where it has to be.

    Dots at odd places, as some carriers gave out (`a..b@`, `a.@`), stay as they are.
    """
    local, at, domain = address[:_MAX_ADDRESS].rpartition("@")
    if not at:
        local, domain = domain, ""
    if not _PLAIN_LOCAL.fullmatch(local) and not _QUOTED_LOCAL.fullmatch(local):
        local = re.sub(r'(["\\])', r"\\\1", local)
        local = f'"{local}"'
    local = "".join(character if character.isprintable() else "?" for character in local)
    return local + at + _domain(domain, international=True)


def _domain(text: str, international: bool) -> str:
    """A domain without characters that no domain has."""
    text = _NO_DOMAIN_CHARACTER.sub("?", text[:255])
    return "".join(
        character if character.isprintable() and (international or character.isascii()) else "?"
        for character in text
    )


def _remote(outcome: Outcome) -> str:
    """The server that answered, without its address and port; '' if none did."""
    host = outcome.relay.partition("[")[0] or outcome.relay
    if outcome.relay in ("", "none"):
        return ""
    return _printable(host, 255)


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


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_clean(content: bytes) -> bool:
    """Whether content can stand in a part as it is: lines that end in CRLF and are not too long."""
    if _BARE.search(content):
        return False
    return all(len(line) <= _MAX_LINE for line in content.split(b"\r\n"))


def _quoted_printable(content: bytes) -> bytes:
    """RFC 2045 6.7; unlike the standard library's, it keeps bare CR and LF apart from line ends."""
    lines: list[bytes] = []
    for line in content.split(b"\r\n"):
        encoded = _UNENCODED.sub(lambda match: b"=%02X" % match[0][0], line)
        while len(encoded) > _LINE:
            end = _LINE - 1
            # An octet's three characters stay together.
            end -= (encoded[end - 1] == 0x3D) + 2 * (encoded[end - 2] == 0x3D)
            lines.append(encoded[:end] + b"=")
            encoded = encoded[end:]
        lines.append(encoded)
    return b"\r\n".join(lines)


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
