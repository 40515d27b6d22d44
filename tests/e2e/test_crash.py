"""Promise one: what was answered with 250 is never lost, however the gateway ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.testing import Hang, NextHop, Wait
from tests.assembly import write_plugin
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, Sink, is_running, until


class Load:
    """Clients that send numbered messages as fast as they can, and note which were accepted.

    A client whose connection breaks connects again and goes on with the next message.
    """

    def __init__(self, gateway: Gateway, total: int, clients: int = 20) -> None:
        self._gateway = gateway
        self._numbers = iter(range(total))
        self._clients = clients
        self.accepted: set[str] = set()
        self.unanswered: set[str] = set()
        self.refused: list[str] = []
        self.connect_errors: list[str] = []
        self.stopping = False

    async def run(self) -> None:
        """Sends until the messages have run out."""
        await asyncio.gather(*(self._send() for _ in range(self._clients)))

    async def _send(self) -> None:
        while not self.stopping:
            try:
                address = ("127.0.0.1", self._gateway.port)
                reader, writer = await asyncio.open_connection(*address)
            except OSError as error:
                self.connect_errors.append(repr(error))
                await asyncio.sleep(0.05)
                continue
            try:
                if not await self._talk(reader, writer):
                    return
            except (OSError, asyncio.IncompleteReadError):
                pass  # what has been sent and not answered may have been accepted or not
            finally:
                writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.readuntil(b"\r\n")
        writer.write(b"EHLO client.example.org\r\n")
        while not (await reader.readuntil(b"\r\n")).startswith(b"250 "):
            pass
        for number in self._numbers:
            if self.stopping:
                return False
            name = str(number)
            self.unanswered.add(name)
            writer.write(
                b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
                + f"Subject: number {name}\r\n\r\n{'Hello' * 100}\r\n.\r\n".encode()
            )
            for _ in range(3):
                await reader.readuntil(b"\r\n")
            reply = await reader.readuntil(b"\r\n")
            self.unanswered.discard(name)
            if reply.startswith(b"250"):
                self.accepted.add(name)
            else:
                self.refused.append(reply.decode())
                return True
        return False


@asynccontextmanager
async def _under_load(load: Load) -> AsyncIterator[None]:
    running = asyncio.create_task(load.run())
    try:
        yield
        load.stopping = True
        async with asyncio.timeout(DEADLINE):
            await running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _accepted(load: Load, count: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while len(load.accepted) < count:
            await asyncio.sleep(0.002)


def _arrived(sink: Sink) -> Counter[str]:
    return Counter(number.decode() for number in sink.found(rb"(?m)^Subject: number (\d+)\s"))


async def test_kill_of_everything_loses_nothing(
    make_gateway: MakeGateway, sink: Sink, scale: Scale
) -> None:
    gateway = make_gateway(sink.address)
    await asyncio.to_thread(gateway.start)
    load = Load(gateway, scale(2000, 5000))
    async with _under_load(load):
        for moment in scale((600, 1400), (1500, 3500)):
            await _accepted(load, moment)
            await asyncio.to_thread(gateway.kill)
            await asyncio.to_thread(gateway.start)
        await _accepted(load, scale(1800, 4800))
    await asyncio.to_thread(gateway.wait_empty)
    arrived = _arrived(sink)
    assert not load.accepted - set(arrived)
    assert set(arrived) <= load.accepted | load.unanswered
    # A client whose worker is gone may meet the other one before that is killed, too.
    assert len(load.unanswered) <= 2 * 2 * 20
    twice = {number for number, times in arrived.items() if times > 1}
    # Two kills, two workers; in each, twenty deliveries, and those that wait to be written down.
    assert len(twice) <= 2 * 2 * 20 * 4
    assert await asyncio.to_thread(gateway.stop) == 0


async def test_kill_of_a_worker_is_a_matter_of_its_own(
    make_gateway: MakeGateway, sink: Sink
) -> None:
    gateway = make_gateway(sink.address)
    await asyncio.to_thread(gateway.start)
    before = gateway.pids()
    load = Load(gateway, 100_000)
    async with _under_load(load):
        await _accepted(load, 500)
        os.kill(before["worker 1"], signal.SIGKILL)
        await asyncio.to_thread(gateway.logged, "worker 1 runs again")
        await _accepted(load, len(load.accepted) + 500)
    after = gateway.pids()
    assert after["worker 0"] == before["worker 0"]
    assert after["worker 1"] != before["worker 1"]
    await asyncio.to_thread(gateway.wait_empty)
    assert not load.accepted - set(_arrived(sink))
    assert load.connect_errors == []


async def test_a_shard_that_nobody_holds_is_adopted(make_gateway: MakeGateway) -> None:
    gateway = make_gateway("127.0.0.1:1", workers=3)
    await asyncio.to_thread(gateway.start)
    ids: set[str] = set()

    def fill() -> None:
        while len({row["shard"] for row in gateway.queue()}) < 3:
            ids.update(gateway.submit("x") for _ in range(10))

    await asyncio.to_thread(fill)
    assert {row["id"] for row in gateway.queue()} == ids
    await asyncio.to_thread(gateway.kill)
    async with NextHop() as hop:
        gateway._via, gateway._workers = hop.address, 1
        gateway.configure()
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.command, "queue", "retry", "--all", "--yes")
        await hop.wait(len(ids), DEADLINE)
        await asyncio.to_thread(gateway.logged, "ran empty and was removed", 2)
        assert [path.name for path in gateway.spool.glob("*.db")] == ["0001.db"]
        assert await asyncio.to_thread(gateway.queue) == []


async def test_sigterm_finishes_what_is_under_way(make_gateway: MakeGateway) -> None:
    async with NextHop(dot=Wait(1.0, "250 2.0.0 Ok")) as hop:
        gateway = make_gateway(hop.address, workers=1)
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.submit, "first")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"EHLO x.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n")
        writer.write(b"DATA\r\nSubject: second\r\n")
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        async with asyncio.timeout(DEADLINE):
            assert (await idle_reader.readline()).startswith(b"220")
            while not (await reader.readline()).startswith(b"354"):
                pass
            await hop.wait(1, DEADLINE)
            gateway.signal(signal.SIGTERM)
            # Idle clients go; the one within a message may finish it, and no new one begins.
            assert (await idle_reader.readline()).startswith(b"421 4.3.2")
            writer.write(b"\r\n.\r\nMAIL FROM:<a@example.com>\r\n")
            assert (await reader.readline()).startswith(b"250 2.0.0 Ok: queued")
            assert (await reader.readline()).startswith(b"421 4.3.2")
            assert await reader.read() == b""
        writer.close()
        idle_writer.close()
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "status=sent" in gateway.log
        assert "error" not in gateway.log
        # What came last waits on disk for the next start.
        (row,) = await asyncio.to_thread(gateway.queue)
        assert row["state"] == "active"
        await asyncio.to_thread(gateway.start)
        messages = await hop.wait(2, DEADLINE)
        subjects = [b"first" in messages[0].content, b"second" in messages[1].content]
        assert subjects == [True, True]


async def test_an_attempt_that_does_not_end_is_cut_off_and_repeated(
    make_gateway: MakeGateway,
) -> None:
    async with NextHop(dot=[Hang(), "250 2.0.0 Ok"]) as hop:
        gateway = make_gateway(hop.address, workers=1)
        text = gateway.config.read_text().replace("20s", "300ms")
        gateway.config.write_text(text)
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.submit, "x")
        await hop.wait(1, DEADLINE)
        assert await asyncio.to_thread(gateway.stop) == 0
        await asyncio.to_thread(gateway.start)
        await hop.wait(2, DEADLINE)
        await asyncio.to_thread(gateway.wait_empty)


async def test_a_reload_loses_nothing_and_refuses_nobody(
    make_gateway: MakeGateway, sink: Sink
) -> None:
    gateway = make_gateway(sink.address)
    body = "@hookimpl\ndef message(self, message):\n    message.headers.add('X-Version', '{}')"
    for version in (1, 2):
        write_plugin(gateway.folder, f"v{version}", body.format(version))
    gateway.configure("plugins: [./v1.py]")
    await asyncio.to_thread(gateway.start)
    old = gateway.pids()
    load = Load(gateway, 100_000, clients=2)
    async with _under_load(load):
        await _accepted(load, 300)
        gateway.configure("plugins: [./v2.py]")
        gateway.signal(signal.SIGHUP)
        await asyncio.to_thread(gateway.logged, "ready: ", 2)
        # The old workers end the sessions that they still have.
        await _accepted(load, len(load.accepted) + 200)
        # A file that is wrong changes nothing and says why.
        text = gateway.config.read_text()
        gateway.config.write_text(text.replace("v2.py", "v3.py").replace("workers:", "wrkers:"))
        gateway.signal(signal.SIGHUP)
        await asyncio.to_thread(gateway.logged, "the reload changed nothing")
        assert "gateway.yaml:2: wrkers: unknown key" in gateway.log
        gateway.config.write_text(text.replace("v2.py", "v3.py"))
        gateway.signal(signal.SIGHUP)
        await asyncio.to_thread(gateway.logged, "the reload changed nothing", 2)
        assert "v3.py" in gateway.log
    until(lambda: not any(is_running(p) for n, p in old.items() if n != "supervisor"), "the old")
    await asyncio.to_thread(gateway.wait_empty)
    assert load.connect_errors == []
    assert all(reply.startswith("421 4.3.2") for reply in load.refused)
    arrived = _arrived(sink)
    assert set(arrived) == load.accepted
    assert set(arrived.values()) == {1}
    assert set(sink.found(rb"X-Version: (\d)")) == {b"1", b"2"}
    await asyncio.to_thread(gateway.submit, "number 100000")
    until(lambda: "100000" in _arrived(sink), "the last message")
    (last,) = [message for message in sink.messages() if b"number 100000" in message]
    assert b"X-Version: 2" in last


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("hostnam: x", "gateway.yaml:7: hostnam: unknown key"),
        ("relay: {via: [1]}", "gateway.yaml:6: relay.via[0]: "),
        ("plugins: [", "gateway.yaml:"),
        ("retry: {lifetime: often}", "gateway.yaml:7: retry.lifetime: "),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    make_gateway: MakeGateway, wrong: str, said: str
) -> None:
    gateway = make_gateway(more=wrong)
    for command in ("check", "run", "chain"):
        assert said in gateway.command(command, "-c", str(gateway.config), status=2)
    assert not gateway.spool.exists()


def test_a_wrong_plugin_is_refused_with_its_line(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(more="plugins:\n  - suppression: {adresses: []}")
    said = "gateway.yaml:8: plugins[0].suppression.adresses: unknown key"
    assert said in gateway.command("check", "-c", str(gateway.config), status=2)
    assert said in gateway.command("run", "-c", str(gateway.config), status=2)
    assert not gateway.spool.exists()
