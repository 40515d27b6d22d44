"""Notes: what plugins want to remember of a message, a recipient or a connection. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from gateway.mail.guard import Guard

ValueT = TypeVar("ValueT")


def _guarded(method: Callable[..., Any]) -> Any:
    """A method of dict that asks first, and leaves everything as it was where the result is bad."""

    def change(self: GuardedDict[Any], *arguments: Any, **named: Any) -> Any:
        if self.guard is not None:
            self.guard.check(self.name, self)
        new = dict(self)
        result = method(new, *arguments, **named)
        self.check(new)
        dict.clear(self)
        dict.update(self, new)
        return self if result is new else result

    return change


class GuardedDict(dict[str, ValueT]):
    """A dict that checks what is written; reading is as quick as ever.

    Attributes:
        name: what it is called.
        guard: says whether it may be changed now; None: it may.
    """

    __slots__ = ("guard",)

    name: ClassVar[str]
    guard: Guard | None

    def __init__(
        self, values: Mapping[str, ValueT] | None = None, guard: Guard | None = None
    ) -> None:
        if values:
            dict.update(self, values)
        self.guard = guard

    def __reduce__(self) -> tuple[type, tuple[dict[str, ValueT]]]:
        return dict, (dict(self),)

    @staticmethod
    def check(values: Mapping[Any, Any]) -> None:
        """Refuses what it must not hold: nothing, where nothing else is said.

        Raises:
            TypeError, ValueError: there is such a thing.
        """

    __setitem__ = _guarded(dict.__setitem__)
    __delitem__ = _guarded(dict.__delitem__)
    __ior__ = _guarded(dict.__ior__)
    clear = _guarded(dict.clear)
    pop = _guarded(dict.pop)
    popitem = _guarded(dict.popitem)
    setdefault = _guarded(dict.setdefault)
    update = _guarded(dict.update)

    def restore(self, values: Mapping[str, ValueT]) -> None:
        """Goes back to what was there before, whatever may be changed now."""
        dict.clear(self)
        dict.update(self, values)


class Notes(GuardedDict[str]):
    """Text by name: the notes of a client."""

    __slots__ = ()
    name = "client.notes"

    @staticmethod
    def check(values: Mapping[Any, Any]) -> None:
        """Refuses notes that could not be written down.

        Raises:
            TypeError: a name or a note is no text.
            ValueError: a text cannot be said in UTF-8.
        """
        for name, note in values.items():
            if type(name) is not str or type(note) is not str:
                raise TypeError(f"notes are text by name, not {name!r}: {note!r}")
            if not (name.isascii() and note.isascii()):
                name.encode()
                note.encode()


class MessageNotes(Notes):
    """Those of a message."""

    __slots__ = ()
    name = "message.notes"


class RecipientNotes(Notes):
    """Those of a recipient."""

    __slots__ = ()
    name = "recipient.notes"
