"""How the contents of two messages differ: fields, text parts, other octets. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gateway.mail.encoded_text import EncodedText
from gateway.mail.headers import Headers, split
from gateway.mail.mime import Part, scan
from gateway.testing.diff import diff, shown, shown_text
from gateway.testing.fields import FieldChange, field_changes
from gateway.testing.spans import Span, spans_between

_DESCRIPTIONS = frozenset((b"content-type", b"content-transfer-encoding", b"mime-version"))
"""Fields that say how a text which is the whole body is written."""


@dataclass(frozen=True, slots=True)
class TextChange:
    """A text part that is another one.

    Attributes:
        index: its place among the message's parts of text that readers see, of any type, from 0.
        content_type: such as `text/plain`.
        before, after: its text, decoded, with LF as line end.
        before_octets, after_octets: the part's content as it stands in the message.
        spans: the octets that differ, those of the part's own header too.
    """

    index: int
    content_type: str
    before: str
    after: str
    before_octets: bytes
    after_octets: bytes
    spans: tuple[Span, ...]

    def __str__(self) -> str:
        what = f"{self.content_type}, text part {self.index}, changed"
        if self.before != self.after:
            before, after = self.before, self.after
            if before.endswith("\n") and after.endswith("\n"):
                before, after = before[:-1], after[:-1]
            return "\n".join((f"{what}:", *diff(shown_text(before), shown_text(after))))
        if self.before_octets == self.after_octets:
            return f"{what}: the same octets under another header, {self.spans[0]}"
        lines = diff(shown(self.before_octets), shown(self.after_octets))
        return "\n".join((f"{what}: the same text in other octets:", *lines))


@dataclass(frozen=True, slots=True)
class OtherChange:
    """Octets that changed outside of the header's fields and the text parts."""

    before: bytes
    after: bytes
    span: Span

    def __str__(self) -> str:
        return "\n".join(
            (f"other octets changed, {self.span}:", *diff(shown(self.before), shown(self.after)))
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """All changes of one message."""

    fields: tuple[FieldChange, ...] = ()
    texts: tuple[TextChange, ...] = ()
    others: tuple[OtherChange, ...] = ()


def compare(before: bytes, after: bytes) -> Comparison:
    """How two contents differ. Takes any octets, never raises, and is linear in their size."""
    if before == after:
        return Comparison()
    old_header, old_separator, old_body = split(before)
    new_header, new_separator, new_body = split(after)
    fields: Sequence[FieldChange] = ()
    if old_header != new_header:
        fields = field_changes(old_header, new_header)
    others: list[OtherChange] = []
    if old_separator != new_separator:
        place, new_place = len(old_header), len(new_header)
        span = Span(place, place + len(old_separator), new_place, new_place + len(new_separator))
        others.append(OtherChange(old_separator, new_separator, span))
    texts: tuple[TextChange, ...] = ()
    if old_body != new_body:
        old = _Body(old_header, old_body, len(before) - len(old_body))
        new = _Body(new_header, new_body, len(after) - len(new_body))
        texts = tuple(_texts(old, new)) if old.types == new.types else ()
        others += _others(old, new)
        if texts and old.is_text:
            fields = [_described(one, old.types[0]) for one in fields]
    return Comparison(tuple(fields), texts, tuple(others))


def _described(change: FieldChange, content_type: str) -> FieldChange:
    lower = change.name.lower().encode("latin-1")
    if lower in _DESCRIPTIONS and change.kind in ("added", "changed"):
        return replace(change, describes=content_type)
    return change


# The body.


class _Body:
    """A body and its parts of text.

    Attributes:
        octets: all of it.
        start: its place in the message.
        parts: the parts of text that a reader sees, as `Message.text_parts` finds them.
        types: their types.
        is_text: whether the body is one text, without parts.
    """

    def __init__(self, header: bytes, octets: bytes, start: int) -> None:
        self.octets = octets
        self.start = start
        self.parts = [
            part
            for part in scan(octets, Headers(header)).walk()
            if part.content_type.startswith("text/")
            and not part.embedded
            and not part.is_attachment
        ]
        self.types = [part.content_type for part in self.parts]
        self.is_text = len(self.parts) == 1 and self.parts[0].depth == 0

    def content(self, part: Part) -> bytes:
        """The octets of a part, without its header."""
        return self.octets[part.start : part.end]

    def text(self, part: Part) -> str:
        """What a reader sees of a part."""
        return EncodedText(self.content(part), part.transfer_encoding, part.charset).text

    def ends(self, other: _Body) -> list[int]:
        """Where the parts of text end, as against those of another body.

        An empty part may touch the delimiter after it. If it does not in the other body, the line
        end in front of that delimiter came or went with its text.
        """
        return [
            part.end + 2 * (match.touches and not part.touches)
            for part, match in zip(self.parts, other.parts, strict=True)
        ]

    def gaps(self, ends: list[int]) -> list[tuple[int, int]]:
        """The stretches before, between and after the parts of text."""
        starts = [part.header_start for part in self.parts]
        return list(zip([0, *ends], [*starts, len(self.octets)], strict=True))


def _texts(old: _Body, new: _Body) -> Iterator[TextChange]:
    ends, new_ends = old.ends(new), new.ends(old)
    for index, (part, other) in enumerate(zip(old.parts, new.parts, strict=True)):
        spans = spans_between(
            old.octets[part.header_start : ends[index]],
            new.octets[other.header_start : new_ends[index]],
            old.start + part.header_start,
            new.start + other.header_start,
        )
        if spans:
            yield TextChange(
                index,
                part.content_type,
                old.text(part),
                new.text(other),
                old.content(part),
                new.content(other),
                spans,
            )


def _others(old: _Body, new: _Body) -> Iterator[OtherChange]:
    """What differs between the parts of text; everything, where those cannot be matched."""
    gaps, new_gaps = [(0, len(old.octets))], [(0, len(new.octets))]
    if old.types == new.types:
        gaps, new_gaps = old.gaps(old.ends(new)), new.gaps(new.ends(old))
    for (start, end), (new_start, new_end) in zip(gaps, new_gaps, strict=True):
        for span in spans_between(
            old.octets[start:end],
            new.octets[new_start:new_end],
            old.start + start,
            new.start + new_start,
        ):
            yield OtherChange(
                old.octets[span.start - old.start : span.end - old.start],
                new.octets[span.new_start - new.start : span.new_end - new.start],
                span,
            )
