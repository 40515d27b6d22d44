"""Bounces over SMTP: in a gateway on real sockets, and in one of real processes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.configuration.network import NetworkSet
from gateway.hooks import Event
from gateway.testing import NextHop
from tests.assembly import Assembly, configure, until
from tests.e2e.conftest import Gateway
from tests.plugins.bounces_site import DOMAIN, HANAKO, report

TARO = "taro@example.org"
SENDER = "news@shop.example.com"
WATCH = """
class Config(BaseModel):
    pass

class Watch(Plugin[Config]):
    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        pass
"""


def assembly(folder: Path, via: str, more: str = "") -> Assembly:
    """A gateway with the plugin, and with an observer, without which no events are written."""
    (folder / "watch.py").write_text(
        "from collections.abc import Sequence\nfrom pydantic import BaseModel\n"
        f"from gateway.hooks import Event, Plugin, hookimpl\n{WATCH}"
    )
    plugins = f"plugins:\n  - bounces: {{domain: {DOMAIN}}}\n  - ./watch.py: {{}}\n"
    return Assembly(configure(folder, f"relay: {{via: ['{via}']}}\n{plugins}{more}"))


def outsiders(gateway: Assembly) -> None:
    """Nobody may relay from now on."""
    gateway.listener.allow = NetworkSet([])


def told(gateway: Assembly, *types: str) -> list[Event]:
    return [event for event in gateway.events() if event.type in types]


async def send(gateway: Assembly, path: str, content: bytes, sender: str = "") -> list[str]:
    """The replies to RCPT and to the dot."""
    async with gateway.client() as client:
        assert (await client.say(f"MAIL FROM:<{sender}>")).startswith("250")
        replies = [await client.say(f"RCPT TO:<{path}>")]
        if replies[0].startswith("250"):
            replies.append(await client.data(content))
        return replies


async def paths_of(hop: NextHop, count: int) -> dict[str, str]:
    """The return path that each recipient's copy came with."""
    messages = await hop.wait(count)
    return {
        recipient: message.sender for message in messages for recipient, _ in message.recipients
    }


async def test_each_recipient_s_copy_has_a_return_path_and_its_bounce_finds_it(
    tmp_path: Path,
) -> None:
    async with NextHop() as hop, assembly(tmp_path, hop.address) as gateway:
        queued = await gateway.submit(HANAKO, TARO, sender=SENDER)
        message_id = queued.split()[-1]
        paths = await paths_of(hop, 2)
        assert set(paths) == {HANAKO, TARO}
        for recipient, path in paths.items():
            assert path.startswith(f"b+{message_id}")
            assert path.endswith(f"-{recipient.replace('@', '=')}@{DOMAIN}")

        outsiders(gateway)
        replies = await send(gateway, paths[HANAKO], report("postfix", paths[HANAKO]))
        assert [reply[:3] for reply in replies] == ["250", "250"]

        (event,) = told(gateway, "bounced")
        assert (event.message_id, event.recipient) == (message_id, HANAKO)
        assert (event.sender, event.status) == (SENDER, "5.1.1")
        assert event.notes["class"] == "no-such-user"
        assert gateway.rows() == []
        assert len(hop.messages) == 2  # nothing was sent in answer


async def test_a_stranger_may_send_to_return_paths_only(tmp_path: Path) -> None:
    async with NextHop() as hop, assembly(tmp_path, hop.address) as gateway:
        await gateway.submit(HANAKO, sender=SENDER)
        (path,) = (await paths_of(hop, 1)).values()
        outsiders(gateway)
        content = report("postfix", path)
        for address, reply in (
            (path.replace("hanako", "jiro"), "550 5.1.1 There is no such address here"),
            (f"somebody@{DOMAIN}", "550 5.1.1 There is no such address here"),
            (TARO, "550 5.7.1 Relaying is not allowed for you"),
        ):
            assert await send(gateway, address, content) == [reply]
        assert told(gateway, "bounced") == []


