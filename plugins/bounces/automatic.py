"""Mail that a program wrote in answer: out of office, read receipts (RFC 3834, RFC 8098). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.hooks import Headers
from plugins.bounces.mime import Part

_SUBJECT = re.compile(
    r"(?:(?:auto(?:matic|mated)?[ -]?(?:reply|response|respon[ds]er|answer|acknowledge?ment|antwort"
    r"|matische antwort|notification))|out of (?:the )?office|ooo\b|away from|(?:on )?vacation"
    r"|(?:on )?holidays?\b|abwesend|abwesenheit|réponse automatique|respuesta automática"
    r"|risposta automatica|automatische antwort|自動(?:応答|返信|回答|送信)|不在|休暇"
    r"|外出中|オートリプライ|自动(?:回复|答复)|автоответ)",
    re.IGNORECASE,
)
_RECEIPT_TYPE = "message/disposition-notification"
_LOOPS = ("X-Autoreply", "X-Autorespond", "X-Autoresponse", "X-Mail-Autoreply", "X-Auto-Reply")


def is_receipt(parts: Sequence[Part]) -> bool:
    """Whether a message says that mail was read, or deleted unread (RFC 8098)."""
    return any(part.content_type == _RECEIPT_TYPE for part in parts)


def by_subject(headers: Headers) -> bool:
    """Whether the subject is one that people do not write in person."""
    subject = headers.get("Subject", "")[:200]
    match = _SUBJECT.search(subject)
    # As the topic of a conversation it may stand anywhere; programs begin with it.
    return match is not None and (match.start() <= 12 or not subject.isascii())


def by_fields(headers: Headers) -> bool:
    """Whether header fields say that a program wrote it (RFC 3834 5)."""
    submitted = headers.get("Auto-Submitted", "").strip().lower().partition(";")[0].strip()
    if submitted and submitted != "no":
        return True
    if any(name in headers for name in _LOOPS):
        return True
    if headers.get("X-Auto-Response-Suppress") or headers.get("X-MS-Exchange-Inbox-Rules-Loop"):
        return True
    precedence = headers.get("Precedence", "").strip().lower()
    return precedence in ("bulk", "junk", "list", "auto_reply", "auto-reply")
