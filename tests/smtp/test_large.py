"""Large messages over SMTP: who has to come again, and that nothing stays in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.configuration.config import Config
from gateway.testing import NextHop
from tests.assembly import Assembly, Client, below_trace, configure, until, write_plugin

MIB = 1 << 20
LINE = b"x" * 78 + b"\r\n"
LARGE = b"Subject: large\r\n\r\n" + b".\r\n..\r\n" + LINE * (3 * MIB // len(LINE))
AGAIN = "452 4.3.1 Too many large messages at a time, please try again later"
LIMITS = "limits: {message_size: 5MiB, memory: 8MiB}"


def _config(folder: Path, hop: NextHop, plugins: str = "") -> Config:
    return configure(folder, f"{LIMITS}\nrelay: {{via: ['{hop.address}']}}\n{plugins}")


async def _begin(client: Client, size: int = 0) -> str:
    declared = f" SIZE={size}" if size else ""
    reply = await client.say(f"MAIL FROM:<a@example.com>{declared}")
    if reply.startswith("250"):
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("250")
    return reply


async def _settled(gateway: Assembly) -> None:
    await until(lambda: gateway.ingress.allowance.taken == 0, "memory to be given back")


async def test_a_large_message_arrives_as_it_came_and_leaves_nothing(tmp_path: Path) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        assert (await gateway.submit("b@example.net", content=LARGE)).startswith("250")
        await hop.wait(1)
        assert below_trace(hop.messages[0].content) == LARGE
        await _settled(gateway)
        await until(lambda: not gateway.rows(), "an empty queue")
        assert gateway.spool.home.query("SELECT count(*) FROM parts", ()) == [(0,)]


async def test_chunks_arrive_as_they_came(tmp_path: Path) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        async with gateway.client() as client:
            assert (await _begin(client)).startswith("250")
            for start in range(0, len(LARGE), 700_001):
                chunk = LARGE[start : start + 700_001]
                last = " LAST" if start + 700_001 >= len(LARGE) else ""
                client.send(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
                assert (await client.reply()).startswith("250")
        await hop.wait(1)
        assert below_trace(hop.messages[0].content) == LARGE
        await _settled(gateway)


async def test_who_declares_too_much_comes_again(tmp_path: Path) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        async with gateway.client() as first, gateway.client() as second:
            assert (await _begin(first, 5 * MIB)).startswith("250")
            assert (await _begin(second, 5 * MIB)).startswith("250")
            assert (await first.say("DATA")).startswith("354")
            # It is taken only now, and only once.
            assert await second.say("DATA") == AGAIN
            assert await _begin(second, 5 * MIB) == AGAIN
            assert (await _begin(second, 2 * MIB)).startswith("250")
            assert (await second.say("RSET")).startswith("250")
            first.send(LARGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            assert (await first.reply()).startswith("250")
            await _settled(gateway)
            assert (await _begin(second, 5 * MIB)).startswith("250")
            assert (await second.data(LARGE)).startswith("250")
        await hop.wait(2)


async def test_who_declares_nothing_comes_again_after_the_message(tmp_path: Path) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        async with gateway.client() as first, gateway.client() as second:
            await _begin(first, 5 * MIB)
            assert (await first.say("DATA")).startswith("354")
            assert (await _begin(second)).startswith("250")
            assert await second.data(LARGE) == AGAIN
            # Small ones pass all the while, in the same connection too.
            assert (await _begin(second)).startswith("250")
            assert (await second.data(b"Subject: small\r\n\r\n")).startswith("250")
            first.send(b".\r\n")
            assert (await first.reply()).startswith("250")
            assert (await _begin(second)).startswith("250")
            assert (await second.data(LARGE)).startswith("250")
        await hop.wait(3)
        await _settled(gateway)


async def test_a_chunk_for_which_there_is_no_room_is_refused_for_now(tmp_path: Path) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        async with gateway.client() as first, gateway.client() as second:
            await _begin(first, 5 * MIB)
            assert (await first.say("DATA")).startswith("354")
            await _begin(second)
            second.send(f"BDAT {len(LARGE)}\r\n".encode() + LARGE)
            assert (await second.reply()).startswith("250")
            more = LINE * 20_000
            second.send(f"BDAT {len(more)} LAST\r\n".encode() + more)
            assert await second.reply() == AGAIN
            second.send(b"BDAT 5 LAST\r\nabc\r\n")
            assert (await second.reply()).startswith("503")
            assert (await second.say("RSET")).startswith("250")
        await _settled(gateway)


@pytest.mark.parametrize("how", ["DATA", "BDAT"])
async def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path, how: str) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        async with gateway.client() as client:
            await _begin(client, 5 * MIB)
            if how == "DATA":
                assert (await client.say("DATA")).startswith("354")
            else:
                client.send(b"BDAT 4000000\r\n")
            client.send(LINE * 30_000)
            await client.writer.drain()
            await until(lambda: gateway.ingress.allowance.taken, "the message to begin")
        await _settled(gateway)


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (LARGE + b"x\ny\r\n", "550 5.6.0 bare LF"),
        (LARGE + b"\0\r\n", "550 5.6.0 NUL"),
        (LARGE + b"x" * 999 + b"\r\n", "550 5.6.0 a line is longer"),
        (b"X: y\r\n" * 400_000 + b"\r\n", "552 5.3.4 The header"),
        (LINE * 80_000, "552 5.3.4 The message is too large"),
    ],
)
async def test_what_is_refused_leaves_nothing(tmp_path: Path, content: bytes, reply: str) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        assert (await gateway.submit("b@example.net", content=content)).startswith(reply)
        await _settled(gateway)


REFUSES = """
per_recipient = True

