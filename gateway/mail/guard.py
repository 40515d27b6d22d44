"""What of a message may be changed at a moment, and by which plugin. Pure.

A message shares one guard with its header, its body, its recipients and all notes. The chain opens
it for the time of one hook; only who writes asks it, so that reading costs nothing.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

_asked: ContextVar[str] = ContextVar("asked")
"""The plugin whose hook was called last in this context, which tasks and threads inherit."""


class ForbiddenChangeError(RuntimeError):
    """A change that the stage does not allow, or that came when no hook ran; it was not made."""


class MessageSealedError(ForbiddenChangeError):
    """A change that came after the last `message` hook: only fields on top may still be added."""


@dataclass(frozen=True, slots=True, eq=False)
class Rights:
    """What may be changed in a stage.

    Attributes:
        changes: such as `message.sender` or `recipient.address`; None: everything.
        refusal: the beginning of what a plugin is told that changes something else.
        sealed: whether that is a MessageSealedError.
    """

    changes: frozenset[str] | None
    refusal: str = ""
    sealed: bool = False


def rights_of(hook: str, *changes: str) -> Rights:
    """The rights of a hook."""
    allowed = ", ".join(changes) or "nothing"
    return Rights(frozenset(changes), f"{hook} may change {allowed}, and cannot change")


OPEN = Rights(None)
"""No chain has had it: everything may be changed."""

CLOSED = Rights(frozenset(), "the hook has ended, and cannot change")

SEALED = Rights(
    frozenset({"headers.prepend"}),
    "the message is sealed: only headers.prepend is allowed, and cannot change",
    sealed=True,
)

FINISHED = Rights(frozenset(), "the message is sealed and on its way: nothing can change", True)


class Guard:
    """Says what may be changed now.

    Attributes:
        rights: what the stage allows.
        plugin: the entry whose hook is running; '' if anybody may use the rights.
        subject: what the hook is about; other recipients may not be changed. None: all may.
    """

    __slots__ = ("plugin", "rights", "subject")

    def __init__(self, rights: Rights = OPEN) -> None:
        self.rights = rights
        self.plugin = ""
        self.subject: Any = None

    def open(self, plugin: str, rights: Rights, subject: Any = None) -> None:
        """A hook of a plugin is about to be called, and may change this much until `close`.

        Tasks that hooks of other plugins have left behind may not: they carry the name of theirs.
        """
        self.plugin, self.rights, self.subject = plugin, rights, subject
        _asked.set(plugin)

    def close(self) -> None:
        """The hook has ended."""
        self.rights, self.subject = CLOSED, None

    def finish(self) -> None:
        """Nothing can be changed any more."""
        self.rights, self.subject = FINISHED, None

    def copy(self) -> Guard:
        """A guard of its own for a copy of the message."""
        new = Guard(self.rights)
        new.plugin = self.plugin
        return new

    def check(self, change: str, owner: object = None) -> None:
        """Lets a change pass; `owner` is the recipient that it is about, or its notes.

        Raises:
            ForbiddenChangeError: it is not allowed now.
        """
        rights = self.rights
        if rights.changes is None:
            return
        if change not in rights.changes:
            kind = MessageSealedError if rights.sealed else ForbiddenChangeError
            raise kind(f"{rights.refusal} {change}")
        subject = self.subject
        about_another = owner is not None and subject is not None and owner is not subject
        if about_another and owner is not subject.notes:
            raise ForbiddenChangeError(f"cannot change {change} of another recipient")
        asked = _asked.get("")
        if asked and self.plugin and asked != self.plugin:
            raise ForbiddenChangeError(
                f"the hook of {asked} has ended, and cannot change {change} any more"
            )
