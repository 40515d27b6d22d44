"""The header of a message: an ordered list of fields that keep their bytes. Pure.

A field that nobody changes leaves exactly as it came (RFC 5322 2.2). Lookups and changes at either
end work on the raw header; it is split into fields only when somebody needs them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar, overload

from gateway.mail import header_text
from gateway.mail.encoded_word import decode_value, encode_value
from gateway.mail.guard import SEALED, Guard, MessageSealedError

__all__ = ["Field", "Headers", "MessageSealedError", "State", "split", "split_beginning"]

_BAD_LINE = re.compile(rb"\r\n(?![ \t]|[!-9;-~]++[ \t]*+:)")
_FIRST_LINE = re.compile(rb"[!-9;-~]++[ \t]*+:")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_NAME = re.compile(r"[!-9;-~]++")
_RAW_VALUE = re.compile(rb"[^\r\n\0]*+(?:\r\n[ \t]++[^ \t\r\n\0][^\r\n\0]*+)*")
_LINE_BREAKING = re.compile(rb"[\r\n\0]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def split(content: bytes) -> tuple[bytes, bytes, bytes]:
    r"""Splits a message into header, separator and body; joined they are `content` again.

    The separator is the blank line `b"\r\n"`. It is `b""` where a message has none: there the
    header ends before the first line that is neither a field nor goes on with one.
    """
    blank = content.find(b"\r\n\r\n")
    if content.startswith(b"\r\n"):
        return b"", b"\r\n", content[2:]
    if not _FIRST_LINE.match(content):
        return b"", b"", content
    end = blank if blank >= 0 else len(content)
    bad = _BAD_LINE.search(content, 0, end)
    if bad is not None and bad.end() < len(content):
        return content[: bad.end()], b"", content[bad.end() :]
    if blank < 0:
        return content, b"", b""
    return content[: blank + 2], b"\r\n", content[blank + 4 :]


def split_beginning(beginning: bytes) -> tuple[bytes, bytes] | None:
    """Header and separator, as `split` finds them in a message that begins so and goes on.

    None if the header may go on after this beginning.
    """
    # A line that is not complete may be a field yet.
    end = beginning.rfind(b"\r\n")
    if end < 0:
        return None
    header, separator, body = split(beginning[: end + 2])
    return (header, separator) if separator or body else None


class Field:
    """One header field, as it stands in the message.

    Attributes:
        raw: all of it: name, colon, value, line ends.
    """

    __slots__ = ("_lower", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._lower: bytes | None = None

    @property
    def name(self) -> str:
        """The name as it is written."""
        return self.raw.partition(b":")[0].rstrip(b" \t").decode("latin-1")

    @property
    def lower(self) -> bytes:
        """The name in lower case."""
        lower = self._lower
        if lower is None:
            lower = self._lower = self.raw.partition(b":")[0].rstrip(b" \t").lower()
        return lower

    @property
    def body(self) -> bytes:
        """What comes after the colon, up to the last line end; still folded and encoded."""
        body = self.raw.partition(b":")[2]
        return body[:-2] if body.endswith(b"\r\n") else body

    @property
    def value(self) -> str:
        """The text that a reader sees: unfolded, decoded (RFC 2047) and stripped. Never raises."""
        return decode_value(self.body)

    def __repr__(self) -> str:
        return f"Field({self.raw!r})"


State = tuple[bytes | None, tuple[Field, ...] | None]


class Headers:
    """The header of a message: fields in their order, each byte for byte as it came.

    Names match in any case. A value given as `str` is text: what is not ASCII is encoded (RFC 2047)
    and long lines are folded. A value given as `bytes` is taken as it is, folds included; it stands
    after `Name: `, or right after the colon if it begins with white space of its own.
    Both raise ValueError where they would let a header break out of its field.

    `raw` is what `split` gives: fields that end in CRLF, the last perhaps without. `guard` says
    what may be changed; None: everything.
    """

    __slots__ = ("_fields", "_guard", "_lowered", "_raw")

    def __init__(self, raw: bytes = b"", guard: Guard | None = None) -> None:
        self._raw: bytes | None = raw
        self._fields: tuple[Field, ...] | None = None
        self._lowered: bytes | None = None
        self._guard = guard

    @property
    def raw(self) -> bytes:
        """The header's bytes: those that it was made from, if nothing changed."""
        if self._raw is None:
            self._raw = b"".join([field.raw for field in self._split()])
        return self._raw

    def _split(self) -> tuple[Field, ...]:
        if self._fields is None:
            pieces = _FIELD_END.split(self._raw or b"")
            last = pieces.pop()
            fields = [Field(piece + b"\r\n") for piece in pieces]
            if last:
                fields.append(Field(last))
            self._fields = tuple(fields)
        return self._fields

    def __iter__(self) -> Iterator[Field]:
        return iter(self._split())

    def __len__(self) -> int:
        return len(self._split())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._first(name) is not None

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The decoded value of the first field of this name, or `default`."""
        field = self._first(name)
        return default if field is None else field.value

    def get_all(self, name: str) -> list[str]:
        """The decoded values of all fields of this name, in order."""
        return [field.value for field in self.fields(name)]

    def fields(self, name: str) -> list[Field]:
        """All fields of this name, in order."""
        lower = name.lower().encode()
        if self._fields is not None:
            return [field for field in self._fields if field.lower == lower]
        return [Field(self.raw[start:end]) for start, end in self._find_all(lower)]

    def _first(self, name: str) -> Field | None:
        lower = name.lower().encode()
        if self._fields is not None:
            return next((field for field in self._fields if field.lower == lower), None)
        place = self._find(lower, 0)
        return None if place is None else Field(self.raw[slice(*place)])

    def _find_all(self, lower: bytes) -> list[tuple[int, int]]:
        places = []
        place = self._find(lower, 0)
        while place is not None:
            places.append(place)
            place = self._find(lower, place[1])
        return places

    def _find(self, lower: bytes, start: int) -> tuple[int, int] | None:
        """Where the first field of this name at or after `start` begins and ends in `raw`."""
        # With a line end in front every field begins with one, and an index into `lowered` is the
        # index into `raw` of what comes after that line end.
        lowered = self._lowered
        if lowered is None:
            lowered = self._lowered = b"\r\n" + self.raw.lower()
        needle = b"\r\n" + lower
        start = lowered.find(needle, start)
        while start >= 0:
            colon = start + len(needle)
            while lowered[colon : colon + 1] in (b" ", b"\t"):
                colon += 1
            if lowered[colon : colon + 1] == b":":
                end = lowered.find(b"\r\n", colon)
                while end >= 0 and lowered[end + 2 : end + 3] in (b" ", b"\t"):
                    end = lowered.find(b"\r\n", end + 2)
                return start, end if end >= 0 else len(lowered) - 2
            start = lowered.find(needle, colon)
        return None

    def add(self, name: str, value: str | bytes) -> None:
        """Adds a field at the end."""
        self._check_open()
        new = _make(name, value)
        if self._fields is None:
            raw, lowered = self.raw, self._lowered
            whole = _terminated(raw)
            self._set_raw(whole + new)
            if lowered is not None and whole is raw:
                self._lowered = lowered + new.lower()
        else:
            self._set_fields((*_terminated_fields(self._fields), Field(new)))

    def prepend(self, name: str, value: str | bytes) -> None:
        """Adds a field on top, before all others: the only change that a sealed message allows."""
        if self._guard is not None:
            self._guard.check("headers.prepend")
        new = _make(name, value)
        if self._fields is None:
            lowered = self._lowered
            self._set_raw(new + self.raw)
            if lowered is not None:
                self._lowered = b"\r\n" + new.lower() + lowered[2:]
        else:
            self._set_fields((Field(new), *self._fields))

    def insert(self, index: int, name: str, value: str | bytes) -> None:
        """Adds a field before the one at `index`, as `list.insert` counts."""
        self._check_open()
        fields = list(_terminated_fields(self._split()))
        fields.insert(index, Field(_make(name, value)))
        self._set_fields(tuple(fields))

    def change(self, name: str, value: str | bytes, occurrence: int = 0) -> None:
        """Gives the field of this name (the first, or that of index `occurrence`) a new value.

        Adds the field at the end where it is missing, as a milter's `chgheader` does.
        """
        self._check_open()
        fields = list(self._split())
        places = self._places(name)
        if not 0 <= occurrence < len(places):
            self.add(name, value)
            return
        fields[places[occurrence]] = Field(_make(fields[places[occurrence]].name, value))
        self._set_fields(tuple(fields))

    def splice(self, name: str, start: int, end: int, new: bytes) -> None:
        """Replaces octets `start` to `end` of the body of the first field of this name.

        Raises:
            ValueError: there is no such field, or `new` contains a line end or NUL.
        """
        self._check_open()
        if _LINE_BREAKING.search(new):
            raise ValueError(f"new octets for {name} contain a line end or NUL")
        field = self._first(name)
        if field is None:
            raise ValueError(f"there is no field {name}")
        colon = field.raw.index(b":") + 1
        raw = field.raw[: colon + start] + new + field.raw[colon + end :]
        fields = list(self._split())
        fields[self._places(name)[0]] = Field(raw)
        self._set_fields(tuple(fields))

    def replace(
        self, name: str, spans: Iterable[tuple[int, int, str]], occurrence: int = 0
    ) -> None:
        """Replaces spans of a field's text: each `(start, end, new)` is in characters of its value.

        The field is the first of this name, or that of index `occurrence`. Everything outside of
        the spans keeps its octets: folds, and encoded words that no span touches. Those that one
        does touch keep their charset and encoding where the new text fits them, and become UTF-8
        where not. The value afterwards is the old one with the spans replaced, stripped; in a
        Japanese charset, 〜 (U+301C) and the like come back as the forms that `charset` decodes to.
        Where a broken field would read otherwise with less, all of its text is encoded anew.

        In fields that hold mailboxes, names and comments can be replaced, addresses cannot. There
        new text is quoted, escaped or encoded so that it stays part of its name.

        Raises:
            ValueError: there is no such field, spans overlap or lie outside of its value, new text
                contains a control character other than TAB, or a span touches an address.
            MessageSealedError: the message is sealed.
        """
        self._check_open()
        if self._fields is None:
            raw = self.raw
            places = self._find_all(name.lower().encode())
            start, end = _chosen(places, occurrence, name)
            old = raw[start:end]
            new = _replaced(old, spans)
            if new is not old:
                self._set_raw(raw[:start] + new + raw[end:])
        else:
            index = _chosen(self._places(name), occurrence, name)
            old = self._fields[index].raw
            new = _replaced(old, spans)
            if new is not old:
                before, after = self._fields[:index], self._fields[index + 1 :]
                self._set_fields((*before, Field(new), *after))

    def delete(self, name: str, occurrence: int | None = None) -> int:
        """Deletes all fields of this name, or the one of index `occurrence`.

        Returns how many were deleted.
        """
        self._check_open()
        if self._fields is None and occurrence is None:
            return self._cut(self._find_all(name.lower().encode()))
        places = self._places(name)
        if occurrence is not None:
            places = places[occurrence : occurrence + 1] if occurrence >= 0 else []
        if places:
            gone = set(places)
            kept = [field for index, field in enumerate(self._split()) if index not in gone]
            self._set_fields(tuple(kept))
        return len(places)

    def _cut(self, places: list[tuple[int, int]]) -> int:
        """Takes stretches out of `raw`."""
        raw, lowered = self.raw, self._lowered
        for start, end in reversed(places):
            raw = raw[:start] + raw[end:]
            if lowered is not None:
                lowered = lowered[:start] + lowered[end:]
        if places:
            self._set_raw(raw)
            self._lowered = lowered
        return len(places)

    def copy(self, guard: Guard | None = None) -> Headers:
        """An independent copy; cheap, for the fields are shared.

        What may be changed in it is what `guard` says, or else what may be in this one now.
        """
        if guard is None and self._guard is not None:
            guard = self._guard.copy()
        new = Headers(b"", guard)
        new._raw, new._fields, new._lowered = self._raw, self._fields, self._lowered
        return new

    def seal(self) -> None:
        """From now on everything but `prepend` raises MessageSealedError."""
        self._guard = Guard(SEALED)

    def state(self) -> State:
        """What `restore` needs to undo later changes. Costs nothing: fields are never changed."""
        return self._raw, self._fields

    def restore(self, state: State) -> None:
        """Undoes all changes since `state()`, sealed or not."""
        self._raw, self._fields = state
        self._lowered = None

    def _places(self, name: str) -> list[int]:
        lower = name.lower().encode()
        return [index for index, field in enumerate(self._split()) if field.lower == lower]

    def _set_raw(self, raw: bytes) -> None:
        self._raw, self._fields, self._lowered = raw, None, None

    def _set_fields(self, fields: tuple[Field, ...]) -> None:
        self._raw, self._fields, self._lowered = None, fields, None

    def _check_open(self) -> None:
        if self._guard is not None:
            self._guard.check("headers.change")

    def __repr__(self) -> str:
        return f"Headers({self.raw!r})"


Place = TypeVar("Place")


def _chosen(places: list[Place], occurrence: int, name: str) -> Place:
    if not 0 <= occurrence < len(places):
        raise ValueError(f"there is no field {name} of index {occurrence}")
    return places[occurrence]


def _replaced(raw: bytes, spans: Iterable[tuple[int, int, str]]) -> bytes:
    """A field with spans of its value replaced; the same object where nothing changes."""
    colon = raw.find(b":") + 1
    end = len(raw) - 2 if raw.endswith(b"\r\n") else len(raw)
    old = raw[colon:end]
    new = header_text.replace(raw[:colon], old, spans)
    return raw if new is old else raw[:colon] + new + raw[end:]


def _terminated(raw: bytes) -> bytes:
    return raw if raw.endswith(b"\r\n") or not raw else raw + b"\r\n"


def _terminated_fields(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    if fields and not fields[-1].raw.endswith(b"\r\n"):
        return (*fields[:-1], Field(fields[-1].raw + b"\r\n"))
    return fields


def _make(name: str, value: str | bytes) -> bytes:
    """A new field's bytes.

    Raises:
        ValueError: the name is not a field name (RFC 5322 2.2), or the value would end its field.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header field name")
    if isinstance(value, str):
        if _CONTROL.search(value):
            raise ValueError(f"the value of {name} contains a control character")
        return encode_value(name, value)
    if not _RAW_VALUE.fullmatch(value):
        raise ValueError(f"the value of {name} has a bare line end, a blank line or a NUL")
    space = b"" if not value or value[:1] in b" \t\r" else b" "
    return b"%b:%b%b\r\n" % (name.encode("ascii"), space, value)
