"""SMTP smuggling, in and out: what ends a message for some servers ends none here, nor leaves."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.mail.large_content import BLOCK
from gateway.testing import Certificate, NextHop
from tests.assembly import Client, below_trace, write_plugin
from tests.certificate import make_certificate
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway
from tests.faults.figures import Figures
from tests.faults.raw_client import connected
from tests.faults.tapped_hop import TappedHop

END = b"\r\n.\r\n"
"""The only end of a message (RFC 5321 4.1.1.4)."""

LINE_ENDS = (
    *(b"\n", b"\r", b"\r\n", b"\r\r", b"\0\n", b"\n\0", b"\r\n\0", b"\r\0\n"),
    *(b"\n\n", b"\n\r", b"\r\r\n", b"\0", b"\0\r\n", b"\r\0", b"\0\r"),
)
"""What some server, somewhere, takes for the end of a line; those that are known come first."""

KNOWN = 8

INNER = (
    b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\n"
    b"DATA\r\nSubject: smuggled\r\n\r\nHello"
)

BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"

LAX_END = re.compile(rb"[\r\n\0]\.[\r\n\0]")
"""The end of a message for a server that takes all of `LINE_ENDS` for one."""


def _sequences(scale: Scale) -> list[bytes]:
    """Each line end before and after a dot, but for what holds the real end."""
    pairs = itertools.product(LINE_ENDS[: scale(KNOWN, len(LINE_ENDS))], repeat=2)
    sequences = [before + b"." + after for before, after in pairs]
    return [sequence for sequence in sequences if END not in sequence]


@asynccontextmanager
async def _running(
    make_gateway: MakeGateway, tmp_path: Path, hop: NextHop, more: str = ""
) -> AsyncIterator[Gateway]:
    """A gateway that offers STARTTLS, in front of a next hop."""
    certificate, key = make_certificate(tmp_path, "gw.example.com")
    listen = f"allow: [127.0.0.0/8], tls: {{certificate: {certificate}, key: {key}}}"
    gateway = make_gateway(hop.address, more, listen=listen, workers=1)
    await asyncio.to_thread(gateway.start)
    yield gateway
    await asyncio.to_thread(gateway.wait_empty)
    assert await asyncio.to_thread(gateway.stop) == 0
    assert "Traceback" not in gateway.log


async def _still_works(client: Client) -> None:
    """A message of good will goes through, as the first thing that is answered."""
    client.send(BEGIN + b"DATA\r\nSubject: honest\r\n\r\nHello" + END)
    assert await client.replies(4) == ["250", "250", "354", "250"]


# In.


async def test_nothing_is_smuggled_in(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    sequences = _sequences(scale)
    honest = 0
    async with NextHop() as hop, _running(make_gateway, tmp_path, hop) as gateway:
        for tls in (False, True):
            async with connected(gateway, tls=tls) as client:
                for sequence in sequences:
                    await _within_data(client, sequence, apart=scale(False, True))
                    await _within_chunks(client, sequence)
            await _after_a_chunk_of_no_size(gateway, tls)
            await _between_commands(gateway, tls)
            honest += 2 * len(sequences)
        await hop.wait(honest, DEADLINE)
    assert {message.content.split(b"\r\n\r\n")[-1] for message in hop.messages} == {b"Hello\r\n"}
    assert {message.recipients[0][0] for message in hop.messages} == {"b@example.net"}
    assert len(hop.messages) == honest
    figures(10, sequences=len(sequences), passed=0)


async def _within_data(client: Client, sequence: bytes, apart: bool) -> None:
    """No sequence ends a message."""
    content = b"Subject: outer\r\n\r\nHello" + sequence + INNER + END
    await _send(client, BEGIN + b"DATA\r\n" + content, sequence, apart)
    replies = [await client.reply() for _ in range(4)]
    assert replies[3].startswith("550 5.6.0 "), (sequence, replies)
    await _still_works(client)


async def _send(client: Client, octets: bytes, sequence: bytes, apart: bool) -> None:
    """Sends it in one piece, or torn in the middle of the sequence: each piece arrives alone."""
    if not apart:
        client.send(octets)
        return
    start = octets.index(sequence)
    for piece in (octets[:start], *(sequence[i : i + 1] for i in range(len(sequence)))):
        client.send(piece)
        await client.writer.drain()
        await asyncio.sleep(0.002)
    client.send(octets[start + len(sequence) :])


async def _within_chunks(client: Client, sequence: bytes) -> None:
    """No sequence passes that is torn apart by the border between two chunks."""
    content = b"Subject: outer\r\n\r\nHello" + sequence + INNER + b"\r\n"
    middle = content.index(sequence) + len(sequence) // 2
    first, last = content[:middle], content[middle:]
    client.send(BEGIN + b"BDAT %d\r\n" % len(first) + first)
    client.send(b"BDAT %d LAST\r\n" % len(last) + last)
    replies = [await client.reply() for _ in range(4)]
    assert replies[3].startswith("550 5.6.0 "), (sequence, replies)
    await _still_works(client)


async def _after_a_chunk_of_no_size(gateway: Gateway, tls: bool) -> None:
    """What follows BDAT is content, and none of it is understood if nobody knows how much."""
    sizes = ("", "x", "-1", "+5", "5.0", "0x5", "5e1", "5 5", "5 LAST LAST", "5 FIRST", "\u0665")
    for size in sizes:
        async with connected(gateway, tls=tls) as client:
            client.send(BEGIN + f"BDAT {size}\r\n".encode() + INNER + END)
            assert await client.replies(2) == ["250", "250"]
            assert (await client.reply()).startswith("501 5.5.4"), size
            assert await client.is_closed(), size
    async with connected(gateway, tls=tls) as client:
        # The client promises more than it sends, and leaves.
        client.send(BEGIN + b"BDAT 10000 LAST\r\n" + INNER + END)
        assert await client.replies(2) == ["250", "250"]


async def _between_commands(gateway: Gateway, tls: bool) -> None:
    """No line end but CRLF ends a command."""
    for end in (end for end in LINE_ENDS if not end.startswith(b"\r\n")):
        async with connected(gateway, tls=tls) as client:
            client.send(b"MAIL FROM:<a@example.com>" + end + b"RCPT TO:<b@example.net>\r\n")
            client.send(b"QUIT\r\n")
            said = await client.reader.read()
            replies = [line[:3] for line in said.splitlines()]
            assert b"250" not in replies, (end, said)
            assert replies[-1] == b"221", (end, said)


# Out.

ODD_LINES = (
    *(b"", b".", b"..", b"...", b". ", b".\t", b" .", b"\t.", b".a", b".\x0b", b".\x0c"),
    *(b"\x0b.", b"\x0c.\x0c", b"\x1c.\x1c", b"\x85.\x85", b"\xc2\x85.\xc2\x85", b"\x1a", b"\x1a."),
    *(b"\xe2\x80\xa8.\xe2\x80\xa8", b"\xe2\x80\xa9.", b"QUIT", b".QUIT"),
    *(b"RSET", b"MAIL FROM:<evil@example.com>", b"RCPT TO:<victim@example.net>", b"DATA"),
    *(b"BDAT 0 LAST", b"%0d%0a.%0d%0a", b"=0D=0A.=0D=0A", b"&#13;&#10;.&#13;&#10;", b"\xff."),
)


def _contents(odd_lines: Sequence[bytes]) -> Iterator[bytes]:
    """Messages of odd lines, each next to each other."""
    head = b"Subject: odd\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    for pair in itertools.product(odd_lines, repeat=2):
        yield head + b"\r\n".join(pair) + b"\r\n"
    # Without a header, and without an end.
    for first in (b".", b"..", b".a"):
        yield first
        yield first + b"\r\n"
        yield first + END
    yield END
    yield b""
    # At the borders of the blocks that are written at a time.
    lines = head + (b"x" * 76 + b"\r\n") * ((BLOCK - 500) // 78)
    for length in range(BLOCK - 8, BLOCK + 8):
        yield lines + b"x" * (length - len(lines)) + END + b".\r\n"


async def test_what_is_sent_ends_where_it_ends(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    contents = list(_contents(ODD_LINES[: scale(16, len(ODD_LINES))]))
    plain = TappedHop()
    protected = TappedHop(tls=Certificate.make("mx.example.net").server())
    async with plain, protected:
        routes = f"{{plain.test: ['{plain.address}'], tls.test: ['{protected.address}']}}"
        more = f"relay: {{routes: {routes}}}"
        async with _running(make_gateway, tmp_path, plain, more) as gateway:
            for domain in (b"plain.test", b"tls.test"):
                begin = BEGIN.replace(b"example.net", domain)
                async with connected(gateway, tls=domain == b"tls.test") as client:
                    handing_over = _hand_over(client, begin, contents)
                    await asyncio.gather(handing_over, _all_taken(client, len(contents)))
            for hop in (plain, protected):
                await hop.wait(len(contents), DEADLINE)
    for hop in (plain, protected):
        sent = sorted(below_trace(message.content) for message in hop.messages)
        assert sent == sorted(_ended(content) for content in contents)
        assert {message.tls != "" for message in hop.messages} == {hop is protected}
        assert sum(_check_stream(bytes(stream)) for stream in hop.streams) == len(contents)
    figures(10, sent=2 * len(contents), bare_line_ends=0, early_ends=0)


async def _hand_over(client: Client, begin: bytes, contents: list[bytes]) -> None:
    for content in contents:
        client.send(begin + b"BDAT %d LAST\r\n" % len(content) + content)
        await client.writer.drain()


async def _all_taken(client: Client, count: int) -> None:
    for _ in range(count):
        assert await client.replies(3) == ["250", "250", "250"]


def _ended(content: bytes) -> bytes:
    """A message as it is sent: its last line has an end."""
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def _check_stream(stream: bytes) -> int:
    """Looks at every octet of a connection; returns how many messages it has."""
    assert stream.count(b"\r") == stream.count(b"\n") == stream.count(b"\r\n")
    assert b"\0" not in stream
    # Whatever ends a message for a server that is not strict, ends it for one that is.
    lax = [match.start() for match in LAX_END.finditer(stream)]
    strict = [match.start() + 1 for match in re.finditer(re.escape(END), stream)]
    assert lax == strict
    # Each is followed by a command, or by the end.
    for start in strict:
        assert re.match(rb"(?:MAIL FROM:<|RSET\r\n|QUIT\r\n|$)", stream[start + 4 :]), start
    assert stream.count(b"\r\nDATA\r\n") >= len(strict)
    return len(strict)


BREAKS = """
ENDS = {ends}

