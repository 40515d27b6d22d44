"""Many clients, and slow ones: they are cut off, and the mail of others does not wait for them."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from gateway.testing import NextHop
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until
from tests.faults.consumption import Consumption
from tests.faults.crowd import MANNERS
from tests.faults.figures import Figures

TIMEOUT = 3.0
"""Seconds that a client may be silent here, instead of minutes."""

MESSAGE_TIMEOUT = 5.0
"""Seconds that it may take for a message."""

LATE = 30.0
"""Seconds that cutting off many clients may take on a busy machine."""

SLACK = 0.001
"""Seconds that the machine may add in the long form, which needs a quiet one."""

SHORT_SLACK = 1.0
"""Seconds that a busy machine may add in the short form, whose p99 is that of few messages."""

ROOT = Path(__file__).parents[2]


def _limits(connections_per_client: int) -> str:
    return (
        f"limits: {{command_timeout: {TIMEOUT}s, data_timeout: {TIMEOUT}s, "
        f"message_timeout: {MESSAGE_TIMEOUT}s, connections_per_client: {connections_per_client}}}"
    )


class Crowd:
    """A process with clients that are in the way."""

    def __init__(self, gateway: Gateway, sources: int, counts: dict[str, int]) -> None:
        self.clients = sum(counts.values())
        kinds = [f"{kind}={count}" for kind, count in counts.items()]
        numbers = [str(gateway.port), str(sources), str(MESSAGE_TIMEOUT + LATE)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crowd", *numbers, *kinds],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_connected(self) -> None:
        """Waits until all are there."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "connected\n"

    def result(self) -> dict[str, Any]:
        """What became of each kind, when all are gone."""
        printed, _ = self._process.communicate(timeout=DEADLINE)
        result: dict[str, Any] = json.loads(printed)
        return result


async def test_slow_clients_are_cut_off_and_others_do_not_wait(
    make_gateway: MakeGateway, scale: Scale, figures: Figures
) -> None:
    slow, silent = scale(150, 1000), scale(800, 10_000)
    kinds = [kind for kind in MANNERS if kind not in ("silent", "greeted", "deaf")]
    counts = {kind: slow // len(kinds) for kind in kinds}
    counts |= {"silent": silent // 2, "greeted": silent // 2, "deaf": 4}
    sources = scale(4, 50)
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, _limits(1000), workers=2)
        await asyncio.to_thread(gateway.start)
        alone, among, tally, before, after = await asyncio.to_thread(
            _measure, gateway, sources, counts, scale(1.0, 10.0)
        )
        await asyncio.to_thread(gateway.wait_empty)
        assert await asyncio.to_thread(gateway.stop) == 0
    assert len(hop.messages) == len(alone) + len(among)
    assert {message.sender for message in hop.messages} == {"good@example.com"}
    assert "Traceback" not in gateway.log
    for kind, one in tally.items():
        assert one["cut"] == one["clients"] == counts[kind], (kind, one)
        assert one["longest"] < MESSAGE_TIMEOUT + LATE, (kind, one)
        if kind != "deaf":
            assert set(one["replies"]) == {"421 4.4.2"}, (kind, one)
    # Nothing of them is left behind.
    assert after <= before + 8, (before, after)
    assert _p99(among) <= 2 * _p99(alone) + scale(SHORT_SLACK, SLACK), (_p99(alone), _p99(among))
    figures(
        9,
        slow_clients=slow,
        idle_clients=silent,
        cut_off=sum(one["cut"] for one in tally.values()),
        longest_seconds=round(max(one["longest"] for one in tally.values()), 1),
        p99_alone_ms=round(_p99(alone) * 1000, 1),
        p99_among_them_ms=round(_p99(among) * 1000, 1),
    )


def _measure(
    gateway: Gateway, sources: int, counts: dict[str, int], seconds: float
) -> tuple[list[float], list[float], dict[str, Any], int, int]:
    """Sends mail alone, and then among a crowd, until the last of them is gone.

    Returns the times of the messages, the crowd's result, and the gateway's descriptors before and
    after.
    """
    end = time.monotonic() + seconds
    alone = _send_while(gateway, lambda: time.monotonic() < end)
    before = _descriptors(gateway)
    with Crowd(gateway, sources, counts) as crowd:
        crowd.wait_connected()
        # They wait to be accepted for as long as the machine is busy.
        until(lambda: _descriptors(gateway) > before + crowd.clients // 2, "the crowd to be there")
        end = time.monotonic() + seconds
        among = _send_while(gateway, lambda: time.monotonic() < end)
        tally = crowd.result()
    until(lambda: _descriptors(gateway) <= before + 8, "the connections to be gone")
    return alone, among, tally, before, _descriptors(gateway)


def _send_while(gateway: Gateway, condition: Callable[[], bool]) -> list[float]:
    """Sends messages over a connection each; returns the seconds that each took."""
    times = []
    while condition():
        began = time.monotonic()
        with gateway.client() as client:
            client.sendmail("good@example.com", ["b@example.net"], "Subject: x\r\n\r\nHello\r\n")
        times.append(time.monotonic() - began)
    return times


def _p99(times: list[float]) -> float:
    return sorted(times)[math.ceil(len(times) * 0.99) - 1]


def _descriptors(gateway: Gateway) -> int:
    pids = gateway.pids().items()
    return sum(Consumption.of(pid).descriptors for name, pid in pids if name != "supervisor")


async def test_one_client_cannot_take_all_connections(
    make_gateway: MakeGateway, scale: Scale, figures: Figures
) -> None:
    per_client = scale(50, 500)
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, _limits(per_client), workers=1)
        await asyncio.to_thread(gateway.start)
        tally, times = await asyncio.to_thread(_flood, gateway, 4 * per_client)
        await asyncio.to_thread(gateway.wait_empty)
        assert await asyncio.to_thread(gateway.stop) == 0
    assert len(hop.messages) == len(times) > 0
    assert tally["cut"] == 4 * per_client
    assert tally["replies"] == {"421 4.4.2": per_client, "421 4.7.0": 3 * per_client}
    assert "Traceback" not in gateway.log
    figures(9, connections_of_one_client=4 * per_client, refused=3 * per_client)


def _flood(gateway: Gateway, connections: int) -> tuple[dict[str, Any], list[float]]:
    with Crowd(gateway, 1, {"silent": connections}) as crowd:
        crowd.wait_connected()
        end = time.monotonic() + 0.5
        times = _send_while(gateway, lambda: time.monotonic() < end)
        return crowd.result()["silent"], times
