"""Hands a message to the gateway as any mail program does: with the standard library's smtplib."""

from __future__ import annotations

import smtplib
from collections.abc import Mapping
from dataclasses import dataclass

from examples.demo.case import Case

TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What the gateway said, each on one line.

    Attributes:
        recipients: the reply to each RCPT.
        message: the reply to the final dot, or to DATA where it did not come so far.
    """

    recipients: Mapping[str, str]
    message: str

    @property
    def queue_id(self) -> str | None:
        """The id under which the message was accepted; None if it was not."""
        _, accepted, queue_id = self.message.partition(" queued as ")
        return queue_id if accepted else None


def send(port: int, case: Case, content: bytes) -> Answers:
    """Sends a message over a connection of its own.

    Raises:
        OSError, smtplib.SMTPException: the gateway cannot be talked to.
    """
    with smtplib.SMTP("127.0.0.1", port, "client.example.com", TIMEOUT) as client:
        client.ehlo()
        client.mail(case.sender, ["BODY=8BITMIME"])
        recipients = {recipient: _line(*client.rcpt(recipient)) for recipient in case.recipients}
        try:
            message = _line(*client.data(content))
        except smtplib.SMTPDataError as error:
            message = _line(error.smtp_code, error.smtp_error)
    return Answers(recipients, message)


def _line(code: int, text: bytes | str) -> str:
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return f"{code} {' '.join(text.splitlines())}"
