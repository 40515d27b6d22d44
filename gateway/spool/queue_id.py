"""Queue ids: the name of an accepted message in replies, logs, reports and commands.

An id is a number of 63 bits: microseconds since 2024 and the number of the spool shard that made
it. As text it is 13 characters of Crockford's base 32: sortable by time, without I, L, O and U.
"""

from __future__ import annotations

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 13
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_EPOCH = 1_704_067_200  # 2024-01-01T00:00:00Z

SHARD_BITS = 13


def make(now: float, shard: int, last: int) -> int:
    """The next id of a shard: greater than `last`, whatever the clock does."""
    number = (int((now - _EPOCH) * 1_000_000) << SHARD_BITS) | shard
    if number > last:
        return number
    # `last` may come from another shard, whose number must not be in the new id.
    return ((last >> SHARD_BITS) + 1 << SHARD_BITS) | shard


def to_text(number: int) -> str:
    """The id as people see it."""
    pairs = _PAIRS
    return (
        f"{_ALPHABET[number >> 60]}{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}"
        f"{pairs[number >> 30 & 1023]}{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}"
        f"{pairs[number & 1023]}"
    )


def from_text(text: str) -> int:
    """The number of an id, in either case.

    Raises:
        ValueError: the text is no queue id.
    """
    if len(text) != _LENGTH:
        raise ValueError(f"{text!r} is no queue id: expected {_LENGTH} characters")
    number = 0
    for character in text.upper():
        value = _VALUES.get(character)
        if value is None:
            raise ValueError(f"{text!r} is no queue id: it has no {character!r}")
        number = number << 5 | value
    if number >> 63:
        raise ValueError(f"{text!r} is no queue id")
    return number
