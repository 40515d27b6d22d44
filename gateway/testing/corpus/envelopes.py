"""Messages whose envelope is odd, and those that programs send. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.testing.corpus.sample import AUTHOR, Sample, message, mime, multipart, part

_TEXT = "Hello\n"
_STATUS = """Reporting-MTA: dns; mx.example.net
Arrival-Date: Sat, 14 Nov 2026 09:00:00 +0900

Final-Recipient: rfc822; gone@example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 No such user
"""
_COMPLAINT = """Feedback-Type: abuse
User-Agent: Example/1.0
Version: 1
Original-Rcpt-To: ada@example.net
"""


def envelopes() -> Iterator[Sample]:
    """Senders and recipients of every form that SMTP knows."""
    yield Sample("null-sender", message(_TEXT), sender="")
    yield Sample(
        "two-thousand-recipients",
        message(_TEXT),
        recipients=tuple(f"reader{number}@example{number % 7}.net" for number in range(2000)),
    )
    yield Sample(
        "recipients-twice",
        message(_TEXT),
        recipients=("ada@example.net", "ada@example.net", "Ada@EXAMPLE.net"),
    )
    yield Sample(
        "addresses-of-carriers",
        message(_TEXT, "Reply-To: a..b@docomo.ne.jp"),
        recipients=("a..b@docomo.ne.jp", "c.@ezweb.ne.jp", ".d-_@docomo.ne.jp"),
    )
    yield Sample(
        "smtputf8",
        message(_TEXT, "From: 森 <森@例え.example>", "To: あだ@例え.example"),
        sender="森@例え.example",
        recipients=("あだ@例え.example", "grüße@münchen.example"),
        smtputf8=True,
    )
    yield Sample(
        "addresses-quoted",
        message(_TEXT),
        sender='"odd \\" one"@example.com',
        recipients=(
            '"a b"@example.net',
            '"@"@example.net',
            "x@[192.0.2.1]",
            "x@[IPv6:2001:db8::1]",
        ),
    )
    yield Sample(
        "addresses-with-signs",
        message(_TEXT),
        sender="bounce+ada=example.net@mail.example.com",
        recipients=("a!b%c&d'e*f@example.net", "{}|~^`$#@example.net", "ada+tag@example.net"),
    )
    yield Sample(
        "addresses-of-full-length",
        message(_TEXT),
        sender=f"{'s' * 64}@example.com",
        recipients=(f"{'r' * 64}@{'.'.join(['d' * 40] * 4)}.net", "x@A.b"),
    )
    yield from _reports()


def _reports() -> Iterator[Sample]:
    """Mail that nobody has written."""
    yield Sample(
        "delivery-report",
        multipart(
            "report",
            "r1",
            part("Your message could not be delivered.\n", "text/plain; charset=utf-8"),
            part(_STATUS, "message/delivery-status"),
            part(message(_TEXT), "message/rfc822"),
            parameters="; report-type=delivery-status",
        ),
        sender="",
        recipients=("news@example.com",),
    )
    yield Sample(
        "complaint",
        multipart(
            "report",
            "r2",
            part("This is a complaint.\n", "text/plain"),
            part(_COMPLAINT, "message/feedback-report"),
            part(b"Subject: A letter\r\n", "text/rfc822-headers"),
            parameters="; report-type=feedback-report",
        ),
    )
    yield Sample(
        "read-receipt",
        multipart(
            "report",
            "r3",
            part("It was read.\n", "text/plain"),
            part("Disposition: manual-action/MDN-sent-manually; displayed\n", _NOTIFICATION),
            parameters="; report-type=disposition-notification",
        ),
        sender="",
    )
    yield Sample(
        "automatic-reply",
        mime(
            "I am away.\n",
            "text/plain; charset=utf-8",
            "7bit",
            "Auto-Submitted: auto-replied",
            "X-Auto-Response-Suppress: All",
            "In-Reply-To: <letter@example.com>",
        ),
        sender="",
    )
    yield Sample(
        "mailing-list",
        message(
            "To the list.\n_______________\nreaders mailing list\n",
            "List-Id: Readers <readers.example.org>",
            "List-Post: <mailto:readers@example.org>",
            "List-Unsubscribe: <mailto:readers-leave@example.org>",
            "Precedence: list",
            "X-BeenThere: readers@example.org",
            f"Original-From: {AUTHOR}",
        ),
        sender="readers-bounces@example.org",
    )


_NOTIFICATION = "message/disposition-notification"
