"""When to ask again: who waits for the same limit is called one after the other. Pure.

If all who wait asked again at the next place, all but one would ask in vain, again and again.
"""

from __future__ import annotations

_LATE = 0.002
"""Seconds to be late by: timers may be early, and who comes too early has come in vain."""

_REMEMBERED = 10_000


class Pacing:
    """Hands out times at which to ask again."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def wait(self, key: str, wait: float, interval: float, longest: float, now: float) -> float:
        """Seconds until whoever was refused should ask again.

        Args:
            key: the limit.
            wait: seconds until there is a place.
            interval: seconds from one place to the next.
            longest: seconds after which to ask in any case.
            now: the time.
        """
        place = max(now + wait, self._next.get(key, 0.0))
        if place - now > max(wait, longest):
            # Also if the clock was set back.
            return max(wait, longest) + _LATE
        if len(self._next) >= _REMEMBERED and key not in self._next:
            self._next = {one: time for one, time in self._next.items() if time > now}
        self._next[key] = place + interval
        return place - now + _LATE
