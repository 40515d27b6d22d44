"""Mail that may not go out now: paused lanes, parked entries, limits on connections, pauses."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from gateway.queue.lane import Bounds
from gateway.queue.schedule import RetryPolicy
from gateway.testing import NextHop, Wait
from tests.assembly import Assembly, configure, until, write_plugin


def _assembly(folder: Path, hop: NextHop | str, body: str = "", **options: object) -> Assembly:
    via = hop if isinstance(hop, str) else hop.address
    text = f"relay: {{via: ['{via}'], idle: 1s, tls: {{level: none}}}}\n"
    if body:
        text += f"plugins: [{write_plugin(folder, 'site', body)}]"
    return Assembly(configure(folder, text), **options)  # type: ignore[arg-type]


# One in 50 ms, over the whole lane.
PACE = """
@hookimpl
def start(self, context):
    self.asked = self.admitted = 0
    self.next = 0.0
@hookimpl
def admit(self, delivery):
    self.asked += 1
    now = time.monotonic()
    if now < self.next:
        return Delay(self.next - now, "too fast", lane=True)
    self.next = now + 0.05
    self.admitted += 1
"""


async def test_a_lane_that_has_to_wait_asks_for_one_message_at_a_time(tmp_path: Path) -> None:
    async with NextHop() as hop, _assembly(tmp_path, hop, PACE) as gateway:
        started = time.monotonic()
        for number in range(20):
            await gateway.submit(f"{number}@example.net")
        await hop.wait(20, 30)
        assert time.monotonic() - started > 19 * 0.05 - 0.01
        plugin = gateway.plugins[0].instance
        assert plugin.admitted == 20  # type: ignore[attr-defined]
        # Twenty runners are there, and one of them finds out that all have to wait.
        assert plugin.asked < 80  # type: ignore[attr-defined]
        order = [int(message.recipients[0][0].split("@")[0]) for message in hop.messages]
        assert order == sorted(order)
        await until(lambda: not gateway.rows(), "an empty queue")


async def test_an_entry_that_has_to_wait_lets_others_pass(tmp_path: Path) -> None:
    body = """
@hookimpl
def start(self, context):
    self.opens = time.monotonic() + 0.5
@hookimpl
def admit(self, delivery):
    if delivery.recipients[0].address.startswith("late") and time.monotonic() < self.opens:
        return Delay(0.1, "not yet")
"""
    async with NextHop() as hop, _assembly(tmp_path, hop, body) as gateway:
        await gateway.submit("late@example.net")
        await gateway.submit("early@example.net")
        messages = await hop.wait(2)
        assert [message.recipients[0][0].split("@")[0] for message in messages] == ["early", "late"]
        # It waited in memory: nothing of it was written before the end.
        assert gateway.settler.deferred == 0


async def test_a_lane_that_waits_for_long_keeps_nothing_in_memory(tmp_path: Path) -> None:
    body = """
@hookimpl
def admit(self, delivery):
    if not (Path(__file__).parent / "open").exists():
        return Delay(120, "closed for two minutes", lane=True)
"""
    async with NextHop() as hop, _assembly(tmp_path, hop, body) as gateway:
        for number in range(30):
            await gateway.submit(f"{number}@example.net")

        def on_disk() -> bool:
            dues = [row.due or 0.0 for row in gateway.rows()]
            return len(dues) == 30 and min(dues) > time.time() + 60

        await until(on_disk, "mail on disk")
        assert {row.attempts for row in gateway.rows()} == {0}
        await until(lambda: gateway.dispatcher._memory.recipients == 0, "memory to be empty")
        # What comes while the lane is paused goes to the disk at once, unasked.
        await gateway.submit("new@example.net")
        (row,) = [row for row in gateway.rows() if row.recipient.startswith("new")]
        assert row.due is not None
        assert row.due > time.time() + 60


async def test_what_comes_into_a_lane_just_as_it_is_paused_goes_to_disk(tmp_path: Path) -> None:
    # "early" waits in memory while the lane is paused; others are being written just then.
    body = """
@hookimpl
def admit(self, delivery):
    if delivery.recipients[0].address.startswith("early"):
        return Delay(0.3, "not yet")
    return Delay(120, "closed for two minutes", lane=True)
"""
    async with NextHop() as hop, _assembly(tmp_path, hop, body) as gateway:
        await gateway.submit("early@example.net")
        await asyncio.gather(*(gateway.submit(f"{n}@example.net") for n in range(100)))

        def on_disk() -> bool:
            dues = [row.due or 0.0 for row in gateway.rows()]
            return len(dues) == 101 and min(dues) > time.time() + 60

        await until(on_disk, "mail on disk")
        await until(lambda: gateway.dispatcher._memory.recipients == 0, "memory to be empty")


async def test_recipients_beyond_the_limit_of_a_message_go_in_further_ones(tmp_path: Path) -> None:
    body = """
@hookimpl
def admit(self, delivery):
    delivery.recipients_per_message = 3
"""
    async with NextHop() as hop, _assembly(tmp_path, hop, body) as gateway:
        await gateway.submit(*(f"{number}@example.net" for number in range(8)))
        messages = await hop.wait(3)
        assert sorted(len(message.recipients) for message in messages) == [2, 3, 3]
        found = Counter(address for message in messages for address, _ in message.recipients)
        assert set(found.values()) == {1}
        assert len(found) == 8
        await until(lambda: not gateway.rows(), "an empty queue")


async def test_a_ceiling_holds_over_two_lanes_of_one_site(tmp_path: Path) -> None:
    body = """
