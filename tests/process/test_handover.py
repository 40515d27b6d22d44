"""Connections that workers give each other, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import pytest
import uvloop

from gateway.process.handover import Handover, Seat, Seats
from tests.assembly import until


class Echo(asyncio.Protocol):
    """Says who it is, and repeats what it hears."""

    transport: asyncio.Transport

    def __init__(self, worker: Worker, listener: str) -> None:
        self._worker = worker
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        connection = transport.get_extra_info("socket")
        self._worker.delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self._worker.inheritable |= os.get_inheritable(connection.fileno())
        self._worker.sessions.add(self)
        self._worker.handover.note(self._worker.open)
        self.transport.write(f"{self._worker.index} {self._listener}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.sessions.discard(self)
        self._worker.handover.note(self._worker.open)


class Worker:
    """What a worker has to do with it: servers, and sessions that it counts."""

    def __init__(self, index: int, seat: Seat) -> None:
        self.index = index
        self.sessions: set[Echo] = set()
        self.delays: list[int] = []
        self.inheritable = False
        self.handover = Handover(seat, index)
        self.ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []

    @property
    def open(self) -> int:
        """How many connections it has."""
        return len(self.sessions)

    async def listen(self, *listeners: str) -> None:
        """Listens at a port of its own for each listener, and takes what others give it."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            session = functools.partial(Echo, self, listener)
            server = await loop.create_server(self.handover.factory(session), "127.0.0.1", 0)
            self.ports[listener] = server.sockets[0].getsockname()[1]
            self._servers.append(server)
        self.handover.start()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self.handover.leave()
        await self.handover.close()
        for session in self.sessions:
            session.transport.abort()
        await until(lambda: self.open == 0, "the end of its sessions")


