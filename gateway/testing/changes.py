"""What differs between two messages, for tests: exactly, and so that one can read it. Pure.

Fields, text parts and everything else are told apart in the words of `Plugin.changes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from gateway.mail.message import Message
from gateway.testing.comparison import OtherChange, TextChange, compare
from gateway.testing.diff import diff
from gateway.testing.fields import FieldChange
from gateway.testing.spans import Span

__all__ = ["Changes", "EnvelopeChange", "FieldChange", "OtherChange", "TextChange", "changes"]

_WORD = re.compile(r"sender|recipients|stream|body|parts|header:(?:\*|[!-9;-~]+)|text/[!-9;-~]+")
_WORDS = "sender, recipients, stream, header:NAME, header:*, text/plain, text/html, parts, body"


@dataclass(frozen=True, slots=True)
class EnvelopeChange:
    """Another sender, other recipients or another stream; `before` and `after` are its values."""

    what: Literal["sender", "recipients", "stream"]
    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{self.what} changed:", *diff(self.before, self.after)))


@dataclass(frozen=True)
class Changes:
    """What differs between two messages. It is false if nothing does; `str()` shows it as a diff.

    Attributes:
        before, after: both contents.
        fields: fields of the message's header that were added, removed, changed or moved.
        texts: text parts that changed.
        others: the other stretches of octets that changed.
        envelope: what changed outside of the content, where two `Message` were compared.
    """

    before: bytes = field(repr=False)
    after: bytes = field(repr=False)
    fields: tuple[FieldChange, ...] = ()
    texts: tuple[TextChange, ...] = ()
    others: tuple[OtherChange, ...] = ()
    envelope: tuple[EnvelopeChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fields or self.texts or self.others or self.envelope)

    @property
    def what(self) -> frozenset[str]:
        """What changed, such as `{"header:Subject", "text/plain"}`; see `only` for the words."""
        return frozenset(_word(change) for change in self._all())

    @property
    def spans(self) -> tuple[Span, ...]:
        """The stretches of octets that differ, in order; all else is the same in both."""
        found = [span for one in self.fields for span in one.spans]
        found += [span for one in self.texts for span in one.spans]
        found += [one.span for one in self.others]
        return tuple(sorted(found, key=lambda span: (span.start, span.new_start)))

    def beyond(self, *allowed: str) -> Changes:
        """The changes that `allowed` does not allow; its words are those of `only`.

        Raises:
            ValueError: there is no such word.
        """
        for word in allowed:
            if not _WORD.fullmatch(word):
                raise ValueError(f"{word!r} is no part of a message; there are {_WORDS}")
        words = {word.lower() for word in allowed}
        return replace(
            self,
            fields=tuple(one for one in self.fields if not _may(one, words)),
            texts=tuple(one for one in self.texts if not _may(one, words)),
            others=tuple(one for one in self.others if not _may(one, words)),
            envelope=tuple(one for one in self.envelope if not _may(one, words)),
        )

    def only(self, *allowed: str) -> None:
        """Asserts that nothing else changed than `allowed`; without words, that nothing did.

        The words are those of `Plugin.changes`: `sender`, `recipients`, `stream`, `header:NAME`,
        `header:*` (any field), a type of text part such as `text/plain`, `parts` (any text part)
        and `body` (all of it). Fields that describe a text which is the whole body, such as
        Content-Transfer-Encoding, may change with it.

        Raises:
            AssertionError: something else changed; the text shows it.
            ValueError: there is no such word.
        """
        __tracebackhide__ = True
        rest = self.beyond(*allowed)
        if rest:
            may = f"only {', '.join(allowed)} may change" if allowed else "nothing may change"
            raise AssertionError(f"{may}, but so did {', '.join(sorted(rest.what))}:\n{rest}")

    def _all(self) -> Iterator[EnvelopeChange | FieldChange | TextChange | OtherChange]:
        yield from self.envelope
        yield from self.fields
        yield from self.texts
        yield from self.others

    def __str__(self) -> str:
        return "\n".join(map(str, self._all())) or "nothing changed"

    def __repr__(self) -> str:
        return f"<Changes: {', '.join(sorted(self.what)) or 'none'}>"


def changes(before: bytes | Message, after: bytes | Message) -> Changes:
    """What differs between two messages, given as octets or as `Message`.

    It takes any octets, never raises and is linear in the size. Sender, recipients and stream are
    compared if both are a `Message`.
    """
    old = before if isinstance(before, bytes) else before.content
    new = after if isinstance(after, bytes) else after.content
    found = compare(old, new)
    envelope: tuple[EnvelopeChange, ...] = ()
    if isinstance(before, Message) and isinstance(after, Message):
        envelope = tuple(_envelope(before, after))
    return Changes(old, new, found.fields, found.texts, found.others, envelope)


def _envelope(before: Message, after: Message) -> Iterator[EnvelopeChange]:
    if before.sender != after.sender:
        yield EnvelopeChange("sender", (before.sender,), (after.sender,))
    old = tuple(recipient.address for recipient in before.recipients)
    new = tuple(recipient.address for recipient in after.recipients)
    if old != new:
        yield EnvelopeChange("recipients", old, new)
    if before.stream != after.stream:
        yield EnvelopeChange("stream", (before.stream,), (after.stream,))


def _word(change: EnvelopeChange | FieldChange | TextChange | OtherChange) -> str:
    match change:
        case EnvelopeChange():
            return change.what
        case FieldChange():
            return change.describes or f"header:{change.name}"
        case TextChange():
            return change.content_type
        case OtherChange():
            return "body"


def _may(change: EnvelopeChange | FieldChange | TextChange | OtherChange, words: set[str]) -> bool:
    word = _word(change).lower()
    if word in words:
        return True
    if isinstance(change, FieldChange):
        if "header:*" in words or f"header:{change.name}".lower() in words:
            return True
        return bool(change.describes) and not words.isdisjoint(("parts", "body"))
    return isinstance(change, TextChange) and not words.isdisjoint(("parts", "body"))
