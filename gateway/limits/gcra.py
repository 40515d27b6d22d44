"""The generic cell rate algorithm (ITU-T I.371) for amounts, and for clocks that jump. Pure.

All of a rate's state is one time, the theoretical arrival time: until when the rate is used up by
what was taken, if it is paced evenly. How far that time lies ahead is what is owed.
"""

from __future__ import annotations

import math

BACKWARDS = 1.0
"""Seconds by which the clock must have gone back to count as set. Less is processes that read it
one after the other and came in another order, or a slow correction: for so long one can wait."""

EARLY = 1e-6
"""Seconds by which one may come too early, so that no rounding makes anybody wait."""


def arrive(
    arrival: float, now: float, interval: float, burst: float, amount: float
) -> tuple[float, float]:
    """Seconds to wait for `amount` (0.0: it may be taken now), and the arrival time if it is.

    Args:
        arrival: the theoretical arrival time until now, in seconds.
        now: the time.
        interval: seconds from one to the next.
        burst: how many may come at once.
        amount: how many are wanted.
    """
    # What is in the past, or no time at all, owes nothing.
    if not now < arrival < math.inf:
        return 0.0, now + amount * interval
    wait = arrival - now
    if burst > amount:
        wait -= (burst - amount) * interval
    if wait > EARLY:
        return wait, arrival
    return 0.0, arrival + amount * interval


def available(arrival: float, now: float, interval: float, burst: float) -> float:
    """How many may be taken at once; below 0: so many are owed beyond the burst."""
    return burst - (arrival - now) / interval if arrival > now else burst


def adapted(arrival: float, last: float, pace: float, now: float, interval: float) -> float:
    """The arrival time with as much owed now as before, at another rate or by another clock.

    It has to be kept at once, and not only when something is taken, or what is owed would get less
    at the old pace, or never.

    Args:
        arrival: the theoretical arrival time until now.
        last: when it was set.
        pace: the interval then.
        now: the time, which is before `last` if the clock has been set back.
        interval: seconds from one to the next.
    """
    # Also where the clock is only a little behind: that little may be many of a fast rate.
    owed = arrival - max(last, now)
    if not 0 < owed < math.inf or not 0 < pace < math.inf:
        return now
    return now + owed * interval / pace
