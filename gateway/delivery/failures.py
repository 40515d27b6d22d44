"""Which next hops have not let us in lately, so that no mail waits for them in vain. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from gateway.attempt import Outcome

_QUICK = 1.0
"""A refusal within so many seconds keeps nobody waiting."""

_QUICK_PAUSES = (1.0, 30.0)
_SLOW_PAUSES = (30.0, 600.0)
_MOST = 10_000


@dataclass(slots=True)
class _Failure:
    """How an attempt failed at `seen`; until `until` there is no other. Loop time."""

    outcome: Outcome
    seen: float
    until: float
    pause: float


class Failures:
    """Remembers the places that did not let us in.

    A place is whatever fails as one: an address, a port, and where we come from. After a failure
    it is left alone for a pause; then one attempt is made, and if that fails as well, the pause
    becomes twice as long. It is 1 to 30 seconds for those that refuse at once, and 30 seconds to
    10 minutes for those that keep us waiting, or may lock us out for trying too often.

    Times are in seconds on any one clock.
    """

    def __init__(self) -> None:
        self._failures: dict[Hashable, _Failure] = {}

    def reason(self, place: Hashable, now: float) -> Outcome | None:
        """Why a place is to be left alone now; None if it may be tried."""
        failure = self._failures.get(place)
        if failure is None or now >= failure.until:
            return None
        ago, left = now - failure.seen, failure.until - now
        # No reply to this message: rules on replies must not count it once more.
        return replace(
            failure.outcome,
            code=0,
            text=f"{failure.outcome.reply} ({ago:.0f} s ago; left alone for another {left:.0f} s)",
        )

    def begin(self, place: Hashable, now: float) -> None:
        """An attempt begins. If the last one failed, others wait for how this one ends."""
        failure = self._failures.get(place)
        if failure is not None and now >= failure.until:
            failure.until = now + failure.pause

    def add(
        self, place: Hashable, outcome: Outcome, began: float, now: float, *, slow: bool = False
    ) -> None:
        """An attempt failed that began at `began`; `slow` if it must not be made often."""
        first, longest = _SLOW_PAUSES if slow or now - began >= _QUICK else _QUICK_PAUSES
        failure = self._failures.pop(place, None)
        if failure is None:
            pause = first
        elif began < failure.seen:
            # One of several at the same time.
            pause = max(first, failure.pause)
        else:
            pause = min(max(first, failure.pause * 2), longest)
        if len(self._failures) >= _MOST:
            del self._failures[next(iter(self._failures))]
        self._failures[place] = _Failure(outcome, now, now + pause, pause)

    def forget(self, place: Hashable) -> None:
        """An attempt succeeded."""
        self._failures.pop(place, None)

    def clear(self) -> None:
        """All places may be tried at once."""
        self._failures.clear()
