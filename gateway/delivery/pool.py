"""The connections that are open: who may use which of them again, and who waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.attempt import Delivery, Hop
from gateway.delivery.ceilings import Ceilings, Place
from gateway.delivery.connection import Connection
from gateway.delivery.waiters import Answer, Busy, Key, Waiter, Waiters
from gateway.limits import LimitsFullError

IDLE_UNDER_CEILING = 1.0
"""Seconds that a connection under a ceiling stays idle: others may wait for its place."""

PATIENCE = 5.0
"""Seconds that a delivery waits for a connection."""

TURN = 2.0
"""Seconds that a connection is kept from those who wait under its ceiling and cannot use it: for
another group of servers in this process, or in other processes."""

LOOK = 0.05
"""How often, in seconds, those who wait look for places that other processes have given back."""

SELDOM = 10
"""Those that can wait for a connection that is open look only each so many times."""

LONGEST = 3600.0
"""Seconds after which it is looked for connections that are still busy with the same message. Each
reply has its time, but a server that takes all of it for each recipient has had enough."""

COME_AGAIN = 0.2
"""Seconds until a delivery that found no connection is worth trying again."""


class _Group:
    """The connections that may be used for each other, and those of them that are idle."""

    __slots__ = ("idle", "key", "members")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.members: set[Connection] = set()
        self.idle: list[Connection] = []


@dataclass(slots=True, eq=False)
class _Held:
    """What is known of an open connection.

    `turn` is when others may want its place, `transactions` how many there had been of late.
    """

    group: _Group
    place: Place
    turn: float
    transactions: int = -1


class Pool:
    """Keeps connections, hands them from one delivery to the next, and observes ceilings.

    Args:
        ceilings: where places are taken.
        idle: seconds that a connection waits for another message.
        messages: transactions before a connection is closed.
        lifetime: seconds of use before a connection is closed, so that a server that was
            passed over gets its turn again.
    """

    def __init__(self, ceilings: Ceilings, *, idle: float, messages: int, lifetime: float) -> None:
        self._ceilings = ceilings
        self._idle_for = idle
        self._messages = messages
        self._lifetime = lifetime
        self._groups: dict[Key, _Group] = {}
        self._open: dict[Connection, _Held] = {}
        self._spare: dict[Connection, None] = {}
        self._waiters = Waiters()
        self._alarm: asyncio.TimerHandle | None = None
        self._looks = 0
        self._inspection: asyncio.TimerHandle | None = None
        self._stopping = False
        self._emptied = asyncio.Event()

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def take(self, key: Key, hops: tuple[Hop, ...], delivery: Delivery) -> Connection | None:
        """The connection that was used last, to the first of the hops that has any idle one."""
        group = self._groups.get(key)
        if group is None or not group.idle:
            return None
        closing = False
        for hop in hops:
            for connection in reversed(group.idle):
                if connection.hop != hop or connection.lost:
                    continue
                # One at a time: until it has closed, it counts as open.
                if not closing and self._is_surplus(connection, delivery):
                    connection.quit()
                    closing = True
                elif self._serves(connection, delivery):
                    group.idle.remove(connection)
                    self._spare.pop(connection, None)
                    connection.wake()
                    return connection
        return None

    async def obtain(
        self, key: Key, hops: tuple[Hop, ...], delivery: Delivery, full: str = ""
    ) -> Answer:
        """A place for a new connection, or one that is open, where no other may be opened.

        Waits for either while the ceilings are reached. `full` says why the servers take no more
        connections; then no place is wanted.

        Raises:
            OSError, LimitsFullError: the limits cannot be read or written.
        """
        ceilings = delivery.ceilings
        # Whoever waits already goes first.
        behind = bool(ceilings) and any(waiter.key == key for waiter in self._waiters)
        if not full and not behind:
            place = self._ceilings.place(ceilings)
            if place is not None:
                return place
        connection = self.take(key, hops, delivery)
        if connection is not None:
            return connection
        reason = full or "as many connections are open as may be: " + ", ".join(
            f"{most} under {name}" for name, most in ceilings.items()
        )
        if self._waiters.is_crowded(delivery.lane) or self._stopping:
            return Busy(COME_AGAIN, reason)
        waiter = Waiter(key, hops, delivery, not full, reason)
        self._waiters.add(waiter)
        try:
            if waiter.room and not behind:
                self._make_room(ceilings)
            if self._alarm is None:
                self._alarm = asyncio.get_running_loop().call_later(LOOK, self._look)
            return await waiter.answer
        except BaseException:
            self._dismiss(waiter)
            raise

    def has(self, key: Key, hops: tuple[Hop, ...]) -> bool:
        """Whether a connection is open, idle or in use, that would do for these hops."""
        group = self._groups.get(key)
        if group is None:
            return False
        return any(one.hop in hops and not one.lost for one in group.members)

    def add(self, connection: Connection, key: Key, place: Place) -> None:
        """Keeps a new connection; its place is given back when it closes."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
        group.members.add(connection)
        self._open[connection] = _Held(group, place, connection.opened + TURN)
        connection.on_lost = self._lost
        if self._inspection is None:
            self._inspection = asyncio.get_running_loop().call_later(LONGEST, self._inspect)

    def give_back(self, connection: Connection, delivery: Delivery) -> None:
        """A delivery has used a connection; the next one may have it."""
        if connection.lost:
            return
        try:
            if self._is_used_up(connection, delivery):
                connection.quit()
            elif not (self._waiters and self._hand_over(connection)) and not connection.lost:
                self._rest(connection)
        except (OSError, LimitsFullError):
            # What was delivered over it is delivered: the next one will meet the error.
            connection.quit()

    def release(self, place: Place) -> None:
        """A place is not needed any more; others may have it."""
        names = place.ceilings.keys()
        place.release()
        if self._waiters:
            self._serve(names)

    def stop(self) -> None:
        """Closes what is idle; from now on connections are closed after their message."""
        self._stopping = True
        for waiter in self._waiters:
            self._waiters.answer(waiter, Busy(COME_AGAIN, "the gateway is stopping"))
        for connection in self._open:
            if connection in self._open[connection].group.idle:
                connection.quit()

    def cut_off(self, reason: str) -> None:
        """Closes every connection at once."""
        for connection in self._open:
            connection.abort(reason)

    async def emptied(self) -> None:
        """Waits until no connection is open."""
        while self._open:
            self._emptied.clear()
            await self._emptied.wait()

    def _inspect(self) -> None:
        """Cuts off who has been busy with one message since the last inspection."""
        for connection, held in self._open.items():
            if connection.transactions == held.transactions and connection not in held.group.idle:
                connection.abort(f"one message took longer than {LONGEST:g} seconds")
            held.transactions = connection.transactions
        loop = asyncio.get_running_loop()
        self._inspection = loop.call_later(LONGEST, self._inspect) if self._open else None

    # One connection.

    def _is_surplus(self, connection: Connection, delivery: Delivery) -> bool:
        ceilings = delivery.ceilings
        return bool(ceilings) and self._ceilings.is_above(self._open[connection].place, ceilings)

    def _serves(self, connection: Connection, delivery: Delivery) -> bool:
        """Whether a connection that nobody uses may serve a delivery."""
        most, ceilings = delivery.messages_per_connection, delivery.ceilings
        if most is not None and connection.transactions >= most:
            connection.quit()
            return False
        return not ceilings or self._ceilings.covers(self._open[connection].place, ceilings)

    def _is_used_up(self, connection: Connection, delivery: Delivery) -> bool:
        most = delivery.messages_per_connection
        if self._stopping or connection.transactions >= min(self._messages, most or self._messages):
            return True
        now = asyncio.get_running_loop().time()
        if now - connection.opened >= self._lifetime:
            return True
        held = self._open[connection]
        if not held.place.ceilings or now < held.turn:
            return False
        held.turn = now + LOOK
        return self._is_wanted(held, now)

    def _is_wanted(self, held: _Held, now: float) -> bool:
        """Whether others have waited long enough for the place of a connection."""
        names = held.place.ceilings.keys()
        for waiter in self._waiters:
            patient = waiter.room and now - waiter.since >= TURN and waiter.key != held.group.key
            if patient and names & waiter.delivery.ceilings.keys():
                return True
        if self._ceilings.is_wanted(held.place):
            self._ceilings.stay_away(held.place)
            return True
        return False

    def _hand_over(self, connection: Connection) -> bool:
        """Gives a connection to who has waited for it longest, if anybody has."""
        key = self._open[connection].group.key
        for waiter in self._waiters:
            if waiter.key != key or connection.hop not in waiter.hops:
                continue
            if self._is_surplus(connection, waiter.delivery):
                connection.quit()
            elif self._serves(connection, waiter.delivery):
                self._waiters.answer(waiter, connection)
                return True
            if connection.lost:
                break
        return False

    def _rest(self, connection: Connection) -> None:
        held = self._open[connection]
        held.group.idle.append(connection)
        if held.place.ceilings:
            self._spare[connection] = None
            connection.rest(min(self._idle_for, IDLE_UNDER_CEILING))
        else:
            connection.rest(self._idle_for)

    def _lost(self, connection: Connection) -> None:
        held = self._open.pop(connection)
        self._spare.pop(connection, None)
        group = held.group
        group.members.remove(connection)
        if connection in group.idle:
            group.idle.remove(connection)
        if not group.members:
            del self._groups[group.key]
        if not self._open:
            self._emptied.set()
        self.release(held.place)

    # Those who wait.

    def _look(self) -> None:
        self._alarm = None
        if self._waiters:
            self._alarm = asyncio.get_running_loop().call_later(LOOK, self._look)
            self._looks += 1
            self._serve()

    def _serve(self, names: Collection[str] | None = None) -> None:
        """Gives places to those who wait, in the order in which they came.

        `names` are those under which one was given back here; None: others may have done so.
        """
        now = asyncio.get_running_loop().time()
        full: set[str] = set()
        for waiter in self._waiters:
            ceilings = waiter.delivery.ceilings
            can_wait = self.has(waiter.key, waiter.hops)
            if now - waiter.since >= PATIENCE or not (waiter.room or can_wait):
                self._waiters.answer(waiter, Busy(COME_AGAIN, waiter.reason))
                continue
            if names is None:
                in_vain = can_wait and self._looks % SELDOM != 0
            else:
                in_vain = ceilings.keys().isdisjoint(names)
            if waiter.room and not in_vain and full.isdisjoint(ceilings):
                try:
                    full |= self._place(waiter)
                except (OSError, LimitsFullError) as error:
                    self._waiters.remove(waiter)
                    waiter.answer.set_exception(error)

    def _place(self, waiter: Waiter) -> set[str]:
        """Gives a place to one who waits, or makes room; returns the names that have none."""
        ceilings = waiter.delivery.ceilings
        place = self._ceilings.place(ceilings)
        if place is None:
            return self._make_room(ceilings)
        self._waiters.answer(waiter, place)
        return set()

    def _make_room(self, ceilings: Mapping[str, int]) -> set[str]:
        """Asks others for places, closes one that is idle; returns the names that have none."""
        full = self._ceilings.full(ceilings)
        self._ceilings.ask(full)
        for connection in self._spare:
            names = self._open[connection].place.ceilings.keys()
            if not connection.lost and not full.isdisjoint(names):
                connection.quit()
                break
        return full

    def _dismiss(self, waiter: Waiter) -> None:
        """A delivery no longer waits; what it was given meanwhile, others may have."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            return
        if waiter.answer.cancelled() or waiter.answer.exception() is not None:
            return
        given = waiter.answer.result()
        if isinstance(given, Connection):
            self.give_back(given, waiter.delivery)
        elif isinstance(given, Place):
            self.release(given)
