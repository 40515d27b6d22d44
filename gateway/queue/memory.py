"""How much of the queue is in memory, and how much more may be. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.mail.large_content import Content
from gateway.queue.lane import Bounds, Window
from gateway.spool.queue_entry import Entry

LARGEST_CONTENT = 128 << 10
"""Octets up to which a message is kept in memory until it is tried."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a dispatcher has to do now.

    Attributes:
        lanes: those that it knows.
        attempts: those that are under way.
        recipients, octets: as in `Memory`.
    """

    lanes: int
    attempts: int
    recipients: int
    octets: int


class Memory:
    """Counts recipients and contents that are in memory.

    Attributes:
        recipients: how many of all lanes are.
        octets: the size of the contents that are.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.recipients = 0
        self.octets = 0

    def room(self, window: Window) -> int:
        """How many more recipients of a window may come in."""
        bounds, known = self._bounds, len(window.known)
        return max(
            min(bounds.window - known, bounds.memory - self.recipients), bounds.share - known
        )

    def load(self, *, lanes: int, attempts: int) -> Load:
        """What there is to do, with so many lanes, and attempts under way."""
        return Load(lanes, attempts, self.recipients, self.octets)

    @property
    def is_full(self) -> bool:
        """Whether there is no room but the share that each window has."""
        return self.recipients >= self._bounds.memory

    @property
    def is_half_empty(self) -> bool:
        """Whether lanes that found no room should look again."""
        return self.recipients < self._bounds.memory // 2

    def keep(self, entry: Entry, content: Content) -> None:
        """Keeps the content of an entry that is tried soon, if it is small and there is room."""
        size = len(content)
        if size <= LARGEST_CONTENT and self.octets + size <= self._bounds.octets:
            self.octets += size
            entry.content = content
        else:
            entry.content = None

    def drop(self, entry: Entry) -> Content | None:
        """Lets go of the content of an entry, and returns it; None if it is on disk only."""
        content, entry.content = entry.content, None
        if content is not None:
            self.octets -= len(content)
        return content
