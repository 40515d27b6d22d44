"""Mail and events that end each process that has them in hand, in running gateways under load.

What is in the queue outlives the process, and ends the next one too: until it is held, or passed
over, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import suppress

import pytest

from gateway.testing import NextHop
from tests.assembly import write_plugin
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until
from tests.faults.broken_plugins import AFTER_ACCEPTANCE, DIES, BrokenPlugins, Case
from tests.faults.figures import Figures
from tests.faults.paced_clients import Connection

INTERVAL = 0.04
"""Seconds between two messages of others."""


class Others:
    """A client that sends one message after the other, and connects anew when it has to.

    Attributes:
        accepted: the recipients of messages that were.
        broken: how many connections have broken off.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._numbers = itertools.count()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self.accepted: list[str] = []
        self.broken = 0

    async def _run(self) -> None:
        while True:
            try:
                await self._send()
            except ConnectionError:
                self.broken += 1

    async def _send(self) -> None:
        connection = await Connection.open(self._gateway, "127.0.0.1")
        try:
            await connection.expect("220")
            await connection.expect("250", "EHLO good.example.org")
            while True:
                recipient = f"g{next(self._numbers)}@example.net"
                async with asyncio.timeout(DEADLINE):
                    await connection.send("good@example.com", recipient, "good")
                self.accepted.append(recipient)
                await asyncio.sleep(INTERVAL)
        finally:
            connection.close()

    async def stop(self) -> None:
        """Sends no more."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


HELD = "a process ended 3 times while plugin {}'s `{}` had this message"


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param(hook, marks=() if hook == "admit" else pytest.mark.long)
        for hook in AFTER_ACCEPTANCE
    ],
)
async def test_mail_that_ends_each_process_is_held(
    make_gateway: MakeGateway, figures: Figures, hook: str
) -> None:
    case = Case(hook, DIES, "plain")
    loop = asyncio.get_running_loop()
    async with NextHop(rcpt={"b@later.example": "450 4.2.0 Later"}) as hop:
        gateway = make_gateway(hop.address, workers=2)
        plugins = BrokenPlugins(gateway.folder, [case])
        gateway.configure(f"retry: {{schedule: [1h]}}\n{plugins.entries}")
        await asyncio.to_thread(gateway.start)
        others = Others(gateway)
        plugins.switch([case])
        connection = await Connection.open(gateway, plugins.addresses[case])
        await connection.expect("220")
        await connection.expect("250", "EHLO bad.example.org")
        started = loop.time()
        with suppress(ConnectionError):  # it may have ended before the reply was sent
            await connection.send("bad@example.com", case.recipient, "broken")
        connection.close()
        reason = HELD.format(plugins.names[case], hook)
        await asyncio.to_thread(gateway.logged, f"held: {reason}")
        seconds = loop.time() - started
        count = len(others.accepted)
        while len(others.accepted) < count + 5:
            await asyncio.sleep(INTERVAL)
        await others.stop()
        deaths = len(await asyncio.to_thread(gateway.logged, "ended: exit status 3"))
        assert deaths == 3
        (held,) = await asyncio.to_thread(gateway.queue, "--state", "held")
        assert held["held"] == reason
        expected, arrived = set(others.accepted), Counter[str]()
        async with asyncio.timeout(DEADLINE):
            while not expected <= arrived.keys():
                await asyncio.sleep(INTERVAL)
                arrived = Counter(to for one in hop.messages for to, _ in one.recipients)
        # Only what was on its way when a process ended goes out twice: a connection has one.
        assert sum(arrived[to] - 1 for to in expected) <= deaths
        assert case.recipient not in arrived
        plugins.switch(())
        await asyncio.to_thread(gateway.command, "queue", "release", held["id"])
        if hook == "reply":
            await asyncio.to_thread(until, lambda: gateway.queue("--state", "deferred"), "a reply")
        else:
            await asyncio.to_thread(gateway.wait_empty)
            assert [one.recipients[0][0] for one in hop.messages].count(case.recipient) == 1
        assert await asyncio.to_thread(gateway.stop) == 0
    figures(
        15,
        processes_ended=deaths,
        seconds_until_the_mail_was_held=round(seconds, 1),
        connections_of_others_broken=others.broken,
        others_delivered=len(expected),
    )


OBSERVES = """
@hookimpl
def observe(self, events):
    seen = {event.recipient for event in events if event.type == "delivered"}
    if "poison@example.net" in seen:
        import os
        os._exit(3)
    with open(Path(__file__).parent / "seen", "a") as log:
        for recipient in seen:
            print(recipient, file=log)
"""


@pytest.mark.long
async def test_an_event_that_ends_each_process_is_passed_over(
    make_gateway: MakeGateway, figures: Figures
) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=1)
        gateway.configure(f"plugins: [{write_plugin(gateway.folder, 'site', OBSERVES)}]")
        await asyncio.to_thread(gateway.start)
        workers = gateway.pids()["worker 0"]
        names = ["poison", *(f"g{number}" for number in range(20))]
        for name in names:
            await asyncio.to_thread(gateway.submit, "x", f"{name}@example.net")
        await asyncio.to_thread(gateway.logged, "it is passed over")
        expected = {f"{name}@example.net" for name in names[1:]}
        seen = gateway.folder / "seen"

        def has_all() -> bool:
            return seen.exists() and expected <= set(seen.read_text().split())

        await asyncio.to_thread(until, has_all, "the other events")
        ended = gateway.logged("ended: exit status 3")
        assert len(ended) == 3
        assert all("service (pid" in line for line in ended)
        assert gateway.pids()["worker 0"] == workers
        assert len(hop.messages) == len(names)
        assert await asyncio.to_thread(gateway.stop) == 0
    figures(15, service_processes_ended=len(ended), other_events_seen=len(expected))
