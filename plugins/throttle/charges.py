"""Which messages have taken their part of the limits already, and were not sent. Pure.

Between being admitted and being sent, mail may have to wait for a connection, and is then asked
about again.
"""

from __future__ import annotations

_LASTS = 60.0
_MOST = 10_000

Key = tuple[str, str]
"""A message's queue id and its first recipient in the attempt."""


class Charges:
    """Remembers who has paid."""

    def __init__(self) -> None:
        self._paid: dict[Key, float] = {}

    def add(self, key: Key, now: float) -> None:
        """This one has paid."""
        if len(self._paid) >= _MOST:
            # The oldest come first.
            del self._paid[next(iter(self._paid))]
        self._paid[key] = now

    def holds(self, key: Key, now: float) -> bool:
        """Whether it has paid, not long ago."""
        paid = self._paid.get(key)
        return paid is not None and 0 <= now - paid < _LASTS

    def end(self, key: Key) -> None:
        """The attempt was made: the next one pays anew."""
        self._paid.pop(key, None)
