"""Lines that differ, for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

MOST_LINES = 40
"""Lines of one diff that are shown."""

LONGEST = 200
"""Characters of a line that are shown."""

_MOST_PAIRS = 10_000
_CONTEXT = 2


def diff(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """A diff with a little context: lines that begin with two spaces, `- ` or `+ `."""
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    lines = [f"  {line}" for line in before[max(0, head - _CONTEXT) : head]]
    if len(old) * len(new) > _MOST_PAIRS:
        lines += [f"- {line}" for line in old] + [f"+ {line}" for line in new]
    else:
        for tag, first, last, new_first, new_last in SequenceMatcher(
            None, old, new, autojunk=False
        ).get_opcodes():
            if tag == "equal":
                lines += [f"  {line}" for line in old[first:last]]
                continue
            lines += [f"- {line}" for line in old[first:last]]
            lines += [f"+ {line}" for line in new[new_first:new_last]]
    lines += [f"  {line}" for line in before[len(before) - tail :][:_CONTEXT]]
    more = len(lines) - MOST_LINES
    if more > 0:
        lines = [*lines[:MOST_LINES], f"  ... {more} lines more"]
    return [line if len(line) <= LONGEST else f"{line[:LONGEST]}..." for line in lines]


def shown(octets: bytes) -> list[str]:
    r"""Octets as lines of text; what is not printable ASCII is escaped, CRLF is not shown."""
    lines = octets.split(b"\r\n")
    if lines[-1] == b"":
        lines.pop()
    return [_escaped(line.decode("ascii", "backslashreplace")) for line in lines]


def shown_text(text: str) -> list[str]:
    """A text as lines; characters that one cannot see are escaped."""
    return [_escaped(line) for line in text.split("\n")]


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
