"""How the headers of two messages differ, field by field. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from gateway.mail.headers import Headers
from gateway.testing.diff import diff, shown
from gateway.testing.spans import Span, spans_between


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of the message's header that is another one.

    Attributes:
        kind: what became of it; `moved` is at another place, and the same octets.
        name: as it is written.
        before, after: its octets with all line ends; None where it is not there.
        spans: where they are in the two messages.
        describes: the type of the text that the field describes and that changed with it, such as
            `text/plain` where a text that is no longer ASCII needs another encoding; '' otherwise.
    """

    kind: Literal["added", "removed", "changed", "moved"]
    name: str
    before: bytes | None
    after: bytes | None
    spans: tuple[Span, ...]
    describes: str = ""

    def __str__(self) -> str:
        title = f"header field {self.name} {self.kind}:"
        if self.kind == "moved":
            old, new = self.spans[0], self.spans[-1]
            return f"{title} {old.start}:{old.end} -> {new.new_start}:{new.new_end}"
        return "\n".join((title, *diff(shown(self.before or b""), shown(self.after or b""))))


class _Header:
    """The fields of a header, and where each begins; one place more is the header's end."""

    def __init__(self, octets: bytes) -> None:
        self.fields = list(Headers(octets))
        self.raws = [one.raw for one in self.fields]
        self.places = list(accumulate(map(len, self.raws), initial=0))
        self.by_name: dict[bytes, list[int]] = {}
        for index, one in enumerate(self.fields):
            self.by_name.setdefault(one.lower, []).append(index)

    def span(self, index: int) -> tuple[int, int]:
        """Where a field is."""
        return self.places[index], self.places[index + 1]


def _after_previous(header: _Header, kept: Mapping[int, int], other: _Header) -> list[int]:
    """For each field the place in `other` after the partner of the last field that stays."""
    place = 0
    places = []
    for index in range(len(header.fields)):
        place = other.places[kept[index] + 1] if index in kept else place
        places.append(place)
    return places


def _before_next(header: _Header, kept: Mapping[int, int], other: _Header) -> list[int]:
    """For each field the place in `other` before the partner of the next field that stays."""
    place = other.places[-1]
    places = []
    for index in reversed(range(len(header.fields))):
        place = other.places[kept[index]] if index in kept else place
        places.append(place)
    return places[::-1]


def field_changes(before: bytes, after: bytes) -> list[FieldChange]:
    """How two headers differ, in the order of the second. Both begin where their messages do."""
    old, new = _Header(before), _Header(after)
    pairs: dict[int, int] = {}
    for name, indexes in old.by_name.items():
        pairs.update(_paired(old, new, indexes, new.by_name.get(name, [])))
    partners = set(pairs.values())
    staying = _staying(pairs)
    in_new = _after_previous(old, {index: pairs[index] for index in staying}, new)
    in_old = _before_next(new, {pairs[index]: index for index in staying}, old)
    found = []
    for index, field in enumerate(old.fields):
        other = pairs.get(index)
        start, end = old.span(index)
        gone = Span(start, end, in_new[index], in_new[index])
        if other is None:
            change = FieldChange("removed", field.name, field.raw, None, (gone,))
        elif index in staying:
            spans = spans_between(field.raw, new.raws[other], start, new.places[other])
            if not spans:
                continue
            change = FieldChange("changed", field.name, field.raw, new.raws[other], spans)
        else:
            spans = (gone, Span(in_old[other], in_old[other], *new.span(other)))
            kind: Literal["moved", "changed"]
            kind = "moved" if field.raw == new.raws[other] else "changed"
            change = FieldChange(kind, field.name, field.raw, new.raws[other], spans)
        found.append(change)
    for other, field in enumerate(new.fields):
        if other not in partners:
            span = Span(in_old[other], in_old[other], *new.span(other))
            found.append(FieldChange("added", field.name, None, field.raw, (span,)))
    return sorted(found, key=lambda change: (change.spans[-1].new_start, change.spans[0].start))


def _paired(
    old: _Header, new: _Header, olds: list[int], news: list[int]
) -> Iterator[tuple[int, int]]:
    """Which field became which, of those of one name: the same octets first, then in order."""
    shorter = min(len(olds), len(news))
    head = 0
    while head < shorter and old.raws[olds[head]] == new.raws[news[head]]:
        head += 1
    tail = 0
    while tail < shorter - head and old.raws[olds[-1 - tail]] == new.raws[news[-1 - tail]]:
        tail += 1
    yield from zip(olds[:head], news[:head], strict=True)
    yield from zip(olds[len(olds) - tail :], news[len(news) - tail :], strict=True)
    # What is left: equal octets elsewhere among them, and the rest in order.
    places: dict[bytes, list[int]] = {}
    left = dict.fromkeys(news[head : len(news) - tail])
    for index in reversed(left):
        places.setdefault(new.raws[index], []).append(index)
    rest = []
    for index in olds[head : len(olds) - tail]:
        equal = places.get(old.raws[index])
        if equal:
            other = equal.pop()
            del left[other]
            yield index, other
        else:
            rest.append(index)
    yield from zip(rest, left, strict=False)


def _staying(pairs: Mapping[int, int]) -> set[int]:
    """The most old fields that kept their order: the longest increasing chain of their partners."""
    lasts: list[int] = []
    chain: list[int] = []
    before: dict[int, int | None] = {}
    for index in sorted(pairs):
        length = bisect_left(lasts, pairs[index])
        before[index] = chain[length - 1] if length else None
        if length == len(lasts):
            lasts.append(pairs[index])
            chain.append(index)
        else:
            lasts[length], chain[length] = pairs[index], index
    staying: set[int] = set()
    last = chain[-1] if chain else None
    while last is not None:
        staying.add(last)
        last = before[last]
    return staying
