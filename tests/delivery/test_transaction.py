"""Transactions: what becomes of each recipient, whatever the server does and when."""

from __future__ import annotations

import asyncio
import email
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.attempt import Disposition, Hop, Outcome
from gateway.delivery.connection import Connection, Timeouts, open_connection
from gateway.delivery.transaction import transact
from gateway.mail.message import Recipient
from gateway.mail.seven_bit import seven_bit
from gateway.testing import Drop, Hang, NextHop, Raw
from tests.delivery.sending import (
    CONTENT,
    SOURCE,
    delivering,
    lines,
    make_delivery,
    make_route,
    send,
    send_one,
)

DELIVERED, DEFERRED, FAILED = Disposition.DELIVERED, Disposition.DEFERRED, Disposition.FAILED

# What a server does at a stage, and what becomes of three recipients; at `rcpt` it does so to the
# second one. `+` is delivered, `-` failed, `?` deferred; `next` is delivered by the next hop.
ACTIONS: dict[str, Any] = {
    "421": "421 4.3.2 Stopping",
    "451": "451 4.3.0 Later",
    "550": "550 5.7.1 No",
    "fin": Drop(),
    "rst": Drop(reset=True),
    "hang": Hang(),
    "junk": Raw(b"\xff\xfe what?\r\n"),
}
TABLE = {
    # stage     421     451     550     fin     rst     hang    junk
    "banner": ("next", "next", "next", "next", "next", "next", "next"),
    "ehlo": ("next", "next", "+++", "next", "next", "next", "next"),
    "mail": ("next", "???", "---", "next", "next", "next", "next"),
    "rcpt": ("???", "+?+", "+-+", "???", "???", "???", "???"),
    "data": ("???", "???", "---", "???", "???", "???", "???"),
    "content": ("???", "???", "---", "???", "???", "???", "???"),
    "dot": ("???", "???", "---", "???", "???", "???", "???"),
}
SIGNS = {DELIVERED: "+", DEFERRED: "?", FAILED: "-"}
CASES = [
    (stage, action, result)
    for stage, results in TABLE.items()
    for action, result in zip(ACTIONS, results, strict=True)
]


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelining", "plain"])
@pytest.mark.parametrize(("stage", "action", "result"), CASES)
async def test_what_becomes_of_each_recipient(
    stage: str, action: str, result: str, extensions: tuple[str, ...]
) -> None:
    script: dict[str, Any] = {stage: ACTIONS[action], "extensions": extensions}
    if stage == "rcpt":
        script["rcpt"] = {"b@*": ACTIONS[action]}
    # So large that not all of it is sent when the first of it arrives.
    content = CONTENT * 500_000 if stage == "content" else CONTENT
    to = ("a@example.net", "b@example.net", "c@example.net")
    delivery = make_delivery(*to, content=content)
    timeouts = Timeouts(*[0.3 if action == "hang" else 20.0] * len(Timeouts.__slots__))
    async with NextHop(**script) as hop, NextHop() as following:
        async with delivering(timeouts) as connections:
            outcomes = await send(connections, make_route(hop, following), delivery)
        delivered = [address for message in following.messages for address, _ in message.recipients]
        taken = [address for message in hop.messages for address, _ in message.recipients]
        reached = following.connections
    signs = "".join(SIGNS[outcome.disposition] for outcome in outcomes)
    if result == "next":
        assert (signs, taken) == ("+++", [])
        assert tuple(delivered) == to
        return
    assert (signs, delivered, reached) == (result, [], 0)
    if stage == "dot":
        assert tuple(taken) == to
    else:
        assert taken == [address for sign, address in zip(result, to, strict=True) if sign == "+"]
    # Whoever has read the whole message, and does not say no to it, may deliver it.
    doubtful = (stage == "dot" and action in ("fin", "rst", "hang", "junk")) or (
        stage == "content" and action == "hang"
    )
    assert all(("twice" in outcome.text) == doubtful for outcome in outcomes)
    second = outcomes[1]
    assert second.disposition is DELIVERED or second.stage == {"content": "dot"}.get(stage, stage)


@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail"])
@pytest.mark.parametrize("action", ACTIONS)
async def test_without_a_next_hop(stage: str, action: str) -> None:
    script: dict[str, Any] = {stage: ACTIONS[action], "helo": ACTIONS[action]}
    timeouts = Timeouts(*[0.3 if action == "hang" else 20.0] * len(Timeouts.__slots__))
    async with NextHop(**script) as hop:
        outcome = await send_one(hop, timeouts=timeouts)
        assert outcome.disposition is (FAILED if action == "550" else DEFERRED)
        assert outcome.status.startswith("5" if action == "550" else "4")
        assert outcome.stage == ("connect" if stage == "banner" else stage)
        assert outcome.relay.endswith(f":{Hop.parse(hop.address).port}")
        assert hop.messages == []


