"""SMTP on a real socket: every command in and out of order, and what may not pass."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.configuration.config import ConfigError
from gateway.configuration.users import Users, hash_password
from gateway.testing import NextHop
from tests.assembly import Assembly, Client, below_trace, configure, until, write_plugin
from tests.certificate import make_certificate

NOWHERE = "relay: {via: ['127.0.0.1:1']}"


Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a gateway that delivers nowhere: what it takes stays in its queue."""

    @asynccontextmanager
    async def start(text: str = "", **options: Any) -> AsyncIterator[Assembly]:
        if "relay:" not in text:
            text = f"{text}\n{NOWHERE}"
        async with Assembly(configure(tmp_path, text), **options) as gateway:
            yield gateway

    return start


# Commands in and out of order.


async def test_the_greeting_of_esmtp(start: Start) -> None:
    async with start() as gateway, gateway.client(greet=False) as client:
        assert await client.reply() == "220 gw.example.com ESMTP"
        lines = (await client.say("EHLO client.example.org")).split("\n")
        latest = lines.pop(-2).removeprefix("250-FUTURERELEASE 2592000 ")
        assert lines == [
            "250-gw.example.com",
            "250-PIPELINING",
            "250-SIZE 52428800",
            "250-8BITMIME",
            "250-SMTPUTF8",
            "250-DSN",
            "250-ENHANCEDSTATUSCODES",
            "250-MT-PRIORITY",
            "250 CHUNKING",
        ]
        assert abs(datetime.fromisoformat(latest).timestamp() - time.time() - 2592000) < 60
        assert latest.endswith("Z")
        assert await client.say("HELO client.example.org") == "250 gw.example.com"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("EHLO", "501 5.5.4"),
        ("EHLO two words", "501 5.5.4"),
        (f"EHLO {'x' * 256}", "501 5.5.4"),
        ("HELO", "501 5.5.4"),
        ("NOOP", "250 2.0.0"),
        ("NOOP with words", "250 2.0.0"),
        ("noop", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("VRFY a@example.com", "252 2.1.5"),
        ("EXPN list", "502 5.5.1"),
        ("HELP", "214 2.0.0"),
        ("", "500 5.5.2"),
        ("HELLO", "500 5.5.2"),
        ("TURN", "500 5.5.2"),
        ("GET / HTTP/1.1", "500 5.5.2"),
        ("MAIL", "501 5.5.4"),
        ("MAIL TO:<a@example.com>", "501 5.5.4"),
        ("MAIL FROM:a b@example.com", "501 5.1.7"),
        ("MAIL FROM:<a@example.com", "501 5.1.7"),
        ("MAIL FROM:<a@example.com> SIZE=1 SIZE=2", "501 5.1.7"),
        ("MAIL FROM:<ä@example.com>", "553 5.6.7"),
        (f"MAIL FROM:<{'a' * 250}@example.com>", "501 5.1.7"),
        ("RCPT TO:<b@example.net>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("DATA now", "501 5.5.4"),
        ("STARTTLS", "503 5.5.1"),
        ("STARTTLS now", "501 5.5.4"),
        ("AUTH PLAIN AGEAYg==", "502 5.5.1"),
    ],
)
async def test_a_command_outside_a_transaction(start: Start, command: str, reply: str) -> None:
    async with start() as gateway, gateway.client() as client:
        assert (await client.say(command)).startswith(reply)
        assert (await client.say("NOOP")).startswith("250")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<c@example.com>", "503 5.5.1"),
        ("RCPT FROM:<b@example.net>", "501 5.5.4"),
        ("RCPT TO:<>", "550 5.1.3"),
        ("RCPT TO:<postmaster>", "550 5.1.3"),
        ("RCPT TO:<b@example.net> NOTIFY=NEVER", "250 2.1.5"),
        ("RCPT TO:<b@example.net> NOTIFY=success,Failure", "250 2.1.5"),
        ("RCPT TO:<b@example.net> NOTIFY=NEVER,FAILURE", "501 5.5.4"),
        ("RCPT TO:<b@example.net> NOTIFY=SOMETIMES", "501 5.5.4"),
        ("RCPT TO:<b@example.net> NOTIFY", "501 5.5.4"),
        ("RCPT TO:<b@example.net> ORCPT=rfc822;b+2Bc@example.net", "250 2.1.5"),
        ("RCPT TO:<b@example.net> ORCPT=b@example.net", "501 5.5.4"),
        ("RCPT TO:<b@example.net> ORCPT=rfc822;b+0A", "501 5.5.4"),
        (f"RCPT TO:<b@example.net> ORCPT=rfc822;{'b' * 500}", "501 5.5.4"),
        ("RCPT TO:<b@example.net> NEWS=1", "555 5.5.4"),
        ("RCPT TO:<b@example.net> NOTIFY=NEVER NOTIFY=NEVER", "501 5.1.3"),
        ("RCPT TO:<ä@example.net>", "553 5.6.7"),
        ('RCPT TO:<"b c"@example.net>', "250 2.1.5"),
        ("RCPT TO:<a..b.@docomo.ne.jp>", "250 2.1.5"),
        ("DATA", "554 5.5.1"),
        ("AUTH PLAIN AGEAYg==", "502 5.5.1"),
        ("EHLO again.example.org", "250-gw.example.com"),
        ("RSET", "250 2.0.0"),
        ("DATA now", "501 5.5.4"),
    ],
)
async def test_a_command_after_mail(start: Start, command: str, reply: str) -> None:
    async with start() as gateway, gateway.client() as client:
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("250 2.1.0")
        assert (await client.say(command)).startswith(reply)


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("", "250 2.1.0"),
        ("SIZE=1000", "250 2.1.0"),
        ("size=1000", "250 2.1.0"),
        ("SIZE=52428800", "250 2.1.0"),
        ("SIZE=52428801", "552 5.3.4"),
        ("SIZE=99999999999999999999999", "501 5.5.4"),
        ("SIZE=x", "501 5.5.4"),
        ("SIZE", "501 5.5.4"),
        ("BODY=7BIT", "250 2.1.0"),
        ("BODY=8bitmime", "250 2.1.0"),
        ("BODY=BINARYMIME", "501 5.5.4"),
        ("SMTPUTF8", "250 2.1.0"),
        ("SMTPUTF8=1", "501 5.5.4"),
        ("RET=FULL ENVID=QQ314159", "250 2.1.0"),
        ("RET=hdrs", "250 2.1.0"),
        ("RET=NONE", "501 5.5.4"),
        ("ENVID=a+2Bb", "250 2.1.0"),
        ("ENVID=a+2", "501 5.5.4"),
        (f"ENVID={'a' * 101}", "501 5.5.4"),
        ("AUTH=<>", "250 2.1.0"),
        ("AUTH", "501 5.5.4"),
        ("HOLDFOR=9", "250 2.1.0"),
        ("HOLDFOR=2592001", "501 5.5.4"),
        ("HOLDUNTIL=2020-01-01T00:00:00Z", "250 2.1.0"),
        ("HOLDUNTIL=9999-01-01T00:00:00Z", "501 5.5.4"),
        ("MT-PRIORITY=-3", "250 2.1.0"),
        ("MT-PRIORITY=11", "501 5.5.4"),
        ("REQUIRETLS", "530 5.7.10"),
        ("BY=120;R", "555 5.5.4"),
    ],
)
async def test_the_parameters_of_mail(start: Start, parameters: str, reply: str) -> None:
    async with start() as gateway, gateway.client() as client:
        assert (await client.say(f"MAIL FROM:<a@example.com> {parameters}")).startswith(reply)
        assert (await client.say(f"MAIL FROM:<> {parameters}")).startswith(
            "503" if reply.startswith("250") else reply
        )


