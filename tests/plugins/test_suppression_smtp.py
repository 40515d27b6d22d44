"""The list as SMTP clients meet it, in a gateway on real sockets, and in one of real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import NextHop
from plugins.suppression.entry import Entry
from plugins.suppression.inventory import Inventory
from plugins.suppression.writer import Writer
from tests.assembly import Assembly, configure, until
from tests.e2e.conftest import Gateway
from tests.plugins.suppression_site import entry

STREAMS = "streams: {bulk: {when: {header: {Precedence: bulk}}}}\n"
BULK = b"Subject: news\r\nPrecedence: bulk\r\n\r\nHello\r\n"
TARO, JIRO = "taro@example.com", "jiro@example.com"


def database(folder: Path) -> Path:
    """The list of a gateway in this folder."""
    return folder / "spool/plugins/suppression/suppression.db"


def put(folder: Path, *entries: Entry) -> None:
    """Puts entries on the list of a gateway that has started."""
    with Writer(database(folder)) as writer:
        writer.add(entries)


def assembly(folder: Path, settings: str = "{}") -> Assembly:
    """A gateway with the plugin."""
    return Assembly(configure(folder, f"{STREAMS}plugins:\n  - suppression: {settings}\n"))


def told(gateway: Assembly) -> list[tuple[str, str, str]]:
    """What the outbox has, without what became of deliveries."""
    return [
        (event.type, event.recipient, event.reason)
        for event in gateway.events()
        if event.type == "suppressed"
    ]


def queued(gateway: Assembly) -> list[str]:
    """Whom mail waits for."""
    return [row.recipient for row in gateway.rows()]


async def test_a_suppressed_recipient_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    async with assembly(tmp_path) as gateway:
        put(tmp_path, entry(TARO, reason="complaint"))
        async with gateway.client() as client:
            await client.say("MAIL FROM:<news@shop.example.com>")
            assert await client.say(f"RCPT TO:<{TARO}>") == "550 5.7.1 Recipient refused"
            assert await client.say(f"RCPT TO:<{JIRO}>") == "250 2.1.5 Ok"
            queued_as = await client.data(b"Subject: hi\r\n\r\nHello\r\n")
        assert queued_as.startswith("250 2.0.0 Ok: queued as ")
        assert queued(gateway) == [JIRO]
        await until(lambda: told(gateway), "the event")
        assert told(gateway) == [("suppressed", TARO, "complaint: everywhere")]
        (event,) = [one for one in gateway.events() if one.type == "suppressed"]
        assert event.message_id == queued_as.split()[-1]
        assert (event.sender, event.stream) == ("news@shop.example.com", "default")
        assert event.client == "127.0.0.1"


async def test_a_recipient_can_be_taken_and_dropped(tmp_path: Path) -> None:
    async with assembly(tmp_path, "{action: discard}") as gateway:
        put(tmp_path, entry(TARO))
        assert (await gateway.submit(TARO, JIRO)).startswith("250")
        assert queued(gateway) == [JIRO]
        await until(lambda: told(gateway), "the event")
        assert told(gateway) == [("suppressed", TARO, "manual: everywhere")]


async def test_a_message_whose_last_recipient_is_dropped_ends_there(tmp_path: Path) -> None:
    async with assembly(tmp_path, "{actions: {unsubscribe: discard}}") as gateway:
        put(tmp_path, entry(TARO, "sender:shop.example.com", "unsubscribe"))
        reply = await gateway.submit(TARO, sender="news@shop.example.com")
        assert reply.startswith("250 2.0.0 Ok: queued as ")
        assert gateway.rows() == []
        await until(lambda: told(gateway), "the event")
        assert (await gateway.submit(TARO, sender="news@bank.example.com")).startswith("250")
        assert queued(gateway) == [TARO]


async def test_the_header_tells_the_stream_and_then_who_is_dropped(tmp_path: Path) -> None:
    async with assembly(tmp_path) as gateway:
        put(tmp_path, entry(TARO, "stream:bulk", "unsubscribe"))
        assert (await gateway.submit(TARO, JIRO, content=BULK)).startswith("250")
        assert queued(gateway) == [JIRO]
        await until(lambda: told(gateway), "the event")
        assert told(gateway) == [("suppressed", TARO, "unsubscribe: stream:bulk")]
        # And to nobody else.
        assert (await gateway.submit(TARO, content=BULK)).startswith("250")
        assert queued(gateway) == [JIRO]
        assert (await gateway.submit(TARO)).startswith("250")
        assert sorted(queued(gateway)) == [JIRO, TARO]


async def test_a_list_that_cannot_be_read_makes_clients_come_again(tmp_path: Path) -> None:
    async with assembly(tmp_path) as gateway:
        path = database(tmp_path)
        path.rename(path.with_suffix(".away"))

        async def refused() -> bool:
            async with gateway.client() as client:
                await client.say("MAIL FROM:<a@example.com>")
                reply = await client.say(f"RCPT TO:<{TARO}>")
            assert reply[:3] in ("250", "451")
            return reply.startswith("451 4.3.0 ")

        # Whether the file is still there is looked at once a second.
        async with asyncio.timeout(30):
            while not await refused():
                await asyncio.sleep(0.05)
        path.with_suffix(".away").rename(path)
        assert not await refused()


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a `gateway suppression` command."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", "suppression", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_what_another_process_adds_holds_for_the_next_recipient(tmp_path: Path) -> None:
    async with assembly(tmp_path) as gateway, gateway.client() as client:
        await client.say("MAIL FROM:<a@example.com>")
        for arguments, reply in (
            (["add", "Taro@Example.com", "--note", "by phone"], "550 5.7.1 Recipient refused"),
            (["remove", TARO], "250 2.1.5 Ok"),
            (["add", "t*@example.*", "--reason", "invalid"], "550 5.7.1 Recipient refused"),
        ):
            done = await asyncio.to_thread(command, tmp_path, *arguments)
            assert (done.returncode, done.stderr) == (0, "")
            assert await client.say(f"RCPT TO:<{TARO}>") == reply


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, "127.0.0.1:1")
    yield gateway
    gateway.clean()


async def test_a_gateway_learns_from_a_bounce(running: Gateway) -> None:
    async with NextHop(rcpt={"taro@*": "550 5.1.1 User unknown", "*": "250 Ok"}) as hop:
        plugins = "plugins:\n  - suppression:\n"
        running.configure(f"relay: {{via: ['{hop.address}']}}\n{plugins}")
        await asyncio.to_thread(running.start)
        await asyncio.to_thread(running.submit, "hi", TARO, JIRO)
        await hop.wait(1)

        def refused() -> bool:
            with running.client() as client:
                client.ehlo()
                client.mail("a@example.com")
                code, _ = client.rcpt(TARO)
                assert client.rcpt(JIRO)[0] == 250
            return code == 550

        async with asyncio.timeout(60):
            while not await asyncio.to_thread(refused):
                await asyncio.sleep(0.05)
        with Inventory(database(running.folder)) as inventory:
            (learned,) = inventory.entries()
        assert learned[:3] == (TARO, "", "bounce")
        assert "User unknown" in learned.note
        assert await asyncio.to_thread(running.stop) == 0
        assert "ERROR" not in running.log
