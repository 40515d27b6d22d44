"""Leases: places under ceilings, counted for each process that holds some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.limits.layout import BODY, LEASE, MOST_LEASES, SLOT_COUNT, SLOTS
from gateway.limits.limits_file import LimitsFile
from gateway.limits.table import LimitsFullError, Table, head

_NO_COUNTS = bytes(2 * SLOT_COUNT)

Place = tuple[int, bytes]
"""A record that counts a lease, and what it begins with."""


class Lease:
    """A place under some ceilings, held until it is released or the process ends."""

    _places: tuple[Place, ...] = ()

    def __init__(self, leases: Leases, places: tuple[Place, ...]) -> None:
        self._leases = leases
        self._places = places

    def release(self) -> None:
        """Gives it back. Once is enough; more does no harm."""
        places, self._places = self._places, ()
        if places:
            self._leases.give_back(places)

    def __del__(self) -> None:
        # The collector may come while this very process holds the lock: later, then.
        if self._places:
            self._leases.forgotten.append(self._places)


class Leases:
    """The leases of a process in an open file.

    A process that holds leases has a slot, with a lock on it that the kernel drops when the process
    ends. A lease's record has a count for each slot, and the counts of slots that nobody locks are
    void.

    Attributes:
        forgotten: the places of leases that nobody released and nobody can any more.
    """

    def __init__(self, file: LimitsFile, table: Table) -> None:
        self._file = file
        self._table = table
        self._slot: int | None = None
        self._closed = False
        self.forgotten: list[tuple[Place, ...]] = []

    def grant(self, ceilings: Mapping[str, int], now: float) -> Lease | None:
        """A place under all ceilings, or None if one is reached.

        Raises:
            LimitsFullError: there is no place for another key or another process.
        """
        if not ceilings:
            return Lease(self, ())
        heads = [(head(LEASE, key), ceiling) for key, ceiling in ceilings.items()]
        while self.forgotten:
            self.give_back(self.forgotten.pop())
        file, halves = self._file, self._file.halves
        try:
            if file.lock():
                file.wait()
            slot = self._own_slot()
            offsets: list[int] = []
            for beginning, ceiling in heads:
                chain = self._table.chain(beginning)
                offset = self._table.find(beginning, chain)
                if not offset:
                    offset = self._table.make(beginning, chain, _NO_COUNTS, now, offsets)
                elif not self._has_room(offset, slot, ceiling):
                    return None
                if ceiling < 1:
                    return None
                offsets.append(offset)
            for offset in offsets:
                halves[self._count(offset, slot)] += 1
            return Lease(self, tuple(zip(offsets, (one for one, _ in heads), strict=True)))
        finally:
            file.unlock()

    def give_back(self, places: tuple[Place, ...]) -> None:
        """Counts down what a lease had counted up."""
        if self._closed or self._slot is None:
            return
        file, octets, halves = self._file, self._file.octets, self._file.halves
        try:
            if file.lock():
                file.wait()
            for offset, beginning in places:
                count = self._count(offset, self._slot)
                if octets[offset : offset + len(beginning)] == beginning and halves[count]:
                    halves[count] -= 1
        finally:
            file.unlock()

    def held(self, key: str) -> int:
        """How many leases living processes hold under a key."""
        beginning = head(LEASE, key)
        try:
            if self._file.lock():
                self._file.wait()
            offset = self._table.find(beginning, self._table.chain(beginning))
            if not offset:
                return 0
            self._clear_dead(offset)
            return self._sum(offset)
        finally:
            self._file.unlock()

    def scan(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The keys that begin so under which leases are held, and how many."""
        for key, _ in self._table.scan(LEASE, prefix):
            count = self.held(key)
            if count:
                yield key, count

    def close(self) -> None:
        """No lease is given back any more: closing the file does it."""
        self._closed = True

    def _has_room(self, offset: int, slot: int, ceiling: int) -> bool:
        if self._file.halves[self._count(offset, slot)] >= MOST_LEASES:
            return False
        if self._sum(offset) >= ceiling:
            self._clear_dead(offset)
            return self._sum(offset) < ceiling
        return True

    def _sum(self, offset: int) -> int:
        first = self._count(offset, 0)
        return sum(self._file.halves[first : first + self._slots()])

    def _clear_dead(self, offset: int) -> None:
        halves = self._file.halves
        for slot in range(self._slots()):
            count = self._count(offset, slot)
            if halves[count] and slot != self._slot and not self._file.is_seized(1 + slot):
                halves[count] = 0

    def _slots(self) -> int:
        return min(self._file.words[SLOTS], SLOT_COUNT)

    def _own_slot(self) -> int:
        """The slot of this process; the first time, one that nobody holds."""
        if self._slot is not None:
            return self._slot
        words = self._file.words
        for slot in range(SLOT_COUNT):
            if self._file.seize(1 + slot):
                words[SLOTS] = max(self._slots(), slot + 1)
                self._table.clear_counts(slot)
                self._slot = slot
                return slot
        raise LimitsFullError(f"{SLOT_COUNT} processes hold leases already; there may be no more")

    @staticmethod
    def _count(offset: int, slot: int) -> int:
        """Where, in halves, the count of a slot is."""
        return ((offset + BODY) >> 1) + slot
