"""What a hook in a thread is given: copies, so that a thread that is late changes nothing.

A replica is made before the call. `adopt` takes over what the hook changed, after it has answered
in time; the objects that everybody else knows stay the same. It takes copies again: what the plugin
keeps of its replica changes nothing any more.

Messages are not made for several threads. Nobody changes the original meanwhile: a session waits
for its hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from gateway.attempt import Delivery
from gateway.hooks.plugin import Login
from gateway.mail.guard import OPEN
from gateway.mail.message import Client, Message, Recipient

Wholes = WeakKeyDictionary[Message, Message]
"""Replicas of messages that were parted: those of all parts belong to the same."""


class Replica(Protocol):
    """A copy of what a hook is about."""

    @property
    def subject(self) -> Any:
        """What the hook is given."""

    def adopt(self) -> None:
        """Takes over what the hook changed."""


def replica_of(subject: Any, wholes: Wholes) -> Replica:
    """A copy of the subject of a hook."""
    if isinstance(subject, Message):
        return MessageReplica(subject, wholes)
    if isinstance(subject, Recipient):
        return RecipientReplica(subject, wholes)
    if isinstance(subject, Client):
        return ClientReplica(subject)
    if isinstance(subject, Login):
        return LoginReplica(subject)
    if isinstance(subject, Delivery):
        return ReadOnly(_delivery(subject))
    # Events are values; only the sequence is shared.
    return ReadOnly(list(subject) if isinstance(subject, Sequence) else subject)


class ReadOnly:
    """A copy of which nothing is taken over."""

    def __init__(self, subject: Any) -> None:
        self.subject = subject

    def adopt(self) -> None:
        """Takes nothing over."""
        if isinstance(self.subject, Delivery):
            self.subject.guard.close()


class ClientReplica:
    """A client. Its notes are taken over."""

    def __init__(self, original: Client) -> None:
        self._original = original
        self._before = dict(original.notes)
        self.subject = _client(original)

    def adopt(self) -> None:
        """Takes over the notes."""
        notes = dict(self.subject.notes)
        # If the hook left them as they were, others may have changed them meanwhile.
        if notes != self._before:
            self._original.notes.clear()
            self._original.notes.update(notes)


class LoginReplica:
    """An attempt to log in. The user is taken over, and the client's notes."""

    def __init__(self, original: Login) -> None:
        self._original = original
        self._client = ClientReplica(original.client)
        self.subject = replace(original, client=self._client.subject)
        self.subject.guard.rights = original.guard.rights

    def adopt(self) -> None:
        """Takes over user and notes."""
        self.subject.guard.close()
        self._original.user = self.subject.user
        self._client.adopt()


class MessageReplica:
    """A message. All that a hook may change is taken over."""

    def __init__(self, original: Message, wholes: Wholes) -> None:
        self._original = original
        self.client = ClientReplica(original.client)
        whole = None if original.whole is original else _whole(original.whole, wholes)
        self.subject = _apart(original, self.client.subject, whole)
        self._originals = dict(zip(self.subject.recipients, original.recipients, strict=True))

    def adopt(self) -> None:
        """Takes over envelope, notes, header and body, and the client's notes."""
        original, subject = self._original, self.subject
        subject.guard.close()
        before = original.checkpoint()
        after = subject.copy(()).checkpoint()
        recipients = tuple(
            [
                (self._originals.get(one) or _recipient(one, original), one.checkpoint())
                for one in subject.recipients
            ]
        )
        if after.body.shares(before.body):
            after = replace(after, body=before.body, edits=before.edits)
        original.restore(replace(after, recipients=recipients))
        self.client.adopt()


class RecipientReplica:
    """A recipient that RCPT names. Its address and notes are taken over, and the client's notes."""

    def __init__(self, original: Recipient, wholes: Wholes) -> None:
        self._original = original
        self._client: ClientReplica | None = None
        message = None
        if original.message is not None:
            self._client = ClientReplica(original.message.client)
            message = _growing(original.message, self._client.subject, wholes)
        self.subject = _recipient(original, message)
        if message is not None and message.guard.rights is not OPEN:
            message.guard.subject = self.subject

    def adopt(self) -> None:
        """Takes over address and notes."""
        if self.subject.guard is not None:
            self.subject.guard.close()
        self._original.restore(self.subject.checkpoint())
        if self._client is not None:
            self._client.adopt()


def _client(original: Client) -> Client:
    return replace(original, notes=type(original.notes)(original.notes))


def _apart(original: Message, client: Client, whole: Message | None) -> Message:
    """A copy that does not know the original."""
    copy = original.copy()
    # No hook may exchange these, and its guard has been copied too.
    object.__setattr__(copy, "client", client)
    object.__setattr__(copy, "_whole", whole)
    return copy


def _growing(original: Message, client: Client, wholes: Wholes) -> Message:
    """A copy of a message to which one recipient comes after the other; made once.

    A copy for each of them would take time by the square of their number.
    """
    copy = wholes.get(original)
    if copy is None:
        copy = wholes[original] = _apart(original, client, None)
    else:
        object.__setattr__(copy, "client", client)
        for one in original.recipients[len(copy.recipients) :]:
            copy.take(_recipient(one, copy))
    copy.guard.rights = original.guard.rights
    return copy


def _whole(original: Message, wholes: Wholes) -> Message:
    whole = wholes.get(original)
    if whole is None:
        whole = wholes[original] = _apart(original, _client(original.client), None)
    return whole


def _recipient(one: Recipient, message: Message | None) -> Recipient:
    return Recipient(one.address, one.notify, one.orcpt, one.notes, message, one.return_path)


def _delivery(original: Delivery) -> Delivery:
    copy = replace(
        original,
        content=cast(bytes, original.octets),
        recipients=[_recipient(one, None) for one in original.recipients],
        client=_client(original.client),
        notes=dict(original.notes),
        ceilings=dict(original.ceilings),
        in_seven_bits=None,
    )
    copy.close()
    copy.guard.rights = original.guard.rights
    return copy
