"""What every source of values is, and how it fails. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.hooks import Context, Message, Recipient

Values = Mapping[str, Any]
"""What is known of a recipient, by name; never to be changed, for recipients share parts of it."""

_UNPRINTABLE = re.compile(r"[^ -~]+")
_LONGEST_TEXT = 300


class SourceError(Exception):
    """A source cannot tell the values of a recipient.

    Attributes:
        text: what is wrong, one line of printable ASCII that may stand in an SMTP reply. It holds
            no value of any recipient and no password.
        temporary: it may work later (4xx); otherwise the message itself is wrong (5xx).
    """

    def __init__(self, text: str, *, temporary: bool) -> None:
        self.text = _UNPRINTABLE.sub("?", text)[:_LONGEST_TEXT]
        self.temporary = temporary
        super().__init__(self.text)


class Source(Protocol):
    """Knows values of recipients."""

    async def values(self, message: Message, recipient: Recipient) -> Values | None:
        """The values of a recipient, None if it is not known here.

        Raises:
            SourceError: that cannot be told.
        """

    async def start(self, context: Context) -> None:
        """Opens what is needed.

        Raises:
            ValueError: the source cannot be used as it is configured.
            OSError: it cannot be opened.
        """

    async def stop(self) -> None:
        """Closes what `start` opened."""
