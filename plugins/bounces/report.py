"""What a message that came back is, and what it says. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.hooks import Headers
from plugins.bounces import automatic, delivery_status, feedback, letter
from plugins.bounces.delivery_status import Finding, addresses_in, one_line
from plugins.bounces.feedback import Feedback
from plugins.bounces.letter import Letter
from plugins.bounces.mime import LARGEST_HEADER, Part, parts, split

LARGEST = 262_144
"""Octets of a message that are looked at. Reports stand before what they return."""

_MOST_CANDIDATES = 500
_RETURNED_TYPES = (
    "message/rfc822",
    "message/global",
    "text/rfc822-headers",
    "text/rfc822-header",
    "message/rfc822-headers",
    "message/global-headers",
)
_DAEMON = re.compile(
    r"mailer.?daemon|post ?master|mail ?deliver|deliver\w* (?:sub)?system|(?:mail|system|e-?mail)"
    r" ?(?:administrator|system|server|router|service)|mdaemon|\bdaemon|bounce|mail.?error|smtp"
    r"|メール(?:配送|配信|システム)",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"undeliver|deliver\w* (?:status|fail|report|problem|error|incomplete|has failed)"
    r"|failure notice|returned mail|returned to sender|mail system error|non.?deliver"
    r"|could not send message"
    r"|不達|配信(?:エラー|不能|失敗)|エラー(?:メール|通知)|送信できません",
    re.IGNORECASE,
)
_INLINE_STATUS = re.compile(
    r"^(?:Reporting-MTA|Final-Recipient): ?\S", re.IGNORECASE | re.MULTILINE
)
_TAG = re.compile(r"<[^<>]*>?")
_LINE_TAG = re.compile(r"<(?:br|/?p|/?div|/?tr|/?h\d|/?li|/?table)\b[^<>]*>?", re.IGNORECASE)
_UNSEEN = re.compile(r"<(style|script|title)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)


class Kind(StrEnum):
    """What a message that came back is."""

    DELIVERY = "delivery report"
    FEEDBACK = "feedback"
    RECEIPT = "read receipt"
    AUTOMATIC = "automatic reply"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Report:
    """A message that came back.

    Attributes:
        kind: what it is.
        findings: what it says about each recipient, if it is about deliveries.
        feedback: what a provider says, if it is feedback.
        reporter: who says it: a server's name, or that of a program.
        said: what people are meant to read, without the returned message.
        returned: the header of the returned message; empty if there is none.
        of_report: what it returns is a report itself, or had no return path.
    """

    kind: Kind
    findings: tuple[Finding, ...]
    feedback: Feedback | None
    reporter: str
    said: str
    returned: Headers
    of_report: bool
    _texts: tuple[str, ...]

    def texts(self) -> Iterator[str]:
        """Everything in which a return path may stand, the likeliest first."""
        yield from self._texts

    def candidates(self) -> Iterator[str]:
        """Every address that it names, the likeliest first; some more than once."""
        named = [*(self.feedback.sure if self.feedback else ())]
        named += [one for finding in self.findings for one in (finding.original, finding.recipient)]
        named += self.feedback.likely if self.feedback else ()
        yield from (address for address in named if address)
        count = 0
        for text in self._texts:
            for address in addresses_in(text):
                yield address
                count += 1
                if count == _MOST_CANDIDATES:
                    return


def read(content: bytes, *, null_sender: bool) -> Report:
    """Reads a message that came to a return path, or to an address for complaints.

    Args:
        content: all of it; lines end in CRLF.
        null_sender: whether its envelope sender is the null path, as that of every report should.
    """
    content = content[:LARGEST]
    headers, _ = split(content)
    found = parts(content)
    message = _letter(found)
    returned = _returned(found, message)
    given = feedback.read(found, headers, returned)
    status = next((part for part in found if _is_status(part)), None)
    texts = _texts(found, returned, message, status)
    is_bounce = _is_bounce(headers, message, null_sender)
    octets = b"" if status is None else status.octets
    if status is None and is_bounce:
        octets = _inline_status(found)
    reporter, findings = delivery_status.read(octets)
    if given is not None:
        kind, reporter, findings = Kind.FEEDBACK, given.reporter, []
    elif findings:
        kind = Kind.DELIVERY
        findings = _completed(findings, message)
    elif automatic.is_receipt(found):
        kind = Kind.RECEIPT
    elif is_bounce:
        kind = Kind.DELIVERY
        findings = letter.findings(message, headers.get("X-Failed-Recipients", ""))
        if not findings:
            said = letter.reply_in(message.text)
            findings = [
                Finding(
                    message.action,
                    status=delivery_status.status_in(said),
                    code=delivery_status.code_in(said),
                    said=said,
                )
            ]
    elif automatic.by_subject(headers) or automatic.by_fields(headers):
        kind = Kind.AUTOMATIC
    else:
        kind = Kind.OTHER
    return Report(
        kind,
        tuple(findings),
        given,
        reporter or _domain(headers.get("From", "")),
        one_line(message.text),
        returned,
        _of_report(found, returned),
        texts,
    )


def _is_status(part: Part) -> bool:
    return part.content_type.endswith("delivery-status")


def _inline_status(found: Sequence[Part]) -> bytes:
    """The fields of a status part that somebody has made a piece of the letter; mostly nothing."""
    text = found[0].text[: letter.LONGEST_LETTER]
    match = _INLINE_STATUS.search(text)
    if match is None or not text.isascii():
        return b""
    return text[match.start() :].replace("\n", "\r\n").encode()


def _is_returned(part: Part) -> bool:
    return part.content_type in _RETURNED_TYPES


def _letter(found: Sequence[Part]) -> Letter:
    """What people are meant to read: the plain text, otherwise the HTML."""
    plain: list[str] = []
    rich: list[str] = []
    for part in found:
        if _is_returned(part):
            break
        if part.content_type == "text/html":
            rich.append(_plain(part.text[: letter.LONGEST_LETTER]))
        elif part.content_type.startswith("text/"):
            plain.append(part.text[: letter.LONGEST_LETTER])
    text = "\n\n".join(plain)
    return letter.read(text if text.strip() else "\n\n".join(rich))


def _plain(text: str) -> str:
    text = _TAG.sub("", _LINE_TAG.sub("\n", _UNSEEN.sub("", text)))
    return "\n".join(line.strip() for line in html.unescape(text).split("\n"))


def _returned(found: Sequence[Part], message: Letter) -> Headers:
    for part in found:
        if _is_returned(part):
            return split(part.octets.lstrip(b"\r\n"))[0]
    return message.returned


def _texts(
    found: Sequence[Part], returned: Headers, message: Letter, status: Part | None
) -> tuple[str, ...]:
    report = next((part for part in found if part.content_type == "message/feedback-report"), None)
    octets = [part.octets for part in (report, status) if part is not None]
    return (
        *[one[:LARGEST_HEADER].decode("latin-1") for one in octets],
        # Folded fields are one line, or an address could stand on two.
        returned.raw.decode("latin-1").replace("\r\n", ""),
        message.text,
    )


def _completed(findings: Sequence[Finding], message: Letter) -> list[Finding]:
    """Findings with what the letter says of those for which the status part says nothing."""
    if all(finding.said for finding in findings):
        return list(findings)
    said = {one.recipient.lower(): one for one in letter.findings(message)}
    completed = []
    for finding in findings:
        more = said.get(finding.recipient.lower())
        if not finding.said and more is not None:
            status = finding.status
            if status[1:] in ("", ".0.0") and more.status[:1] in (status[:1] or more.status[:1]):
                status = more.status or status
            finding = replace(finding, said=more.said, code=more.code, status=status)
        completed.append(finding)
    return completed


def _is_bounce(headers: Headers, message: Letter, null_sender: bool) -> bool:
    """Whether a letter is a bounce: a program wrote it, and it says that mail was not delivered."""
    if headers.get("X-Failed-Recipients"):
        return True
    if automatic.by_subject(headers):
        return False
    is_daemon = _DAEMON.search(headers.get("From", "")[:500]) is not None
    subject = headers.get("Subject", "")[:500]
    is_subject = _SUBJECT.search(subject) is not None and subject[:3].lower() != "re:"
    tells = message.tells_of_failure or (is_daemon and letter.reply_in(message.text) != "")
    if is_daemon or null_sender:
        return is_subject or tells
    return is_subject and tells


def _of_report(found: Sequence[Part], returned: Headers) -> bool:
    if returned.get("Return-Path", "").strip() == "<>":
        return True
    kind = returned.get("Content-Type", "").strip().lower()
    if kind.startswith("multipart/report"):
        return True
    return any(
        _is_returned(part) and "multipart/report" in part.within and _is_daemon_mail(returned)
        for part in found
    )


def _is_daemon_mail(returned: Headers) -> bool:
    return re.search(r"mailer-daemon", returned.get("From", ""), re.IGNORECASE) is not None


def _domain(sender: str) -> str:
    return one_line(delivery_status.address_in(sender).rpartition("@")[2], 255)