# Slow servers.


class TarPit:
    """A server that answers as it should up to a stage, and from there on octet by octet."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._clients: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for stage in ("banner", "ehlo", "mail", "rcpt", "data", "dot"):
                if stage == "dot":
                    await reader.readuntil(b"\r\n.\r\n")
                elif stage != "banner":
                    await reader.readline()
                if stage == self._stage:
                    while True:
                        for octet in b"250-a line without end":
                            writer.write(bytes([octet]))
                            await writer.drain()
                            await asyncio.sleep(0.02)
                code = {"banner": b"220", "data": b"354"}.get(stage, b"250")
                writer.write(code + b" Ok\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt", "data", "dot"])
async def test_a_reply_that_never_ends_is_not_waited_for(stage: str) -> None:
    timeouts = Timeouts(**{stage: 0.5})
    pit = TarPit(stage).running()
    async with pit as address, NextHop() as good, delivering(timeouts) as connections:
        began = time.monotonic()
        stuck = asyncio.create_task(send(connections, make_route(address, site="tar")))
        # Meanwhile the others are served.
        for _ in range(5):
            (outcome,) = await send(connections, good)
            assert outcome.disposition is DELIVERED
        (outcome,) = await stuck
        assert 0.4 < time.monotonic() - began < 10.0
    assert outcome.disposition is DEFERRED
    assert "timed out" in outcome.text
    assert outcome.stage == ("connect" if stage == "banner" else stage)


# Parameters of MAIL and RCPT.


async def test_the_return_path_stands_in_mail() -> None:
    async with NextHop() as hop, delivering() as connections:
        for return_path in ("b+x1@bounces.example.com", "", None):
            (outcome,) = await send(connections, hop, make_delivery(return_path=return_path))
            assert outcome.disposition is DELIVERED
        assert [message.sender for message in hop.messages] == [
            "b+x1@bounces.example.com",
            "",
            "a@example.com",
        ]


async def test_a_return_path_that_would_break_the_command_is_never_sent() -> None:
    async with NextHop() as hop:
        outcome = await send_one(hop, make_delivery(return_path="a@b>\r\nRCPT TO:<x@y"))
        assert (outcome.disposition, outcome.status) == (FAILED, "5.1.7")
        assert hop.connections == 0


async def test_a_return_path_outside_of_ascii_needs_smtputf8() -> None:
    delivery = make_delivery(return_path="ä@example.com")
    async with NextHop(extensions=()) as plain, NextHop() as wide:
        outcome = await send_one(plain, delivery)
        assert (outcome.disposition, outcome.status) == (FAILED, "5.6.7")
        assert (await send_one(wide, delivery)).disposition is DELIVERED
        assert "SMTPUTF8" in wide.messages[0].parameters


@pytest.mark.parametrize(("priority", "said"), [(3, "3"), (-9, "-9"), (0, "0"), (None, None)])
async def test_a_priority_is_passed_on(priority: int | None, said: str | None) -> None:
    async with NextHop(extensions=("MT-PRIORITY MIXER",)) as hop, NextHop() as other:
        for one in (hop, other):
            outcome = await send_one(one, make_delivery(priority=priority))
            assert outcome.disposition is DELIVERED
        parameters = [one for one in hop.messages[0].parameters if "PRIO" in one]
        assert parameters == ([] if said is None else [f"MT-PRIORITY={said}"])
        assert not any("PRIO" in one for one in other.messages[0].parameters)


async def _connect(hop: NextHop) -> Connection:
    target = Hop.parse(hop.address)
    opened = await open_connection(target, target.host, SOURCE, Timeouts())
    assert isinstance(opened, Connection)
    return opened


async def test_requiretls_is_said_to_who_offers_it() -> None:
    async with NextHop(extensions=("REQUIRETLS", "PIPELINING")) as hop:
        connection = await _connect(hop)
        ((outcome,),) = ([*await _transact(connection, require_tls=True)],)
        assert outcome.disposition is DELIVERED
        ((outcome,),) = ([*await _transact(connection)],)
        assert outcome.disposition is DELIVERED
        connection.quit()
        assert [message.parameters for message in hop.messages] == [("REQUIRETLS",), ()]


async def _transact(connection: Connection, **options: Any) -> list[Outcome]:
    outcomes = await transact(connection, make_delivery(**options), Timeouts())
    assert isinstance(outcomes, list)
    return outcomes


async def test_a_server_without_requiretls_gets_nothing_of_the_message() -> None:
    async with NextHop() as hop:
        connection = await _connect(hop)
        outcome = await transact(connection, make_delivery(require_tls=True), Timeouts())
        # Another server may be asked, over another connection.
        assert isinstance(outcome, Outcome)
        assert (outcome.disposition, outcome.status) == (FAILED, "5.7.30")
        assert connection.lost
        await hop.wait_closed()
        assert not any(line.startswith("MAIL") for line in lines(hop))


async def test_an_original_recipient_outside_of_ascii_is_said_in_ascii() -> None:
    recipient = Recipient("b@example.net", orcpt="utf-8;用户@例え.example")
    async with NextHop() as hop:
        outcome = await send_one(hop, make_delivery(recipient))
        assert (outcome.disposition, outcome.relayed_dsn) == (DELIVERED, True)
        ((_, parameters),) = hop.messages[0].recipients
    assert parameters == (r"ORCPT=utf-8;\x{7528}\x{6237}@\x{4F8B}\x{3048}.example",)


async def test_without_dsn_the_duty_to_report_stays_here() -> None:
    recipient = Recipient("b@example.net", notify=frozenset({"SUCCESS"}), orcpt="rfc822;x@y")
    async with NextHop(extensions=("PIPELINING",)) as hop:
        outcome = await send_one(hop, make_delivery(recipient, ret="FULL", envid="x"))
        assert (outcome.disposition, outcome.relayed_dsn) == (DELIVERED, False)
        assert hop.messages[0].recipients == (("b@example.net", ()),)
        assert hop.messages[0].parameters == ()


# Servers that take 7 bits only.

WIDE = (
    "From: a@example.com\r\nMIME-Version: 1.0\r\n"
    "Content-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    "--x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    "Grüße aus Köln\r\n"
    "--x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    "AAEC\r\n--x--\r\n"
).encode()


def _in_seven_bits(called: list[int]) -> Callable[[], bytes]:
    def convert() -> bytes:
        called.append(1)
        converted = seven_bit(WIDE)
        assert converted is not None
        return converted

    return convert


async def test_a_server_without_8bitmime_gets_7_bits() -> None:
    called: list[int] = []
    delivery = make_delivery(content=WIDE, in_seven_bits=_in_seven_bits(called))
    async with NextHop(extensions=("SIZE", "PIPELINING")) as hop:
        assert (await send_one(hop, delivery)).disposition is DELIVERED
        (message,) = hop.messages
    assert message.content.isascii()
    assert message.parameters == (f"SIZE={len(message.content)}",)
    parts = [
        part.get_payload(decode=True)
        for part in email.message_from_bytes(message.content).walk()
        if not part.is_multipart()
    ]
    assert parts == ["Grüße aus Köln".encode(), b"\x00\x01\x02"]
    assert called == [1]
    assert delivery.content == WIDE


async def test_a_server_with_8bitmime_gets_it_as_it_is() -> None:
    called: list[int] = []
    delivery = make_delivery(content=WIDE, in_seven_bits=_in_seven_bits(called))
    async with NextHop() as hop:
        assert (await send_one(hop, delivery)).disposition is DELIVERED
        assert hop.messages[0].content == WIDE
        assert "BODY=8BITMIME" in hop.messages[0].parameters
    assert called == []


async def test_7_bits_are_7_bits() -> None:
    called: list[int] = []
    delivery = make_delivery(content=CONTENT, in_seven_bits=_in_seven_bits(called))
    async with NextHop(extensions=()) as hop:
        assert (await send_one(hop, delivery)).disposition is DELIVERED
        assert hop.messages[0].content == CONTENT
    assert called == []


async def test_what_cannot_be_converted_is_not_sent() -> None:
    no = Outcome(FAILED, 0, "5.6.3", "8-bit content that cannot be converted", "data")
    delivery = make_delivery("b@x.net", "c@x.net", content=WIDE, in_seven_bits=lambda: no)
    async with NextHop(extensions=()) as hop, delivering() as connections:
        outcomes = await send(connections, hop, delivery)
        for outcome in outcomes:
            assert (outcome.disposition, outcome.status, outcome.stage) == (FAILED, "5.6.3", "data")
            assert outcome.relay.endswith(hop.address.partition(":")[2])
        assert hop.messages == []
        # The connection is as good as before.
        (outcome,) = await send(connections, hop)
        assert (outcome.disposition, hop.connections) == (DELIVERED, 1)


async def test_a_header_that_needs_smtputf8_is_not_converted() -> None:
    called: list[int] = []
    content = "Subject: ä\r\n\r\nä\r\n".encode()
    delivery = make_delivery(content=content, smtputf8=True, in_seven_bits=_in_seven_bits(called))
    async with NextHop(extensions=()) as hop:
        outcome = await send_one(hop, delivery)
        assert (outcome.disposition, outcome.status) == (FAILED, "5.6.7")
    assert called == []
