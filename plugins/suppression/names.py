"""Entries that hold everywhere and are kept in memory: those of `gateway.yaml` and the file. Pure.

Whoever has many imports them into the database instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from plugins.suppression.address import Spelling, Target, is_pattern, normal_entry
from plugins.suppression.pattern import Pattern

_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(frozen=True, slots=True)
class Names:
    """Normal entries, ready to be looked up."""

    exact: frozenset[str] = frozenset()
    patterns: tuple[Pattern, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str], spelling: Spelling) -> Names:
        """Takes normal entries."""
        exact, patterns = set(), []
        for entry in entries:
            if is_pattern(entry):
                patterns.append(Pattern(entry))
            else:
                exact.add(spelling.reduced(entry))
        return cls(frozenset(exact), tuple(patterns))

    def __or__(self, other: Names) -> Names:
        return Names(self.exact | other.exact, (*self.patterns, *other.patterns))

    def find(self, target: Target) -> str | None:
        """An entry that names an address; None if none does."""
        exact = self.exact
        if exact:
            for name in target.names:
                if name in exact:
                    return name
        for pattern in self.patterns:
            if pattern.names(target):
                return pattern.text
        return None


def parse(lines: Iterable[str]) -> set[str]:
    """Reads a list: an entry on each line; `#` begins a comment.

    Raises:
        ValueError: a line is none; the text begins with its number.
    """
    entries = set()
    for number, line in enumerate(lines, 1):
        text = (_COMMENT.sub("", line) if "#" in line else line).strip()
        try:
            if text:
                entries.add(normal_entry(text))
        except ValueError as error:
            raise ValueError(f"{number}: {error}") from None
    return entries
