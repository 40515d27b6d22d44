"""Lanes: mail waiting in memory for one next-hop site, a bounded window of it by priority. Pure.

What is beyond the window stays on disk and is loaded when the window has run half empty, so mail
for a slow site costs no memory and delays nobody else.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gateway.spool.queue_entry import Entry

PRIORITIES = 3
_HIGH, _NORMAL, _LOW = (2, 1, 0), (1, 2, 0), (0, 1, 2)
TURNS = (_HIGH, _HIGH, _HIGH, _NORMAL, _HIGH, _HIGH, _HIGH, _LOW)
"""Which priority is served first, turn by turn: each has its share, so that none starves."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much dispatch does at a time.

    Attributes:
        window: recipients of one lane and priority that are in memory.
        memory: recipients of all lanes that are in memory.
        share: recipients of one lane and priority that may be in memory whatever others hold there,
            so that lanes which do not move cannot fill it.
        octets: size of the messages that are kept in memory until their first attempt.
        runners_per_lane, runners: attempts at the same time, in one lane and in all.
    """

    runners_per_lane: int
    window: int = 2000
    memory: int = 20_000
    share: int = 20
    octets: int = 64 << 20
    runners: int = 1000


class Window:
    """The mail of one priority in a lane that is in memory.

    Attributes:
        waiting: entries that no attempt has taken yet, oldest first.
        known: rows (id, number) that are in memory, waiting or being attempted.
        backlog: whether mail that is due waits on disk.
    """

    __slots__ = ("backlog", "known", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Entry] = deque()
        self.known: set[tuple[int, int]] = set()
        self.backlog = False


class Lane:
    """The mail for one next-hop site.

    Attributes:
        name: the static key that `Router.lane` gives.
        runners: how many attempts run now.
        parked: how many entries wait in memory for a time of their own.
        paused_until: when attempts may start again, in seconds of the loop's clock.
        crowded_until: until then no further runner is of use, as connections are limited.
        due: when what comes now is to be tried, in seconds since the epoch; 0: at once.
        reason: why it is not to be tried before.
    """

    __slots__ = (
        "_turn",
        "crowded_until",
        "due",
        "limit",
        "name",
        "parked",
        "paused_until",
        "reason",
        "runners",
        "windows",
    )

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.runners = self.parked = 0
        self.paused_until = self.crowded_until = self.due = 0.0
        self.reason = ""
        self.windows = tuple(Window() for _ in range(PRIORITIES))
        self._turn = 0

    def reserve(self, entry: Entry) -> bool:
        """Makes room in memory for an entry; False if it has to wait on disk."""
        window = self.windows[entry.priority]
        if window.backlog or len(window.known) + len(entry.items) > self.limit:
            window.backlog = True
            return False
        id_ = entry.envelope.id
        window.known.update([(id_, item.number) for item in entry.items])
        return True

    def forget(self, entry: Entry) -> None:
        """Gives the room of an entry back: it is settled, or was not accepted after all."""
        id_ = entry.envelope.id
        self.windows[entry.priority].known.difference_update(
            [(id_, item.number) for item in entry.items]
        )

    def take(self) -> Entry | None:
        """The next entry to attempt: the highest priority first, with a share for the others."""
        self._turn = (self._turn + 1) % len(TURNS)
        for priority in TURNS[self._turn]:
            waiting = self.windows[priority].waiting
            if waiting:
                return waiting.popleft()
        return None

    def put_back(self, entry: Entry) -> None:
        """An entry that was taken, and is the next one again."""
        self.windows[entry.priority].waiting.appendleft(entry)

    def empty(self) -> list[Entry]:
        """Takes out all entries that wait."""
        taken = [entry for window in self.windows for entry in window.waiting]
        for window in self.windows:
            window.waiting.clear()
        return taken

    def withdraw(self, rows: set[tuple[int, int]]) -> tuple[set[tuple[int, int]], list[Entry]]:
        """Takes rows that wait in memory out of it.

        Returns those that it found waiting, and the entries that have none left.
        """
        found: set[tuple[int, int]] = set()
        emptied: list[Entry] = []
        for window in self.windows:
            if rows.isdisjoint(window.known):
                continue
            for entry in list(window.waiting):
                id_ = entry.envelope.id
                gone = [item for item in entry.items if (id_, item.number) in rows]
                if not gone:
                    continue
                entry.items = [item for item in entry.items if item not in gone]
                found.update((id_, item.number) for item in gone)
                if not entry.items:
                    window.waiting.remove(entry)
                    emptied.append(entry)
            window.known -= found
        return found, emptied

    @property
    def waiting(self) -> int:
        """How many entries wait in memory."""
        return sum(len(window.waiting) for window in self.windows)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of this lane any more."""
        return (
            not self.runners
            and not self.due
            and not any(window.known or window.backlog for window in self.windows)
        )