# FUTURERELEASE (RFC 4865) and REQUIRETLS (RFC 8689).


@pytest.mark.parametrize(
    ("hold", "complaint"),
    [
        ("500ms", "from 1s to 11574d"),
        ("12000d", "from 1s to 11574d"),
        ("soon", "a duration, for example 30s"),
    ],
)
def test_how_long_mail_may_be_kept(tmp_path: Path, hold: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        configure(tmp_path, f"limits: {{hold: {hold}}}")


@pytest.mark.parametrize("hold", ["0", "null"])
async def test_mail_is_not_kept_for_later(start: Start, hold: str) -> None:
    async with start(f"limits: {{hold: {hold}}}") as gateway, gateway.client() as client:
        assert "FUTURERELEASE" not in await client.say("EHLO client.example.org")
        reply = await client.say("MAIL FROM:<a@example.com> HOLDFOR=9")
        assert reply.startswith("555 5.5.4")


async def test_mail_is_kept_for_those_who_may_relay(start: Start, users: Users) -> None:
    command = "MAIL FROM:<a@example.com> HOLDFOR=9"
    async with start(allow=()) as gateway, gateway.client() as client:
        assert "FUTURERELEASE" not in await client.say("EHLO client.example.org")
        assert (await client.say(command)).startswith("554 5.7.1")
    async with (
        start("limits: {hold: 1h}", users=users, plaintext_auth=True, allow=()) as gateway,
        gateway.client() as client,
    ):
        # Who logs in does not say EHLO again.
        assert "250-FUTURERELEASE 3600 20" in await client.say("EHLO client.example.org")
        assert (await client.say(command)).startswith("530 5.7.0")
        login = base64.b64encode("\0shop\0sécret".encode()).decode()
        assert (await client.say(f"AUTH PLAIN {login}")).startswith("235")
        assert (await client.say(command)).startswith("250 2.1.0")


async def test_what_mail_asks_for_reaches_plugins_and_queue(start: Start, tmp_path: Path) -> None:
    body = """
@hookimpl
def message(self, message):
    asked = (message.priority, message.require_tls, message.release > time.time() + 90)
    return Reject(repr(asked), 554, "5.7.1")
"""
    plugin = write_plugin(tmp_path, "site", body)
    async with start(f"plugins: [{plugin}]") as gateway, gateway.client() as client:
        for parameters, asked in (
            ("", (None, False, False)),
            ("MT-PRIORITY=0", (0, False, False)),
            ("MT-PRIORITY=-9 HOLDFOR=100", (-9, False, True)),
        ):
            await client.say(f"MAIL FROM:<a@example.com> {parameters}")
            await client.say("RCPT TO:<b@example.net>")
            assert await client.data(b"Subject: x\r\n\r\n") == f"554 5.7.1 {asked}"


async def test_mail_needs_a_greeting(start: Start) -> None:
    async with start() as gateway, gateway.client(greet=False) as client:
        await client.reply()
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("503 5.5.1")


async def test_a_greeting_and_rset_end_the_transaction(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        for command in ("RSET", "EHLO client.example.org", "HELO client.example.org"):
            await client.begin()
            assert (await client.say(command)).startswith("250")
            assert (await client.say("DATA")).startswith("503")
        assert gateway.rows() == []


async def test_one_connection_carries_several_messages(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        ids = set()
        for _ in range(3):
            await client.begin()
            reply = await client.data(b"Subject: x\r\n\r\n")
            assert reply.startswith("250 2.0.0 Ok: queued as ")
            ids.add(reply.split()[-1])
        assert {row.id for row in gateway.rows()} == ids
        assert len(ids) == 3


async def test_a_whole_session_in_one_packet(start: Start) -> None:
    async with start() as gateway, gateway.client(greet=False) as client:
        client.send(
            b"EHLO client.example.org\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"
            b"RCPT TO:<>\r\nDATA\r\nSubject: 1\r\n\r\n..\r\n.\r\n"
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n.\r\nQUIT\r\n"
        )
        codes = await client.replies(11)
        assert codes == ["220", *["250"] * 3, "550", "354", *["250"] * 3, "354", "250"]
        assert await client.reply() == "221 2.0.0 Bye"
        assert await client.is_closed()
        contents = sorted(_bodies(gateway))
        assert contents == [b"", b"Subject: 1\r\n\r\n.\r\n"]


def _bodies(gateway: Assembly) -> list[bytes]:
    """What is in the spool, below our Received field."""
    contents = []
    for shard in gateway.spool.shards:
        for (content,) in shard.query("SELECT content FROM messages ORDER BY copy", ()):
            assert content.startswith(b"Received: from client.example.org ([127.0.0.1])\r\n\tby gw")
            contents.append(below_trace(content))
    return contents


async def test_too_many_errors_end_the_session(start: Start) -> None:
    async with start("limits: {errors: 3}") as gateway, gateway.client() as client:
        for _ in range(3):
            assert (await client.say("NONSENSE")).startswith("500")
        assert (await client.say("NONSENSE")).startswith("421 4.7.0")
        assert await client.is_closed()


async def test_too_many_recipients(start: Start) -> None:
    async with start("limits: {recipients: 2}") as gateway, gateway.client() as client:
        await client.begin()
        assert (await client.say("RCPT TO:<c@example.net>")).startswith("250")
        assert (await client.say("RCPT TO:<d@example.net>")).startswith("452 4.5.3")
        assert (await client.data(b"\r\n")).startswith("250")
        assert len(gateway.rows()) == 2


async def test_too_many_connections(start: Start) -> None:
    async with start("limits: {connections: 1}") as gateway, gateway.client():
        async with gateway.client(greet=False) as second:
            assert (await second.reply()).startswith("421 4.3.2")
            assert await second.is_closed()
        await until(lambda: gateway.ingress.attendance.connections == 1, "the second to be gone")


async def test_an_idle_client_is_told_and_dismissed(start: Start) -> None:
    async with start("limits: {command_timeout: 200ms}") as gateway, gateway.client() as client:
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.is_closed()


async def test_nothing_is_carried_out_after_the_last_word(start: Start) -> None:
    message = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nHello\r\n.\r\n"
    async with start() as gateway, gateway.client() as client:
        (session,) = gateway.listener.sessions
        # Mail that came in the same moment gets this as its answer, and so will come again.
        session.data_received(message)
        session.dismiss("421 4.3.2 Bye")
        assert await client.reply() == "421 4.3.2 Bye"
        assert await client.is_closed()
        await asyncio.wait([session._handler_coroutine])
        assert gateway.rows() == []


async def test_a_client_that_is_silent_within_a_message(start: Start) -> None:
    async with (
        start("limits: {command_timeout: 60s, data_timeout: 200ms}") as gateway,
        gateway.client() as client,
    ):
        await client.begin()
        await client.say("DATA")
        client.send(b"Subject: half a mess")
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.is_closed()
        assert gateway.rows() == []


async def test_a_client_that_sends_octet_by_octet(start: Start) -> None:
    limits = "limits: {command_timeout: 60s, data_timeout: 300ms}"
    async with start(limits) as gateway, gateway.client() as client:
        await client.begin()
        client.send(b"BDAT 100000\r\n")
        reply = asyncio.create_task(client.reply())
        # Never silent for long, and yet cut.
        while not reply.done():
            client.send(b"x")
            await asyncio.wait([reply], timeout=0.05)
        assert reply.result().startswith("421 4.4.2")
        assert gateway.rows() == []


async def test_a_client_that_never_comes_to_the_point(start: Start) -> None:
    limits = "limits: {command_timeout: 60s, message_timeout: 300ms}"
    async with start(limits) as gateway, gateway.client() as client:
        while (reply := await client.say("NOOP")).startswith("250"):
            await asyncio.sleep(0.02)
        assert reply.startswith("421 4.4.2")
        assert await client.is_closed()


async def test_each_open_transaction_is_expected(start: Start) -> None:
    async with start() as gateway:
        expected = gateway.spool.expected
        async with gateway.client() as client, gateway.client() as other:
            assert expected.messages == 0
            await client.begin()
            await other.begin()
            assert expected.messages == 2
            assert (await other.say("RSET")).startswith("250")
            assert (await other.say("RSET")).startswith("250")
            assert expected.messages == 1
            assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
            assert expected.messages == 0
            await other.begin()
        await until(lambda: expected.messages == 0, "the end of a session that was cut off")


async def test_who_sends_message_after_message_may_stay(start: Start) -> None:
    limits = "limits: {command_timeout: 60s, message_timeout: 500ms}"
    async with start(limits) as gateway, gateway.client() as client:
        begun = time.monotonic()
        sent = 0
        while time.monotonic() < begun + 1.0:
            await client.begin()
            assert (await client.data(b"\r\n")).startswith("250")
            sent += 1
        assert len(gateway.rows()) == sent


async def test_a_client_that_takes_in_no_reply_is_cut_off(start: Start) -> None:
    async with start("limits: {command_timeout: 300ms}") as gateway, gateway.client() as client:
        client.writer.transport.pause_reading()
        client.send(b"VRFY somebody\r\n" * 1_000_000)
        await until(lambda: not gateway.listener.sessions, "the session to be gone")
        assert gateway.ingress.attendance.connections == 0


async def test_too_many_connections_of_one_client(start: Start) -> None:
    async with start("limits: {connections_per_client: 1}") as gateway, gateway.client():
        async with gateway.client(greet=False) as second:
            assert (await second.reply()).startswith("421 4.7.0")
            assert await second.is_closed()
        await until(lambda: gateway.ingress.attendance.connections == 1, "the second to be gone")
        here = (gateway.host, gateway.port)
        reader, writer = await asyncio.open_connection(*here, local_addr=("127.0.0.2", 0))
        assert (await reader.readline()).startswith(b"220")
        writer.close()
        await until(lambda: len(gateway.ingress.attendance) == 1, "the other to be gone")


# What a line may be.


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"NOOP\n", "500 5.5.2"),
        (b"NOOP \x00\r\n", "500 5.5.2"),
        (b"NOOP\r \r\n", "500 5.5.2"),
        (b"NOOP\ta\r\n", "500 5.5.2"),
        (b"NOOP \x7f\r\n", "500 5.5.2"),
        (b"NOOP \xff\xfe\r\n", "500 5.5.2"),
        (b"NOOP " + b"x" * 4089 + b"\r\n", "250"),
        (b"NOOP " + b"x" * 4090 + b"\r\n", "500 5.5.6"),
        (b"NOOP " + b"x" * 300_000 + b"\r\n", "500 5.5.6"),
        (b"MAIL FROM:<a@example.com>\nRCPT TO:<b@example.net>\r\n", "500 5.5.2"),
    ],
    ids=range(10),
)
async def test_a_line_of_a_command(start: Start, line: bytes, reply: str) -> None:
    async with start() as gateway, gateway.client() as client:
        client.send(line + b"VRFY x\r\n")
        assert (await client.reply()).startswith(reply)
        while not (reply := await client.reply()).startswith("252"):
            assert reply.startswith("503")  # what came after a bare line end is a line of its own


