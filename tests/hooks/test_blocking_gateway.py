"""A running gateway with a plugin that blocks, hangs and spins in its threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import NextHop
from tests.assembly import write_plugin
from tests.e2e.conftest import DEADLINE, Gateway, until

PLUGIN = """
blocking = True
threads = 2

@hookimpl
def start(self, context):
    self.context = context

@hookimpl
def message(self, message):
    subject = message.headers.get("Subject")
    if subject == "spin":
        turns = 0
        while True: turns += 1
    if subject == "sleep":
        time.sleep(600)
    time.sleep(0.05)
    message.headers.add("X-Blocking", self.context.role)
    limits = self.context.limits
    limits.change("mail", time.time(), lambda cell: ((cell.value if cell else 0) + 1, 1e12, ""))
    self.context.emit(Event("seen", time.time(), message.id)).result()

@hookimpl
def seal(self, message):
    message.headers.prepend("X-Seal", str(int(self.context.limits.read("mail", 0.0).value)))

@hookimpl
def observe(self, events):
    time.sleep(0.01)
    with (Path(__file__).parent / "seen").open("a") as file:
        for event in events:
            if event.type == "seen":
                file.write(event.message_id + "\\n")

@hookimpl
def stop(self):
    if self.context.role == "worker":
        time.sleep(600)
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, "127.0.0.1:1", workers=1)
    yield gateway
    gateway.clean()


async def test_mail_passes_while_threads_hang(gateway: Gateway) -> None:
    plugin = write_plugin(gateway.folder, "blocker", PLUGIN)
    async with NextHop() as hop:
        gateway.configure(
            f"relay: {{via: ['{hop.address}']}}\nplugins: [{plugin}: {{timeout: 1s}}]"
        )
        await asyncio.to_thread(gateway.start)

        def refused(subject: str) -> bytes:
            with gateway.client() as client:
                client.ehlo()
                client.mail("a@example.com")
                client.rcpt("b@example.net")
                code, text = client.data(f"Subject: {subject}\r\n\r\nHello\r\n")
                assert code == 451, text
                return text

        hanging = [asyncio.create_task(asyncio.to_thread(refused, "spin"))]
        await asyncio.sleep(0.2)
        passed = [await asyncio.to_thread(gateway.submit, "good") for _ in range(3)]
        hanging.append(asyncio.create_task(asyncio.to_thread(refused, "sleep")))
        passed += [await asyncio.to_thread(gateway.submit, "good") for _ in range(3)]
        assert {await one for one in hanging} == {
            b"4.3.0 The mail cannot be checked now, please try again later"
        }
        assert len(gateway.logged("plugin blocker failed in message: ran longer than 1 s")) == 2
        passed.append(await asyncio.to_thread(gateway.submit, "good"))
        messages = await hop.wait(7, DEADLINE)
        seals = {message.content.partition(b"\r\n")[0] for message in messages}
        assert seals == {b"X-Seal: %d" % number for number in range(1, 8)}
        assert all(b"\r\nX-Blocking: worker\r\n" in message.content for message in messages)
        seen = gateway.folder / "seen"
        await asyncio.to_thread(
            until, lambda: seen.exists() and set(passed) <= set(seen.read_text().split()), "events"
        )
        started = time.monotonic()
        assert await asyncio.to_thread(gateway.stop) == 0
        assert time.monotonic() - started < DEADLINE / 2
        assert "plugin blocker failed in stop: ran longer than 1 s" in gateway.log
