"""A dispatcher whose clock can be moved."""

from __future__ import annotations

from typing import Any

from gateway.queue.courier import Later
from gateway.queue.dispatch import Dispatcher
from gateway.queue.lane import Lane
from gateway.spool.queue_entry import Entry


class MovedDispatcher(Dispatcher):
    """A dispatcher that looks at once what is due when its clock was moved.

    What waits in memory does so on the event loop's clock, which does not move: its waits are made
    shorter here.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._parked: dict[Entry, float] = {}

    def moved(self, seconds: float) -> None:
        """The clock was moved forward by so much."""
        now = self._loop.time()
        for lane in list(self._lanes.values()):
            if lane.paused_until:
                lane.paused_until -= seconds
                self._loop.call_at(max(now, lane.paused_until), self._resume, lane)
        for entry, due in list(self._parked.items()):
            self._parked[entry] = due - seconds
            self._loop.call_at(max(now, due - seconds), self._unpark, self._lane(entry.lane), entry)
        self.rescan()

    def _park(self, lane: Lane, entry: Entry, later: Later) -> bool:
        parked = lane.parked
        going = super()._park(lane, entry, later)
        if lane.parked > parked:
            self._parked[entry] = self._loop.time() + later.seconds
        return going

    def _unpark(self, lane: Lane, entry: Entry) -> None:
        # The timer of before the clock was moved comes too.
        if self._parked.pop(entry, None) is not None:
            super()._unpark(lane, entry)
