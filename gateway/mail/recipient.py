"""Whom a message goes to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gateway.mail.address import check, domain_of, is_original_recipient, is_path
from gateway.mail.guard import OPEN, Guard
from gateway.mail.notes import RecipientNotes

if TYPE_CHECKING:
    from typing import Self

    from gateway.mail.message import Message

_NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})

State = tuple[str, frozenset[str] | None, str | None, dict[str, str], str | None]

_set = object.__setattr__


class _Unguarded:
    """The attributes of a recipient, while it is made: nothing is asked and nothing checked."""

    __slots__ = ("address", "guard", "message", "notes", "notify", "orcpt", "return_path")

    address: str
    notify: frozenset[str] | None
    orcpt: str | None
    notes: dict[str, str]
    message: Message | None
    return_path: str | None
    guard: Guard | None


class Recipient(_Unguarded):
    """One address that the message goes to.

    What is written is checked: by what the stage allows, and whether mail can go out with it.

    Attributes:
        address: without angle brackets.
        notify: when the sender wants a report, as RCPT's NOTIFY said (RFC 3461 4.1): `NEVER`, or
            any of `SUCCESS`, `FAILURE`, `DELAY`; None if it said nothing.
        orcpt: the original recipient, as RCPT's ORCPT said it (RFC 3461 4.2), still in xtext.
        notes: what plugins want to remember about this recipient; reports and events carry them.
        message: the message that it belongs to, up to the queue; None from there on.
        return_path: what stands in MAIL for this recipient instead of the message's sender, so that
            a bounce tells whom it is about; None: the sender. Reports that the gateway writes
            itself go to the sender.
        guard: says what may be changed now; None: everything.
    """

    __slots__ = ()

    def __new__(
        cls,
        address: str,
        notify: frozenset[str] | None = None,
        orcpt: str | None = None,
        notes: Mapping[str, str] | None = None,
        message: Message | None = None,
        return_path: str | None = None,
    ) -> Self:
        """A recipient; what it is given is taken as it is."""
        guard = None if message is None else message.guard
        new = _Unguarded()
        new.address = address
        new.notify = notify
        new.orcpt = orcpt
        new.notes = RecipientNotes(notes, guard)
        new.message = message
        new.return_path = return_path
        new.guard = guard
        # As a class that checks, it would take three times as long to be made.
        new.__class__ = cls
        return new  # type: ignore[return-value]

    def __setattr__(self, name: str, value: Any) -> None:
        if self.guard is not None:
            self.guard.check(f"recipient.{name}", self)
        _set(self, name, _checked(name, value, self.guard))

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"recipient.{name} cannot be deleted")

    def __repr__(self) -> str:
        return f"<Recipient {self.address}>"

    @property
    def domain(self) -> str:
        """The domain in lower case and A-labels; '' if the address has none."""
        return domain_of(self.address)

    def verify(self) -> None:
        """Refuses a recipient that was made of what mail cannot go out with.

        Raises:
            TypeError, ValueError: as on setting the attribute.
        """
        for name in ("address", "notify", "orcpt", "notes", "return_path"):
            _checked(name, getattr(self, name), self.guard)

    # For the gateway, which is not asked what it may.

    def join(self, guard: Guard | None, message: Message | None = None) -> None:
        """From now on it belongs to a message, or on its way out to none; and to its guard."""
        _set(self, "guard", guard)
        _set(self, "message", message)
        self.notes.guard = guard  # type: ignore[attr-defined]

    def keep_original(self, orcpt: str) -> None:
        """Notes who it was, after its address has been changed."""
        _set(self, "orcpt", orcpt)

    def checkpoint(self) -> State:
        """What `restore` goes back to."""
        return self.address, self.notify, self.orcpt, self.notes.copy(), self.return_path

    def restore(self, state: State) -> None:
        """Goes back to a state that it had, whatever may be changed now."""
        _set(self, "address", state[0])
        _set(self, "notify", state[1])
        _set(self, "orcpt", state[2])
        _set(self, "notes", RecipientNotes(state[3], self.guard))
        _set(self, "return_path", state[4])


def _checked(name: str, value: Any, guard: Guard | None) -> Any:
    """A new value of an attribute, which mail can go out with.

    Raises:
        TypeError: it is of another type.
        ValueError: no command could carry it.
    """
    if name == "notes":
        RecipientNotes.check(value)
        return RecipientNotes(value, guard)
    if name == "address":
        if isinstance(value, str):
            check(value)
        # Mail for the gateway itself may go to a postmaster without a domain.
        in_hook = guard is not None and guard.rights is not OPEN
        if not is_path(value) or (in_hook and not domain_of(value)):
            raise ValueError(f"{value!r} is no address that mail can go to")
    elif name == "return_path":
        if value is not None and not is_path(value):
            raise ValueError(f"{value!r} is no address that mail can come back to")
    elif name == "notify":
        if value is not None and not (isinstance(value, frozenset) and value <= _NOTIFY):
            raise ValueError(f"{value!r} is no set of NEVER, SUCCESS, FAILURE and DELAY")
    elif name == "orcpt" and value is not None and not is_original_recipient(value):
        raise ValueError(f"{value!r} is no type, semicolon and xtext (RFC 3461 4.2)")
    return value


def _guarded(method: Callable[..., Any]) -> Any:
    """A method of list that asks first, and leaves everything as it was where the result is bad."""

    def change(self: Recipients, *arguments: Any, **named: Any) -> Any:
        self.guard.check("message.recipients")
        new = list(self)
        result = method(new, *arguments, **named)
        list.__setitem__(self, slice(None), self.checked(new))
        return self if result is new else result

    return change


class Recipients(list[Recipient]):
    """The recipients of a message. What is written is checked; reading is that of a list."""

    __slots__ = ("guard",)

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def __reduce__(self) -> tuple[type, tuple[list[Recipient]]]:
        return list, (list(self),)

    @classmethod
    def of(cls, recipients: Iterable[Recipient], guard: Guard) -> Recipients:
        """A list of these recipients, checked."""
        new = cls(guard)
        list.extend(new, new.checked(recipients))
        return new

    def checked(self, recipients: Iterable[Recipient]) -> list[Recipient]:
        """These recipients, if they can be the message's.

        Raises:
            TypeError: one is something else.
            ValueError: one is there twice, or belongs to another message, or to none yet.
        """
        checked = list(recipients)
        for recipient in checked:
            if not isinstance(recipient, Recipient):
                raise TypeError(f"{recipient!r} is no recipient")
        if len(set(map(id, checked))) < len(checked):
            raise ValueError("a recipient is there twice")
        for recipient in checked:
            if recipient.guard is self.guard:
                continue
            if self.guard.rights is not OPEN:
                raise ValueError(f"{recipient.address} is new here: use message.add_recipient")
            recipient.join(self.guard, recipient.message)
        return checked

    __setitem__ = _guarded(list.__setitem__)
    __delitem__ = _guarded(list.__delitem__)
    __iadd__ = _guarded(list.__iadd__)
    __imul__ = _guarded(list.__imul__)
    append = _guarded(list.append)
    clear = _guarded(list.clear)
    extend = _guarded(list.extend)
    insert = _guarded(list.insert)
    pop = _guarded(list.pop)
    remove = _guarded(list.remove)
    reverse = _guarded(list.reverse)
    sort = _guarded(list.sort)
