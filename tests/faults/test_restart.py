"""Row 6: a restart with a long queue forgets nothing, and sends nothing early."""

from __future__ import annotations

import asyncio
import time

from gateway.testing import NextHop
from gateway.testing.nexthop import ReceivedMessage
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, MakeGateway, until
from tests.faults.figures import Figures
from tests.faults.queue_file import write_queue
from tests.faults.spool_copy import waiting
from tests.faults.traffic import numbers

WORKERS = 2
LATER = 3600.0


class TimedHop(NextHop):
    """A next hop that notes when each message came, in seconds since the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[int, float] = {}
        self.repeats = 0

    def received(self, message: ReceivedMessage) -> None:
        """Notes the time."""
        (number,) = numbers([message])
        self.repeats += number in self.times
        self.times.setdefault(number, time.time())
        super().received(message)
        self.messages.clear()  # a hundred thousand need not stay in memory


async def test_a_restart_forgets_nothing_and_sends_nothing_early(
    make_gateway: MakeGateway, scale: Scale, figures: Figures
) -> None:
    count, soon = scale(2_000, 100_000), scale(8.0, 60.0)
    async with TimedHop() as hop:
        gateway = make_gateway(hop.address, workers=WORKERS)
        start = time.time()

        def due(number: int) -> float | None:
            """In memory or due before; soon; much later."""
            kind = number % 5
            if kind == 0:
                return None
            if kind == 1:
                return start - 60.0
            if kind == 4:
                return start + LATER + number
            return start + soon * (0.5 + 0.5 * number / count)

        ids: dict[int, str] = {}
        for shard in range(WORKERS + 2):  # more than there are workers
            part = range(shard * count // 4, (shard + 1) * count // 4)
            ids.update(await asyncio.to_thread(write_queue, gateway.spool, shard + 1, part, due))
        now = [n for n in ids if n % 5 in (0, 1)]
        later = {ids[n]: due(n) for n in ids if n % 5 == 4}
        await asyncio.to_thread(gateway.start)
        # In the midst of it: everything ends, and starts again.
        async with asyncio.timeout(DEADLINE + count / 100):
            while len(hop.times) < len(now) // 2:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(gateway.kill)
        await hop.wait_closed(DEADLINE)
        started = time.monotonic()
        await asyncio.to_thread(gateway.start)
        ready = time.monotonic() - started
        goal = len(ids) - len(later)
        async with asyncio.timeout(DEADLINE + soon + count / 100):
            while len(hop.times) < goal:
                await asyncio.sleep(0.01)
        early = [n for n, moment in hop.times.items() if moment < (due(n) or 0.0)]
        assert early == []
        assert set(hop.times) == {n for n in ids if n % 5 != 4}
        # One kill: each worker repeats what it had under way.
        assert hop.repeats <= WORKERS * 4 * 20

        def only_later() -> bool:
            return len(gateway.queue()) == len(later)

        await asyncio.to_thread(until, only_later, "the rest to be written down")
        assert await asyncio.to_thread(gateway.stop) == 0
    rest = waiting(gateway.spool)
    assert {row.id: row.due for row in rest} == later
    assert all(row.whole for row in rest)
    figures(6, queued=count, ready_again_seconds=ready, early=0, forgotten=0, twice=hop.repeats)
