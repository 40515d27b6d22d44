"""How many connections may be open at a time, over all processes, and whose turn it is."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from gateway.limits import Lease, Limits

_WANTED = "wanted "
"""What the keys begin with under which processes say that they wait for a connection."""

_ASKING = 0.5
"""Seconds for which a process that waits has asked; it asks again before."""


class Place:
    """Room for one connection under some ceilings; given back when the connection closes.

    Attributes:
        ceilings: the names under which it counts, and how many may count there.
    """

    __slots__ = ("_count", "_leases", "ceilings")

    def __init__(self, count: Counter[str]) -> None:
        self.ceilings: dict[str, int] = {}
        self._count = count
        self._leases: list[Lease] = []

    def widen(self, ceilings: Mapping[str, int], lease: Lease | None) -> None:
        """Counts under these names as well; the lease is for those that are new."""
        self._count.update(ceilings.keys() - self.ceilings.keys())
        self.ceilings.update(ceilings)
        if lease is not None:
            self._leases.append(lease)

    def release(self) -> None:
        """Gives it back."""
        self._count.subtract(self.ceilings.keys())
        self.ceilings = {}
        while self._leases:
            self._leases.pop().release()


class Ceilings:
    """Hands out places under ceilings, and sees to it that all processes get their turn.

    A process that has no connection under a ceiling, and gets none, asks for one. Whoever has one
    for long enough sees that, closes it, and stays away for a moment.

    All methods may raise OSError and LimitsFullError.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._ours = float(secrets.randbits(48))
        self._count: Counter[str] = Counter()
        self._away: dict[str, float] = {}

    def place(self, ceilings: Mapping[str, int]) -> Place | None:
        """Room for another connection; None if there is none."""
        place = Place(self._count)
        if ceilings:
            if self._away and self._away_from(ceilings):
                return None
            lease = self._limits.lease(ceilings)
            if lease is None:
                return None
            place.widen(ceilings, lease)
        return place

    def full(self, ceilings: Mapping[str, int]) -> set[str]:
        """The names under which there is no room now."""
        reached = {key for key, most in ceilings.items() if self._limits.leased(key) >= most}
        return reached | self._away_from(ceilings)

    def is_above(self, place: Place, ceilings: Mapping[str, int]) -> bool:
        """Whether a connection is one too many, now that its ceilings are lower than they were."""
        held = place.ceilings
        for key, most in ceilings.items():
            if most < held.get(key, most) and self._limits.leased(key) > most:
                return True
        return False

    def covers(self, place: Place, ceilings: Mapping[str, int]) -> bool:
        """Whether a connection may serve under these ceilings; then it counts under all of them."""
        if ceilings == place.ceilings:
            return True
        missing = {key: most for key, most in ceilings.items() if key not in place.ceilings}
        lease = self._limits.lease(missing) if missing else None
        if missing and lease is None:
            return False
        place.widen(ceilings, lease)
        return True

    def ask(self, keys: Iterable[str]) -> None:
        """Tells other processes that this one waits, for where it has nothing."""
        now = self._clock()
        asked = (self._ours, now + _ASKING, "")
        for key in keys:
            if not self._count[key]:
                self._limits.change(_WANTED + key, now, lambda _: asked)

    def is_wanted(self, place: Place) -> bool:
        """Whether another process waits for a connection under the names of this one.

        Not for a moment after the last one was closed for others: one may be enough for them.
        """
        if self._away and self._away_from(place.ceilings):
            return False
        now = self._clock()
        cells = (self._limits.read(_WANTED + key, now) for key in place.ceilings)
        return any(cell is not None and cell.value != self._ours for cell in cells)

    def stay_away(self, place: Place) -> None:
        """Takes nothing under the names of a place that is for others, for a moment."""
        until = time.monotonic() + _ASKING
        self._away.update(dict.fromkeys(place.ceilings, until))

    def _away_from(self, ceilings: Mapping[str, int]) -> set[str]:
        now = time.monotonic()
        self._away = {key: until for key, until in self._away.items() if until > now}
        return self._away.keys() & ceilings.keys()
