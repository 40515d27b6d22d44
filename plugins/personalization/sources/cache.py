"""Answers that are good for a while. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

_MOST = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """An answer that is in the cache."""

    answer: T
    until: float


class Cache(Generic[T]):
    """The newest ten thousand answers.

    Args:
        lifetime: seconds that an answer is good for; 0: nothing is kept.
        clock: seconds, on a clock that is never set back.
    """

    def __init__(self, lifetime: float, clock: Callable[[], float]) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._kept: dict[Hashable, Kept[T]] = {}

    def get(self, key: Hashable) -> Kept[T] | None:
        """What is kept for a key and still good."""
        kept = self._kept.get(key)
        if kept is None or kept.until > self._clock():
            return kept
        del self._kept[key]
        return None

    def put(self, key: Hashable, answer: T) -> None:
        """Keeps an answer."""
        if not self._lifetime:
            return
        # The oldest stand first, as all have the same lifetime.
        self._kept.pop(key, None)
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = Kept(answer, self._clock() + self._lifetime)