@hookimpl
async def message(self, message):
    recipient, = message.recipients
    if recipient.address.startswith("c"):
        return Tempfail("Not now")
"""

CHANGES = """
@hookimpl
def message(self, message):
    message.headers.add("X-Size", str(len(message.body_view)))
    message.body = bytes(message.body_view).replace(b"x", b"y")
"""

SPOILS = """
@hookimpl
def message(self, message):
    message._body = type(message._body)(bytes(message.body_view) + b"x" * 2000)
"""


async def test_copies_that_a_plugin_refuses_leave_nothing(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "site", REFUSES)
    async with NextHop() as hop, Assembly(_config(tmp_path, hop, f"plugins: [{plugin}]")) as site:
        reply = await site.submit("b@example.net", "c@example.net", content=LARGE)
        assert reply.startswith("451")
        await _settled(site)
        assert (await site.submit("b@example.net", "d@example.net", content=LARGE))[:3] == "250"
        await hop.wait(1)
        await _settled(site)
        assert site.spool.home.failure is None


async def test_a_large_body_can_be_replaced(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "site", CHANGES)
    async with NextHop() as hop, Assembly(_config(tmp_path, hop, f"plugins: [{plugin}]")) as site:
        assert (await site.submit("b@example.net", content=LARGE)).startswith("250")
        await hop.wait(1)
        header, _, body = hop.messages[0].content.partition(b"\r\n\r\n")
        assert body == LARGE.partition(b"\r\n\r\n")[2].replace(b"x", b"y")
        assert header.endswith(b"X-Size: %d" % len(body))
        await _settled(site)


async def test_what_a_plugin_spoils_does_not_go_out(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "site", SPOILS)
    async with NextHop() as hop, Assembly(_config(tmp_path, hop, f"plugins: [{plugin}]")) as site:
        reply = await site.submit("b@example.net", content=LARGE)
        assert reply.startswith("451 4.3.0 The mail cannot be handled")
        await _settled(site)


async def test_the_disk_that_refuses_a_large_message_leaves_nothing(tmp_path: Path) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        for path in gateway.spool.folder.glob("0001.db*"):
            path.unlink()
        assert (await gateway.submit("b@example.net", content=LARGE)).startswith("451")
        await _settled(gateway)
        await until(lambda: gateway.spool.failure is None, "the disk to work again")
        assert (await gateway.submit("b@example.net", content=LARGE)).startswith("250")
        await hop.wait(1)
        await _settled(gateway)


async def test_many_at_once_all_arrive_in_the_end(tmp_path: Path) -> None:
    async with NextHop() as hop, Assembly(_config(tmp_path, hop)) as gateway:
        again = 0
        most = 0

        async def send() -> None:
            nonlocal again, most
            async with gateway.client() as client:
                while True:
                    assert (await _begin(client)).startswith("250")
                    reply = await client.data(LARGE)
                    most = max(most, gateway.ingress.allowance.taken)
                    if reply.startswith("250"):
                        return
                    assert reply == AGAIN
                    again += 1

        await asyncio.gather(*[send() for _ in range(6)])
        await hop.wait(6)
        assert again
        assert most <= 8 * MIB
        await _settled(gateway)
