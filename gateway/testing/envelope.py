"""Who sends a message and who gets it, where a test says no more than its octets."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import getaddresses

from gateway.mail.headers import Headers, split
from gateway.mail.message import Client, Message
from gateway.testing.specimen import QUEUE_ID, RECIPIENT, SENDER


def sender_of(content: bytes) -> str:
    """The first address in From, as a mail program takes it."""
    return next(_addresses(content, ("From",)), SENDER)


def recipients_of(content: bytes) -> list[str]:
    """The addresses in To, Cc and Bcc, each once."""
    return list(dict.fromkeys(_addresses(content, ("To", "Cc", "Bcc")))) or [RECIPIENT]


def message_of(content: bytes) -> Message:
    """A message from its sender to its recipients, as if a client on this machine had sent it."""
    message = Message(QUEUE_ID, sender_of(content), Client("127.0.0.1"))
    message.receive(content)
    for address in recipients_of(content):
        message.add_recipient(address)
    return message


def _addresses(content: bytes, names: tuple[str, ...]) -> Iterator[str]:
    headers = Headers(split(content)[0])
    values = [value for name in names for value in headers.get_all(name)]
    for _, address in getaddresses(values):
        local, at, domain = address.rpartition("@")
        if local and at and domain and not any(c.isspace() or c in "<>" for c in address):
            yield address
