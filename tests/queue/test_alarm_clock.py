"""When the queue on disk is looked into."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from gateway.queue.alarm_clock import AlarmClock


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("dues", [(60.0, 0.0, -5.0), (0.0, 60.0), (-1.0, 0.0, 30.0)])
def test_the_first_of_them_wakes_it(
    new_loop: Callable[[], asyncio.AbstractEventLoop], dues: tuple[float, ...]
) -> None:
    """A timer that is due at once is another kind of object in uvloop."""

    async def main() -> None:
        looked = asyncio.Event()
        all_set = False

        def clock() -> float:
            if all_set:
                looked.set()
            return time.time()

        alarm = AlarmClock(lambda lane, priority: None, clock)
        for due in dues:
            alarm.set(time.time() + due)
        all_set = True
        await asyncio.wait_for(looked.wait(), 10)
        alarm.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
