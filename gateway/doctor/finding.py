"""What an examination finds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "warning", "problem"]
"""A problem keeps mail up, loses it, or lets strangers in; a warning may become one; a note is
worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One clear sentence.

    Attributes:
        text: what was found.
        remedy: what to do about it; '' if there is nothing to do.
    """

    severity: Severity
    text: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"severity": self.severity, "text": self.text, "remedy": self.remedy}


def ok(text: str) -> Finding:
    """All is well."""
    return Finding("ok", text)


def note(text: str, remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding("note", text, remedy)


def warning(text: str, remedy: str) -> Finding:
    """Not well, and mail passes."""
    return Finding("warning", text, remedy)


def problem(text: str, remedy: str) -> Finding:
    """Mail is not safe, does not pass, or strangers do."""
    return Finding("problem", text, remedy)


def count(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[object], most: int = 5) -> str:
    """Some names in a row; of many, only the first."""
    shown = ", ".join(str(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def octets(number: int) -> str:
    """`512 octets`, `64 MiB`."""
    size = float(number)
    for unit in ("octets", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if size >= 10 or size.is_integer() else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
