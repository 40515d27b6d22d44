"""`gateway queue` beside a running gateway, and without one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from gateway.testing import Hang, NextHop
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until
from tests.faults.health import Health
from tests.faults.queue_file import write_queue
from tests.faults.traffic import numbers
from tests.queue.served import Left, leave
from tests.spool.damage import hurt, no_header


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
            assert done == {"changed": 1, "busy": 0, "paused": 0}
            listed = gateway.command("queue", "list")
            assert "4 in the queue." in listed
            assert "<a@example.com> → <0@example.net>\n    held by hand\n" in listed
            dropped = gateway.command("queue", "drop", ids[1], "--yes")
            assert dropped.startswith("1 recipient dropped\n")
            assert gateway.command("queue", "retry", ids[2]) == "1 recipient to be tried now\n"
            until(lambda: len(gateway.queue()) == 2, "one to be delivered")
            (held,) = gateway.queue("--state", "held")
            assert (held["id"], held["held"]) == (ids[0], "held by hand")

            shown = json.loads(gateway.command("queue", "show", ids[0], "--json"))
            assert shown["id"] == ids[0]
            assert "Subject: number 0" in shown["header"]
            content = gateway.command("queue", "show", ids[0], "--content")
            assert content.endswith("Subject: number 0\n\nHello\n")

            released = gateway.command("queue", "release", "--all", "--yes")
            assert released.startswith("1 recipient released\n")
            retried = gateway.command("queue", "retry", "--recipient", "3@EXAMPLE.net", "--yes")
            assert retried.startswith("1")
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
        assert "1 recipient left alone: being delivered now\n" in said
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
        dropped = gateway.command("queue", "drop", ids[0], "--yes", "--json")
        assert json.loads(dropped.splitlines()[0]) == {"changed": 1, "busy": 0, "paused": 0}
        assert gateway.command("queue", "hold", ids[1]) == "1 recipient held\n"
        assert "1 recipient to be tried now" in gateway.command("queue", "retry", "--all", "--yes")
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
        await asyncio.to_thread(gateway.command, "queue", "release", "--all", "--yes")
        await asyncio.to_thread(gateway.wait_empty)
        # An orderly end leaves clean files, which can be read, too.
        assert await asyncio.to_thread(gateway.stop) == 0
        assert await asyncio.to_thread(gateway.queue) == []


async def test_a_worker_that_does_not_answer(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(workers=1)
    await asyncio.to_thread(gateway.start)
    await asyncio.to_thread(gateway.submit, "x")
    worker = gateway.pids()["worker 0"]
    (lock,) = gateway.spool.glob("[0-9]*.lock")
    os.kill(worker, signal.SIGSTOP)
    try:
        # Reading does not need the worker.
        assert len(await asyncio.to_thread(gateway.queue)) == 1
        assert lock.read_text().endswith(f"-{worker}.sock")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert await asyncio.to_thread(gateway.stop) == 0


# Pauses.

CAMPAIGNS = "campaign_header: X-Campaign"


async def test_nothing_gets_past_a_pause_under_load(make_gateway: MakeGateway) -> None:
    """What any of four workers accepts after the command ended is held; nothing is lost."""
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, CAMPAIGNS, workers=4)
        await asyncio.to_thread(gateway.start)
        load = Load(gateway)
        with ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(load.work, number) for number in range(6)]
            await hop.wait(100, DEADLINE)
            said = await asyncio.to_thread(
                gateway.command, "queue", "pause", "--campaign", "spring", "--yes", "--json"
            )
            sent = _sent(hop)["spring"]
            load.is_paused.set()
            await asyncio.to_thread(lambda: [client.result() for client in clients])
        done = json.loads(said.splitlines()[0])
        assert done["id"] == 1
        assert load.late > 100

        def work() -> int:
            until(lambda: _sent(hop)["summer"] == load.accepted["summer"], "the other campaign")
            until(lambda: not gateway.queue("--state", "active"), "all to be at rest")
            return len(gateway.queue("--campaign", "spring"))

        held = await asyncio.to_thread(work)
        # What was under way when the command ended was counted as such.
        assert sent <= _sent(hop)["spring"] <= sent + done["busy"]
        assert held + _sent(hop)["spring"] == load.accepted["spring"]
        assert held >= load.late / 2

        # New processes know of it, too.
        gateway.signal(signal.SIGHUP)
        await asyncio.to_thread(gateway.logged, "ready: ", 2)
        assert await asyncio.to_thread(gateway.stop) == 0
        await asyncio.to_thread(gateway.start)
        header = "X-Campaign: spring\r\n"
        await asyncio.to_thread(gateway.submit, "x", "spring@example.net", header=header)
        rows = await asyncio.to_thread(gateway.queue, "--state", "held")
        assert len(rows) == held + 1
        assert {row["held"] for row in rows} == {"paused: 1"}

        said = await asyncio.to_thread(gateway.command, "queue", "resume", "1", "--yes")
        assert f"{held + 1:,} recipients released\n" in said
        await asyncio.to_thread(gateway.wait_empty)
        assert _sent(hop)["spring"] == load.accepted["spring"] + 1
        assert max(Counter(message.content for message in hop.messages).values()) == 1


class Load:
    """Mail of two campaigns, sent until enough of it has come after a pause."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._lock = threading.Lock()
        self.is_paused = threading.Event()
        self.accepted: Counter[str] = Counter()
        self.late = 0

    def work(self, client: int) -> None:
        """Sends message after message, over a few connections, so that all workers get some."""
        end = time.monotonic() + DEADLINE
        number = 0
        while self.late < 200 and time.monotonic() < end:
            with self._gateway.client() as connection:
                for _ in range(10):
                    number += 1
                    campaign = ("spring", "summer")[number % 2]
                    text = f"X-Campaign: {campaign}\r\nSubject: {client} {number}\r\n\r\nHello\r\n"
                    is_late = self.is_paused.is_set()
                    connection.sendmail("a@example.com", [f"{campaign}@example.net"], text)
                    with self._lock:
                        self.accepted[campaign] += 1
                        self.late += is_late


