"""Large messages on their way out: read from the disk while they are sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from gateway.events import NOTHING
from gateway.queue.change import Change, apply
from gateway.queue.listing import read_content
from gateway.queue.schedule import RetryPolicy
from gateway.spool import queue_id
from gateway.testing import Hang, NextHop, Wait
from tests.assembly import Assembly, below_trace, configure, until, write_plugin

LINE = b"x" * 77 + b".\r\n"
LARGE = b"Subject: large\r\n\r\n..\r\n" + LINE * 30_000 + b".\r\n"
WIDE = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "ü\r\n".encode() * 500_000
SOON = RetryPolicy((0.1,), 0.0, 1000.0, None)


def _settings(hop: NextHop, more: str = "") -> str:
    return f"relay: {{via: ['{hop.address}']}}\n{more}"


async def test_an_attempt_that_fails_is_made_again(tmp_path: Path) -> None:
    async with NextHop(dot=["451 4.3.0 Later", "250 2.0.0 Ok"]) as hop:
        config = configure(tmp_path, _settings(hop))
        async with Assembly(config, retry=SOON) as gateway:
            await gateway.submit("b@example.net", content=LARGE)
            await hop.wait(2)
            assert [below_trace(one.content) for one in hop.messages] == [LARGE, LARGE]
            await until(lambda: not gateway.rows(), "an empty queue")


async def test_each_lane_gets_all_of_it(tmp_path: Path) -> None:
    plugin = write_plugin(
        tmp_path,
        "site",
        """
per_recipient = True

@hookimpl
def message(self, message):
    message.headers.add("X-To", message.recipients[0].address)
""",
    )
    async with NextHop() as hop:
        config = configure(tmp_path, _settings(hop, f"plugins: [{plugin}]"))
        async with Assembly(config) as gateway:
            await gateway.submit("b@example.net", "c@example.net", content=LARGE)
            await hop.wait(2)
            for message in hop.messages:
                ((recipient, _),) = message.recipients
                header, _, body = message.content.partition(b"\r\n\r\n")
                assert header.endswith(b"X-To: %s" % recipient.encode())
                assert body == LARGE.partition(b"\r\n\r\n")[2]


async def test_a_slow_server_holds_no_lock(tmp_path: Path) -> None:
    async with NextHop(content=Hang(reads=False)) as hop:
        config = configure(tmp_path, _settings(hop))
        async with Assembly(config) as gateway:
            await gateway.submit("b@example.net", content=LARGE * 10)
            await until(lambda: "DATA" in [one.line for one in hop.commands], "DATA")
            # What comes meanwhile is written, and can be written back.
            await until(lambda: gateway.ingress.allowance.taken == 0, "memory to be given back")
            await gateway.submit("c@example.org", content=b"Subject: small\r\n\r\n")
            with apsw.Connection(str(gateway.spool.home.path)) as db:
                total, written = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            assert total == written


async def test_damage_holds_the_message(tmp_path: Path) -> None:
    async with NextHop() as hop:
        config = configure(tmp_path, _settings(hop))
        async with Assembly(config) as gateway:
            gateway.dispatcher._stopping = True
            await gateway.submit("b@example.net", content=LARGE)
            (row,) = gateway.rows()
            with apsw.Connection(str(gateway.spool.home.path)) as db:
                db.execute("DELETE FROM parts WHERE number=1")
            gateway.dispatcher._stopping = False
            gateway.dispatcher._run(gateway.dispatcher._lane(row.lane))
            held = await until(lambda: gateway.rows(state="held"), "the message to be held")
            assert held[0].held == "damaged on disk: its checksum does not fit"
            assert not hop.messages


async def test_it_is_shown_and_dropped_as_others(tmp_path: Path) -> None:
    async with NextHop(rcpt="451 4.3.0 Later") as hop:
        config = configure(tmp_path, _settings(hop))
        async with Assembly(config) as gateway:
            await gateway.submit("b@example.net", content=LARGE)
            (row,) = await until(lambda: gateway.rows(state="deferred"), "the first attempt")
            shown = read_content(config.spool.path, row)
            assert shown is not None
            assert below_trace(shown) == LARGE
            changed, busy = await apply(
                gateway.spool.home,
                Change("drop"),
                [(queue_id.from_text(row.id), row.number)],
                withdraw=gateway.dispatcher.withdraw,
                pauses=gateway.pauses,
                events=NOTHING,
            )
            assert (changed.changed, busy) == (1, set())
            assert not gateway.rows()
            assert gateway.spool.home.query("SELECT count(*) FROM parts", ()) == [(0,)]


@pytest.mark.parametrize("hook", ["route", "admit"])
async def test_a_plugin_may_ask_for_all_of_it(tmp_path: Path, hook: str) -> None:
    plugin = write_plugin(
        tmp_path,
        "site",
        f"""
@hookimpl
def {hook}(self, delivery):
    assert delivery.headers.get("Subject") == "large"
    assert len(delivery.content) > 2_000_000
    assert delivery.content.endswith(b".\\r\\n.\\r\\n")
""",
    )
    async with NextHop() as hop:
        config = configure(tmp_path, _settings(hop, f"plugins: [{plugin}]"))
        async with Assembly(config) as gateway:
            await gateway.submit("b@example.net", content=LARGE)
            await hop.wait(1)
            assert below_trace(hop.messages[0].content) == LARGE


async def test_it_is_converted_for_a_server_that_takes_seven_bits(tmp_path: Path) -> None:
    async with NextHop(extensions=("PIPELINING",), dot=["451 4.3.0 Later", "250 Ok"]) as hop:
        config = configure(tmp_path, _settings(hop))
        async with Assembly(config, retry=SOON) as gateway:
            await gateway.submit("b@example.net", content=WIDE)
            await hop.wait(2)
            one, two = (below_trace(message.content) for message in hop.messages)
            assert one == two
            assert one.isascii()
            assert b"Content-Transfer-Encoding: " in one
            assert len(one) > 2_000_000


async def test_a_report_returns_the_header_of_a_large_message(tmp_path: Path) -> None:
    async with NextHop(rcpt={"b@*": "550 5.1.1 Unknown", "*": "250 Ok"}) as hop:
        config = configure(tmp_path, _settings(hop))
        async with Assembly(config) as gateway:
            await gateway.submit("b@example.net", content=LARGE, mail=" RET=FULL")
            await hop.wait(1)
            report = hop.messages[0].content
            assert b"Content-Type: text/rfc822-headers" in report
            assert b"Subject: large\r\n" in report
            assert len(report) < 10_000


async def test_others_are_delivered_meanwhile(tmp_path: Path) -> None:
    async with NextHop(dot=[Wait(1.0, "250 2.0.0 Ok"), "250 2.0.0 Ok"]) as hop:
        config = configure(tmp_path, _settings(hop))
        async with Assembly(config) as gateway:
            await gateway.submit("b@example.net", content=LARGE)
            await asyncio.gather(*[gateway.submit("c@example.net") for _ in range(5)])
            await hop.wait(6)
            assert sum(len(one.content) > len(LARGE) for one in hop.messages) == 1
