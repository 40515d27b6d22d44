"""Row 1: kill -9 of everything, and of single workers, at random points under load."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

from gateway.testing import NextHop
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway
from tests.faults.figures import Figures
from tests.faults.spool_copy import waiting
from tests.faults.traffic import Arrivals, Traffic

WORKERS = 3
CONNECTIONS = 20

UNRECORDED = 4 * CONNECTIONS
"""Deliveries of one worker that may be made again after its death: one on each connection, and
those whose outcomes wait for the commit under way and for the one after it."""


class Record:
    """What is known to be done, and how often it may be done again.

    Attributes:
        repeats: how many deliveries the kills so far may have repeated at most.
        most: how many completions were not recorded at a kill, at most.
    """

    def __init__(self, traffic: Traffic, arrivals: Arrivals) -> None:
        self._traffic = traffic
        self._arrivals = arrivals
        self._completed: dict[int, int] = {}
        self.repeats = 0
        self.most = 0

    def take(self, gateway: Gateway) -> None:
        """Notes what the disk says between the end of all processes and their next start."""
        on_disk = {row.id for row in waiting(gateway.spool)}
        count = self._arrivals.count
        accepted = dict(self._traffic.accepted)
        lost = [n for n, id_ in accepted.items() if id_ not in on_disk and not count[n]]
        assert lost == [], "accepted, and neither on disk nor delivered"
        done = {n: count[n] for n, id_ in accepted.items() if id_ not in on_disk}
        unrecorded = {n for n, id_ in accepted.items() if id_ in on_disk and count[n]}
        assert len(unrecorded) <= WORKERS * UNRECORDED
        self.most = max(self.most, len(unrecorded))
        self.repeats += len(unrecorded)
        self.check()
        self._completed.update(done)

    def check(self) -> None:
        """No completion that was on disk has been made again."""
        count = self._arrivals.count
        again = {n: count[n] for n, times in self._completed.items() if count[n] != times}
        assert again == {}, "delivered again although recorded as done"


async def test_kills_at_random_points_lose_nothing(
    make_gateway: MakeGateway, scale: Scale, figures: Figures
) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")  # noqa: T201 (shown if the test fails)
    chance = random.Random(seed)
    kills = scale(10, 200)
    async with NextHop(latency=0.01) as hop:
        gateway = make_gateway(hop.address, workers=WORKERS)
        await asyncio.to_thread(gateway.start)
        traffic, arrivals = Traffic(gateway, pause=0.04), Arrivals(hop)
        record = Record(traffic, arrivals)
        singles: list[int] = []
        whole = 0
        async with traffic.running():
            for _ in range(kills):
                await traffic.more(chance.randrange(20, 100))
                await asyncio.sleep(chance.random() * 0.05)  # at any point of what it does
                if singles == []:
                    singles = [*chance.sample(range(WORKERS), WORKERS), -1]
                victim = singles.pop(0)
                if victim >= 0:
                    pids = await asyncio.to_thread(gateway.pids)
                    os.kill(pids[f"worker {victim}"], signal.SIGKILL)
                    record.repeats += UNRECORDED
                else:
                    for worker in range(WORKERS):
                        await asyncio.to_thread(gateway.logged, f"worker {worker} runs again")
                    await asyncio.to_thread(gateway.kill)
                    await hop.wait_closed(DEADLINE)
                    await asyncio.to_thread(record.take, gateway)
                    await asyncio.to_thread(gateway.start)
                    whole += 1
            await traffic.more(50)
        await arrivals.wait(traffic.accepted)
        assert await asyncio.to_thread(gateway.stop) == 0
        record.take(gateway)
    count = arrivals.count
    assert count.keys() <= traffic.accepted.keys() | traffic.unanswered
    duplicates = sum(count.values()) - len(count)
    assert duplicates <= record.repeats
    assert all(reply.startswith("4") for reply in traffic.refusals), traffic.refusals
    figures(
        1,
        kills=kills,
        of_everything=whole,
        accepted=len(traffic.accepted),
        lost=len(traffic.accepted.keys() - count.keys()),
        duplicates=duplicates,
        unrecorded_at_a_kill_at_most=record.most,
    )
