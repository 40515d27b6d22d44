"""When mail that was deferred is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and for how long delivery is tried. All times are in seconds.

    `schedule` holds the intervals after the first, second, ... attempt; the last one repeats.
    `jitter` is the part of an interval (0 to 1) by which it is made longer or shorter at random, so
    that mail deferred together does not come back together. `lifetime` counts from the arrival.
    After `warn_after` the sender is told that mail is late; None: only if asked for.

    Raises:
        ValueError: there is no interval, or a value is out of its range.
    """

    schedule: tuple[float, ...]
    jitter: float
    lifetime: float
    warn_after: float | None = None

    def __post_init__(self) -> None:
        if not self.schedule or not all(interval > 0 for interval in self.schedule):
            raise ValueError(f"the schedule {self.schedule} must hold intervals above 0 seconds")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"a jitter of {self.jitter} is not at least 0 and below 1")
        if not self.lifetime > 0:
            raise ValueError(f"a lifetime of {self.lifetime} seconds is not above 0")


def next_attempt(
    now: float, received: float, attempts: int, policy: RetryPolicy, random: float
) -> float | None:
    """When to try again, in seconds since the epoch; None: the lifetime is over (RFC 5321 4.5.4.1).

    An interval that would pass the end of the lifetime is cut short, so that the last attempt is
    made exactly at the end and nothing is given up without a try near it.

    Args:
        now: when the last attempt ended, in seconds since the epoch.
        received: when the message was accepted, or was to be sent at the earliest, in seconds since
            the epoch.
        attempts: how many were made so far, at least 1.
        policy: the intervals and the lifetime.
        random: from 0 to 1; 0.5 means no jitter.

    Raises:
        ValueError: no attempt was made yet.
    """
    if attempts < 1:
        raise ValueError(f"{attempts} attempts: the schedule starts after the first one")
    end = received + policy.lifetime
    if now >= end:
        return None
    interval = policy.schedule[min(attempts, len(policy.schedule)) - 1]
    return min(now + interval * (1 + policy.jitter * (2 * random - 1)), end)