@hookimpl
def admit(self, delivery):
    delivery.ceilings["site"] = 2
"""
    async with NextHop(dot=Wait(0.01, "250 Ok")) as hop:
        routes = f"{{one.example: ['{hop.address}'], two.example: ['{hop.address}']}}"
        text = f"relay: {{idle: 1s, routes: {routes}, tls: {{level: none}}}}\n"
        text += f"plugins: [{write_plugin(tmp_path, 'site', body)}]"
        most = 0
        async with Assembly(configure(tmp_path, text)) as gateway:
            for number in range(40):
                await gateway.submit(f"{number}@{('one', 'two')[number % 2]}.example")
            while len(hop.messages) < 40:
                most = max(most, hop.open_connections)
                await asyncio.sleep(0.002)
            await until(lambda: not gateway.rows(), "an empty queue")
        assert most <= 2
        assert gateway.settler.delivered == 40


async def test_each_return_path_has_a_transaction_and_the_content_is_there_once(
    tmp_path: Path,
) -> None:
    body = """
@hookimpl
def message(self, message):
    for recipient in message.recipients[:-1]:
        name = recipient.address.split("@")[0]
        recipient.return_path = f"bounce+{name}@b.example.com"
"""
    async with (
        NextHop(rcpt={"gone@*": "550 5.1.1 Gone", "*": "250 Ok"}) as hop,
        _assembly(tmp_path, hop, body) as gateway,
    ):
        await gateway.submit(
            "one@example.net", "gone@example.net", "two@example.net", "x@y.example"
        )
        messages = await hop.wait(4)
        senders = {message.sender: message.recipients for message in messages}
        assert set(senders) == {
            "bounce+one@b.example.com",
            "bounce+two@b.example.com",
            "a@example.com",
            "",
        }
        # Our own report goes to the sender, not to the return path.
        assert senders[""][0][0] == "a@example.com"
        await until(lambda: not gateway.rows(), "an empty queue")


async def test_a_sender_is_told_once_that_mail_is_late(tmp_path: Path) -> None:
    retry = RetryPolicy((0.05,), 0.0, 3600.0, warn_after=0.01)
    async with (
        NextHop(rcpt={"b@*": [*["450 4.2.0 Later"] * 4, "250 Ok"], "*": "250 Ok"}) as hop,
        _assembly(tmp_path, hop, retry=retry) as gateway,
    ):
        await gateway.submit("b@example.net")
        messages = await hop.wait(2)
        await until(lambda: not gateway.rows(), "an empty queue")
        reports = [message.content for message in messages if not message.sender]
        (report,) = reports
        assert b"Action: delayed" in report
        assert b"Will-Retry-Until:" in report
        assert len(hop.messages) == 2


async def test_who_asks_for_no_warning_gets_none(tmp_path: Path) -> None:
    retry = RetryPolicy((0.05,), 0.0, 3600.0, warn_after=0.01)
    async with (
        NextHop(rcpt={"b@*": [*["450 4.2.0 Later"] * 3, "250 Ok"], "*": "250 Ok"}) as hop,
        _assembly(tmp_path, hop, retry=retry) as gateway,
    ):
        await gateway.submit("b@example.net", rcpt=" NOTIFY=FAILURE")
        await until(lambda: not gateway.rows(), "an empty queue")
        assert [message.sender for message in hop.messages] == ["a@example.com"]


async def test_mail_with_a_priority_of_its_own_overtakes(tmp_path: Path) -> None:
    body = """
@hookimpl
async def route(self, delivery):
    while not (Path(__file__).parent / "open").exists():
        await asyncio.sleep(0.005)
"""
    bounds = Bounds(runners_per_lane=1)
    async with NextHop() as hop, _assembly(tmp_path, hop, body, bounds=bounds) as gateway:
        await gateway.submit("first@example.net")
        for number in range(6):
            await gateway.submit(f"low{number}@example.net", mail=" MT-PRIORITY=-4")
        await gateway.submit("high@example.net", mail=" MT-PRIORITY=4")
        (tmp_path / "open").touch()
        messages = await hop.wait(8)
        assert messages[1].recipients[0][0] == "high@example.net"


async def test_mail_is_converted_and_sealed_anew_for_a_server_without_8bitmime(
    tmp_path: Path,
) -> None:
    body = """
@hookimpl
def seal(self, message):
    message.headers.prepend("X-Seal", str(len(message.body)))
"""
    content = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    content += "Content-Transfer-Encoding: 8bit\r\n\r\nこんにちは\r\n"
    async with (
        NextHop(extensions=["PIPELINING"]) as hop,
        _assembly(tmp_path, hop, body) as gateway,
    ):
        await gateway.submit("b@example.net", content=content.encode(), mail=" BODY=8BITMIME")
        (message,) = await hop.wait(1)
    header, _, sent = message.content.partition(b"\r\n\r\n")
    assert message.content.isascii()
    assert header.startswith(b"X-Seal: %d\r\n" % len(sent))
    assert header.count(b"X-Seal") == 1
