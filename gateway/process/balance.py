"""How many connections each worker has, in memory that all workers share. Pure.

Each cell has one worker that writes it, so no lock is needed. What a worker has given to another
one, and that one has not begun with, counts for it already: else a crowd that comes at once would
all be given to the same.
"""

from __future__ import annotations

from collections import deque

CELL = 8
"""Octets of a number."""

TOLERANCE = 8
"""A difference of one part in so many is left as it is: to give a connection away is work."""

PATIENCE = 0.1
"""Seconds until a worker must have begun with what it was given; else it gets no more for now: it
may be stuck in a plugin."""

_ABSENT = -1


def octets(workers: int) -> int:
    """The size of the memory for so many workers."""
    return CELL * workers * (1 + 2 * workers)


class Balance:
    """One worker's view of all of them.

    Args:
        memory: what all of them share, zeros at first.
        workers: how many there are.
        index: which of them this is, from 0.
    """

    def __init__(self, memory: memoryview, workers: int, index: int) -> None:
        self._cells = memory.cast("B").cast("q")
        self._workers = workers
        self._index = index
        # First the numbers of connections, then a row of each worker for what it has given to
        # each, then one for what it has begun with of each.
        self._given = workers * (1 + index)
        self._taken = workers * (1 + workers)
        self._waiting: list[deque[tuple[int, float]]] = [deque() for _ in range(workers)]

    def enter(self, connections: int) -> None:
        """This worker has so many connections, and takes others from now on."""
        workers, mine = self._workers, self._taken + self._workers * self._index
        for giver in range(workers):
            # What is still on its way to the process before this one comes here, or is lost.
            self._cells[mine + giver] = self._cells[workers * (1 + giver) + self._index]
        self.note(connections)

    def note(self, connections: int) -> None:
        """This worker has so many connections."""
        self._cells[self._index] = connections

    def leave(self) -> None:
        """This worker takes none from others."""
        self._cells[self._index] = _ABSENT

    def lightest(self, now: float) -> int | None:
        """The worker that a new connection goes to; None: it stays here.

        `now` is in seconds, on the same clock as in `gave`.
        """
        workers, index, cells = self._workers, self._index, self._cells
        loads = cells[:workers].tolist()
        given = cells[self._given : self._given + workers].tolist()
        taken = cells[self._taken + index :: workers].tolist()
        own = loads[index]
        chosen, least = None, own - own // TOLERANCE
        for number, load in enumerate(loads):
            if load == _ABSENT:
                continue
            load += given[number] - taken[number]
            if load < least and not self._is_slow(number, taken[number], now):
                chosen, least = number, load
        return chosen

    def _is_slow(self, worker: int, taken: int, now: float) -> bool:
        """Whether a worker has let something wait that it was given."""
        waiting = self._waiting[worker]
        while waiting and waiting[0][0] <= taken:
            waiting.popleft()
        return bool(waiting) and now - waiting[0][1] > PATIENCE

    def next_number(self, worker: int) -> int:
        """The number of the next connection that this worker gives to another one, from 1."""
        return self._cells[self._given + worker] + 1

    def gave(self, worker: int, number: int, now: float) -> None:
        """The connection with that number is on its way to another worker since `now`."""
        self._cells[self._given + worker] = number
        self._waiting[worker].append((number, now))

    def took(self, worker: int, number: int) -> None:
        """This worker has begun with a connection that another one gave it."""
        cell = self._taken + self._workers * self._index + worker
        self._cells[cell] = max(self._cells[cell], number)

    def close(self) -> None:
        """Lets go of the memory."""
        self._cells.release()
