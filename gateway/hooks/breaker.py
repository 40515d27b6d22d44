"""When a hook that fails again and again is not called for a while. Pure.

A database that is gone makes a plugin fail at each message, and each message waits for the whole
timeout before it fails. The breaker spares that: the entry's `on_error` applies at once.

Why nobody can take down the mail of others with it, by mail that makes a plugin raise:

- Only faults without a success between them open it. Where others' mail passes the plugin, it takes
  `FAULTS` bad messages in a row, and a single good one begins the count anew.
- The first pause is one second. It grows only as long as each trial fails, that is as long as the
  plugin fails for whoever comes first.
- Who floods the gateway with bad mail between the good would open it again and again. That shows: a
  plugin that is out of order does not answer well right after a pause. Each time that a trial has
  gone well, twice as many faults in a row are needed, until it was quiet for `CALM`. Of mail whose
  every second message is bad, some hundredths are not let through to the plugin, and not all.
- What is refused meanwhile is refused for now: clients keep their mail, and come again.
"""

from __future__ import annotations

from typing import Literal

FAULTS = 5
"""Faults in a row that open a breaker."""

MOST_FAULTS = FAULTS << 10
"""Faults in a row that open a breaker which was opened in vain again and again."""

CALM = 3600.0
"""Seconds after which a breaker that has closed is as if it had never been open."""

SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds until a call is tried: at first, and after many that failed."""

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Whether one hook of a plugin is called.

    Whoever calls a hook asks `allows` before if there were faults, and tells `succeed`, `fail` or
    `withdraw` afterwards. While it is open one call at a time is allowed, the trial. Calls that
    began before it opened or closed tell nothing about the time after, and are not counted.

    Times are in seconds of any one clock that does not go back.

    Attributes:
        faults_in_a_row: since the last success; 0 only if it is closed.
        opened_at: when it opened, or its last trial failed; None if it is closed.
        retry_at: from when on a call is tried.
        reason: how the last call failed.
    """

    __slots__ = (
        "_closed_at",
        "_needed",
        "_pause",
        "_trial",
        "_trial_ends",
        "faults_in_a_row",
        "opened_at",
        "reason",
        "retry_at",
    )

    def __init__(self) -> None:
        self.faults_in_a_row = 0
        self.opened_at: float | None = None
        self.retry_at = 0.0
        self.reason = ""
        self._pause = 0.0
        self._needed = FAULTS
        self._closed_at: float | None = None
        self._trial: float | None = None
        self._trial_ends = 0.0

    def state(self, now: float) -> State:
        """`open`: no call is allowed; `half-open`: a trial is under way, or the next call is it."""
        if self.opened_at is None:
            return "closed"
        if self._trial is not None or now >= self.retry_at:
            return "half-open"
        return "open"

    def allows(self, now: float, timeout: float) -> bool:
        """Whether a call may begin now. If it is open, the one that is allowed is the trial.

        A trial of which nothing is heard within its `timeout` has failed.
        """
        if self.opened_at is None:
            return True
        if self._trial is not None and now > self._trial_ends:
            self._open(now)
        if self._trial is not None or now < self.retry_at:
            return False
        self._trial, self._trial_ends = now, now + timeout
        return True

    def succeed(self, started: float, now: float) -> bool:
        """A call that began at `started` has gone well. True if that closes the breaker."""
        if self.opened_at is not None:
            if started != self._trial:
                return False
            self.opened_at = self._trial = None
            self._pause = 0.0
            self._closed_at = now
            self._needed = min(self._needed * 2, MOST_FAULTS)
            self.faults_in_a_row = 0
            return True
        if self._counts(started):
            self.faults_in_a_row = 0
        return False

    def fail(self, started: float, now: float, reason: str) -> bool:
        """A call that began at `started` has failed. True if that opens the breaker.

        A trial that fails lets it be open for longer, and does not open it.
        """
        if self.opened_at is not None:
            if started == self._trial:
                self.reason = reason
                self.faults_in_a_row += 1
                self._open(now)
            return False
        if not self._counts(started):
            return False
        self.reason = reason
        self.faults_in_a_row += 1
        if self._closed_at is not None and now - self._closed_at >= CALM:
            self._closed_at, self._needed = None, FAULTS
        if self.faults_in_a_row < self._needed:
            return False
        self._open(now)
        return True

    def withdraw(self, started: float) -> None:
        """A call that began at `started` has ended without a result: nobody waits for it any more.

        If it was the trial, the next call is.
        """
        if started == self._trial:
            self._trial = None

    def is_stale(self, started: float) -> bool:
        """Whether a call that began at `started` tells nothing about how the plugin is now."""
        if self.opened_at is not None:
            return started != self._trial
        return not self._counts(started)

    def _counts(self, started: float) -> bool:
        return self._closed_at is None or started >= self._closed_at

    def _open(self, now: float) -> None:
        self.opened_at = now
        self._trial = None
        self._pause = min(max(self._pause * 2, SHORTEST_PAUSE), LONGEST_PAUSE)
        self.retry_at = now + self._pause
