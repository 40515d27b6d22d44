"""An SMTP client that sends a message and keeps every answer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

DEADLINE = 60.0
"""Seconds that a reply may take."""


@dataclass(frozen=True)
class Submission:
    """A message as a client gives it to the gateway.

    Attributes:
        content: its octets, which are sent as they are (BDAT, RFC 3030).
        sender, recipients: the addresses in MAIL and RCPT.
        helo: what the client calls itself.
        login: user name and password for AUTH PLAIN; None: it does not log in.
        mail_parameters, rcpt_parameters: of MAIL and RCPT, such as `RET=HDRS`.
    """

    content: bytes
    sender: str
    recipients: Sequence[str]
    helo: str = "client.example.org"
    login: tuple[str, str] | None = None
    mail_parameters: str = ""
    rcpt_parameters: str = ""


@dataclass(frozen=True)
class Dialogue:
    """What client and gateway said.

    Attributes:
        lines: commands and the reply to each; the first command is the connection itself.
        replies: the answer to RCPT by recipient.
        reply: the answer that decided: the first refusal of the message, or that to its end.
    """

    lines: tuple[tuple[str, str], ...] = ()
    replies: dict[str, str] = field(default_factory=dict)
    reply: str = ""

    def __str__(self) -> str:
        """The dialogue as it is shown in textbooks."""
        return "\n".join(
            f"C: {command}\n" + "\n".join(f"S: {line}" for line in reply.split("\n"))
            for command, reply in self.lines
        )


class SmtpClient:
    """A client that says commands one by one.

    Args:
        reader: what the gateway says.
        write: says something to it.
    """

    def __init__(self, reader: asyncio.StreamReader, write: Callable[[bytes], object]) -> None:
        self._reader = reader
        self._write = write
        self._lines: list[tuple[str, str]] = []

    async def reply(self) -> str:
        r"""The next reply, its lines joined by `\n`; '' if the gateway has closed the connection.

        Raises:
            TimeoutError: there was none in time.
        """
        lines = []
        async with asyncio.timeout(DEADLINE):
            while line := await self._reader.readline():
                lines.append(line.rstrip(b"\r\n").decode())
                if line[3:4] != b"-":
                    break
        return "\n".join(lines)

    async def say(self, command: str, data: bytes = b"") -> str:
        """Sends a command, and data that follow it, and returns the reply."""
        self._write(command.encode() + b"\r\n" + data)
        reply = await self.reply()
        self._lines.append((command, reply))
        return reply

    async def greet(self, submission: Submission) -> str:
        """Takes the banner, says EHLO and logs in; returns a refusal, '' if there was none."""
        reply = await self.reply()
        self._lines.append(("(connects)", reply))
        if not reply.startswith("220"):
            return reply
        reply = await self.say(f"EHLO {submission.helo}")
        if reply.startswith("250") and submission.login is not None:
            text = "\0".join(("", *submission.login))
            reply = await self.say(f"AUTH PLAIN {base64.b64encode(text.encode()).decode()}")
        return "" if reply[:1] == "2" else reply

    async def submit(self, submission: Submission) -> Dialogue:
        """Sends a message, after `greet`."""
        parameters = submission.mail_parameters
        addresses = (submission.sender, *submission.recipients)
        if not all(address.isascii() for address in addresses) and "SMTPUTF8" not in parameters:
            parameters = f"{parameters} SMTPUTF8"
        parameters = f" {parameters.strip()}" if parameters.strip() else ""
        reply = await self.say(f"MAIL FROM:<{submission.sender}>{parameters}")
        if reply[:1] != "2":
            return self.dialogue(reply)
        replies = {}
        after = f" {submission.rcpt_parameters}" if submission.rcpt_parameters else ""
        for recipient in submission.recipients:
            replies[recipient] = await self.say(f"RCPT TO:<{recipient}>{after}")
        if not any(answer.startswith("2") for answer in replies.values()):
            refusals = list(replies.values())
            return replace(self.dialogue(refusals[0] if refusals else reply), replies=replies)
        content = submission.content
        reply = await self.say(f"BDAT {len(content)} LAST", content)
        return replace(self.dialogue(reply), replies=replies)

    def dialogue(self, reply: str) -> Dialogue:
        """All that was said, which ended in this reply."""
        return Dialogue(tuple(self._lines), {}, reply)
