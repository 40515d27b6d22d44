"""Connections that workers give each other, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.process.handover import Handover, Seat, Seats
from tests.assembly import until


def on_uvloop(test: Callable[[Seats], Coroutine[Any, Any, None]]) -> Callable[[Seats], None]:
    """Runs a test as workers run: uvloop's transports differ from asyncio's in what counts here."""

    @functools.wraps(test)
    def run(seats: Seats) -> None:
        uvloop.run(test(seats))

    return run


def copied(seat: Seat) -> Seat:
    """The seat with descriptors of its own, as a child process has them."""
    return Seat(os.dup(seat.memory), os.dup(seat.inbox), tuple(map(os.dup, seat.outboxes)))


class Echo(asyncio.Protocol):
    """Says who it is, and repeats what it hears."""

    def __init__(self, worker: Worker, listener: str) -> None:
        self._worker = worker
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        connection = transport.get_extra_info("socket")
        self._worker.delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self._worker.inheritable |= os.get_inheritable(connection.fileno())
        self._worker.open += 1
        self._worker.handover.note(self._worker.open)
        self.write(f"{self._worker.index} {self._listener}\n".encode())

    def write(self, octets: bytes) -> None:
        self._transport.write(octets)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.open -= 1
        self._worker.handover.note(self._worker.open)


class Worker:
    """What a worker has to do with it: servers, and sessions that it counts."""

    def __init__(self, index: int, seat: Seat) -> None:
        self.index = index
        self.open = 0
        self.delays: list[int] = []
        self.inheritable = False
        self.handover = Handover(copied(seat), index)
        self.ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []

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
        await until(lambda: self.open == 0, "the end of its sessions")
        await self.handover.close()


class Client:
    """An open connection; `worker` and `listener` say what answers it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self) -> Client:
        async with asyncio.timeout(20):
            said = (await self._reader.readline()).decode().split()
        self.worker, self.listener = int(said[0]), said[1]
        return self

    async def ask(self, text: str) -> str:
        self._writer.write(f"{text}\n".encode())
        async with asyncio.timeout(20):
            return (await self._reader.readline()).decode().strip()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def connect(port: int) -> Client:
    return await Client(*await asyncio.open_connection("127.0.0.1", port)).greet()


@pytest.fixture
def seats() -> Iterator[Seats]:
    """The seats of three workers."""
    seats = Seats(3)
    yield seats
    seats.close()


@asynccontextmanager
async def running(seats: Seats, *listeners: str) -> AsyncIterator[list[Worker]]:
    """Three workers that listen."""
    workers = [Worker(index, seats.seat(index)) for index in range(3)]
    for worker in workers:
        await worker.listen(*(listeners or ("mail",)))
    yield workers
    for worker in workers:
        await worker.close()


@on_uvloop
async def test_connections_to_one_worker_are_shared_by_all(seats: Seats) -> None:
    async with running(seats) as workers:
        clients = [await connect(workers[0].ports["mail"]) for _ in range(12)]
        assert Counter(client.worker for client in clients) == {0: 4, 1: 4, 2: 4}
        for number, client in enumerate(clients):
            assert await client.ask(f"hello {number}") == f"hello {number}"
        # Replies must not wait for more of them, whoever took the connection (RFC 1122 4.2.3.4).
        assert all(all(worker.delays) for worker in workers)
        assert not any(worker.inheritable for worker in workers)
        for client in clients:
            await client.close()


@on_uvloop
async def test_a_crowd_that_comes_at_once_too(seats: Seats) -> None:
    async with running(seats) as workers:
        port = workers[1].ports["mail"]
        clients = await asyncio.gather(*(connect(port) for _ in range(60)))
        counts = Counter(client.worker for client in clients)
        assert sum(counts.values()) == 60
        assert max(counts.values()) - min(counts.values()) <= 4, counts
        await asyncio.gather(*(client.close() for client in clients))


@on_uvloop
async def test_who_gives_a_connection_away_does_not_count_it(seats: Seats) -> None:
    async with running(seats) as workers:
        clients = [await connect(workers[0].ports["mail"]) for _ in range(6)]
        assert [worker.open for worker in workers] == [2, 2, 2]
        # What others close makes room there.
        for client in clients:
            if client.worker == 2:
                await client.close()
        await until(lambda: workers[2].open == 0, "the end of its sessions")
        more = [await connect(workers[1].ports["mail"]) for _ in range(2)]
        assert [client.worker for client in more] == [2, 2]
        for client in (*clients, *more):
            await client.close()


