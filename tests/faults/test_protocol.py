"""Abuse of the protocol: the right reply, in bounded time and memory, and others do not suffer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.mail.large_content import LARGE
from gateway.testing import NextHop
from tests.assembly import Client, write_plugin
from tests.certificate import make_certificate
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway
from tests.faults.figures import Figures
from tests.faults.raw_client import anybody, connected

BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"
END = b"\r\n.\r\n"

READS = """
@hookimpl
def message(self, message):
    for name in ("Subject", "From", "To", "X-None"):
        message.headers.get(name)
        message.headers.get_all(name)
    for part in message.text_parts():
        if part.editable:
            part.text += "A footer."
    message.headers.add("X-Site", "was here")
"""
"""A plugin that looks at all of a message, and changes it."""

MOST_SECONDS = 60.0
"""Seconds that a message of many megabytes may take on a busy machine."""


def _worker(gateway: Gateway) -> int:
    return gateway.pids()["worker 0"]


def _peak(pid: int) -> int:
    """The most memory that a process had at a time, in octets."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@asynccontextmanager
async def _unharmed(
    make_gateway: MakeGateway, tmp_path: Path, more: str = "", plugin: bool = False
) -> AsyncIterator[tuple[Gateway, NextHop]]:
    """A gateway that has to be what it was when a test is done with it."""
    certificate, key = make_certificate(tmp_path, "gw.example.com")
    listen = f"allow: [127.0.0.0/8], tls: {{certificate: {certificate}, key: {key}}}"
    if plugin:
        more += f"\nplugins: [{tmp_path}/{write_plugin(tmp_path, 'site', READS)}: {{timeout: 60s}}]"
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, more, listen=listen, workers=1)
        await asyncio.to_thread(gateway.start)
        worker = _worker(gateway)
        yield gateway, hop
        before = len(hop.messages)
        await asyncio.to_thread(gateway.submit, "honest", "honest@example.net")
        await hop.wait(before + 1, DEADLINE)
        await asyncio.to_thread(gateway.wait_empty)
        assert _worker(gateway) == worker
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "Traceback" not in gateway.log


async def _everything(client: Client) -> list[str]:
    """All replies until the gateway closes the connection."""
    replies = []
    while reply := await client.reply():
        replies.append(reply)
    return replies