@pytest.mark.parametrize(
    "smuggled",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\n\n.\r\n",
        b"\r\r.\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
    ],
)
async def test_no_second_message_can_be_smuggled_in(start: Start, smuggled: bytes) -> None:
    inner = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nSubject: 2\r\n\r\n"
    async with start() as gateway, gateway.client() as client:
        await client.begin()
        await client.say("DATA")
        client.send(b"Subject: 1\r\n\r\nHello" + smuggled + inner + b"\r\n.\r\n")
        assert (await client.reply()).startswith("550 5.6.0")
        assert (await client.say("NOOP")).startswith("250 2.0.0")
        assert gateway.rows() == []


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"Subject: x\r\n\r\na\nb\r\n", "550 5.6.0 bare LF"),
        (b"Subject: x\r\n\r\na\rb\r\n", "550 5.6.0 bare CR"),
        (b"Subject: x\r\n\r\na\0b\r\n", "550 5.6.0 NUL"),
        (b"Subject: x\r\n\r\n" + b"a" * 998 + b"\r\n", "250"),
        (b"Subject: x\r\n\r\n" + b"a" * 999 + b"\r\n", "550 5.6.0 a line is longer than 998"),
        (b"a" * 999 + b"\r\n", "550 5.6.0 a line is longer than 998"),
        (b"", "250"),
        (b"no header at all\r\n", "250"),
        (b"\r\n", "250"),
        (b"Received: from x\r\n" * 49 + b"\r\n", "250"),
        (b"Received: from x\r\n" * 50 + b"\r\n", "554 5.4.6"),
        (b"Subject: \xff\xfe\r\n\r\n\x80\r\n", "250"),
    ],
    ids=range(12),
)
async def test_a_content(start: Start, content: bytes, reply: str) -> None:
    async with start() as gateway, gateway.client() as client:
        await client.begin()
        assert (await client.data(content)).startswith(reply)
        assert _bodies(gateway) == ([content] if reply == "250" else [])
        await client.begin()  # the session goes on


