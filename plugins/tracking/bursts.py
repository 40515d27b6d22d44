"""Tells programs from people by how fast the links of one message are followed. Pure.

A person follows one link at a time. A mail security product that hides behind a browser's
User-Agent follows them all, within seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from gateway.hooks import Event

TRAILS = 10_000
"""Messages, each with one recipient, that are remembered at a time."""
AT_ONCE = 1.0
"""Seconds within which nobody follows two links."""
MOST_LINKS = 64
MOST_UNMARKED = 8
MOST_REQUESTS = 100
"""Requests of one trail within the window that are worth recording."""


@dataclass(slots=True)
class Trail:
    """What was lately asked for of one message, as one recipient got it.

    Attributes:
        burst: the links are being followed faster than a person can.
        flood: there are more requests within the window than are worth recording.
    """

    last: float
    since: float
    burst: bool = False
    flood: bool = False
    requests: int = 0
    burst_until: float = float("-inf")
    links: dict[int, float] = field(default_factory=dict)
    unmarked: list[tuple[float, Event]] = field(default_factory=list)

    def keep(self, event: Event) -> None:
        """Remembers an event that is emitted as a person's, as it may prove to be none."""
        if len(self.unmarked) < MOST_UNMARKED:
            self.unmarked.append((self.last, event))

    def take(self) -> list[Event]:
        """The events of the window that were emitted as a person's; they are forgotten."""
        events = [event for _, event in self.unmarked]
        self.unmarked.clear()
        return events


class Bursts:
    """The trails of the messages that were asked for last, in bounded memory.

    Args:
        links: a burst is this many different links of a message …
        window: … within this many seconds; or two links within one second.
    """

    def __init__(self, links: int, window: float) -> None:
        self._burst = links
        self._window = window
        self._trails: OrderedDict[tuple[str, str], Trail] = OrderedDict()

    def __len__(self) -> int:
        return len(self._trails)

    def step(self, message_id: str, recipient: str, link: str, now: float) -> Trail:
        """Notes one request and returns the trail that it belongs to.

        Args:
            message_id: which message.
            recipient: to whom it went.
            link: what identifies the link; '' for what is loaded without being followed.
            now: seconds, on a clock that is never set back.
        """
        trails = self._trails
        key = (message_id, recipient)
        trail = trails.get(key)
        if trail is None:
            trail = trails[key] = Trail(now, now)
            self._forget(now)
        else:
            trails.move_to_end(key)
        self._note(trail, hash(link) if link else 0, now)
        return trail

    def _note(self, trail: Trail, link: int, now: float) -> None:
        start = now - self._window
        trail.last = now
        if trail.since < start:
            trail.since, trail.requests = now, 0
        trail.requests += 1
        trail.flood = trail.requests > MOST_REQUESTS
        if trail.unmarked and trail.unmarked[0][0] < start:
            trail.unmarked = [entry for entry in trail.unmarked if entry[0] >= start]
        links = trail.links
        if link and (link in links or len(links) < MOST_LINKS):
            links[link] = now
        if len(links) > 1:
            trail.links = links = {one: time for one, time in links.items() if time >= start}
            at_once = sum(time > now - AT_ONCE for time in links.values()) > 1
            if at_once or len(links) >= self._burst:
                trail.burst_until = now + self._window
        trail.burst = now < trail.burst_until

    def _forget(self, now: float) -> None:
        """Lets go of trails whose window has passed, and of the oldest if there are too many."""
        trails = self._trails
        start = now - self._window
        while len(trails) > TRAILS or next(iter(trails.values())).last < start:
            trails.popitem(last=False)