async def test_what_a_person_writes_is_held_and_never_relayed(tmp_path: Path) -> None:
    async with NextHop() as hop, assembly(tmp_path, hop.address) as gateway:
        await gateway.submit(HANAKO, sender=SENDER)
        (path,) = (await paths_of(hop, 1)).values()
        replies = await send(gateway, path, report("human", path), HANAKO)
        assert replies[1].startswith("250")
        (row,) = gateway.rows(state="held")
        assert row.recipient == path
        assert "a person has to read it" in str(row)
        assert told(gateway, "replied", "bounced") == []
        assert len(hop.messages) == 1


async def test_a_report_that_comes_again_counts_once(tmp_path: Path) -> None:
    async with NextHop() as hop, assembly(tmp_path, hop.address) as gateway:
        await gateway.submit(HANAKO, sender=SENDER)
        (path,) = (await paths_of(hop, 1)).values()
        for _ in range(3):
            assert (await send(gateway, path, report("gmail", path)))[1].startswith("250")
        assert len(told(gateway, "bounced")) == 1


async def test_mail_without_a_sender_goes_without_a_return_path(tmp_path: Path) -> None:
    async with NextHop() as hop, assembly(tmp_path, hop.address) as gateway:
        await gateway.submit(HANAKO, sender="")
        assert await paths_of(hop, 1) == {HANAKO: ""}


async def test_a_refusal_at_once_is_told_with_its_class(tmp_path: Path) -> None:
    replies = {"hanako@*": "550 5.1.1 User unknown", "taro@*": "452 4.2.2 Mailbox full"}
    async with NextHop(rcpt=replies) as hop, assembly(tmp_path, hop.address) as gateway:
        await gateway.submit(HANAKO, TARO, sender=SENDER)
        await until(lambda: len(told(gateway, "bounced", "deferred")) == 2, "both events")
        notes = {event.type: dict(event.notes) for event in told(gateway, "bounced", "deferred")}
        assert notes == {
            "bounced": {"source": "reply", "class": "no-such-user", "kind": "hard"},
            "deferred": {"source": "reply", "class": "mailbox-full", "kind": "soft"},
        }


async def test_what_is_delivered_at_the_second_attempt_has_no_class(tmp_path: Path) -> None:
    retry = "retry: {schedule: [10ms], jitter: 0}\n"
    async with (
        NextHop(rcpt={"*": ["451 4.7.1 Greylisted", "250 Ok"]}) as hop,
        assembly(tmp_path, hop.address, retry) as gateway,
    ):
        await gateway.submit(HANAKO, sender=SENDER)
        await hop.wait(1)
        await until(lambda: told(gateway, "delivered"), "the delivery")
        (deferred,), (delivered,) = told(gateway, "deferred"), told(gateway, "delivered")
        assert deferred.notes["class"] == "policy"
        assert "class" not in delivered.notes


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, "127.0.0.1:1")
    yield gateway
    gateway.clean()


async def test_a_bounce_hours_later_suppresses_the_address(running: Gateway) -> None:
    """The whole way: mail goes out and is taken, comes back, and no more goes there."""

    def rcpt() -> int:
        with running.client() as client:
            client.ehlo()
            client.mail(SENDER)
            assert client.rcpt(TARO)[0] == 250
            return int(client.rcpt(HANAKO)[0])

    def bounce(path: str) -> Any:
        with running.client() as client:
            return client.sendmail("", [path], report("qmail", path))

    async with NextHop() as hop:
        plugins = f"plugins:\n  - bounces: {{domain: {DOMAIN}}}\n  - suppression:\n"
        running.configure(f"relay: {{via: ['{hop.address}']}}\n{plugins}")
        await asyncio.to_thread(running.start)
        await asyncio.to_thread(running.submit, "hi", HANAKO, TARO)
        paths = await paths_of(hop, 2)
        assert re.search(r"-hanako=example\.net@", paths[HANAKO])
        assert await asyncio.to_thread(rcpt) == 250
        assert await asyncio.to_thread(bounce, paths[HANAKO]) == {}
        async with asyncio.timeout(60):
            while await asyncio.to_thread(rcpt) != 550:
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(running.stop) == 0
        assert "ERROR" not in running.log
