"""Records by key, in the file of limits.

What changes is stored in such an order that a process may be killed anywhere in between: a record
is part of a chain before its kind makes it valid, and it is invalid before it leaves one. All
functions but `scan` want the lock to be held.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Collection, Iterator
from hashlib import blake2b
from pathlib import Path

from gateway.limits.layout import (
    ALLOCATED,
    BODY,
    BOOT,
    BOOT_SIZE,
    CELL,
    CELL_BODY,
    CHAIN,
    FREE,
    GROWTH,
    HAND,
    HEADS,
    KEY,
    KEY_SIZE,
    LEASE,
    NEXT,
    RATE,
    RATE_BODY,
    RECORD,
    SEARCHED,
    SERIAL_COUNT,
    SERIALS,
    SLOT_COUNT,
    SLOTS,
    TEXT_SIZE,
    USED,
)
from gateway.limits.limits_file import LimitsFile

log = logging.getLogger("gateway.limits")

_GLANCES = 8
"""Records looked at for a place before the table grows."""

_BATCH = 64
"""Records copied at a time while others wait for the lock."""

_DAY = 86400.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_WORD = struct.Struct("=I")
_CUT_SIZE = KEY_SIZE - 33


class LimitsFullError(Exception):
    """There is no place for another key."""


def head(kind: int, key: str) -> bytes:
    """What a record of that kind and key begins with."""
    octets = key.encode(errors="backslashreplace")
    if len(octets) > KEY_SIZE:
        digest = blake2b(octets, digest_size=16).hexdigest()
        cut = octets[:_CUT_SIZE].decode(errors="ignore")
        octets = f"{cut}#{digest}".encode()
    return bytes((kind, len(octets))) + octets


class Table:
    """The records of a file. A record is named by its offset."""

    def __init__(self, file: LimitsFile, path: Path) -> None:
        self._file = file
        self._path = path
        self._places = file.header.places
        self._chains = file.header.chains
        self._first = file.header.records
        self._check_after_boot()

    def chain(self, head: bytes) -> int:
        """The number of the chain that such a record is in."""
        digest = blake2b(head, digest_size=4, key=self._file.header.secret).digest()
        return int.from_bytes(digest, "little") % self._chains

    def serial(self, chain: int) -> int:
        """Where, in words, the serial of the cells in a chain is."""
        return SERIALS + chain % SERIAL_COUNT

    def count_up(self, serial: int) -> None:
        """Tells all processes that what they remember of a cell has changed."""
        words = self._file.words
        words[serial] = (words[serial] + 1) & 0xFFFFFFFF

    def find(self, head: bytes, chain: int) -> int:
        """The record that begins so, or 0."""
        octets, words = self._file.octets, self._file.words
        number = words[HEADS + chain]
        size, used = len(head), self._used()
        for _ in range(used + 1):
            if not number:
                return 0
            if number > used:
                break
            offset = self._offset(number)
            if octets[offset : offset + size] == head:
                return offset
            number = words[(offset + NEXT) >> 2]
        log.warning("%s is damaged: put in order as far as possible", self._path)
        self._rebuild()
        return self.find(head, chain)

    def make(
        self, head: bytes, chain: int, body: bytes, now: float, pinned: Collection[int] = ()
    ) -> int:
        """A new record in the place of one that means nothing any more, if need be.

        Args:
            head: what it begins with; there is none that does.
            chain: its chain.
            body: the rest of it.
            now: the time, which decides what has expired; NaN: nothing has.
            pinned: records whose places must not be taken.

        Raises:
            LimitsFullError: no place is left.
            OSError: no place is left, and the disk is full.
        """
        file = self._file
        number = self._place(now, pinned)
        offset = self._offset(number)
        after = file.words[HEADS + chain]
        unpublished = bytes((FREE,)) + head[1:].ljust(NEXT - 1, b"\0")
        links = _WORD.pack(after) + _WORD.pack(chain)
        file.write(unpublished + links + body, offset)
        file.words[HEADS + chain] = number
        file.octets[offset] = head[0]
        return offset

    def forget(self, offset: int) -> None:
        """Makes a record invalid. Its place is taken when one is needed."""
        self._file.octets[offset] = FREE

    def scan(self, kind: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Key and content of the valid records whose keys begin so.

        Takes the lock itself, for a few records at a time.
        """
        beginning = prefix.encode(errors="backslashreplace")
        number = 1
        while number <= self._used():
            start = self._offset(number)
            end = self._offset(min(number + _BATCH, self._places + 1))
            try:
                if self._file.lock():
                    self._file.wait()
                octets = self._file.octets[start:end]
            finally:
                self._file.unlock()
            for place in range(0, len(octets), RECORD):
                if octets[place] == kind:
                    record = octets[place : place + RECORD]
                    key = record[KEY : KEY + record[1]]
                    if key.startswith(beginning) and is_sound(record):
                        yield key.decode(errors="replace"), record
            number += _BATCH

    def clear_counts(self, slot: int) -> None:
        """Makes the counts of a slot 0 in all leases."""
        file = self._file
        for number in range(1, self._used() + 1):
            offset = self._offset(number)
            if file.octets[offset] == LEASE:
                file.halves[((offset + BODY) >> 1) + slot] = 0

    def _offset(self, number: int) -> int:
        return self._first + (number - 1) * RECORD

    def _used(self) -> int:
        return min(self._file.words[USED], self._places)

    def _place(self, now: float, pinned: Collection[int]) -> int:
        """The number of a record to be overwritten, which is in no chain."""
        floats = self._file.floats
        used = self._used()
        number = self._search(min(_GLANCES, used), now, pinned)
        if number:
            return number
        problem: Exception = LimitsFullError(
            f"{self._path} is full: {self._places} rates, counters and pauses are in use,"
            " and none has expired"
        )
        if used < self._places:
            try:
                return self._grow(used + 1)
            except OSError as error:
                problem = error
        # Once a second at most: it takes long, and everybody waits.
        if not abs(now - floats[SEARCHED]) < 1:
            number = self._search(used, now, pinned)
            if number:
                return number
            floats[SEARCHED] = now
        raise problem

    def _grow(self, used: int) -> int:
        """Makes it so many records that are used."""
        file = self._file
        if used > file.words[ALLOCATED]:
            start = self._offset(used)
            end = min(start + GROWTH * RECORD, file.header.size)
            os.posix_fallocate(file.descriptor, start, end - start)
            file.words[ALLOCATED] = used - 1 + (end - start) // RECORD
        file.words[USED] = used
        return used

    def _search(self, glances: int, now: float, pinned: Collection[int]) -> int:
        words, used = self._file.words, self._used()
        number = words[HAND]
        for _ in range(glances):
            number = number % used + 1
            offset = self._offset(number)
            if offset not in pinned and self._is_spent(offset, now):
                words[HAND] = number
                self.forget(offset)
                self._unlink(number)
                return number
        words[HAND] = number
        return 0

    def _is_spent(self, offset: int, now: float) -> bool:
        """Whether a record says no more than none would."""
        file = self._file
        kind = file.octets[offset]
        place = (offset + BODY) >> 3
        if kind == RATE:
            arrival, last = file.floats[place] + file.header.base, file.floats[place + 1]
            # A change in the future was made by a clock that has been set back since.
            return arrival <= now or last + file.header.base > now + _DAY
        if kind == CELL:
            return file.floats[place + 1] <= now
        if kind == LEASE:
            counts = (offset + BODY) >> 1
            return not any(file.halves[counts : counts + SLOT_COUNT])
        return True

    def _unlink(self, number: int) -> None:
        """Takes a record out of its chain, if it is in one."""
        words, used = self._file.words, self._used()
        offset = self._offset(number)
        place = HEADS + words[(offset + CHAIN) >> 2] % self._chains
        for _ in range(used):
            other = words[place]
            if other == number:
                words[place] = words[(offset + NEXT) >> 2]
                return
            if not 0 < other <= used:
                return
            place = (self._offset(other) + NEXT) >> 2

    def _check_after_boot(self) -> None:
        """Where power failed, any page of the file may be older than the others."""
        try:
            boot = _BOOT_ID.read_bytes()[:BOOT_SIZE].ljust(BOOT_SIZE)
        except OSError:
            return
        file = self._file
        try:
            if file.lock():
                file.wait()
            if file.octets[BOOT : BOOT + BOOT_SIZE] != boot:
                if file.words[USED]:
                    self._rebuild()
                file.octets[BOOT : BOOT + BOOT_SIZE] = boot
        finally:
            file.unlock()

    def _rebuild(self) -> None:
        """Makes all chains anew of the records that are sound. They keep their places."""
        file = self._file
        words = file.words
        words[USED] = used = self._used()
        words[ALLOCATED] = words[HAND] = 0
        words[SLOTS] = min(words[SLOTS], SLOT_COUNT)
        file.floats[SEARCHED] = 0.0
        os.pwrite(file.descriptor, bytes(self._chains * 4), HEADS * 4)
        for number in range(1, used + 1):
            offset = self._offset(number)
            record = file.octets[offset : offset + RECORD]
            beginning = record[: KEY + record[1]]
            chain = self.chain(beginning)
            if not is_sound(record) or self.find(beginning, chain):
                self.forget(offset)
                continue
            words[(offset + NEXT) >> 2] = words[HEADS + chain]
            words[(offset + CHAIN) >> 2] = chain
            words[HEADS + chain] = number
        for serial in range(SERIALS, SERIALS + SERIAL_COUNT):
            self.count_up(serial)


def is_sound(record: bytes) -> bool:
    """Whether a record can be what a process has written."""
    kind = record[0]
    if record[1] > KEY_SIZE:
        return False
    if kind == RATE:
        arrival, last, *rate = RATE_BODY.unpack_from(record, BODY)
        return (
            math.isfinite(arrival)
            and math.isfinite(last)
            and all(0 < number < math.inf for number in rate)
        )
    if kind == CELL:
        value, expires, size = CELL_BODY.unpack_from(record, BODY)
        return not (math.isnan(value) or math.isnan(expires)) and size <= TEXT_SIZE
    return kind == LEASE
