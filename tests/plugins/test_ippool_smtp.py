"""Sources as next hops meet them: a gateway on real sockets, from real addresses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.queue.schedule import RetryPolicy
from gateway.testing import NextHop
from gateway.testing.script import Script
from tests.assembly import Assembly, configure, until, write_plugin
from tests.plugins.ippool_site import NOWHERE, SPAMHAUS

AT_ONCE = RetryPolicy((0.05,), 0.0, 3600.0)

SOURCES = """
        one: {address: 127.0.0.2, helo: one.example.com}
        two: {address: 127.0.0.3, helo: two.example.com}
"""


def assembly(folder: Path, hop: NextHop, settings: str, sources: str = SOURCES) -> Assembly:
    """A gateway that sends everything to one server, and writes all events."""
    observer = write_plugin(folder, "observer", "@hookimpl\ndef observe(self, events):\n    pass")
    text = (
        f"relay: {{via: ['{hop.address}']}}\n"
        "streams: {bulk: {when: {header: {Precedence: bulk}}}}\n"
        f"plugins:\n  - {observer}\n  - ippool:\n      sources:{sources}{settings}\n"
    )
    return Assembly(configure(folder, text), retry=AT_ONCE)


def told(gateway: Assembly, kind: str) -> list[str]:
    """The reasons in the events of a type."""
    return [event.reason for event in gateway.events() if event.type == kind]


async def test_mail_comes_from_the_address_and_the_name_of_its_pool(tmp_path: Path) -> None:
    pools = """
      pools: {main: {sources: [one]}, bulk: {sources: [two]}}
      default: main
      rules: [{pool: bulk, when: {stream: bulk}}]
"""
    async with NextHop() as hop, assembly(tmp_path, hop, pools) as gateway:
        await gateway.submit("taro@example.net")
        await gateway.submit("jiro@example.net", content=b"Precedence: bulk\r\n\r\nHello\r\n")
        messages = await hop.wait(2)
        found = {one.recipients[0][0]: (one.peer, one.helo) for one in messages}
    assert found == {
        "taro@example.net": ("127.0.0.2", "one.example.com"),
        "jiro@example.net": ("127.0.0.3", "two.example.com"),
    }


async def test_mail_that_was_blocked_goes_from_another_source(tmp_path: Path) -> None:
    refusals: dict[str, Script] = {
        "*@gmail.com": [f"550 5.7.1 {SPAMHAUS}", "250 2.1.5 Ok"],
        "*": "250 2.1.5 Ok",
    }
    async with NextHop(rcpt=refusals) as hop, assembly(tmp_path, hop, "") as gateway:
        await gateway.submit("taro@gmail.com")
        (message,) = await hop.wait(1)
        await until(lambda: told(gateway, "delivered"), "the event")
        # No report that it failed, and no more attempts than these two.
        assert message.sender == "a@example.com"
        assert told(gateway, "bounced") == []
        assert len(told(gateway, "deferred")) == 1
        (reason,) = told(gateway, "source_suspended")
        refused = "two" if message.helo == "one.example.com" else "one"
        assert reason.startswith(f"source {refused} is suspended for gmail until ")
        for number in range(12):
            await gateway.submit(f"u{number}@gmail.com")
        messages = await hop.wait(13)
        assert {one.helo for one in messages} == {message.helo}


async def test_what_a_new_source_may_not_send_goes_from_a_warm_one(tmp_path: Path) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    sources = f"""
        new:
          address: 127.0.0.2
          helo: new.example.com
          weight: 1000000
          warmup: {{since: {yesterday}, curve: [3, 3, 3, 3]}}
        old: {{address: 127.0.0.3, helo: old.example.com}}
"""
    async with NextHop() as hop, assembly(tmp_path, hop, "", sources) as gateway:
        await gateway.submit(*[f"u{number}@gmail.com" for number in range(5)])
        messages = await hop.wait(2)
        found = {one.helo: len(one.recipients) for one in messages}
        assert found == {"new.example.com": 3, "old.example.com": 2}
        await gateway.submit("taro@docomo.ne.jp")
        (*_, last) = await hop.wait(3)
        assert last.helo == "new.example.com"


async def test_without_a_source_mail_waits_and_the_queue_says_why(tmp_path: Path) -> None:
    sources = f"\n        gone: {{address: {NOWHERE}, helo: gone.example.com}}\n"
    async with NextHop() as hop, assembly(tmp_path, hop, "", sources) as gateway:
        await gateway.submit("taro@example.net")
        rows = await until(lambda: [row for row in gateway.rows() if row.reply], "the reason")
        assert rows[0].reply == (
            "no source of pool default can be used: gone cannot be bound: "
            "Cannot assign requested address"
        )
        assert rows[0].attempts == 0
        assert hop.connections == 0


async def test_a_host_is_met_from_its_own_address_family(tmp_path: Path) -> None:
    sources = """
        six: {address: "::1", helo: six.example.com, weight: 1000}
        four: {address: 127.0.0.2, helo: four.example.com}
"""
    async with NextHop() as hop, assembly(tmp_path, hop, "", sources) as gateway:
        for number in range(5):
            await gateway.submit(f"u{number}@example.net")
        messages = await hop.wait(5)
        assert {one.helo for one in messages} == {"four.example.com"}
        assert told(gateway, "deferred") == []
