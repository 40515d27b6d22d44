"""A chain that remembers a message as it was before any plugin changed it."""

from __future__ import annotations

from gateway.hooks.actions import Accept, Discard, Quarantine, Reject, Tempfail
from gateway.hooks.chain import Chain, Filtered
from gateway.hooks.trace import Trace
from gateway.mail.message import Message, Recipient


class ObservedChain(Chain):
    """A chain that keeps a copy of each message as it came.

    Attributes:
        before: the last message before its `message` hooks, with sender, recipients and stream as
            they were before any hook; None if it did not come so far.
    """

    before: Message | None = None
    _sender = ""
    _stream: str | None = None
    _addresses: dict[Recipient, str]

    async def mail(
        self, message: Message, trace: Trace | None = None
    ) -> Accept | Reject | Tempfail | Discard | Quarantine | None:
        """Asks the `mail` hooks."""
        self.before = None
        self._sender = message.sender
        self._addresses = {}
        stream = message.stream
        answer = await super().mail(message, trace)
        # If no hook chose another one, the header may still do so.
        self._stream = stream if message.stream != stream else None
        return answer

    async def rcpt(
        self, recipient: Recipient, trace: Trace | None = None
    ) -> Accept | Reject | Tempfail | Discard | Quarantine | None:
        """Asks the `rcpt` hooks."""
        self._addresses[recipient] = recipient.address
        return await super().rcpt(recipient, trace)

    async def message(
        self, message: Message, trace: Trace | None = None
    ) -> Filtered | Reject | Tempfail:
        """Runs the `message` and `seal` hooks."""
        before = message.copy()
        before.sender = self._sender
        before.stream = self._stream or message.stream
        for old, recipient in zip(before.recipients, message.recipients, strict=True):
            old.address = self._addresses.get(recipient, recipient.address)
        self.before = before
        return await super().message(message, trace)
