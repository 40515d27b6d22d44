"""Complaints and other feedback from mailbox providers (RFC 5965, RFC 6650). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.hooks import Headers
from plugins.bounces.delivery_status import address_in, one_line
from plugins.bounces.mime import Part

COMPLAINTS = frozenset(
    ("abuse", "fraud", "virus", "other", "opt-out", "opt-out-list", "miscategorized", "complaint")
)
"""Types of feedback with which a recipient says that the mail was not wanted."""

_MOST_RECIPIENTS = 50
_JUNK_SUBJECT = re.compile(r"complaint about message from", re.IGNORECASE)
_RECIPIENT_FIELDS = ("Original-Rcpt-To", "Removal-Recipient", "Original-Recipient")
# Providers put the one who complained into the returned header.
_RETURNED_FIELDS = (
    "X-HmXmrOriginalRecipient",
    "X-MS-Exchange-Organization-Original-Recipient",
    "X-Apparently-To",
    "X-Original-To",
    "Delivered-To",
    "Envelope-To",
    "To",
)
_REDACTED = re.compile(r"redact|undisclosed|x{4,}|\*{3,}|hidden|anonym", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Feedback:
    """One report.

    Attributes:
        type: its Feedback-Type in lower case, `abuse` for most.
        sure: recipients that the report itself names.
        likely: recipients that the returned message names.
        reporter: the User-Agent, the name of who reports.
    """

    type: str
    sure: tuple[str, ...]
    likely: tuple[str, ...]
    reporter: str

    @property
    def is_complaint(self) -> bool:
        """Whether a recipient did not want the mail; otherwise it is news about it."""
        return self.type in COMPLAINTS


def read(parts: Sequence[Part], headers: Headers, returned: Headers) -> Feedback | None:
    """The feedback in a message; None if it is none.

    Args:
        parts: the parts of the message.
        headers: its header.
        returned: the header of the message that it returns.
    """
    part = next((one for one in parts if one.content_type == "message/feedback-report"), None)
    if part is None:
        # Microsoft's programme sends the message alone.
        own = returned.get("X-HmXmrOriginalRecipient", "")
        junk = _JUNK_SUBJECT.search(headers.get("Subject", "")) is not None
        if not own and not (junk and len(returned)):
            return None
        reporter = address_in(headers.get("From", ""))
        return Feedback("abuse", _addresses([own]), _named(returned), reporter)
    fields = Headers(part.octets.strip(b"\r\n") + b"\r\n")
    kind = one_line(fields.get("Feedback-Type", "other"), 40).lower()
    values = [value for name in _RECIPIENT_FIELDS for value in fields.get_all(name)]
    values += returned.get_all("X-HmXmrOriginalRecipient")
    return Feedback(
        kind,
        _addresses(values),
        _named(returned),
        one_line(fields.get("User-Agent", ""), 100),
    )


def _named(returned: Headers) -> tuple[str, ...]:
    return _addresses([value for name in _RETURNED_FIELDS for value in returned.get_all(name)])


def _addresses(values: Sequence[str]) -> tuple[str, ...]:
    found = [address_in(value) for value in values[:_MOST_RECIPIENTS]]
    return tuple(dict.fromkeys(one for one in found if one and not _REDACTED.search(one)))