async def test_a_message_that_is_too_large(start: Start) -> None:
    async with start("limits: {message_size: 100000}") as gateway, gateway.client() as client:
        await client.begin()
        line = b"x" * 98 + b"\r\n"
        assert (await client.data(line * 1000)).startswith("250")
        await client.begin()
        assert (await client.data(line * 1000 + b"\r\n")).startswith("552 5.3.4")
        await client.begin()
        assert (await client.data(line * 10_000)).startswith("552 5.3.4")
        assert (await client.say("MAIL FROM:<a@example.com> SIZE=100001")).startswith("552 5.3.4")
        assert [len(body) for body in _bodies(gateway)] == [100_000]


_lines = st.lists(
    st.one_of(st.sampled_from([b"", b".", b"..", b".x"]), st.binary(max_size=30)).map(
        lambda line: line.translate(None, b"\0\r\n")
    ),
    max_size=20,
)


@settings(max_examples=15, deadline=None)
@example(contents=[b"\t\r\n", b" folded\r\n\r\n"])
@given(contents=st.lists(_lines.map(lambda lines: b"".join(b"%b\r\n" % x for x in lines))))
def test_any_content_arrives_as_it_was_sent(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    async def run() -> None:
        config = configure(tmp_path_factory.mktemp("any"), NOWHERE)
        async with Assembly(config) as gateway, gateway.client() as client:
            stream = b""
            for content in contents:
                stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
                stream += b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
                stream += stuffed + b".\r\n"
            # In pieces that end anywhere.
            for start in range(0, len(stream), 97):
                client.send(stream[start : start + 97])
                await asyncio.sleep(0)
            for _ in contents:
                assert await client.replies(4) == ["250", "250", "354", "250"]
            assert _bodies(gateway) == contents

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_a_large_message_in_small_packets(start: Start) -> None:
    content = b"Subject: x\r\n\r\n" + b".........x\r\n" * 20_000
    async with start() as gateway, gateway.client() as client:
        await client.begin()
        await client.say("DATA")
        stuffed = content.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        for begin in range(0, len(stuffed), 7919):
            client.send(stuffed[begin : begin + 7919])
            await client.writer.drain()
        assert (await client.reply()).startswith("250")
        assert _bodies(gateway) == [content]


# BDAT (RFC 3030).


async def test_chunks(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        await client.begin()
        client.send(b"BDAT 12\r\nSubject: x\r\nBDAT 0\r\nBDAT 12 LAST\r\n\r\n.\r\nHello\r\n")
        assert await client.replies(3) == ["250", "250", "250"]
        await client.begin()
        client.send(b"BDAT 4 last\r\nno e")  # no line end at the end
        assert (await client.reply()).startswith("250")
        await client.begin()
        client.send(b"BDAT 0 LAST\r\n")
        assert (await client.reply()).startswith("250")
        assert _bodies(gateway) == [b"Subject: x\r\n\r\n.\r\nHello\r\n", b"no e", b""]


async def test_chunks_that_cannot_be_taken(start: Start) -> None:
    async with start("limits: {message_size: 100}") as gateway, gateway.client() as client:
        client.send(b"BDAT 6\r\nNOOP\r\n")
        assert (await client.reply()).startswith("503 5.5.1")
        await client.say("MAIL FROM:<a@example.com>")
        client.send(b"BDAT 6 LAST\r\nNOOP\r\n")
        assert (await client.reply()).startswith("503 5.5.1")
        await client.say("RSET")
        await client.begin()
        client.send(b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 1 LAST\r\nx")
        assert await client.replies(3) == ["250", "552", "503"]
        assert (await client.say("DATA")).startswith("503")
        assert (await client.say("RSET")).startswith("250")
        await client.begin()
        client.send(b"BDAT 3\r\na\nb")
        assert (await client.reply()).startswith("250")
        assert (await client.say("DATA")).startswith("503 5.5.1")
        assert (await client.say("BDAT 0 LAST")).startswith("550 5.6.0")
        assert gateway.rows() == []
        assert (await client.say("BDAT much")).startswith("501 5.5.4")
        assert await client.is_closed()  # nobody knows where the next command begins


# Who may relay.


async def test_nobody_may_relay_by_default(start: Start) -> None:
    async with start(allow=()) as gateway, gateway.client() as client:
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("250")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("550 5.7.1")
        assert (await client.say("RCPT TO:<b@gw.example.com>")).startswith("550 5.7.1")
        assert (await client.say("DATA")).startswith("554")


@pytest.mark.parametrize(
    ("host", "allow", "code"),
    [
        ("::1", ("127.0.0.0/8", "10.0.0.0/8"), "550"),
        ("::1", ("::1",), "250"),
        ("127.0.0.1", ("::1",), "550"),
        ("127.0.0.1", ("127.0.0.1",), "250"),
    ],
)
async def test_ipv6_and_ipv4_are_told_apart(
    start: Start, host: str, allow: tuple[str, ...], code: str
) -> None:
    async with start(allow=allow, host=host) as gateway, gateway.client() as client:
        await client.say("MAIL FROM:<a@example.com>")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith(code)


@pytest.mark.parametrize(("allow", "code"), [(("127.0.0.0/8",), "250"), (("::/0",), "550")])
async def test_a_mapped_address_counts_as_ipv4(
    start: Start, allow: tuple[str, ...], code: str
) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        async with start(allow=allow) as gateway:
            server = await asyncio.get_running_loop().create_server(gateway.make_session, sock=both)
            gateway.port = both.getsockname()[1]
            async with gateway.client() as client:
                await client.say("MAIL FROM:<a@example.com>")
                assert (await client.say("RCPT TO:<b@example.net>")).startswith(code)
                (open_session,) = gateway.listener.sessions
                assert open_session.client.address == "127.0.0.1"
            server.close()


# The end of a connection.


async def test_a_client_that_closes_its_half_still_gets_its_replies(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        await client.begin()
        await client.say("DATA")
        client.send(b"Subject: x\r\n\r\n.\r\n")
        client.writer.write_eof()
        assert (await client.reply()).startswith("250 2.0.0 Ok: queued as ")
        assert await client.is_closed()
        assert len(gateway.rows()) == 1
    async with start() as gateway, gateway.client() as client:
        client.send(b"QUIT\r\n")
        client.writer.write_eof()
        assert (await client.reply()).startswith("221")
        assert await client.is_closed()


async def test_a_client_that_disappears_after_the_dot(tmp_path: Path) -> None:
    async with NextHop() as hop:
        config = configure(tmp_path, f"relay: {{via: ['{hop.address}']}}")
        async with Assembly(config) as gateway:
            for reset in (False, True):
                async with gateway.client() as client:
                    await client.begin()
                    await client.say("DATA")
                    client.send(b"Subject: x\r\n\r\n.\r\n")
                    if reset:
                        await until(lambda: gateway.ingress.accepted == 2, "the message")
                        client.writer.get_extra_info("socket").setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                        client.writer.transport.abort()
                await hop.wait(1 + reset)
            await until(lambda: not gateway.listener.sessions, "the sessions to end")
            await until(lambda: not gateway.rows(), "the queue to be empty")


async def test_a_client_that_disappears_before_the_dot(start: Start) -> None:
    async with start() as gateway:
        async with gateway.client() as client:
            await client.begin()
            await client.say("DATA")
            client.send(b"Subject: x\r\n\r\n.\r")
        await until(lambda: not gateway.listener.sessions, "the session to end")
        assert gateway.rows() == []
        assert gateway.ingress.attendance.connections == 0


# TLS and AUTH.


@pytest.fixture(scope="module")
def users() -> Users:
    return Users({"shop": hash_password("sécret")})


@pytest.fixture(scope="module")
def server_tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"), "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _starttls(client: Client) -> None:
    assert (await client.say("STARTTLS")).startswith("220 2.0.0")
    await client.writer.start_tls(_trusting())


async def test_starttls(start: Start, server_tls: ssl.SSLContext, users: Users) -> None:
    async with start(tls=server_tls, users=users, allow=()) as gateway, gateway.client() as client:
        assert "STARTTLS" in await client.say("EHLO client.example.org")
        assert "AUTH" not in await client.say("EHLO client.example.org")
        assert (await client.say("AUTH PLAIN AGEAYg==")).startswith("538 5.7.11")
        await _starttls(client)
        # What was said before counts for nothing (RFC 3207 4.2).
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("503")
        offer = await client.say("EHLO client.example.org")
        assert "STARTTLS" not in offer
        assert "250-AUTH PLAIN LOGIN" in offer
        assert "250-REQUIRETLS" in offer
        assert (await client.say("MAIL FROM:<a@example.com> REQUIRETLS=1")).startswith("501")
        assert (await client.say("MAIL FROM:<a@example.com> REQUIRETLS")).startswith("250 2.1.0")
        assert gateway.listener.sessions
        assert all(session.transaction.message.require_tls for session in gateway.listener.sessions)
        await client.say("RSET")
        assert (await client.say("STARTTLS")).startswith("503")
        await client.say("MAIL FROM:<a@example.com>")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("530 5.7.0")
        assert (await client.say("AUTH PLAIN AGEAYg==")).startswith("503")
        await client.say("RSET")
        login = base64.b64encode("\0shop\0sécret".encode()).decode()
        assert (await client.say(f"AUTH PLAIN {login}")).startswith("235 2.7.0")
        assert (await client.say(f"AUTH PLAIN {login}")).startswith("503")
        await client.begin()
        assert (await client.data(b"Subject: x\r\n\r\n" + b"x\r\n" * 100_000)).startswith("250")
        (shard,) = gateway.spool.shards
        ((content,),) = shard.query("SELECT content FROM messages", ())
        assert b"with ESMTPSA\r\n\t(using TLSv1.3) id " in content
        assert (await client.say("QUIT")).startswith("221")


async def test_what_is_injected_before_tls_is_dropped(
    start: Start, server_tls: ssl.SSLContext
) -> None:
    for injected in (b"RSET\r\nNOOP\r\n", b"NOOP " + b"x" * 300_000 + b"\r\n"):
        async with start(tls=server_tls) as gateway, gateway.client() as client:
            client.send(b"STARTTLS\r\n" + injected[:60_000])
            assert (await client.reply()).startswith("220")
            await client.writer.start_tls(_trusting())
            assert (await client.say("VRFY x")).startswith("252")


async def test_a_handshake_that_fails(start: Start, server_tls: ssl.SSLContext) -> None:
    async with start(tls=server_tls) as gateway:
        async with gateway.client() as client:
            await client.say("STARTTLS")
            client.send(b"EHLO I do not speak TLS\r\n" * 10)
            async with asyncio.timeout(60):
                while await client.reader.read(65536):
                    pass
        await until(lambda: not gateway.listener.sessions, "the session to end")
        async with gateway.client() as client:
            assert (await client.say("NOOP")).startswith("250")


async def test_tls_from_the_first_octet(start: Start, server_tls: ssl.SSLContext) -> None:
    async with start(tls=server_tls, implicit=True) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=_trusting())
        client = Client(reader, writer)
        assert (await client.reply()).startswith("220")
        assert "STARTTLS" not in await client.say("EHLO client.example.org")
        await client.begin()
        assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
        writer.close()
        # A plain client gets no further.
        async with gateway.client(greet=False) as plain:
            plain.send(b"EHLO client.example.org\r\n")
            async with asyncio.timeout(60):
                assert b"220" not in await plain.reader.read()


async def test_logging_in(start: Start, users: Users) -> None:
    def coded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    async with start(users=users, plaintext_auth=True, allow=()) as gateway:
        async with gateway.client() as client:
            for command, reply in [
                ("AUTH", "504"),
                ("AUTH CRAM-MD5", "504"),
                ("AUTH PLAIN !!!", "501"),
                ("AUTH PLAIN =", "501"),
                (f"AUTH PLAIN {coded('shop')}", "501"),
                (f"AUTH PLAIN {coded(chr(0) + 'shop' + chr(0) + 'wrong')}", "535 5.7.8"),
                (f"AUTH PLAIN {coded(chr(0) + 'nobody' + chr(0) + 'wrong')}", "535 5.7.8"),
            ]:
                assert (await client.say(command)).startswith(reply)
            assert await client.say("AUTH PLAIN") == "334 "
            assert (await client.say("*")).startswith("501")
            assert await client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
            assert await client.say(coded("shop")) == "334 UGFzc3dvcmQ6"
            assert (await client.say(coded("wrong"))).startswith("535")
            await client.say("MAIL FROM:<a@example.com>")
            assert (await client.say("RCPT TO:<b@example.net>")).startswith("530")
            await client.say("RSET")
            assert await client.say(f"auth login {coded('shop')}") == "334 UGFzc3dvcmQ6"
            assert (await client.say(coded("sécret"))).startswith("235")
            await client.begin()
        async with gateway.client() as client:
            await client.say("AUTH PLAIN")
            assert (await client.say(coded("\0shop\0sécret"))).startswith("235")


# Hooks of the session.


async def test_what_hooks_of_the_session_answer(start: Start, tmp_path: Path) -> None:
    body = """
@hookimpl
def connect(self, client):
    client.notes["seen"] = "yes"
    if getattr(Site, "refuse", None):
        return Site.refuse
@hookimpl
async def helo(self, client):
    if client.helo == "bad.example.org":
        return Reject("No", 554, "5.7.1")
    if client.helo == "late.example.org":
        return Tempfail("Later", 450, "4.7.1")
@hookimpl
async def auth(self, login):
    if login.username == "plugin":
        login.user = "known"
        return Accept()
    if login.username == "bad":
        return Reject("Never")
    if login.username == "late":
        return Tempfail("Later")
@hookimpl
def mail(self, message):
    if message.sender.startswith("bad"):
        return Reject("No", 553, "5.1.8")
    if message.sender.startswith("late"):
        return Tempfail("Later")
@hookimpl
async def rcpt(self, recipient):
    if recipient.address.startswith("bad"):
        return Reject("No such", 550, "5.1.1")
    if recipient.address.startswith("full"):
        return Tempfail("Full", 452, "4.2.2")
    if recipient.address.startswith("drop"):
        return Discard("not wanted")
    if recipient.address.startswith("old"):
        recipient.address = "new@example.net"
@hookimpl
def message(self, message):
    raise RuntimeError(message.client.user)
"""
    plugin = write_plugin(tmp_path, "site", body)
    text = f"plugins: [{plugin}: {{on_error: skip}}]"
    async with start(text, plaintext_auth=True) as gateway, gateway.client() as client:
        assert (await client.say("EHLO bad.example.org")) == "554 5.7.1 No"
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("503")
        assert (await client.say("EHLO late.example.org")) == "450 4.7.1 Later"
        assert "AUTH PLAIN LOGIN" in await client.say("EHLO client.example.org")
        for name, reply in (("bad", "535 5.7.1 Never"), ("late", "454 4.7.1"), ("x", "535 5.7.8")):
            login = base64.b64encode(f"\0{name}\0x".encode()).decode()
            assert (await client.say(f"AUTH PLAIN {login}")).startswith(reply)
        login = base64.b64encode(b"\0plugin\0x").decode()
        assert (await client.say(f"AUTH PLAIN {login}")).startswith("235")
        assert await client.say("MAIL FROM:<bad@example.com>") == "553 5.1.8 No"
        assert await client.say("MAIL FROM:<late@example.com>") == "451 4.7.1 Later"
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("250")
        assert await client.say("RCPT TO:<bad@example.net>") == "550 5.1.1 No such"
        assert await client.say("RCPT TO:<full@example.net>") == "452 4.2.2 Full"
        assert (await client.say("RCPT TO:<drop@example.net>")).startswith("250")
        assert (await client.say("RCPT TO:<old@example.net>")).startswith("250")
        assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
        (row,) = gateway.rows()
        assert row.recipient == "new@example.net"
        # Only dropped recipients: yes to the client, and nothing in the queue.
        await client.say("MAIL FROM:<a@example.com>")
        assert (await client.say("RCPT TO:<drop@example.net>")).startswith("250")
        assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
        assert len(gateway.rows()) == 1
