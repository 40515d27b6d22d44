"""Where two strings of octets differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate

_MOST_PAIRS = 10_000
"""Pairs of lines that are compared to find the shortest difference; beyond, one span is enough."""


@dataclass(frozen=True, slots=True)
class Span:
    """Octets `start` to `end` of the old became octets `new_start` to `new_end` of the new."""

    start: int
    end: int
    new_start: int
    new_end: int

    def __str__(self) -> str:
        return f"{self.start}:{self.end} -> {self.new_start}:{self.new_end}"


def spans_between(old: bytes, new: bytes, start: int = 0, new_start: int = 0) -> tuple[Span, ...]:
    """The stretches that differ, in order; `start` and `new_start` are added to all places.

    Everything outside of them is the same in both. Linear in the size; where long texts differ in
    many lines and in their number, one span holds all of it.
    """
    if old == new:
        return ()
    head = common_prefix(old, new)
    tail = common_suffix(old, new, min(len(old), len(new)) - head)
    # Whole lines can be matched with each other.
    head = old.rfind(b"\n", 0, head) + 1
    tail = max(0, len(old) - _after_line_end(old, len(old) - tail))
    lines = old[head : len(old) - tail].splitlines(keepends=True)
    new_lines = new[head : len(new) - tail].splitlines(keepends=True)
    places = list(accumulate(map(len, lines), initial=start + head))
    new_places = list(accumulate(map(len, new_lines), initial=new_start + head))
    return tuple(
        _trimmed(
            old[places[first] - start : places[last] - start],
            new[new_places[new_first] - new_start : new_places[new_last] - new_start],
            places[first],
            new_places[new_first],
        )
        for first, last, new_first, new_last in _blocks(lines, new_lines)
    )


def _after_line_end(octets: bytes, place: int) -> int:
    """The first beginning of a line at or after a place; the end if there is none."""
    if place == 0 or octets[place - 1 : place] == b"\n":
        return place
    found = octets.find(b"\n", place)
    return len(octets) if found < 0 else found + 1


def _blocks(old: list[bytes], new: list[bytes]) -> Iterator[tuple[int, int, int, int]]:
    """Runs of lines that differ, none of them empty on both sides."""
    if len(old) == len(new):
        first: int | None = None
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            if one == other:
                if first is not None:
                    yield first, index, first, index
                first = None
            elif first is None:
                first = index
        if first is not None:
            yield first, len(old), first, len(new)
    elif len(old) * len(new) > _MOST_PAIRS:
        yield 0, len(old), 0, len(new)
    else:
        for tag, *block in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag != "equal":
                yield block[0], block[1], block[2], block[3]


def _trimmed(old: bytes, new: bytes, start: int, new_start: int) -> Span:
    """The span of two stretches, without what they have in common at their ends."""
    head = common_prefix(old, new)
    tail = common_suffix(old, new, min(len(old), len(new)) - head)
    return Span(
        start + head, start + len(old) - tail, new_start + head, new_start + len(new) - tail
    )


def common_prefix(one: bytes, other: bytes) -> int:
    """How many octets two strings have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def common_suffix(one: bytes, other: bytes, limit: int) -> int:
    """How many octets, at most `limit`, two strings have in common at their end."""
    low, high = 0, limit + 1
    while low < high - 1:
        middle = (low + high) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle
    return low
