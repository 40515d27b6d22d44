"""Connections that a worker gives to another one, so that all have about as many.

The kernel spreads new connections over the workers by chance, and a few that stay open and send
message after message may all be one worker's. A worker that has more than another passes a new one
on, before it has read or said anything.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import cast

from gateway.process.balance import Balance, octets

AT_A_TIME = 16
"""How many connections of others are taken before it is the turn of something else."""

_PARCEL = struct.Struct("=HHQ")
"""What comes with a connection: who gives it, its listener, and its number between the two."""

Factory = Callable[[], asyncio.BaseProtocol]


@dataclass(frozen=True, slots=True)
class Seat:
    """What one worker needs for it: descriptors.

    Attributes:
        memory: of the memory that all workers share.
        inbox: where connections of others arrive.
        outboxes: the way to each worker's inbox, by its slot.
    """

    memory: int
    inbox: int
    outboxes: tuple[int, ...]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        return (self.memory, self.inbox, *self.outboxes)


class Seats:
    """The seats of all workers of one configuration, which outlive the processes.

    Connections that are on their way to a worker that dies are taken by the one after it.
    """

    def __init__(self, workers: int) -> None:
        self._memory = os.memfd_create("connections", os.MFD_CLOEXEC)
        os.ftruncate(self._memory, octets(workers))
        # Each is a message of its own, and more than a few may wait.
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        self._pairs = [socket.socketpair(socket.AF_UNIX, kind) for _ in range(workers)]
        self._table = mmap.mmap(self._memory, octets(workers))
        self._balances = [Balance(memoryview(self._table), workers, n) for n in range(workers)]
        for balance in self._balances:
            balance.leave()

    def seat(self, index: int) -> Seat:
        """The seat of one worker."""
        inbox = self._pairs[index][0].fileno()
        return Seat(self._memory, inbox, tuple(outbox.fileno() for _, outbox in self._pairs))

    def vacate(self, index: int) -> None:
        """The process of a worker has ended; until the next one takes its seat it gets nothing."""
        self._balances[index].leave()

    def close(self) -> None:
        """Lets go of all; workers that still run keep theirs."""
        for balance in self._balances:
            balance.close()
        self._table.close()
        for pair in self._pairs:
            for end in pair:
                end.close()
        os.close(self._memory)


class Handover:
    """A worker's side.

    Args:
        seat: the descriptors, which are its own from now on.
        index: the worker's slot.
    """

    def __init__(self, seat: Seat, index: int) -> None:
        self._index = index
        workers = len(seat.outboxes)
        self._memory = mmap.mmap(seat.memory, octets(workers))
        os.close(seat.memory)
        self._balance = Balance(memoryview(self._memory), workers, index)
        self._takes = False
        self._connections = 0
        self._inbox = socket.socket(fileno=seat.inbox)
        self._outboxes = [socket.socket(fileno=number) for number in seat.outboxes]
        self._factories: list[Factory] = []
        self._beginning: set[asyncio.Task[None]] = set()

    def factory(self, session: Factory) -> Factory:
        """What makes a protocol for each new connection: one that gives it away, or `session`."""
        number = len(self._factories)
        self._factories.append(session)
        return lambda: _Arrival(self, number, session)

    def start(self) -> None:
        """From now on this worker takes connections of others."""
        self._takes = True
        self._balance.enter(self._connections)
        asyncio.get_running_loop().add_reader(self._inbox, self._take)

    def leave(self) -> None:
        """From now on others give it none; what is on its way is still taken."""
        self._takes = False
        self._balance.leave()

    def note(self, connections: int) -> None:
        """This worker has so many connections."""
        self._connections = connections
        if self._takes:
            self._balance.note(connections)

    def give(self, connection: socket.socket, listener: int) -> bool:
        """Gives a new connection to a worker that has fewer; False: it is ours."""
        now = monotonic()
        worker = self._balance.lightest(now)
        if worker is None:
            return False
        number = self._balance.next_number(worker)
        parcel = _PARCEL.pack(self._index, listener, number)
        try:
            socket.send_fds(self._outboxes[worker], [parcel], [connection.fileno()])
        except OSError:
            return False  # too many on their way: it has enough to do
        self._balance.gave(worker, number, now)
        return True

    def _take(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(AT_A_TIME):
            try:
                parcel, descriptors, _, _ = socket.recv_fds(self._inbox, _PARCEL.size, 1)
            except BlockingIOError:
                return
            if not parcel:
                loop.remove_reader(self._inbox)
                return
            giver, listener, number = _PARCEL.unpack(parcel)
            task = loop.create_task(self._begin(giver, listener, number, descriptors))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, giver: int, listener: int, number: int, descriptors: list[int]) -> None:
        """Begins a session with a connection; there is none if no descriptor is left for it."""
        loop = asyncio.get_running_loop()
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.set_inheritable(False)  # a program that a plugin starts must not keep it
            try:
                await loop.connect_accepted_socket(self._factories[listener], connection)
            except OSError:
                connection.close()  # the client has gone meanwhile
        self._balance.took(giver, number)

    async def close(self) -> None:
        """Takes no more."""
        asyncio.get_running_loop().remove_reader(self._inbox)
        await asyncio.gather(*self._beginning)
        for end in (self._inbox, *self._outboxes):
            end.close()
        self._balance.close()
        self._memory.close()


class _Arrival(asyncio.Protocol):
    """A new connection, of which it is not known yet whose it is."""

    def __init__(self, handover: Handover, listener: int, session: Factory) -> None:
        self._handover = handover
        self._listener = listener
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Passes the connection on, to another worker or to a session of this one."""
        if self._handover.give(transport.get_extra_info("socket"), self._listener):
            # Only our descriptor is closed by that: the connection is the other's now.
            cast(asyncio.Transport, transport).abort()
            return
        session = self._session()
        transport.set_protocol(session)
        session.connection_made(transport)