class Client:
    """An open connection; `worker` and `listener` say what answers it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self) -> None:
        said = (await self.hear()).split()
        self.worker, self.listener = int(said[0]), said[1]

    def say(self, text: str) -> None:
        self._writer.write(f"{text}\n".encode())

    async def hear(self) -> str:
        async with asyncio.timeout(20):
            return (await self._reader.readline()).decode().strip()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Site:
    """Workers and clients, which end with it: a loop with open connections does not end."""

    def __init__(self, seats: Seats) -> None:
        self.workers: list[Worker] = []
        self._seats = seats
        self._clients: list[Client] = []

    async def __aenter__(self) -> Site:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.close()
        for worker in self.workers:
            await worker.close()

    async def listen(self, workers: int, *listeners: str) -> None:
        """More workers that listen, in the next slots."""
        for _ in range(workers):
            index = len(self.workers)
            worker = Worker(index, self._seat(index))
            self.workers.append(worker)
            await worker.listen(*(listeners or ("mail",)))

    def handover(self, index: int) -> Handover:
        """That of a worker that does not listen; who asks for it closes it."""
        return Handover(self._seat(index), index)

    def vacate(self, index: int) -> None:
        """The process of a worker has ended."""
        self._seats.vacate(index)

    def _seat(self, index: int) -> Seat:
        """A seat with descriptors of its own, as a child process has them."""
        seat = self._seats.seat(index)
        return Seat(os.dup(seat.memory), os.dup(seat.inbox), tuple(map(os.dup, seat.outboxes)))

    async def open(self, worker: int, listener: str = "mail") -> Client:
        """A new connection to the port of one worker, which has not said anything yet."""
        port = self.workers[worker].ports[listener]
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        self._clients.append(client)
        return client

    async def connect(self, worker: int, listener: str = "mail") -> Client:
        """A new connection that has been greeted."""
        client = await self.open(worker, listener)
        await client.greet()
        return client


@pytest.fixture
def seats() -> Iterator[Seats]:
    """The seats of three workers."""
    seats = Seats(3)
    yield seats
    seats.close()


def on_uvloop(test: Callable[[Site], Coroutine[Any, Any, None]]) -> Callable[[Seats], None]:
    """Runs a test as workers run: uvloop's transports differ from asyncio's in what counts here."""

    async def work(seats: Seats) -> None:
        async with Site(seats) as site:
            await test(site)

    def run(seats: Seats) -> None:
        uvloop.run(work(seats))

    return run


@on_uvloop
async def test_connections_to_one_worker_are_shared_by_all(site: Site) -> None:
    await site.listen(3)
    clients = [await site.connect(0) for _ in range(12)]
    assert Counter(client.worker for client in clients) == {0: 4, 1: 4, 2: 4}
    for number, client in enumerate(clients):
        client.say(f"hello {number}")
        assert await client.hear() == f"hello {number}"
    # Replies must not wait for more of them, whoever took the connection (RFC 1122 4.2.3.4).
    assert all(all(worker.delays) for worker in site.workers)
    assert not any(worker.inheritable for worker in site.workers)


@on_uvloop
async def test_a_crowd_that_comes_at_once_too(site: Site) -> None:
    await site.listen(3)
    clients = await asyncio.gather(*(site.connect(1) for _ in range(60)))
    counts = Counter(client.worker for client in clients)
    assert sum(counts.values()) == 60
    assert max(counts.values()) - min(counts.values()) <= 4, counts


@on_uvloop
async def test_who_gives_a_connection_away_does_not_count_it(site: Site) -> None:
    await site.listen(3)
    clients = [await site.connect(0) for _ in range(6)]
    assert [worker.open for worker in site.workers] == [2, 2, 2]
    # What others close makes room there.
    for client in clients:
        if client.worker == 2:
            await client.close()
    await until(lambda: site.workers[2].open == 0, "the end of its sessions")
    assert [(await site.connect(1)).worker for _ in range(2)] == [2, 2]


@on_uvloop
async def test_what_a_client_says_first_reaches_who_takes_it(site: Site) -> None:
    await site.listen(3)
    clients = []
    for number in range(30):
        client = await site.open(0)
        client.say(f"early {number}")
        clients.append(client)
    for number, client in enumerate(clients):
        await client.greet()
        assert await client.hear() == f"early {number}"
    assert all(worker.delays for worker in site.workers)


@on_uvloop
async def test_a_connection_keeps_its_listener(site: Site) -> None:
    await site.listen(3, "inside", "outside")
    clients = [
        (name, await site.connect(0, name)) for _ in range(3) for name in ("inside", "outside")
    ]
    assert Counter(client.worker for _, client in clients) == {0: 2, 1: 2, 2: 2}
    assert all(client.listener == name for name, client in clients)


@on_uvloop
async def test_who_has_ended_or_has_not_begun_gets_none(site: Site) -> None:
    await site.listen(1)
    assert {(await site.connect(0)).worker for _ in range(3)} == {0}
    await site.listen(1)
    assert (await site.connect(0)).worker == 1
    # Its process ended, and said nothing about it.
    site.vacate(1)
    assert (await site.connect(0)).worker == 0


@on_uvloop
async def test_the_next_process_takes_what_was_on_its_way(site: Site) -> None:
    await site.listen(1)
    lost = site.handover(1)
    lost.start()
    # Killed before it could look.
    asyncio.get_running_loop().remove_reader(lost._inbox)
    assert (await site.connect(0)).worker == 0
    client = await site.open(0)
    balance = site.workers[0].handover._balance
    await until(lambda: balance.next_number(1) == 2, "it to be given")
    await lost.close()
    site.vacate(1)
    await site.listen(1)
    await client.greet()
    assert client.worker == 1


@on_uvloop
async def test_a_client_that_has_gone_meanwhile_harms_nobody(site: Site) -> None:
    await site.listen(3)
    first, *others = site.workers
    held = await site.connect(0)
    for _ in range(20):
        gone = socket.create_connection(("127.0.0.1", first.ports["mail"]))
        # Closes with a reset.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
    await until(
        lambda: first.open == 1 and not any(worker.open for worker in others),
        "the end of the others",
    )
    clients = [held, *[await site.connect(0) for _ in range(5)]]
    assert Counter(client.worker for client in clients) == {0: 2, 1: 2, 2: 2}


@on_uvloop
async def test_what_cannot_be_given_away_is_kept(site: Site) -> None:
    await site.listen(1)
    full = site.handover(1)
    full.start()
    # Nothing can be put in there any more.
    full._inbox.shutdown(socket.SHUT_RDWR)
    assert {(await site.connect(0)).worker for _ in range(3)} == {0}
    await full.close()


def test_descriptors_are_closed(seats: Seats) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def work() -> None:
        async with Site(seats) as site:
            await site.listen(3)
            for _ in range(9):
                await site.connect(0)

    uvloop.run(work())
    before = descriptors()
    uvloop.run(work())
    assert descriptors() == before
    more = Seats(5)
    assert descriptors() > before
    more.close()
    assert descriptors() == before
