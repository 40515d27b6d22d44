"""A plugin that does wrong, in real worker processes under load: what others notice of it.

Others are clients whose mail does not meet the plugin, because the `when` of its entry does not
match. Where one waits, raises or answers nonsense, that holds in its own worker too; one that
never lets go of its process, or ends it, is noticed in that process alone. What ends one process
after the other is in test_deadly_mail.py.

Each run is compared with the same run in which the plugin does right. Single runs that exceed the
bound are repeated, because the machine may have other work as well.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.queue.administration import worker_stats
from gateway.queue.custody import ATTEMPT
from gateway.testing import NextHop
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until
from tests.faults.broken_plugins import DIES, SAMPLE, BrokenPlugins, Case, cases
from tests.faults.figures import Figures
from tests.faults.paced_clients import (
    Connection,
    PacedClient,
    Refused,
    connections_by_worker,
    owner,
    p99,
)
from tests.hooks.faults import HOOKS

GOOD_CLIENTS = 4
"""Per worker, each of which sends …"""
GOOD_INTERVAL = 0.04
"""… a message so many seconds after the other."""

BAD_PORTS = 4
"""Clients at a time that meet one broken plugin."""
BAD_INTERVAL = 0.05
"""Seconds from one client that meets a broken plugin to the next …"""
DEATH_INTERVAL = 1.0
"""… or, where that ends the process, for which another has to start first."""

SMALLEST = 0.01
"""Seconds: a p99 below counts as this one, because the system's own clock makes as much of it."""

TRIES = 4


@dataclass(frozen=True)
class Times:
    """The p99 of others, in seconds.

    Attributes:
        here: of those in the worker that has the broken plugin's mail.
        elsewhere: of those in the other one.
    """

    here: float
    elsewhere: float


