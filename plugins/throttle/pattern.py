"""Regular expressions on replies: they compile, and no reply keeps them busy for long. Pure.

How long one may take is estimated from its parts: in how many ways they can match a text of
`LONGEST` characters. What could take exponentially long, or the third power of that, is refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

LONGEST = 500
"""Characters of a reply that patterns see. What a server has to say is said by then."""

_MOST_WAYS = float((LONGEST + 1) ** 2)

_BEYOND = 1e100

# What `re` itself compiles with; it has no public parser.
_parser: Any = importlib.import_module("re._parser")


@lru_cache(maxsize=1024)
def check_pattern(text: str) -> str:
    """Returns a pattern that can be used.

    Raises:
        ValueError: it does not compile, or it could take too long on some reply.
    """
    try:
        re.compile(text, re.IGNORECASE)
        parsed = _parser.parse(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if not text or parsed.getwidth()[0] == 0:
        raise ValueError(f"{text!r} matches an empty text, and so any reply")
    try:
        ways = _ways(parsed)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None
    if ways > _MOST_WAYS:
        raise ValueError(
            f"{text!r} could take very long on some replies; use at most two of * and + in a row, "
            "none inside of another, or give several patterns as a list"
        )
    return text


def _ways(parsed: Iterable[tuple[Any, Any]]) -> float:
    """In how many ways the parts of a pattern can match one text together, at most."""
    ways = 1.0
    for operator, value in parsed:
        ways = min(ways * _ways_of(str(operator), value), _BEYOND)
    return ways


def _ways_of(operator: str, value: Any) -> float:
    if operator in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, body = value
        return _repeated(int(least), min(int(most), LONGEST), _ways(body))
    if operator == "POSSESSIVE_REPEAT":
        _, _, body = value
        if len(body) > 1 or str(body[0][0]) == "SUBPATTERN":
            raise ValueError("has a + after the quantifier of a group, where some Pythons err")
        return 1.0
    if operator == "BRANCH":
        branches = value[1]
        ways = [_ways(branch) for branch in branches]
        return max(ways) if _begin_differently(branches) else sum(ways)
    if operator == "SUBPATTERN":
        return _ways(value[3])
    if operator == "ATOMIC_GROUP":
        return _ways(value)
    if operator in ("ASSERT", "ASSERT_NOT"):
        return _ways(value[1])
    if operator == "GROUPREF_EXISTS":
        _, first, second = value
        return _ways(first) + (_ways(second) if second else 1.0)
    return 1.0


def _repeated(least: int, most: int, inner: float) -> float:
    counts = most - least + 1
    if inner <= 1.0:
        return float(counts)
    # Each round has its choice; many rounds are beyond all bounds.
    return min(counts * min(inner, 1e6) ** min(most, 50), _BEYOND)


def _begin_differently(branches: Iterable[Any]) -> bool:
    """Whether each branch begins with another character, so that one at most can match."""
    firsts = []
    for branch in branches:
        if not branch or str(branch[0][0]) != "LITERAL":
            return False
        firsts.append(chr(branch[0][1]).casefold())
    return len(set(firsts)) == len(firsts)
