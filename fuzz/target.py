"""What can be fuzzed: a function that must survive any octets, and what its input looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Check = Callable[[bytes], None]


class BrokenLawError(AssertionError):
    """Something that holds for any input did not hold for this one."""


@dataclass(frozen=True, slots=True)
class Target:
    """A thing to fuzz.

    Attributes:
        name: what it is called on the command line.
        check: reads an input, and raises where anything is wrong with what came of it.
        seeds: inputs to begin with.
        tokens: pieces that make sense in an input.
        close: gives back what the target holds.
    """

    name: str
    check: Check
    seeds: Sequence[bytes]
    tokens: Sequence[bytes]
    close: Callable[[], None] = lambda: None


def law(holds: object, what: str) -> None:
    """Says what does not hold.

    Raises:
        BrokenLawError: it does not.
    """
    if not holds:
        raise BrokenLawError(what)
