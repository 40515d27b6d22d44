"""Bounces and replies: whatever servers answer is read, and comes out as one line of text."""

from __future__ import annotations

import re

from fuzz import seeds
from fuzz.target import Target, law
from gateway.delivery.reply import Reply, ReplyReader
from plugins.bounces.classification import Classifier, FailureClass
from plugins.bounces.report import Kind, read

_STATUS = re.compile(r"|[245]\.\d{1,3}\.\d{1,3}", re.ASCII)


class Reader:
    """Reads bounces, and says why."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    def check(self, data: bytes) -> None:
        """Reads a message as a bounce.

        Raises:
            BrokenLawError: what was found is not as it should be.
        """
        for null_sender in (True, False):
            report = read(data, null_sender=null_sender)
            law((report.kind is Kind.DELIVERY) == bool(report.findings), "findings by kind")
            law((report.kind is Kind.FEEDBACK) == (report.feedback is not None), "feedback by kind")
            law(report.said.isprintable(), "what was said is not one line")
            for finding in report.findings:
                verdict = self._classifier.verdict(finding.code, finding.status, finding.said)
                law(verdict.failure in FailureClass, "no class")
                law(finding.said.isprintable(), "a finding is not one line")
                law(_STATUS.fullmatch(finding.status), "a status that is none")
                law(finding.code == 0 or 400 <= finding.code < 600, "a code that is none")
            law(all("@" in address for address in report.candidates()), "an address without @")


def check_reply(data: bytes) -> None:
    """Cuts octets into SMTP replies and reads them.

    Raises:
        BrokenLawError: a reply is not one line, or depends on how the network cut it.
    """
    whole = _replies([data])
    law(_replies([data[i : i + 1] for i in range(len(data))]) == whole, "other cuts, other replies")
    for raw in whole:
        reply = Reply.parse(raw)
        law(reply.code == 0 or 200 <= reply.code <= 599, "a code that is none")
        law(re.fullmatch(r"[2-5]\.\d{1,3}\.\d{1,3}", reply.status), "a status that is none")
        law(not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", reply.text), "not one line")
        law(len(reply.text) <= 1024, "a text without end")


def _replies(pieces: list[bytes]) -> list[bytes]:
    reader = ReplyReader()
    return [reply for piece in pieces for reply in reader.feed(piece)]


def bounce() -> Target:
    """The reader of bounces."""
    report = (
        b"From: MAILER-DAEMON@mx.example\r\nSubject: Undelivered Mail\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        b"--b\r\n\r\n<a@example.net>: host mx said: 550 5.1.1 No such user\r\n--b\r\n"
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"
        b"Final-Recipient: rfc822; a@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        b"Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n--b\r\n"
        b"Content-Type: message/rfc822\r\n\r\nMessage-ID: <x@y>\r\n\r\nHello\r\n--b--\r\n"
    )
    complaint = (
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n"
        b"User-Agent: x\r\nOriginal-Rcpt-To: a@example.net\r\n--b\r\n"
        b"Content-Type: text/rfc822-headers\r\n\r\nFrom: b@example.com\r\n--b--\r\n"
    )
    tokens = [
        *(
            b"Final-Recipient: rfc822; ",
            b"Original-Recipient: ",
            b"Action: failed",
            b"Status: 4.2.2",
        ),
        *(
            b"Diagnostic-Code: smtp; 550 ",
            b"550-5.1.1 ",
            b"#5.1.1",
            b"utf-8;",
            b"\\x{110000}",
            b"<",
        ),
        *(b"Content-Type: message/global-delivery-status", b"Auto-Submitted: auto-replied", b"+3D"),
        *(
            b"Feedback-Type: ",
            b"X-Failed-Recipients: ",
            b"=?utf-8?b?",
            b"\x1b$B",
            b"@",
            b"> ",
            b"--b",
        ),
        *(b"Content-Type: message/rfc822\r\n\r\n", b"\r\n\r\n", b"In-Reply-To: ", b"\xe2\x80\xa8"),
    ]
    return Target("bounce", Reader().check, [report, complaint, *seeds.messages()], tokens)


def reply() -> Target:
    """The reader of SMTP replies."""
    found = [
        b"220 mx ESMTP\r\n250-mx\r\n250-SIZE 10\r\n250 DSN\r\n",
        b"550-5.1.1 No such user\r\n550 5.1.1 at all\r\n",
        b"421 \xe3\x81\x82\x80\x1b[2J\r\n",
        b"250\r\n25\r\n2500\r\n250+x\r\n999 a\r\n",
        b"250 a\n250 b\r\r\n\r\n",
    ]
    tokens = [
        *(b"250-", b"250 ", b"550 5.", b"5.1.1 ", b"4.999.999", b"\n", b"\r\n", b"\x1b[2J", b"\r"),
        *("\u2028".encode(), b"\x00", "\u202e".encode(), b"250", b"\t", b"000 ", b"600 "),
    ]
    return Target("reply", check_reply, found, tokens)
