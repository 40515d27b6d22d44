"""Durations, counted by how long they were. Pure."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (
    *(1e-05, 2.5e-05, 5e-05, 1e-04, 2.5e-04, 5e-04, 1e-03, 2.5e-03, 5e-03),
    *(1e-02, 2.5e-02, 1e-01, 2.5e-01, 1.0, 5.0, 10.0, 30.0),
)
"""The longest duration of each bucket but the last, in seconds."""


class Histogram:
    """How often something took how long.

    Attributes:
        counts: how many durations are in each bucket, one more than there are `BOUNDS`: up to and
            with a bound, and above the one before it. The last bucket has what is longer than all.
        seconds: the sum of all durations.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    @property
    def calls(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        """Counts one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