class Site:
    """A gateway of two workers, of which the first gets all mail for broken plugins."""

    def __init__(self, gateway: Gateway, hop: NextHop, plugins: BrokenPlugins) -> None:
        self._gateway = gateway
        self._hop = hop
        self._plugins = plugins
        self._ports: dict[Case, list[int]] = {}
        self._phases = 0
        self.accepted: list[str] = []
        self.refused: Counter[Case] = Counter()

    def _workers(self) -> tuple[int, int] | None:
        pids = self._gateway.pids()
        if {"worker 0", "worker 1"} <= pids.keys():
            return pids["worker 0"], pids["worker 1"]
        return None

    async def learn(self, wanted: Sequence[Case]) -> None:
        """Finds ports of each case's address from which the kernel leads to the first worker.

        One connection at a time: where no worker has more than the other, it stays where it is.
        """
        workers = until(self._workers, "two workers")
        for case in wanted:
            ports = self._ports[case] = []
            while len(ports) < BAD_PORTS:
                connection = await Connection.open(self._gateway, self._plugins.addresses[case])
                await connection.expect("220")
                address, port = self._plugins.addresses[case], connection.port
                if owner(self._gateway, workers, address, port) == workers[0]:
                    ports.append(port)
                connection.close()
                await self._no_connection()

    async def _no_connection(self) -> None:
        """Waits until each worker has noticed the end of all connections."""

        def ended() -> bool:
            stats = worker_stats(self._gateway.spool)
            return len(stats) == 2 and not any(one["connections"] for one in stats)

        await asyncio.to_thread(until, ended, "the end of all connections")

    @asynccontextmanager
    async def _ballast(self, workers: tuple[int, int], many: int) -> AsyncIterator[None]:
        """Silent connections to the second worker, so that the first one gives none away."""
        found = await connections_by_worker(self._gateway, "127.0.0.1", many, workers, workers)
        for connection in found[workers[0]]:
            connection.close()
        yield
        for connection in found[workers[1]]:
            connection.close()

    async def phase(self, wanted: Sequence[Case], seconds: float, broken: bool) -> Times:
        """Lets good and bad clients send for a while."""
        self._phases += 1
        self._plugins.switch(())
        workers = await asyncio.to_thread(until, self._workers, "two workers")
        await self._no_connection()
        connections = await connections_by_worker(
            self._gateway, "127.0.0.1", GOOD_CLIENTS, workers, workers
        )
        async with self._ballast(workers, 2 * BAD_PORTS * len(wanted) + 2 * GOOD_CLIENTS):
            return await self._load(wanted, seconds, broken, workers, connections)

    async def _load(
        self,
        wanted: Sequence[Case],
        seconds: float,
        broken: bool,
        workers: tuple[int, int],
        connections: Mapping[int, Sequence[Connection]],
    ) -> Times:
        loop = asyncio.get_running_loop()
        start = loop.time() + 0.05
        clients: dict[int, list[PacedClient]] = {pid: [] for pid in workers}
        runs = {}
        for pid, those in connections.items():
            for number, connection in enumerate(those):
                name = f"g{self._phases}.{pid}.{number}"
                client = PacedClient(connection, name, GOOD_INTERVAL)
                clients[pid].append(client)
                begin = start + GOOD_INTERVAL * number / len(those)
                runs[asyncio.create_task(client.run(begin, start + seconds))] = pid
        self._plugins.switch(wanted if broken else ())
        bad = [asyncio.create_task(self._bad(case, start + seconds, broken)) for case in wanted]
        dies = broken and any(case.fault == DIES for case in wanted)
        for task, pid in runs.items():
            try:
                await task
            except ConnectionError:
                assert dies, "a connection of others ended"
                assert pid == workers[0], "a connection to another worker ended"
        await asyncio.gather(*bad)
        self._plugins.switch(())
        for those_clients in clients.values():
            for client in those_clients:
                self.accepted += client.accepted
        here, elsewhere = (
            [second for client in clients[pid] for second in client.seconds] for pid in workers
        )
        return Times(p99(here), p99(elsewhere))

    async def _bad(self, case: Case, end: float, broken: bool) -> None:
        """Clients of one address, one after the other and each at its time."""
        loop = asyncio.get_running_loop()
        subject = f"broken {case}" if broken else "fine"
        interval = DEATH_INTERVAL if case.fault == DIES else BAD_INTERVAL
        async with asyncio.TaskGroup() as group:
            free = list(self._ports[case])
            while loop.time() < end:
                if free:
                    group.create_task(self._bad_client(case, free, subject, broken))
                await asyncio.sleep(interval)

    async def _recover(self, wanted: Sequence[Case]) -> None:
        """Waits until the plugins that do right again are asked again."""
        await asyncio.to_thread(until, self._workers, "two workers")
        async with asyncio.timeout(DEADLINE):
            for case in wanted:
                refused = -1
                while refused != self.refused[case]:
                    refused = self.refused[case]
                    await self._bad_client(case, list(self._ports[case]), "fine", True)
                    await asyncio.sleep(0.1)

    async def _bad_client(self, case: Case, free: list[int], subject: str, may_fail: bool) -> None:
        port = free.pop(0)
        connection = None
        try:
            async with asyncio.timeout(DEADLINE):
                address = self._plugins.addresses[case]
                connection = await Connection.open(self._gateway, address, port)
                await connection.expect("220")
                await connection.expect("250", "EHLO bad.example.org")
                if case.hook == "auth":
                    token = base64.b64encode(b"\0shop\0secret").decode()
                    await connection.expect("235", f"AUTH PLAIN {token}")
                await connection.send("bad@example.com", case.recipient, subject)
        except (Refused, ConnectionError):
            assert may_fail, case
            self.refused[case] += 1
        finally:
            if connection is not None:
                connection.close()
            free.append(port)

    async def judge(self, wanted: Sequence[Case], seconds: float) -> list[float]:
        """How many times longer the p99 of others was: elsewhere, and then in the same worker.

        The latter is left out where that worker is stopped.

        Raises:
            AssertionError: more than twice, however often it was tried.
        """
        stopped = any(case.stops_its_worker for case in wanted)
        right, wrong = [], []
        for _ in range(TRIES):
            right.append(await self.phase(wanted, seconds, broken=False))
            wrong.append(await self.phase(wanted, seconds, broken=True))
            ratios = [_ratio([one.elsewhere for one in right], [one.elsewhere for one in wrong])]
            if not stopped:
                ratios.append(_ratio([one.here for one in right], [one.here for one in wrong]))
            if max(ratios) <= 2:
                return ratios
            await self._recover(wanted)
        raise AssertionError(f"{[str(case) for case in wanted]}: {right} and {wrong}")

    async def finish(self) -> None:
        """All good mail has arrived, and nothing that a broken plugin had to see."""
        gateway, hop = self._gateway, self._hop
        expected = set(self.accepted)
        arrived = {to for one in hop.messages for to, _ in one.recipients}
        while not expected <= arrived:
            await hop.wait(len(hop.messages) + 1, DEADLINE)
            arrived = {to for one in hop.messages for to, _ in one.recipients}
        subjects = {
            line
            for one in hop.messages
            for line in one.content.split(b"\r\n")
            if line[:8] == b"Subject:"
        }
        # What waits for an attempt meets the plugin again when that does right.
        failing = [
            case
            for case in self._plugins.addresses
            if case.fault != "leaks" and case.hook not in ATTEMPT
        ]
        assert [str(case) for case in failing if _subject(case) in subjects] == []
        counts = Counter(to for one in hop.messages for to, _ in one.recipients)
        again = sum(counts[to] > 1 for to in expected)
        # Those that were on their way when their process ended.
        if all(case.fault != DIES for case in self._plugins.addresses):
            assert again == 0
        assert await asyncio.to_thread(gateway.stop) == 0

    def opened(self, case: Case) -> bool:
        """Whether the log says that the plugin is not asked for a while."""
        name = re.escape(self._plugins.names[case])
        return bool(
            re.search(rf"plugin {name} failed in \w+ \d+ times in a row", self._gateway.log)
        )


