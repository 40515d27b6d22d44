"""`gateway queue` beside a running gateway, and without one."""

from __future__ import annotations

import asyncio
import json
import os
import signal

from gateway.testing import Hang, NextHop
from tests.e2e.conftest import DEADLINE, MakeGateway, until


async def test_the_queue_by_hand_while_it_runs(make_gateway: MakeGateway) -> None:
    later = "450 4.3.0 Later"
    async with NextHop(mail=[*[later] * 4, "250 Ok"]) as hop:
        gateway = make_gateway(hop.address)
        await asyncio.to_thread(gateway.start)

        def work() -> None:
            ids = [gateway.submit(f"number {n}", f"{n}@example.net") for n in range(4)]
            until(lambda: len(gateway.queue("--state", "deferred")) == 4, "four deferrals")
            rows = {row["id"]: row for row in gateway.queue()}
            assert set(rows) == set(ids)
            assert rows[ids[0]]["reply"] == later

            done = json.loads(gateway.command("queue", "hold", ids[0], "--json"))
            assert done == {"changed": 1, "busy": 0}
            listed = gateway.command("queue", "list")
            assert "4 in the queue." in listed
            assert "<a@example.com> → <0@example.net>\n    held by hand\n" in listed
            assert gateway.command("queue", "drop", ids[1], "--yes") == "1 recipient dropped\n"
            assert gateway.command("queue", "retry", ids[2]) == "1 recipient to be tried now\n"
            until(lambda: len(gateway.queue()) == 2, "one to be delivered")
            (held,) = gateway.queue("--state", "held")
            assert (held["id"], held["held"]) == (ids[0], "held by hand")

            shown = json.loads(gateway.command("queue", "show", ids[0], "--json"))
            assert shown["id"] == ids[0]
            assert "Subject: number 0" in shown["header"]
            content = gateway.command("queue", "show", ids[0], "--content")
            assert content.endswith("Subject: number 0\n\nHello\n")

            assert gateway.command("queue", "release", "--all") == "1 recipient released\n"
            assert gateway.command("queue", "retry", "--recipient", "3@EXAMPLE.net").startswith("1")
            gateway.wait_empty()

            stats = json.loads(gateway.command("queue", "stats", "--json"))
            assert stats["lanes"] == []
            assert len(stats["workers"]) == 2
            assert sum(worker["accepted"] for worker in stats["workers"]) == 4
            assert sum(worker["delivered"] for worker in stats["workers"]) == 3

        await asyncio.to_thread(work)
        assert len(hop.messages) == 3


async def test_what_is_being_delivered_is_said(make_gateway: MakeGateway) -> None:
    async with NextHop(dot=Hang()) as hop:
        gateway = make_gateway(hop.address)
        await asyncio.to_thread(gateway.start)
        identifier = await asyncio.to_thread(gateway.submit, "x")
        await hop.wait(1, DEADLINE)
        said = await asyncio.to_thread(gateway.command, "queue", "drop", identifier, "--yes")
        assert said.endswith("1 recipient left alone: being delivered now\n")
        assert len(await asyncio.to_thread(gateway.queue)) == 1


async def test_the_queue_by_hand_while_it_is_down(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    await asyncio.to_thread(gateway.start)

    def work() -> None:
        ids = [gateway.submit(f"number {n}", f"{n}@example.net") for n in range(3)]
        until(lambda: len(gateway.queue("--state", "deferred")) == 3, "three deferrals")
        # A kill leaves files behind as they were.
        gateway.kill()
        assert {row["id"] for row in gateway.queue()} == set(ids)
        assert json.loads(gateway.command("queue", "drop", ids[0], "--yes", "--json")) == {
            "changed": 1,
            "busy": 0,
        }
        assert gateway.command("queue", "hold", ids[1]) == "1 recipient held\n"
        assert gateway.command("queue", "retry", "--all") == "1 recipient to be tried now\n"
        stats = gateway.command("queue", "stats")
        assert "The gateway is not running." in stats
        states = {row["id"]: row["state"] for row in gateway.queue()}
        assert states == {ids[1]: "held", ids[2]: "active"}

    await asyncio.to_thread(work)
    async with NextHop() as hop:
        gateway._via = hop.address
        gateway.configure()
        await asyncio.to_thread(gateway.start)
        (message,) = await hop.wait(1, DEADLINE)
        assert b"Subject: number 2" in message.content
        await asyncio.to_thread(gateway.command, "queue", "release", "--all")
        await asyncio.to_thread(gateway.wait_empty)
        # An orderly end leaves clean files, which can be read, too.
        assert await asyncio.to_thread(gateway.stop) == 0
        assert await asyncio.to_thread(gateway.queue) == []


async def test_a_worker_that_does_not_answer(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(workers=1)
    await asyncio.to_thread(gateway.start)
    await asyncio.to_thread(gateway.submit, "x")
    worker = gateway.pids()["worker 0"]
    (lock,) = gateway.spool.glob("*.lock")
    os.kill(worker, signal.SIGSTOP)
    try:
        # Reading does not need the worker.
        assert len(await asyncio.to_thread(gateway.queue)) == 1
        assert lock.read_text().endswith(f"-{worker}.sock")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert await asyncio.to_thread(gateway.stop) == 0