def _sent(hop: NextHop) -> Counter[str]:
    return Counter(message.recipients[0][0].partition("@")[0] for message in hop.messages)


# Rerouting.


async def test_reroute_what_is_on_disk_and_in_memory(make_gateway: MakeGateway) -> None:
    async with NextHop(rcpt="450 4.2.0 Later") as hop, NextHop() as other:
        gateway = make_gateway(hop.address, CAMPAIGNS, workers=3)

        def work() -> None:
            gateway.start()
            for number in range(12):
                campaign = ("spring", "summer")[number % 2]
                gateway.submit(f"{number}", header=f"X-Campaign: {campaign}\r\n")
            until(lambda: len(gateway.queue("--state", "deferred")) == 12, "the deferrals")
            arguments = ["--via", f"127.0.0.1:1,{other.address}", "--campaign", "spring", "--yes"]
            assert "6 recipients rerouted\n" in gateway.command("queue", "reroute", *arguments)
            until(lambda: len(gateway.queue()) == 6, "the rerouted mail to go")
            assert {row["campaign"] for row in gateway.queue()} == {"summer"}

        await asyncio.to_thread(work)
        assert len(other.messages) == 6


# Large changes.


async def test_a_worker_that_dies_meanwhile(make_gateway: MakeGateway) -> None:
    """Another owner goes on with the change."""
    gateway = make_gateway(workers=2)
    many = [f"{number}@example.net" for number in range(20_000)]
    later = {"due": time.time() + 3600, "attempts": 1, "reply": "450 Later"}
    leave(gateway.spool, [Left(many, lane="smarthost", columns=later)])

    def work() -> None:
        gateway.start()
        owner = gateway.spool / "0001.lock"
        worker = int(owner.read_text().rpartition("-")[2].removesuffix(".sock"))
        command = [sys.executable, "-m", "gateway", "queue", "hold", "--all", "--yes", "--json"]
        process = subprocess.Popen(
            [*command, "-c", str(gateway.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: gateway.queue("--state", "held", "--limit", "1"), "the first to be held")
        os.kill(worker, signal.SIGKILL)
        output, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, errors
        assert len(gateway.queue("--state", "held")) == len(many)
        assert json.loads(output)["changed"] <= len(many)

    await asyncio.to_thread(work)


# A damaged shard.


async def test_mail_of_a_damaged_shard_is_saved_while_it_runs(make_gateway: MakeGateway) -> None:
    """It is held until a person lets it go, and then delivered once."""
    count = 300
    async with NextHop() as hop:
        with Health() as health:
            gateway = make_gateway(hop.address, health.configuration)
            ids = write_queue(gateway.spool, 1, range(count), lambda number: None)
            hurt(gateway.spool / "0001.db", no_header)

            def work() -> None:
                gateway.start()
                health.seen(503, time.monotonic())
                gateway.submit("number 9999999")
                until(lambda: "queue is empty" in gateway.command("queue", "list", status=3), "it")
                said = gateway.command("queue", "salvage", "--yes", status=3)
                assert f"  {count} messages to {count} recipients put back, held\n" in said
                health.seen(200, time.monotonic())
                held = gateway.queue("--state", "held")
                assert {row["id"] for row in held} == set(ids.values())
                # A worker has it, and lets it go.
                released = gateway.command("queue", "release", "--all", "--yes")
                assert f"{count} recipients released\n" in released
                gateway.wait_empty()
                assert gateway.stop() == 0

            await asyncio.to_thread(work)
    assert numbers(hop.messages) == {**dict.fromkeys(range(count), 1), 9999999: 1}


def test_a_salvage_that_is_killed_can_be_done_again(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    ids = write_queue(gateway.spool, 1, range(5_000), lambda number: None)
    hurt(gateway.spool / "0001.db", no_header)
    command = [sys.executable, "-m", "gateway", "queue", "salvage", "--yes"]
    process = subprocess.Popen(
        [*command, "-c", str(gateway.config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    log = gateway.spool / "0002.db-wal"
    until(lambda: log.exists() and log.stat().st_size > 1_000_000, "some of it to be written")
    process.kill()
    process.communicate()
    assert (gateway.spool / "0001.db").exists()
    before = gateway.command("queue", "list", status=3).count("→")
    assert 0 < before < len(ids)
    said = gateway.command("queue", "salvage", "--yes", status=3)
    assert f"  {before:,} recipients in the queue already\n" in said
    assert sorted(row["id"] for row in gateway.queue()) == sorted(ids.values())
    assert not (gateway.spool / "0001.db").exists()
