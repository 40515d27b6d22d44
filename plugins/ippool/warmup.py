"""Warm-up: how much a new source may send on each of its first days. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

CURVE = (
    *(50, 100, 200, 400, 600, 800, 1_000, 1_500, 2_000, 2_500),
    *(3_000, 4_000, 5_000, 6_500, 8_000, 10_000, 13_000, 16_000, 20_000, 25_000),
    *(30_000, 40_000, 50_000, 65_000, 80_000, 100_000, 125_000, 150_000, 175_000, 200_000),
)
"""Recipients a day and provider, for thirty days: half as many again a day, and no leaps later."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A warm-up: its first day, and the recipients of each provider on that day and those after."""

    since: date
    curve: tuple[int, ...]

    def day(self, today: date) -> int:
        """Which day of the warm-up this is: 1 the first, 0 and less before it."""
        return (today - self.since).days + 1

    def budget(self, today: date) -> int | None:
        """How many recipients of a provider may be sent to today; None: the source is warm.

        Before its first day a source sends nothing.
        """
        day = self.day(today)
        if day > len(self.curve):
            return None
        return self.curve[day - 1] if day > 0 else 0