def _subject(case: Case) -> bytes:
    """The line in mail that meets it."""
    return f"Subject: broken {case}".encode()


def _ratio(usual: Sequence[float], late: Sequence[float]) -> float:
    """How many times longer a p99 was, of several: noise only ever makes one longer."""
    return min(late) / max(*usual, SMALLEST)


async def _site(make_gateway: MakeGateway, hop: NextHop, wanted: Sequence[Case]) -> Site:
    gateway = make_gateway(
        hop.address, listen="allow: [127.0.0.0/8], plaintext_auth: true", workers=2
    )
    plugins = BrokenPlugins(gateway.folder, wanted)
    gateway.configure(f"retry: {{schedule: [1h]}}\n{plugins.entries}")
    await asyncio.to_thread(gateway.start)
    site = Site(gateway, hop, plugins)
    await site.learn(wanted)
    return site


async def test_others_hardly_notice(make_gateway: MakeGateway, figures: Figures) -> None:
    async with NextHop(rcpt={"b@later.example": "450 4.2.0 Later"}) as hop:
        site = await _site(make_gateway, hop, SAMPLE)
        waiting = [case for case in SAMPLE if not case.stops_its_worker]
        stopping = [case for case in SAMPLE if case.stops_its_worker]
        there, here = await site.judge(waiting, 1.0)
        assert [
            str(case) for case in waiting if case.opens_the_breaker and not site.opened(case)
        ] == []
        (elsewhere,) = await site.judge(stopping, 1.0)
        await site.finish()
    figures(
        15,
        faults=len(SAMPLE),
        times_the_p99_in_the_same_worker=round(here, 1),
        times_the_p99_in_the_other_worker=round(max(there, elsewhere), 1),
    )


@pytest.mark.long
@pytest.mark.parametrize("hook", HOOKS)
async def test_others_hardly_notice_any_fault(
    make_gateway: MakeGateway, figures: Figures, hook: str
) -> None:
    wanted = cases(hook)
    here, elsewhere = [], []
    async with NextHop(rcpt={"b@later.example": "450 4.2.0 Later"}) as hop:
        site = await _site(make_gateway, hop, wanted)
        for case in wanted:
            there, *same = await site.judge([case], 2.0)
            elsewhere.append(there)
            here += same
            assert not case.opens_the_breaker or site.opened(case), str(case)
        await site.finish()
    figures(
        15,
        faults=len(wanted),
        times_the_p99_in_the_same_worker=round(max(here), 1),
        times_the_p99_in_the_other_worker=round(max(elsewhere), 1),
    )