async def test_commands_that_are_none(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    octets = scale(2, 100) << 20
    async with _unharmed(make_gateway, tmp_path) as (gateway, hop):
        peak = _peak(_worker(gateway))
        for tls in (False, True):
            await _inject_before_tls(gateway)
            await _pipeline_nonsense(gateway, tls)
            await _send_a_long_line(gateway, tls, octets)
            await _speak_http(gateway, tls)
        grown = _peak(_worker(gateway)) - peak
        assert hop.messages == []
        # Buffers have a bound; what was sent has none.
        assert grown < 16 << 20, grown
    figures(11, line_octets=octets, memory_grown_mb=round(grown / 1e6, 1))


async def _inject_before_tls(gateway: Gateway) -> None:
    """What came in the clear is neither executed nor answered within TLS (RFC 3207 4.2)."""
    injected = b"EHLO evil.example.org\r\n" + BEGIN + b"DATA\r\n"
    for before in (b"", BEGIN):
        async with connected(gateway) as client:
            client.send(before)
            await client.replies(before.count(b"\n"))
            client.send(b"STARTTLS\r\n" + injected)
            assert (await client.reply()).startswith("220 ")
            await client.writer.start_tls(anybody())
            # The first answer is that to the first command within TLS, and nothing is open.
            assert (await client.say("NOOP")).startswith("250 2.0.0")
            assert (await client.say("MAIL FROM:<a@example.com>")).startswith("503 5.5.1")
            assert "250-STARTTLS" not in await client.say("EHLO client.example.org")
            assert (await client.say("RCPT TO:<b@example.net>")).startswith("503 5.5.1")
            assert (await client.say("STARTTLS")).startswith("503 5.5.1")
    async with connected(gateway) as client:
        # In the clear where the handshake should be: nothing of it is taken for a command.
        assert (await client.say("STARTTLS")).startswith("220 ")
        client.send(injected)
        said = await client.reader.read()
        assert not said.startswith((b"2", b"3")), said


async def _pipeline_nonsense(gateway: Gateway, tls: bool) -> None:
    """Unknown verbs and lines that are no commands: each has its reply, and soon it is enough."""
    verbs = [b"X%d\r\n" % number for number in range(5000)]
    odd = [bytes([octet]) * 40 + b"\r\n" for octet in range(256) if octet not in b"\r\n"]
    orders = [b"DATA\r\n", b"RCPT TO:<b@example.net>\r\n", b"BDAT 0 LAST\r\n", b"AUTH PLAIN\r\n"]
    for lines in (verbs, odd, orders * 50):
        async with connected(gateway, tls=tls) as client:
            client.send(b"".join(lines))
            replies = await _everything(client)
            assert all(reply[0] == "5" for reply in replies[:-1]), replies
            assert replies[-1].startswith("421 4.7.0"), replies
            assert len(replies) == 21
    async with connected(gateway, tls=tls) as client:
        # Long, but no error: each has a reply.
        client.send(b"NOOP\r\nRSET\r\nVRFY x\r\nHELP\r\n" * 2000 + b"QUIT\r\n")
        replies = await _everything(client)
        assert [reply[:3] for reply in replies] == ["250", "250", "252", "214"] * 2000 + ["221"]


async def _send_a_long_line(gateway: Gateway, tls: bool, octets: int) -> None:
    """A command of megabytes is one error, and the next command is understood."""
    async with connected(gateway, tls=tls) as client:
        client.send(b"MAIL FROM:<")
        for _ in range(octets >> 16):
            client.send(b"a" * 65536)
            await client.writer.drain()
        client.send(b"@example.com>\r\nNOOP\r\n")
        assert (await client.reply()).startswith("500 5.5.6")
        assert (await client.reply()).startswith("250 2.0.0")


async def _speak_http(gateway: Gateway, tls: bool) -> None:
    """A browser that is led here (cross-protocol) sends no mail, also not in its body."""
    body = b"EHLO x\r\n" + BEGIN + b"DATA\r\nSubject: from a browser" + END + b"QUIT\r\n"
    head = b"POST / HTTP/1.1\r\nHost: gw.example.com\r\nContent-Length: %d\r\n" % len(body)
    async with connected(gateway, tls=tls) as client:
        client.send(head + b"User-Agent: x\r\n" * 20 + b"\r\n" + body)
        replies = await _everything(client)
        assert all(reply[:1] in ("5", "4") for reply in replies), replies


async def test_ten_thousand_recipients(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    asked, most = scale(2000, 10_000), 1000
    async with _unharmed(make_gateway, tmp_path) as (gateway, hop):
        began = time.monotonic()
        async with connected(gateway) as client:
            lines = [b"RCPT TO:<r%d@example.net>\r\n" % number for number in range(asked)]
            client.send(b"MAIL FROM:<a@example.com>\r\n" + b"".join(lines))
            assert await client.replies(most + 1) == ["250"] * (most + 1)
            assert await client.replies(asked - most) == ["452"] * (asked - most)
            assert (await client.data(b"Subject: x\r\n\r\nHello\r\n")).startswith("250")
        seconds = time.monotonic() - began
        await asyncio.to_thread(gateway.wait_empty)
        reached = [address for message in hop.messages for address, _ in message.recipients]
        assert sorted(reached) == sorted(f"r{number}@example.net" for number in range(most))
        assert seconds < MOST_SECONDS
    figures(11, recipients=asked, taken=most, seconds=round(seconds, 2))


def _nested(depth: int, kind: str) -> bytes:
    """A message with so many levels of MIME."""
    if kind == "message/rfc822":
        return b"Content-Type: message/rfc822\r\n\r\n" * depth + b"Subject: x\r\n\r\nHello\r\n"
    same = kind == "same"
    lines = []
    for level in range(depth):
        name = b"b" if same else b"b%d" % level
        lines.append(b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n" % (name, name))
    lines.append(b"Content-Type: text/plain\r\n\r\nHello\r\n")
    lines += [
        b"--%s--\r\n" % (b"b" if same else b"b%d" % level) for level in reversed(range(depth))
    ]
    return b"".join(lines)


def _hostile(octets: int, depth: int) -> dict[str, bytes]:
    """Messages that cost more than they should, if one is careless."""
    text = b"\r\nHello\r\n"
    parts = octets // 50
    mime = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    fields = b"".join([b"X-%d: %s\r\n" % (number, b"v" * 80) for number in range(octets // 90)])
    folded = b"X-Folded: x" + b"\r\n " + (b"y" * 76 + b"\r\n ") * (octets // 79) + b"z\r\n"
    words = b"Subject: " + b"=?utf-8?q?=41?=\r\n " * (octets // 18) + b"x\r\n"
    comments = b"To: " + b"(((((((((((((((((((((((\r\n " * (octets // 26) + b"x\r\n"
    quotes = b"From: " + b'"\\"\\"\\"\\"\\"\\"\\"\\"\\"\\"\r\n ' * (octets // 24) + b"x\r\n"
    same = b"".join([b"Subject: %d\r\n" % number for number in range(octets // 16)])
    parameters = b"Content-Type: text/plain" + b"; a=b;\r\n c*0*=d" * (octets // 17) + b"\r\n"
    blank = b" \r\n" * (octets // 3)
    return {
        "fields": fields + text,
        "folded": folded + text,
        "words": words + text,
        "comments": comments + text,
        "quotes": quotes + text,
        "same name": same + text,
        "parameters": parameters + text,
        "no colon": b"a" * 900 + b"\r\n" + blank + text,
        "parts": mime + b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * parts + b"--b--\r\n",
        "prefixes": mime + b"--bb\r\n" * (octets // 6) + b"--b--\r\n",
        "html": b"Content-Type: text/html\r\n\r\n" + b"<div><!--\r\n" * (octets // 11),
        "base64": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + b"=\r\nQ\r\n" * (octets // 6),
        "quoted": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + b"=\r\n==\r\n=3" * (octets // 9)
        + b"\r\n",
        "nested": _nested(depth, "own"),
        "nested, one boundary": _nested(depth, "same"),
        "messages in messages": _nested(depth, "message/rfc822"),
    }


LONG_HEADERS = {"fields", "folded", "words", "comments", "quotes", "same name", "parameters"}


async def test_messages_that_are_made_to_cost(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    octets, depth = scale(1, 10) << 20, scale(1000, 5000)
    plain = b"Subject: x\r\n\r\n" + (b"v" * 76 + b"\r\n") * (octets // 78)
    taken, slowest, worst = 0, 0.0, ""
    async with _unharmed(make_gateway, tmp_path, plugin=True) as (gateway, hop):
        worker = _worker(gateway)
        async with connected(gateway) as client:
            assert (await _submit(client, plain)).startswith("250")
            peak = _peak(worker)
            for name, content in _hostile(octets, depth).items():
                cpu = _cpu_seconds(worker)
                reply = await _submit(client, content)
                cpu = _cpu_seconds(worker) - cpu
                # Mail that is merely odd is taken: it is not for us to say no.
                too_large = name in LONG_HEADERS and content.index(b"\r\n\r\n") > LARGE
                expected = "552 5.3.4 The header" if too_large else "250 2.0.0"
                assert reply.startswith(expected), (name, reply)
                assert cpu < MOST_SECONDS, (name, cpu)
                taken += not too_large
                slowest, worst = max((slowest, worst), (cpu, name))
            received = b"Received: from x by y\r\n" * (min(octets, LARGE) // 46) + b"\r\nHello\r\n"
            assert (await _submit(client, received)).startswith("554 5.4.6")
            line = b"Subject: " + b"x" * octets + b"\r\n\r\nHello\r\n"
            assert (await _submit(client, line)).startswith("550 5.6.0 a line is longer")
        grown = _peak(worker) - peak
        await hop.wait(taken + 1, MOST_SECONDS)
    # Several copies of one message at a time, and objects for what is in it; not more.
    assert grown < 64 * octets + (32 << 20), grown
    figures(
        11,
        header_octets=octets,
        mime_depth=depth,
        messages=taken,
        slowest=worst,
        cpu_seconds=round(slowest, 2),
        memory_grown_mb=round(grown / 1e6, 1),
    )


async def _submit(client: Client, content: bytes) -> str:
    client.send(BEGIN)
    assert await client.replies(2) == ["250", "250"]
    return await client.data(content)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