@hookimpl
def message(self, message):
    end = self.ENDS[int(message.sender.partition("@")[0])]
    for change in (self.body, self.content, self.header, self.field):
        try:
            change(message, end + b"{inner}")
        except ValueError:
            pass

def body(self, message, octets):
    message.body += octets

def content(self, message, octets):
    message.content += octets

def header(self, message, octets):
    message.headers.add("X-Site", b"x" + octets)

def field(self, message, octets):
    message.headers.change("Subject", b"x" + octets)
"""


async def test_what_a_plugin_makes_of_it_is_not_sent(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale
) -> None:
    sequences = _sequences(scale)
    (tmp_path / "plugins").mkdir()
    inner = repr(INNER)[2:-1]
    write_plugin(tmp_path / "plugins", "site", BREAKS.format(ends=repr(sequences), inner=inner))
    more = f"plugins: [{tmp_path}/plugins/site.py: {{on_error: tempfail}}]"
    replies = []
    hop = TappedHop()
    async with (
        hop,
        _running(make_gateway, tmp_path, hop, more) as gateway,
        connected(gateway) as client,
    ):
        for number in range(len(sequences)):
            client.send(BEGIN.replace(b"<a@", f"<{number}@".encode()))
            client.send(b"DATA\r\nSubject: honest\r\n\r\nHello" + END)
            assert await client.replies(3) == ["250", "250", "354"]
            replies.append((await client.reply())[:9])
        # Each change is refused: where it is made, or before the message is taken.
        assert set(replies) <= {"250 2.0.0", "451 4.3.0"}
        taken = replies.count("250 2.0.0")
        await hop.wait(taken, DEADLINE)
    honest = b"Subject: honest\r\n\r\nHello\r\n"
    assert [below_trace(message.content) for message in hop.messages] == [honest] * taken
    assert sum(_check_stream(bytes(stream)) for stream in hop.streams) == taken