@on_uvloop
async def test_what_a_client_says_first_reaches_who_takes_it(seats: Seats) -> None:
    async with running(seats) as workers:
        streams = []
        for number in range(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", workers[0].ports["mail"])
            writer.write(f"early {number}\n".encode())
            streams.append((reader, writer))
        async with asyncio.timeout(20):
            for number, (reader, writer) in enumerate(streams):
                await reader.readline()
                assert await reader.readline() == f"early {number}\n".encode()
                writer.close()
                await writer.wait_closed()
        assert all(worker.delays for worker in workers)


@on_uvloop
async def test_a_connection_keeps_its_listener(seats: Seats) -> None:
    async with running(seats, "inside", "outside") as workers:
        clients = [
            (name, await connect(workers[0].ports[name]))
            for _ in range(3)
            for name in ("inside", "outside")
        ]
        assert Counter(client.worker for _, client in clients) == {0: 2, 1: 2, 2: 2}
        assert all(client.listener == name for name, client in clients)
        for _, client in clients:
            await client.close()


@on_uvloop
async def test_who_has_ended_or_has_not_begun_gets_none(seats: Seats) -> None:
    first = Worker(0, seats.seat(0))
    await first.listen("mail")
    clients = [await connect(first.ports["mail"]) for _ in range(3)]
    assert {client.worker for client in clients} == {0}
    second = Worker(1, seats.seat(1))
    await second.listen("mail")
    clients.append(await connect(first.ports["mail"]))
    assert clients[-1].worker == 1
    # Its process ended, and said nothing about it.
    seats.vacate(1)
    clients.append(await connect(first.ports["mail"]))
    assert clients[-1].worker == 0
    for client in clients:
        await client.close()
    await first.close()
    await second.close()


@on_uvloop
async def test_the_next_process_takes_what_was_on_its_way(seats: Seats) -> None:
    first = Worker(0, seats.seat(0))
    await first.listen("mail")
    lost = Handover(copied(seats.seat(1)), 1)
    lost.start()
    # Killed before it could look.
    asyncio.get_running_loop().remove_reader(lost._inbox)
    held = await connect(first.ports["mail"])
    waiting = asyncio.ensure_future(connect(first.ports["mail"]))
    await until(lambda: first.handover._balance.next_number(1) == 2, "it to be given")
    await lost.close()
    seats.vacate(1)
    second = Worker(1, seats.seat(1))
    await second.listen("mail")
    client = await waiting
    assert (held.worker, client.worker) == (0, 1)
    await held.close()
    await client.close()
    await first.close()
    await second.close()


@on_uvloop
async def test_a_client_that_has_gone_meanwhile_harms_nobody(seats: Seats) -> None:
    async with running(seats) as workers:
        held = await connect(workers[0].ports["mail"])
        for _ in range(20):
            gone = socket.create_connection(("127.0.0.1", workers[0].ports["mail"]))
            # Closes with a reset.
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.close()
        await until(lambda: sum(worker.open for worker in workers) == 1, "the end of the others")
        clients = [await connect(workers[0].ports["mail"]) for _ in range(5)]
        assert Counter(client.worker for client in (held, *clients)) == {0: 2, 1: 2, 2: 2}
        for client in (held, *clients):
            await client.close()


@on_uvloop
async def test_what_cannot_be_given_away_is_kept(seats: Seats) -> None:
    first = Worker(0, seats.seat(0))
    await first.listen("mail")
    full = Handover(copied(seats.seat(1)), 1)
    full.start()
    # Nothing can be put in there any more.
    full._inbox.shutdown(socket.SHUT_RDWR)
    clients = [await connect(first.ports["mail"]) for _ in range(3)]
    assert {client.worker for client in clients} == {0}
    for client in clients:
        await client.close()
    await first.close()
    await full.close()


def test_descriptors_are_closed(seats: Seats) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def work() -> None:
        async with running(seats) as workers:
            clients = [await connect(workers[0].ports["mail"]) for _ in range(9)]
            for client in clients:
                await client.close()

    uvloop.run(work())
    before = descriptors()
    uvloop.run(work())
    assert descriptors() == before
    more = Seats(5)
    assert descriptors() > before
    more.close()
    assert descriptors() == before
