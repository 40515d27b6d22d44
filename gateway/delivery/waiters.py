"""Deliveries that wait for a connection, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.attempt import Delivery, Hop, Source
from gateway.delivery.ceilings import Place
from gateway.delivery.connection import Connection
from gateway.delivery.tls import Requirement

WAITERS_PER_LANE = 4
"""Deliveries of one lane that wait at a time; more are told at once to come again."""


@dataclass(frozen=True, slots=True)
class Busy:
    """No connection may be opened now, and none became free: nothing was tried.

    `seconds` is when to ask again.
    """

    seconds: float
    reason: str


class Key(NamedTuple):
    """What connections have in common that may be used for each other."""

    site: str
    source: Source
    requirement: Requirement


Answer = Connection | Place | Busy
"""What a delivery gets that waited: a connection, room for a new one, or nothing."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A delivery that waits for a connection to one of `hops`, or if `room` for a place as well.

    `since` is on the loop's clock, `reason` why it waits.
    """

    key: Key
    hops: tuple[Hop, ...]
    delivery: Delivery
    room: bool
    reason: str
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    answer: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Waiters:
    """All that wait. Iterating gives those that have no answer yet; it may be changed meanwhile."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}
        self._by_lane: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([waiter for waiter in self._waiters if not waiter.answer.done()])

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._waiters

    def is_crowded(self, lane: str) -> bool:
        """Whether as many deliveries of a lane wait as may."""
        return self._by_lane.get(lane, 0) >= WAITERS_PER_LANE

    def add(self, waiter: Waiter) -> None:
        """It waits, behind all others."""
        self._waiters[waiter] = None
        lane = waiter.delivery.lane
        self._by_lane[lane] = self._by_lane.get(lane, 0) + 1

    def answer(self, waiter: Waiter, answer: Answer) -> None:
        """It has waited long enough."""
        self.remove(waiter)
        waiter.answer.set_result(answer)

    def remove(self, waiter: Waiter) -> None:
        """It waits no longer."""
        del self._waiters[waiter]
        lane = waiter.delivery.lane
        self._by_lane[lane] -= 1
        if not self._by_lane[lane]:
            del self._by_lane[lane]
