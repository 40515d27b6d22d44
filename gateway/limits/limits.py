"""Limits that all processes share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.limits.cell import Cell, fitting
from gateway.limits.gcra import BACKWARDS, adapted, arrive, available
from gateway.limits.layout import BODY, CELL, PLACES, RATE, RATE_BODY, RECORD
from gateway.limits.lease import Lease, Leases
from gateway.limits.limits_file import LimitsFile
from gateway.limits.rate import Allowance, Rate, Take
from gateway.limits.table import Table, head, is_sound

_REMEMBERED = 65536
"""Keys of which a process remembers the places, and cells that it remembers whole."""


class _RatePlace(NamedTuple):
    """Where a rate is: its beginning, what has to stand there, and its first float."""

    beginning: slice
    head: bytes
    first: int


_NOWHERE = _RatePlace(slice(0), b"?", 0)


class _Look(NamedTuple):
    """What a look at a cell saw: that holds as long as its serial is the same."""

    cell: Cell | None
    serial: int
    changes: int
    head: bytes
    chain: int


class Limits:
    """Rates, counters and leases that all processes of a gateway share.

    Each process opens the file for itself, after it was forked, and uses it in one thread. What
    calls change is seen by all others at once, exactly, and survives restarts; what a process
    holds by lease ends with it. `now` is in seconds since the epoch.

    All calls may raise OSError (the file cannot be opened, the disk is full); those that need a
    place for a new key LimitsFullError.

    Attributes:
        path: the file, which is opened, and made if need be, when it is first used.
        places: how many keys a new file has room for.
    """

    def __init__(self, path: Path, *, places: int = PLACES) -> None:
        self.path = path
        self.places = places
        self._file: LimitsFile | None = None
        self._now = math.nan
        self._rates: dict[str, _RatePlace] = {}
        self._looks: dict[str, _Look] = {}

    def open(self) -> None:
        """Opens the file now rather than at its first use.

        Raises:
            OSError: it cannot be opened or made.
        """
        self._opened()

    def take(self, takes: Sequence[Take], now: float) -> float:
        """0.0: all were taken. Otherwise none was, and the seconds until all may be.

        That time is not reserved: others may be quicker. Takes of one key are added up; a key is
        for one rate. If its rate has changed, as many are owed as before.
        """
        file = self._file or self._opened()
        octets, floats, rates = file.octets, file.floats, self._rates
        since = now - file.header.base
        self._now = now
        wait = 0.0
        arrivals: dict[int, float] = {}
        try:
            if file.lock():
                file.wait()
            for take in takes:
                beginning, head, first = rates.get(take.key) or _NOWHERE
                if octets[beginning] != head:
                    first = self._rate_place(take, now, arrivals).first
                if first in arrivals:
                    break
                rate = take.rate
                if (
                    floats[first + 2] != rate.interval
                    or floats[first + 3] != rate.burst
                    or floats[first + 1] - since > BACKWARDS
                ):
                    self._adapt(first, rate, since)
                arrival = floats[first]
                if arrival <= since:  # nothing is owed: as `arrive` would say
                    arrivals[first] = since + take.amount * rate.interval
                    continue
                delay, arrivals[first] = arrive(
                    arrival, since, rate.interval, rate.burst, take.amount
                )
                if delay > wait:
                    wait = delay
            else:
                if wait:
                    return wait
                for first, arrival in arrivals.items():
                    floats[first] = arrival
                    floats[first + 1] = since
                return 0.0
        finally:
            file.unlock()
        return self.take(_added(takes), now)

    def rates(self, prefix: str, now: float) -> list[Allowance]:
        """How the rates stand whose keys begin so, sorted by key. Some that rest are left out."""
        file = self._opened()
        since = now - file.header.base
        allowances = {}
        for key, record in self._table.scan(RATE, prefix):
            arrival, last, interval, burst, count, seconds = RATE_BODY.unpack_from(record, BODY)
            if last - since > BACKWARDS:
                arrival = adapted(arrival, last, interval, since, interval)
            free = available(arrival, since, interval, burst)
            allowances[key] = Allowance(key, Rate(count, seconds, max(1.0, burst)), free)
        return [allowances[key] for key in sorted(allowances)]

    def lease(self, ceilings: Mapping[str, int]) -> Lease | None:
        """A place under all ceilings, or None if one is reached.

        It counts until it is released, or until the process ends, however it does. A ceiling that
        is lower than what is held already takes nothing away.
        """
        self._opened()
        return self._leases.grant(ceilings, self._now)

    def leased(self, key: str) -> int:
        """How many leases are held under a key, over all processes."""
        self._opened()
        return self._leases.held(key)

    def leases(self, prefix: str) -> dict[str, int]:
        """How many leases are held, by key, where the key begins so and some are."""
        self._opened()
        return dict(sorted(self._leases.scan(prefix)))

    def read(self, key: str, now: float) -> Cell | None:
        """The cell, if there is one and it has not expired."""
        look = self._looks.get(key)
        if look is None or self._words[look.serial] != look.changes:
            look = self._look(key)
        cell = look.cell
        return cell if cell is not None and now < cell.expires else None

    def change(
        self, key: str, now: float, change: Callable[[Cell | None], tuple[float, float, str]]
    ) -> Cell:
        """Replaces a cell by (value, expires, text) of what it was, with nobody in between.

        `change` gets the cell, or None if there is none that has not expired. It is called again,
        with what is there then, if another process was quicker, so it should do nothing else.
        What expires at once is forgotten. A text is cut to 250 octets of UTF-8.

        Raises:
            ValueError: the value or the expiry is NaN.
        """
        file = self._opened()
        self._now = now
        while True:
            before = self.read(key, now)
            look = self._looks[key]
            value, expires, text = change(before)
            cell = Cell(key, float(value), float(expires), fitting(text))
            if before is not None and cell == before:
                return before
            body = cell.pack()
            try:
                if file.lock():
                    file.wait()
                if file.words[look.serial] == look.changes:
                    self._table.count_up(look.serial)
                    self._store(look, cell, body, now)
                    self._remember(key, cell, look.head, look.chain)
                    return cell
            finally:
                file.unlock()

    def remove(self, key: str) -> None:
        """Forgets a cell."""
        file = self._opened()
        beginning = head(CELL, key)
        chain = self._table.chain(beginning)
        try:
            if file.lock():
                file.wait()
            offset = self._table.find(beginning, chain)
            if offset:
                self._table.count_up(self._table.serial(chain))
                self._table.forget(offset)
        finally:
            file.unlock()

    def cells(self, prefix: str, now: float) -> list[Cell]:
        """The cells whose keys begin so and that have not expired, sorted by key."""
        self._opened()
        cells = {key: Cell.unpack(key, record) for key, record in self._table.scan(CELL, prefix)}
        return [cells[key] for key in sorted(cells) if now < cells[key].expires]

    def close(self) -> None:
        """Gives the file back, and with it all leases. What is used again is opened again."""
        file, self._file = self._file, None
        self._rates.clear()
        self._looks.clear()
        if file is not None:
            self._leases.close()
            file.close()

    def _opened(self) -> LimitsFile:
        if self._file is None:
            file = LimitsFile.open(self.path, self.places)
            self._table = Table(file, self.path)
            self._leases = Leases(file, self._table)
            self._words = file.words
            self._file = file
        return self._file

    def _rate_place(self, take: Take, now: float, arrivals: Mapping[int, float]) -> _RatePlace:
        """Finds or makes a rate; those of the arrivals keep their places. The lock is held."""
        assert self._file is not None
        beginning = head(RATE, take.key)
        chain = self._table.chain(beginning)
        offset = self._table.find(beginning, chain)
        if not offset:
            rate, since = take.rate, now - self._file.header.base
            numbers = (since, since, rate.interval, rate.burst, rate.count, rate.seconds)
            pinned = [first * 8 - BODY for first in arrivals]
            offset = self._table.make(beginning, chain, RATE_BODY.pack(*numbers), now, pinned)
        if len(self._rates) >= _REMEMBERED:
            self._rates.clear()
        place = _RatePlace(slice(offset, offset + len(beginning)), beginning, (offset + BODY) // 8)
        self._rates[take.key] = place
        return place

    def _adapt(self, first: int, rate: Rate, since: float) -> None:
        """Makes a record fit a rate that has changed, or a clock. The lock is held."""
        assert self._file is not None
        floats = self._file.floats
        arrival, last, pace = floats[first : first + 3]
        if 0 < last - since <= BACKWARDS:
            since = last
        # If the process ends in between, nothing is owed, and not a multiple of it.
        floats[first] = floats[first + 1] = since
        for number, value in enumerate((rate.interval, rate.burst, rate.count, rate.seconds), 2):
            floats[first + number] = value
        floats[first] = adapted(arrival, last, pace, since, rate.interval)

    def _look(self, key: str) -> _Look:
        file = self._opened()
        beginning = head(CELL, key)
        chain = self._table.chain(beginning)
        try:
            if file.lock():
                file.wait()
            offset = self._table.find(beginning, chain)
            record = file.octets[offset : offset + RECORD] if offset else b""
            cell = Cell.unpack(key, record) if record and is_sound(record) else None
            return self._remember(key, cell, beginning, chain)
        finally:
            file.unlock()

    def _remember(self, key: str, cell: Cell | None, beginning: bytes, chain: int) -> _Look:
        """Keeps what is true now, while the lock is held."""
        if len(self._looks) >= _REMEMBERED:
            self._looks.clear()
        serial = self._table.serial(chain)
        look = _Look(cell, serial, self._words[serial], beginning, chain)
        self._looks[key] = look
        return look

    def _store(self, look: _Look, cell: Cell, body: bytes, now: float) -> None:
        """Writes a cell. The lock is held."""
        assert self._file is not None
        offset = self._table.find(look.head, look.chain)
        if cell.expires <= now:
            if offset:
                self._table.forget(offset)
        elif offset:
            self._file.write(body, offset + BODY)
        else:
            self._table.make(look.head, look.chain, body, now)


def _added(takes: Sequence[Take]) -> list[Take]:
    """One take for each key."""
    sums: dict[str, Take] = {}
    for take in takes:
        amount = take.amount + (sums[take.key].amount if take.key in sums else 0)
        sums[take.key] = Take(take.key, take.rate, amount)
    return list(sums.values())
