"""Values of a recipient: what they may be, and how those of several sources become one. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NoReturn

MAX_DEPTH = 32
"""Lists and mappings inside of each other."""
MAX_SIZE = 1 << 20
"""Characters of all keys and texts of one recipient, and one for each value besides."""

MOST_ROWS = 1000
"""Rows of one recipient in a table."""

_PLAIN = frozenset({int, float, Decimal, bool, type(None)})


def read_json(text: str | bytes) -> Any:
    """Reads JSON (RFC 8259).

    Raises:
        ValueError: it is none; a json.JSONDecodeError where it can be said at which place.
    """
    try:
        if isinstance(text, str) and text[:1] == "{":
            # `loads` makes a decoder each time; it reads octets, and names a byte order mark.
            return _DECODER.decode(text)
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("too many lists and mappings inside of each other") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def check(values: object, size: int = MAX_SIZE) -> dict[str, Any]:
    """Returns values that a template can be given: a mapping with texts as keys.

    Values are text, numbers (int, float, Decimal), true and false, None, dates and times, and
    lists and mappings of these.

    Raises:
        ValueError: they are anything else, too deep or too large. Names the key; never shows a
            value.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected a mapping, not {_kind(values)}")
    length = _length_of_texts(values)
    if (_measure(values, MAX_DEPTH) if length is None else length) > size:
        raise ValueError(f"more than {size} characters for one recipient")
    return values


def _length_of_texts(values: dict[Any, Any]) -> int | None:
    """What `_measure` gives, found in one go where all values are texts; else None."""
    try:
        texts = "".join([*values, *values.values()])
        if not texts.isascii():
            texts.encode()
    except (TypeError, UnicodeEncodeError):
        return None
    return 1 + len(texts) + len(values)


def _measure(value: Any, depth: int) -> int:
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
        return len(value) + 1
    if type(value) in _PLAIN or isinstance(value, int | float | Decimal | date):
        return 1
    if not isinstance(value, dict | list):
        raise ValueError(f"a template cannot be given {_kind(value)}")
    if depth == 0:
        raise ValueError(f"more than {MAX_DEPTH} lists and mappings inside of each other")
    if isinstance(value, list):
        return 1 + sum([_measure(inner, depth - 1) for inner in value])
    size = 1
    for key, inner in value.items():
        if not isinstance(key, str):
            raise ValueError(f"expected text as a key, not {_kind(key)}")
        try:
            if not key.isascii():
                _check_text(key)
            size += len(key) + _measure(inner, depth - 1)
        except ValueError as error:
            raise ValueError(f"{printable(key[:40])}: {error}") from None
    return size


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no text") from None


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def printable(text: str) -> str:
    """A text that a log or a terminal can be given: no line ends, no control characters."""
    return "".join([character if character.isprintable() else "?" for character in text])


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, as a new mapping: where both have a key, mappings merge and else `second` counts.

    Neither argument is changed; the result shares their lists and inner mappings.
    """
    if not first:
        return dict(second)
    result = {**first, **second}
    for key in first.keys() & second.keys():
        old, new = first[key], second[key]
        if isinstance(old, dict) and isinstance(new, dict):
            result[key] = merge(old, new)
    return result
