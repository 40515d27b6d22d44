"""The messages of the demo, and what must become of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MESSAGES = Path(__file__).parent / "messages"

SUPPRESSED = "550 5.7.1 Recipient refused"
INSIDE = "550 5.7.1 Mail to staging.test must not leave"
NO_KEY = "550 5.7.1 No DKIM key for the domain in the From field"


@dataclass(frozen=True, slots=True)
class Case:
    """One message and its envelope.

    Attributes:
        title: what is special about it.
        file: its file in `messages`.
        sender, recipients: the envelope.
        refused: recipients that are refused, with how the reply must begin.
        reply: how the reply to the message itself must begin.
    """

    title: str
    file: str
    sender: str
    recipients: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    reply: str = "250 2.0.0 Ok: queued as "

    @property
    def delivered(self) -> list[str]:
        """The recipients at whom it must arrive."""
        if not self.reply.startswith("250"):
            return []
        return [recipient for recipient in self.recipients if recipient not in self.refused]

    def content(self) -> bytes:
        """The message as it is sent."""
        return (MESSAGES / self.file).read_bytes()


CASES = (
    Case(
        "Japanese order confirmation in ISO-2022-JP",
        "order-iso-2022-jp.eml",
        "order@shop.example.com",
        ("hanako@example.net",),
    ),
    Case(
        "ISO-2022-JP with ① and ㈱, to an address that only carriers allow",
        "carrier-iso-2022-jp.eml",
        "tour@example.com",
        ("hanako..2001@keitai.example",),
    ),
    Case(
        "Japanese booking in UTF-8, base64",
        "booking-utf-8.eml",
        "yoyaku@example.com",
        ("taro@example.net",),
    ),
    Case(
        "HTML invoice with a PDF attached",
        "invoice-attachment.eml",
        "billing@example.com",
        ("ada@example.org",),
    ),
    Case(
        "Newsletter in text and HTML with one-click unsubscription",
        "newsletter-alternative.eml",
        "bounce-88@news.example.com",
        ("sam@example.net",),
    ),
    Case(
        "8-bit text in ISO-8859-1",
        "appointment-8bit.eml",
        "praxis@example.com",
        ("j.mueller@example.org",),
    ),
    Case(
        "Quoted-printable with soft line breaks",
        "password-quoted-printable.eml",
        "no-reply@example.com",
        ("zoe@example.net",),
    ),
    Case(
        "Long and oddly folded header fields",
        "reply-long-header.eml",
        "office@example.com",
        ("roofer@example.org",),
    ),
    Case(
        "Lines that begin with dots",
        "log-excerpt-dots.eml",
        "monitor@example.com",
        ("admin@example.net",),
    ),
    Case(
        "No body at all",
        "reading-empty-body.eml",
        "meter-17@example.com",
        ("collect@example.net",),
    ),
    Case(
        "Three recipients in two domains",
        "minutes-recipients.eml",
        "mika@example.com",
        ("board@example.net", "works-council@example.org", "archive@example.net"),
    ),
    Case(
        "Two recipients, one of them suppressed",
        "offer-suppressed.eml",
        "offers@example.com",
        ("friend@example.net", "gone@example.net"),
        refused={"gone@example.net": SUPPRESSED},
    ),
    Case(
        "Only a suppressed recipient, whose domain wants no mail",
        "offer-suppressed.eml",
        "offers@example.com",
        ("anyone@no-mail.example",),
        refused={"anyone@no-mail.example": SUPPRESSED},
        reply="554 5.5.1 No valid recipients",
    ),
    Case(
        "A rehearsal that must not reach anybody: refused by the site's own plugin",
        "staging-copy.eml",
        "crm@example.com",
        ("customer-4711@staging.test",),
        refused={"customer-4711@staging.test": INSIDE},
        reply="554 5.5.1 No valid recipients",
    ),
    Case(
        "In the name of a domain that is not ours: dkim has no key and refuses",
        "forged-author.eml",
        "form@example.com",
        ("kim@example.org",),
        reply=NO_KEY,
    ),
)
