"""Delivery to next hops on real sockets: what is said, what is reused, and every way to fail."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attempt import Disposition, Hop, Outcome, Route, Source, Times
from gateway.delivery.connection import Timeouts
from gateway.delivery.connections import Connections
from gateway.mail.large_content import BLOCK
from gateway.mail.message import Recipient
from gateway.resolver import Resolver
from gateway.testing import Drop, Failure, FakeDns, Hang, NextHop, Raw, Trickle, Wait
from tests.delivery.sending import (
    CONTENT,
    NOWHERE,
    delivering,
    lines,
    make_delivery,
    make_route,
    send,
    send_one,
)

DELIVERED, DEFERRED, FAILED = Disposition.DELIVERED, Disposition.DEFERRED, Disposition.FAILED
NO_PIPELINING = ("SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN")
JUNK = Raw(b"\xff\xfe what?\r\n")
ENDLESS = Raw(b"250-and on\r\n" * 20000)


@contextmanager
def _refusing_port() -> Iterator[str]:
    """An address where nothing listens, and nothing else can meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


# What is said.


async def test_a_message_arrives_as_it_came() -> None:
    async with NextHop() as hop, delivering() as connections:
        times = Times(active=1.0)
        (outcome,) = await send(connections, hop, times=times)
        (message,) = hop.messages
        await connections.close(5.0)
        await hop.wait_closed()
    ip, port = hop.address.split(":")
    assert outcome == Outcome(
        DELIVERED, 250, "2.0.0", "Ok: queued", "dot", f"{ip}[{ip}]:{port}", relayed_dsn=True
    )
    assert message.content == CONTENT
    assert (message.sender, message.helo) == ("a@example.com", "gw.example.com")
    assert message.parameters == (f"SIZE={len(CONTENT)}",)
    assert message.recipients == (("b@example.net", ()),)
    assert message.pipelined
    assert lines(hop) == [
        "EHLO gw.example.com",
        f"MAIL FROM:<a@example.com> SIZE={len(CONTENT)}",
        "RCPT TO:<b@example.net>",
        "DATA",
        "QUIT",
    ]
    assert times.active == 1.0 < times.connect <= times.connected <= times.done


async def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    async with NextHop(extensions=NO_PIPELINING) as hop, delivering() as connections:
        outcomes = await send(connections, hop, make_delivery("b@example.net", "c@example.net"))
        assert [outcome.disposition for outcome in outcomes] == [DELIVERED, DELIVERED]
        (message,) = hop.messages
    assert not message.pipelined
    assert [address for address, _ in message.recipients] == ["b@example.net", "c@example.net"]
    assert message.content == CONTENT


@pytest.mark.parametrize("code", ["500", "502", "550"])
async def test_a_server_without_ehlo_gets_helo(code: str) -> None:
    async with NextHop(ehlo=f"{code} what?") as hop:
        outcome = await send_one(hop, make_delivery(content=CONTENT + b"\xe9\r\n", ret="HDRS"))
        (message,) = hop.messages
    assert (outcome.disposition, outcome.relayed_dsn) == (DELIVERED, False)
    assert message.parameters == ()
    assert not message.pipelined
    assert lines(hop)[:2] == ["EHLO gw.example.com", "HELO gw.example.com"]


async def test_parameters_that_the_server_offers() -> None:
    content = b"Subject: \xe5\x8c\x97\r\n\r\n\xe9\r\n"
    recipients = (
        Recipient("b@example.net", notify=frozenset({"SUCCESS", "FAILURE"}), orcpt="rfc822;b+2B@x"),
        Recipient("c@example.net", notify=frozenset({"NEVER"})),
        Recipient("d@example.net"),
    )
    delivery = make_delivery(*recipients, content=content, smtputf8=True, ret="HDRS", envid="Q+2B1")
    async with NextHop() as hop, delivering() as connections:
        await send(connections, hop, delivery)
        (message,) = hop.messages
    assert message.parameters == (
        f"SIZE={len(content)}",
        "BODY=8BITMIME",
        "SMTPUTF8",
        "RET=HDRS",
        "ENVID=Q+2B1",
    )
    assert message.recipients == (
        ("b@example.net", ("NOTIFY=FAILURE,SUCCESS", "ORCPT=rfc822;b+2B@x")),
        ("c@example.net", ("NOTIFY=NEVER",)),
        ("d@example.net", ()),
    )
    assert message.content == content


async def test_parameters_that_the_server_does_not_offer_stay_away() -> None:
    recipient = Recipient("b@example.net", notify=frozenset({"NEVER"}), orcpt="rfc822;b@x")
    delivery = make_delivery(recipient, content=CONTENT + b"\xe9\r\n", ret="FULL", envid="x")
    async with NextHop(extensions=("PIPELINING",)) as hop:
        outcome = await send_one(hop, delivery)
        (message,) = hop.messages
    assert (message.parameters, message.recipients) == ((), (("b@example.net", ()),))
    # Bytes are sacred: they go as they are.
    assert message.content == CONTENT + b"\xe9\r\n"
    assert not outcome.relayed_dsn


async def test_parameter_values_that_would_break_the_command_stay_away() -> None:
    recipient = Recipient("b@example.net", orcpt="rfc822;b\r\nRSET")
    async with NextHop() as hop:
        await send_one(hop, make_delivery(recipient, envid="x y", ret="FULL"))
        (message,) = hop.messages
    assert message.parameters == (f"SIZE={len(CONTENT)}", "RET=FULL")
    assert message.recipients == (("b@example.net", ()),)


async def test_the_null_sender() -> None:
    async with NextHop() as hop:
        assert (await send_one(hop, make_delivery(sender=""))).disposition is DELIVERED
        assert hop.messages[0].sender == ""


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"", b".", b"..", b".x", b"x.", b"x", b"\xe9", b"\x00", b"QUIT"]),
        max_size=8,
    ),
    st.booleans(),
    st.booleans(),
)
def test_any_lines_arrive_as_they_were(lines: list[bytes], ended: bool, pipelining: bool) -> None:
    content = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    # A message without its last line end gets one: SMTP has no other way.
    expected = content if not content or content.endswith(b"\r\n") else content + b"\r\n"

    async def deliver() -> None:
        extensions = ("PIPELINING",) if pipelining else ()
        async with NextHop(extensions=extensions) as hop, delivering() as connections:
            for _ in range(2):
                (outcome,) = await send(connections, hop, make_delivery(content=content))
                assert outcome.disposition is DELIVERED
            assert [message.content for message in hop.messages] == [expected] * 2
            assert hop.connections == 1

    asyncio.run(deliver())


async def test_a_large_message_goes_in_blocks() -> None:
    content = b"Subject: x\r\n\r\n" + b"".join(
        b".%d %s\r\n" % (number, b"x" * (number % 900)) for number in range(20_000)
    )
    assert len(content) > 20 * BLOCK
    async with NextHop() as hop, delivering() as connections:
        for _ in range(2):
            (outcome,) = await send(connections, hop, make_delivery(content=content))
            assert outcome.disposition is DELIVERED
        assert all(message.content == content for message in hop.messages)
        assert hop.connections == 1


async def test_real_messages_arrive_as_they_were(mail_corpus: Path) -> None:
    originals = [
        path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        for path in sorted(mail_corpus.rglob("*"))
        if path.is_file() and path.name != "README.md"
    ]
    assert originals
    async with NextHop() as hop, delivering() as connections:
        for original in originals:
            (outcome,) = await send(connections, hop, make_delivery(content=original))
            assert outcome.disposition is DELIVERED
        for original, message in zip(originals, hop.messages, strict=True):
            assert message.content in (original, original + b"\r\n")
        assert hop.connections == 1


# SMTPUTF8.


async def test_an_address_outside_ascii() -> None:
    delivery = make_delivery("用户@例え.example", "b@example.net", sender="ä@example.com")
    async with NextHop() as hop, delivering() as connections:
        await send(connections, hop, delivery)
        (message,) = hop.messages
    assert message.sender == "ä@example.com"
    assert "SMTPUTF8" in message.parameters
    assert [address for address, _ in message.recipients] == ["用户@例え.example", "b@example.net"]


async def test_smtputf8_is_not_asked_for_without_need() -> None:
    async with NextHop() as hop:
        await send_one(hop, make_delivery(content=CONTENT + b"\xe9\r\n", smtputf8=True))
        assert "SMTPUTF8" not in hop.messages[0].parameters


@pytest.mark.parametrize(
    "options",
    [
        {"sender": "ä@example.com"},
        {"content": b"Subject: \xc3\xa4\r\n\r\nx\r\n", "smtputf8": True},
        {"content": b"Subject: \xc3\xa4\r\n", "smtputf8": True},
    ],
)
async def test_a_server_without_smtputf8_gets_nothing_that_needs_it(
    options: dict[str, Any],
) -> None:
    async with NextHop(extensions=NO_PIPELINING[:2]) as hop, delivering() as connections:
        delivery = make_delivery("b@example.net", "c@x.net", **options)
        outcomes = await send(connections, hop, delivery)
        assert {(o.disposition, o.code, o.status) for o in outcomes} == {(FAILED, 0, "5.6.7")}
        # The connection is as good as before.
        (outcome,) = await send(connections, hop)
        assert (outcome.disposition, hop.connections) == (DELIVERED, 1)


async def test_only_the_recipient_that_needs_smtputf8_fails_without_it() -> None:
    delivery = make_delivery("用户@example.net", "b@例え.example", "c@example.net")
    async with NextHop(extensions=("PIPELINING",)) as hop, delivering() as connections:
        outcomes = await send(connections, hop, delivery)
        (message,) = hop.messages
    assert [o.status for o in outcomes] == ["5.6.7", "2.0.0", "2.0.0"]
    # A domain alone can be said in A-labels.
    assert [address for address, _ in message.recipients] == [
        "b@xn--r8jz45g.example",
        "c@example.net",
    ]


async def test_eight_bit_headers_of_old_go_as_they_are() -> None:
    content = b"Subject: \xe4\r\n\r\nx\r\n"
    async with NextHop(extensions=()) as hop:
        assert (await send_one(hop, make_delivery(content=content))).disposition is DELIVERED
        assert hop.messages[0].content == content


# What is never sent.


@pytest.mark.parametrize("bad", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\r\n", b"\n.\n", b"x\r", b"a\n\r"])
async def test_a_bare_line_end_is_never_sent(bad: bytes) -> None:
    async with NextHop() as hop:
        outcome = await send_one(hop, make_delivery(content=CONTENT + bad))
        assert (outcome.disposition, outcome.status, outcome.relay) == (FAILED, "5.6.0", "none")
        assert "bare CR or LF" in outcome.text
        assert hop.connections == 0


@pytest.mark.parametrize(
    "address",
    ["a@b\r\nRSET", "a@b\x00", "a@b> SIZE=1", "a b@c", "<a@b>", "a@b\udcff", '"x"@y\n'],
)
@pytest.mark.parametrize("smtputf8", [True, False])
async def test_an_address_that_would_break_the_command_is_never_sent(
    address: str, smtputf8: bool
) -> None:
    extensions = ("PIPELINING", "SMTPUTF8") if smtputf8 else ()
    async with NextHop(extensions=extensions) as hop, delivering() as connections:
        (outcome,) = await send(connections, hop, make_delivery(sender=address))
        assert (outcome.disposition, outcome.status) == (FAILED, "5.1.7")
        outcomes = await send(connections, hop, make_delivery(address, "b@example.net"))
        assert [(o.disposition, o.status) for o in outcomes] == [
            (FAILED, "5.1.3"),
            (DELIVERED, "2.0.0"),
        ]
        assert [r for r, _ in hop.messages[0].recipients] == ["b@example.net"]


@pytest.mark.parametrize(
    "address", ['"a b"@example.net', '"a>b"@example.net', "a..b@example.net", "a.@example.net"]
)
async def test_odd_addresses_that_exist_are_sent(address: str) -> None:
    async with NextHop() as hop:
        assert (await send_one(hop, make_delivery(address))).disposition is DELIVERED
        assert f"RCPT TO:<{address}>" in lines(hop)


# Replies.


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
async def test_each_recipient_has_its_own_outcome(extensions: tuple[str, ...]) -> None:
    rcpt = {"bad@*": "550 5.1.1 Unknown", "full@*": "452-4.2.2 Mailbox\n4.2.2 full"}
    delivery = make_delivery("bad@x.net", "b@x.net", "full@x.net", "c@x.net")
    async with NextHop(extensions=extensions, rcpt=rcpt) as hop, delivering() as connections:
        outcomes = await send(connections, hop, delivery)
        (message,) = hop.messages
    assert [(o.disposition, o.code, o.status, o.stage) for o in outcomes] == [
        (FAILED, 550, "5.1.1", "rcpt"),
        (DELIVERED, 250, "2.0.0", "dot"),
        (DEFERRED, 452, "4.2.2", "rcpt"),
        (DELIVERED, 250, "2.0.0", "dot"),
    ]
    assert [address for address, _ in message.recipients] == ["b@x.net", "c@x.net"]


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize(
    ("reply", "first", "later"),
    [
        ("452 4.5.3 Too many recipients", (DEFERRED, "4.5.3"), (DEFERRED, "4.5.3")),
        ("452 Too many recipients", (DEFERRED, "4.0.0"), (DEFERRED, "4.5.3")),
        ("552 Too many recipients", (FAILED, "5.0.0"), (DEFERRED, "4.5.3")),
        ("550 5.5.3 Too many recipients", (FAILED, "5.5.3"), (DEFERRED, "4.5.3")),
        ("452 4.2.2 Mailbox full", (DEFERRED, "4.2.2"), (DEFERRED, "4.2.2")),
        ("552 5.2.2 Mailbox full", (FAILED, "5.2.2"), (FAILED, "5.2.2")),
        ("451 later", (DEFERRED, "4.0.0"), (DEFERRED, "4.0.0")),
    ],
)
async def test_too_many_recipients_for_one_transaction(
    extensions: tuple[str, ...],
    reply: str,
    first: tuple[Disposition, str],
    later: tuple[Disposition, str],
) -> None:
    script: dict[str, Any] = {"extensions": extensions, "rcpt": {"x@*": reply}}
    async with NextHop(**script) as hop, delivering() as connections:
        before, _, after = await send(
            connections, hop, make_delivery("x@one.net", "taken@one.net", "x@two.net")
        )
    assert (before.disposition, before.status) == first
    assert (after.disposition, after.status) == later


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize(
    ("stage", "reply", "disposition", "status"),
    [
        ("mail", "550 5.7.1 No", FAILED, "5.7.1"),
        ("mail", "451 4.3.0 Later", DEFERRED, "4.3.0"),
        ("mail", "552 Too big", FAILED, "5.0.0"),
        ("rcpt", "550 5.1.1 Unknown", FAILED, "5.1.1"),
        ("rcpt", "450 4.2.0 Greylisted", DEFERRED, "4.2.0"),
        ("data", "554 5.7.1 No", FAILED, "5.7.1"),
        ("data", "451 Later", DEFERRED, "4.0.0"),
        ("dot", "554 5.6.0 Spam", FAILED, "5.6.0"),
        ("dot", "451 4.3.0 Later", DEFERRED, "4.3.0"),
        ("dot", "452-4.3.1 Disk\nfull", DEFERRED, "4.3.1"),
    ],
)
async def test_a_no_at_each_stage(
    extensions: tuple[str, ...], stage: str, reply: str, disposition: Disposition, status: str
) -> None:
    script: dict[str, Any] = {stage: [reply, reply, _YES[stage]]}
    async with NextHop(extensions=extensions, **script) as hop, delivering() as connections:
        outcomes = await send(connections, hop, make_delivery("b@example.net", "c@example.net"))
        if stage == "rcpt":
            assert {(o.disposition, o.status, o.stage) for o in outcomes} == {
                (disposition, status, stage)
            }
        else:
            assert [(o.disposition, o.code, o.status, o.stage) for o in outcomes] == [
                (disposition, int(reply[:3]), status, stage)
            ] * 2
            await send(connections, hop)
        # A no is no reason to leave: the connection serves the next message.
        (outcome,) = await send(connections, hop)
        assert (outcome.disposition, hop.connections) == (DELIVERED, 1)
        # RSET comes where the server still holds a transaction, and nowhere else.
        assert ("RSET" in lines(hop)) == (stage != "dot")


_YES = {
    "banner": "220 Hello",
    "ehlo": "250 Hello",
    "mail": "250 Ok",
    "rcpt": "250 Ok",
    "data": "354 Go on",
    "dot": "250 2.0.0 Ok",
    "rset": "250 Ok",
}


async def test_a_server_that_wants_the_message_though_nobody_may_have_it() -> None:
    async with NextHop(rcpt={"bad@*": "550 5.1.1 Unknown"}, data="354 Go on") as hop:
        async with delivering() as connections:
            (outcome,) = await send(connections, hop, make_delivery("bad@x.net"))
            assert (outcome.disposition, outcome.status) == (FAILED, "5.1.1")
            # Only the dot is sent (RFC 2920), and the connection is as good as before.
            assert [(m.recipients, m.content) for m in hop.messages] == [((), b"")]
            (outcome,) = await send(connections, hop)
            assert outcome.disposition is DELIVERED
        assert hop.connections == 1
        assert "RSET" not in lines(hop)


async def test_a_server_that_wants_the_message_though_it_refused_the_sender() -> None:
    script: dict[str, Any] = {"mail": ["550 5.7.1 No", "250 Ok"], "data": "354 Go on"}
    async with NextHop(**script) as hop, delivering() as connections:
        (outcome,) = await send(connections, hop)
        assert (outcome.disposition, outcome.stage) == (FAILED, "mail")
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DELIVERED
        assert [m.connection for m in hop.messages] == [2]


async def test_replies_in_single_bytes() -> None:
    script: dict[str, Any] = {stage: Trickle(reply) for stage, reply in _YES.items()}
    script["ehlo"] = Trickle("250 nexthop.test\nPIPELINING\n8BITMIME")
    script["rcpt"] = Trickle("250-2.1.5 fine\nreally")
    script["dot"] = Trickle("250-2.0.0 Ok\n2.0.0 queued")
    async with NextHop(**script) as hop, delivering() as connections:
        for _ in range(2):
            (outcome,) = await send(connections, hop)
            assert outcome.reply == "250 2.0.0 Ok queued"
        assert hop.connections == 1
        assert hop.messages[0].pipelined


async def test_replies_that_are_no_text() -> None:
    async with NextHop(dot=Raw(b"250 \xff\x00\x1b ok\n")) as hop:
        outcome = await send_one(hop)
    assert outcome.disposition is DELIVERED
    assert outcome.reply == r"250 2.0.0 \xff\x00\x1b ok"


@pytest.mark.parametrize(
    "data",
    [
        b"354 Go on\r\n250 2.0.0 Ok: queued\r\n",
        b"354 Go on\r\n250 2.0.0 Ok",
        b"354 Go on\r\n250-2.0.0 Ok\r\n",
    ],
)
async def test_a_reply_too_many_never_counts_as_delivered(data: bytes) -> None:
    async with NextHop(data=Raw(data), dot="554 5.6.0 Spam") as hop:
        outcome = await send_one(hop)
        assert (outcome.disposition, outcome.stage) == (DEFERRED, "dot")
        assert hop.messages == []


async def test_a_server_that_says_good_bye_after_the_message() -> None:
    async with NextHop(dot=[Raw(b"250 2.0.0 Ok\r\n421 Enough\r\n"), "250 2.0.0 Ok"]) as hop:
        async with delivering() as connections:
            for _ in range(2):
                (outcome,) = await send(connections, hop)
                assert outcome.disposition is DELIVERED
        assert hop.connections == 2


# The connection fails.

_SHORT = Timeouts(connect=0.3, banner=0.3, ehlo=0.3, mail=0.3, rcpt=0.3, data=0.3, dot=0.3)
_BROKEN = [Drop(), Drop(reset=True), Hang(), JUNK, ENDLESS, "421 4.3.2 Stopping", "250 Ok"]
_IDS = ["fin", "rst", "hang", "junk", "endless", "421", "250"]


@pytest.mark.parametrize(
    ("stage", "broken"),
    [
        *((stage, broken) for stage in ("banner", "ehlo", "mail") for broken in _BROKEN[:6]),
        *((stage, reply) for stage in ("banner", "ehlo") for reply in ("450 4.7.0 Busy", "200 Hm")),
        ("mail", "354 Go on"),
    ],
)
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelining", "plain"])
async def test_before_mail_is_answered_the_next_hop_is_tried(
    stage: str, broken: Any, extensions: tuple[str, ...]
) -> None:
    script: dict[str, Any] = {stage: broken, "extensions": extensions}
    async with NextHop(**script) as bad, NextHop() as good:
        # The server that hangs is the only one that must be waited for.
        timeouts = _SHORT if isinstance(broken, Hang) else None
        outcome = await send_one(make_route(bad, good), timeouts=timeouts)
        assert outcome.disposition is DELIVERED
        assert outcome.relay.endswith(f":{Hop.parse(good.address).port}")
        assert bad.messages == []
        outcome = await send_one(make_route(bad), timeouts=timeouts)
        assert outcome.disposition is DEFERRED
        assert outcome.status.startswith("4.")
        assert outcome.stage == ("connect" if stage == "banner" else stage)
        if broken is ENDLESS and stage == "mail":
            assert "without end" in outcome.text


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelining", "plain"])
@pytest.mark.parametrize("broken", _BROKEN[:6], ids=_IDS[:6])
@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
async def test_after_mail_is_answered_no_other_hop_is_tried(
    stage: str, broken: Any, extensions: tuple[str, ...]
) -> None:
    script: dict[str, Any] = {stage: broken, "extensions": extensions}
    if stage == "rcpt":
        script["rcpt"] = {"x@*": broken, "bad@*": "550 5.1.1 Unknown"}
    delivery = make_delivery("bad@example.net", "b@example.net", "x@example.net", "c@example.net")
    async with NextHop(**script) as bad, NextHop() as other:
        timeouts = _SHORT if isinstance(broken, Hang) else None
        async with delivering(timeouts) as connections:
            outcomes = await send(connections, make_route(bad, other), delivery)
        assert other.connections == 0
        await bad.wait_closed()
        assert len(bad.messages) == (stage == "dot")
    if stage == "rcpt":
        # What was said before stays said.
        assert (outcomes[0].disposition, outcomes[0].status) == (FAILED, "5.1.1")
        outcomes = outcomes[1:]
    for outcome in outcomes:
        assert outcome.disposition is DEFERRED
        assert outcome.status in ("4.4.2", "4.5.0", "4.3.2")
        if broken is ENDLESS:
            assert "without end" in outcome.text
    # Only where the server has the whole message and has not refused it can it come twice.
    doubtful = stage == "dot" and broken != "421 4.3.2 Stopping"
    assert ["twice" in outcome.text for outcome in outcomes] == [doubtful] * len(outcomes)


async def test_a_server_that_says_good_bye_and_does_not_go() -> None:
    rcpt: dict[str, Any] = {"b@*": "250 Ok", "x@*": Raw(b"421 4.3.2 Stopping\r\n"), "c@*": Hang()}
    async with NextHop(rcpt=rcpt) as hop, delivering() as connections:
        outcomes = await send(connections, hop, make_delivery("b@x.net", "x@x.net", "c@x.net"))
        await hop.wait_closed()
    assert [(o.disposition, o.status) for o in outcomes] == [
        (DEFERRED, "4.4.2"),
        (DEFERRED, "4.3.2"),
        (DEFERRED, "4.4.2"),
    ]
    assert all("4.3.2" in outcome.reply or "Stopping" in outcome.text for outcome in outcomes)


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelining", "plain"])
async def test_good_bye_at_any_stage_ends_the_connection(
    stage: str, extensions: tuple[str, ...]
) -> None:
    script: dict[str, Any] = {stage: Raw(b"421 4.3.2 Stopping\r\n")}
    async with NextHop(extensions=extensions, **script) as hop, delivering() as connections:
        (outcome,) = await send(connections, hop)
        assert (outcome.disposition, outcome.code, outcome.stage) == (DEFERRED, 421, stage)
        # This server stays; it is we who go.
        await hop.wait_closed()
        assert "QUIT" not in lines(hop)


async def test_a_server_that_says_good_bye_along_with_hello() -> None:
    both = Raw(b"250-nexthop.test\r\n250 PIPELINING\r\n421 4.3.2 Stopping\r\n")
    async with NextHop(ehlo=both) as bad, NextHop() as good:
        outcome = await send_one(make_route(bad, good))
        assert outcome.disposition is DELIVERED
        assert (len(bad.messages), len(good.messages)) == (0, 1)
        outcome = await send_one(make_route(bad))
        assert (outcome.disposition, outcome.stage) == (DEFERRED, "mail")
        assert "Stopping" in outcome.text


@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
async def test_a_yes_of_the_wrong_kind_is_no_yes(stage: str) -> None:
    reply = "250 Ok" if stage == "data" else "354 Go on"
    script: dict[str, Any] = {stage: reply}
    async with NextHop(**script) as hop:
        outcome = await send_one(hop)
    assert (outcome.disposition, outcome.code, outcome.status) == (
        DEFERRED,
        int(reply[:3]),
        "4.5.0",
    )


async def test_lost_in_the_middle_of_a_large_message() -> None:
    async with NextHop(content=Drop(reset=True)) as hop:
        content = b"x" * 998 + b"\r\n" + CONTENT * 500_000
        outcome = await send_one(hop, make_delivery(content=content))
    assert (outcome.disposition, outcome.status, outcome.stage) == (DEFERRED, "4.4.2", "dot")
    assert "twice" not in outcome.text


async def test_a_server_that_stops_reading() -> None:
    content = CONTENT * 500_000
    timeouts = Timeouts(block=0.3)
    async with NextHop(content=Hang(reads=False)) as hop:
        outcome = await send_one(hop, make_delivery(content=content), timeouts)
    assert (outcome.disposition, outcome.status, outcome.stage) == (DEFERRED, "4.4.2", "dot")
    assert "timed out after 0.3 seconds" in outcome.text
    assert "twice" not in outcome.text


async def test_a_server_that_refuses_before_it_has_seen_it_all() -> None:
    content = CONTENT * 500_000
    async with NextHop(content="552 5.3.4 Too big") as hop:
        outcome = await send_one(hop, make_delivery(content=content))
        assert (outcome.disposition, outcome.code, outcome.stage) == (FAILED, 552, "dot")
        assert hop.messages == []
    async with NextHop(content="250 2.0.0 Ok already") as hop:
        outcome = await send_one(hop, make_delivery(content=content))
        assert (outcome.disposition, outcome.status) == (DEFERRED, "4.5.0")
        assert hop.messages == []


async def test_a_slow_server_has_its_time_for_each_reply() -> None:
    # Each reply takes less than the timeout, all of them together more.
    script: dict[str, Any] = {"rcpt": Wait(0.4, "250 Ok"), "dot": Wait(0.4, "250 2.0.0 Ok")}
    delivery = make_delivery("b@x.net", "c@x.net", "d@x.net")
    timeouts = Timeouts(mail=1.0, rcpt=1.0, data=1.0, dot=1.0)
    for extensions in (("PIPELINING",), ()):
        async with NextHop(extensions=extensions, **script) as hop:
            async with delivering(timeouts) as connections:
                outcomes = await send(connections, hop, delivery)
            assert [outcome.disposition for outcome in outcomes] == [DELIVERED] * 3


async def test_nothing_listens() -> None:
    with _refusing_port() as address:
        async with NextHop() as hop:
            assert (await send_one(make_route(address, hop))).disposition is DELIVERED
        outcome = await send_one(make_route(address))
    assert (outcome.disposition, outcome.code, outcome.status) == (DEFERRED, 0, "4.4.1")
    assert (outcome.stage, outcome.relay) == ("connect", f"127.0.0.1[127.0.0.1]:{address[10:]}")
    assert "Connection refused" in outcome.text


async def test_nobody_answers_the_connection() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        outcome = await send_one(make_route(address), timeouts=Timeouts(connect=0.3))
        for filler in fillers:
            filler.close()
    assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.1")
    assert "timed out" in outcome.text


async def test_a_no_for_good_at_the_door_needs_all_hops() -> None:
    no = "554 5.7.1 Go away"
    async with NextHop(banner=no) as one, NextHop(banner="550 No") as two:
        outcome = await send_one(make_route(one, two))
        assert (outcome.disposition, outcome.code, outcome.stage) == (FAILED, 550, "connect")
        with _refusing_port() as dead:
            outcome = await send_one(make_route(one, dead))
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.1")
            outcome = await send_one(make_route(dead, one))
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.1")
    async with NextHop(ehlo=no, helo="450 4.7.0 Busy") as one, NextHop(banner=no) as two:
        outcome = await send_one(make_route(one, two))
        assert (outcome.disposition, outcome.code, outcome.stage) == (DEFERRED, 450, "ehlo")
    for helo in (no, Drop()):
        async with NextHop(ehlo=no, helo=helo) as one:
            outcome = await send_one(make_route(one))
            assert (outcome.disposition, outcome.reply) == (FAILED, no)


async def test_a_route_without_hops() -> None:
    outcome = await send_one(Route((), "site"))
    assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.4")


# Where to, and where from.


async def test_every_address_of_a_host_is_tried(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.{n} relay.example\n" for n in (9, 8, 1, 7)))
    async with NextHop() as hop:
        port = Hop.parse(hop.address).port
        async with delivering(resolver=Resolver([NOWHERE], hosts=hosts)) as connections:
            (outcome,) = await send(connections, make_route(f"relay.example:{port}"))
    assert (outcome.disposition, outcome.relay) == (DELIVERED, f"relay.example[127.0.0.1]:{port}")


async def test_not_every_address_in_the_world_is_tried(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "".join(f"127.0.{i}.{n} {'abc'[i]}.example\n" for i in range(3) for n in range(10, 30))
        + "127.0.0.1 last.example\n"
    )
    async with NextHop() as hop:
        port = Hop.parse(hop.address).port
        for names, reached in (("a", True), ("ab", False), ("bca", False)):
            addresses = [f"{name}.example:{port}" for name in (*names, "last")]
            async with delivering(resolver=Resolver([NOWHERE], hosts=hosts)) as connections:
                (outcome,) = await send(connections, make_route(*addresses))
            if reached:
                assert outcome.disposition is DELIVERED
            else:
                assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.1")
                # The last of ten: five of each of the first two.
                address = {"ab": "127.0.1.14", "bca": "127.0.2.14"}[names]
                assert outcome.relay == f"{names[1]}.example[{address}]:{port}"


async def test_hosts_that_dns_knows_and_does_not() -> None:
    zones: dict[str, Any] = {"mx.example": {"A": ["127.0.0.1"]}, "broken.example": Failure.SERVFAIL}
    async with FakeDns(zones) as server, NextHop() as hop:
        port = Hop.parse(hop.address).port
        resolver = Resolver([server.address], loopback=True)
        async with delivering(resolver=resolver) as connections:
            names = [f"{name}.example:{port}" for name in ("gone", "broken", "mx")]
            (outcome,) = await send(connections, make_route(*names))
            assert outcome.disposition is DELIVERED
            for name, status in zip(names, ("4.4.4", "4.4.3"), strict=False):
                (outcome,) = await send(connections, make_route(name, site=name))
                assert (outcome.disposition, outcome.status) == (DEFERRED, status)


async def test_the_source_is_where_the_connection_comes_from() -> None:
    async with NextHop() as hop, delivering() as connections:
        await send(connections, hop, source=Source("127.0.0.5", "five.example.com"))
        await send(connections, hop, source=Source("127.0.0.6", "six.example.com"))
        await send(connections, hop, source=Source("127.0.0.5", "five.example.com"))
        await send(connections, hop, source=Source("127.0.0.5", "other.example.com"))
        assert [(m.peer, m.helo, m.connection) for m in hop.messages] == [
            ("127.0.0.5", "five.example.com", 1),
            ("127.0.0.6", "six.example.com", 2),
            ("127.0.0.5", "five.example.com", 1),
            ("127.0.0.5", "other.example.com", 3),
        ]


@pytest.mark.parametrize(
    ("source", "status"),
    [
        (Source("192.0.2.1", "gw.example.com"), "4.4.1"),
        (Source("::1", "gw.example.com"), "4.4.4"),
        (Source(None, "two words"), "4.3.5"),
        (Source(None, "ä.example.com"), "4.3.5"),
    ],
)
async def test_a_source_that_cannot_be_used(source: Source, status: str) -> None:
    async with NextHop() as hop, delivering() as connections:
        (outcome,) = await send(connections, hop, source=source)
        assert (outcome.disposition, outcome.status) == (DEFERRED, status)
        assert hop.messages == []


async def test_ip_version_6() -> None:
    try:
        async with NextHop(host="::1") as hop:
            outcome = await send_one(hop)
            port = Hop.parse(hop.address).port
            assert (outcome.disposition, outcome.relay) == (DELIVERED, f"::1[::1]:{port}")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


# Reuse.


async def test_a_connection_is_used_again() -> None:
    async with NextHop() as hop, delivering() as connections:
        for _ in range(5):
            await send(connections, hop)
        assert [m.connection for m in hop.messages] == [1] * 5
        await connections.close(5.0)
        await hop.wait_closed()
    assert "RSET" not in lines(hop)
    assert lines(hop)[-1] == "QUIT"


async def test_a_connection_serves_one_message_at_a_time() -> None:
    async with NextHop(dot=Wait(0.05, "250 2.0.0 Ok")) as hop, delivering() as connections:
        for _ in range(2):
            await asyncio.gather(*(send(connections, hop) for _ in range(10)))
        assert hop.connections == 10
        assert sorted(m.connection for m in hop.messages) == sorted([*range(1, 11)] * 2)


async def test_sites_do_not_share_connections() -> None:
    async with NextHop() as hop, delivering() as connections:
        for site in ("one", "two", "one"):
            await send(connections, make_route(hop, site=site))
        assert [m.connection for m in hop.messages] == [1, 2, 1]


async def test_a_route_does_not_use_connections_to_other_hops_of_its_site() -> None:
    async with NextHop() as one, NextHop() as two, delivering() as connections:
        await send(connections, make_route(one))
        await send(connections, make_route(two))
        await send(connections, make_route(two, one))
        assert (len(one.messages), len(two.messages)) == (1, 2)
        assert (one.connections, two.connections) == (1, 1)


async def test_an_idle_connection_to_a_later_hop_is_better_than_a_new_one() -> None:
    async with NextHop() as one, NextHop() as two, delivering() as connections:
        await send(connections, make_route(two))
        await send(connections, make_route(one, two))
        assert (one.connections, two.connections, len(two.messages)) == (0, 1, 2)


async def test_messages_per_connection() -> None:
    async with NextHop() as hop, delivering(messages_per_connection=2) as connections:
        for _ in range(5):
            await send(connections, hop)
        assert [m.connection for m in hop.messages] == [1, 1, 2, 2, 3]
        await connections.close(5.0)
        await hop.wait_closed()
    assert lines(hop, 1)[-1] == "QUIT"


async def test_a_connection_has_its_lifetime() -> None:
    async with NextHop() as hop, delivering(lifetime=0.0) as connections:
        for _ in range(2):
            await send(connections, hop)
        assert [m.connection for m in hop.messages] == [1, 2]


async def test_an_idle_connection_takes_its_leave() -> None:
    async with NextHop() as hop, delivering(idle=0.05) as connections:
        for number in (1, 2):
            await send(connections, hop)
            await hop.wait_closed()
            assert lines(hop, number)[-1] == "QUIT"


async def test_a_connection_that_is_used_does_not_count_as_idle() -> None:
    async with NextHop(dot=Wait(0.3, "250 2.0.0 Ok")) as hop, delivering(idle=0.2) as connections:
        for _ in range(3):
            (outcome,) = await send(connections, hop)
            assert outcome.disposition is DELIVERED
        assert hop.connections == 1


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelining", "plain"])
@pytest.mark.parametrize("broken", [*_BROKEN[:6], "250 Ok"], ids=_IDS)
async def test_an_idle_connection_that_is_dead_is_replaced(
    broken: Any, extensions: tuple[str, ...]
) -> None:
    ok = "250 Ok"
    mail = [ok, ok, ok] if broken == ok else [ok, broken, ok]
    async with NextHop(mail=mail, extensions=extensions) as hop:
        timeouts = _SHORT if isinstance(broken, Hang) else None
        async with delivering(timeouts) as connections:
            for _ in range(2):
                (outcome,) = await send(connections, hop)
                assert outcome.disposition is DELIVERED
        assert [m.connection for m in hop.messages] == [1, 1 if broken == ok else 2]


async def test_the_times_are_those_of_the_connection_that_was_used() -> None:
    ticks = iter(range(1, 100))
    async with delivering(clock=lambda: float(next(ticks))) as connections:
        async with NextHop() as hop:
            for connect, connected in ((1.0, 2.0), (4.0, 4.0)):
                times = Times()
                await send(connections, hop, times=times)
                assert (times.connect, times.connected, times.done) == (
                    connect,
                    connected,
                    max(connect, connected) + 1,
                )
        # It is dead, and so is its server: the connection never came about.
        times = Times()
        (outcome,) = await send(connections, hop, times=times)
        assert outcome.status == "4.4.1"
        assert (times.connect, times.connected, times.done) == (6.0, 7.0, 7.0)


async def test_a_server_that_closed_meanwhile_is_connected_to_again() -> None:
    async with delivering() as connections:
        async with NextHop() as hop:
            await send(connections, hop)
        async with NextHop(port=Hop.parse(hop.address).port) as again:
            (outcome,) = await send(connections, again)
            assert outcome.disposition is DELIVERED
            assert len(again.messages) == 1


@pytest.mark.parametrize("rset", ["500 What?", Drop(), "421 Bye"], ids=["500", "fin", "421"])
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelining", "plain"])
async def test_a_server_that_does_not_reset_is_connected_to_again(
    rset: Any, extensions: tuple[str, ...]
) -> None:
    script: dict[str, Any] = {"rset": rset, "data": ["451 Later", "354 Go on"]}
    async with NextHop(extensions=extensions, **script) as hop, delivering() as connections:
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DEFERRED
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DELIVERED
        assert [m.connection for m in hop.messages] == [2]


# Stopping.


async def _begun(hop: NextHop, verb: str) -> None:
    async with asyncio.timeout(10):
        while not any(line.startswith(verb) for line in lines(hop)):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("stage", "verb"), [("banner", ""), ("ehlo", "EHLO"), ("rcpt", "RCPT"), ("dot", "DATA")]
)
async def test_a_cancelled_delivery_leaves_nothing_open(stage: str, verb: str) -> None:
    script: dict[str, Any] = {stage: Hang()}
    async with NextHop(**script) as hop, delivering() as connections:
        task = asyncio.create_task(send(connections, hop))
        if verb:
            await _begun(hop, verb)
        else:
            async with asyncio.timeout(10):
                while not hop.open_connections:
                    await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await hop.wait_closed()


async def test_closing_waits_for_what_is_on_its_way() -> None:
    async with NextHop(dot=Wait(0.3, "250 2.0.0 Ok")) as hop, delivering() as connections:
        await asyncio.gather(*(send(connections, hop) for _ in range(2)))
        task = asyncio.create_task(send(connections, hop))
        await hop.wait(3)
        await connections.close(10.0)
        assert (await task)[0].disposition is DELIVERED
        await hop.wait_closed()
        assert [lines(hop, number)[-1] for number in (1, 2)] == ["QUIT", "QUIT"]


@pytest.mark.parametrize(("stage", "verb"), [("ehlo", "EHLO"), ("rcpt", "RCPT"), ("dot", "DATA")])
async def test_closing_cuts_off_what_takes_too_long(stage: str, verb: str) -> None:
    script: dict[str, Any] = {stage: Hang()}
    async with NextHop(**script) as hop, delivering() as connections:
        task = asyncio.create_task(send(connections, hop))
        await _begun(hop, verb)
        await connections.close(0.05)
        (outcome,) = await task
        assert outcome.disposition is DEFERRED
        assert "stopping" in outcome.text
        assert ("twice" in outcome.text) == (stage == "dot")
        await hop.wait_closed()


async def test_after_closing_no_connection_is_kept() -> None:
    async with NextHop() as hop, delivering(idle=60.0) as connections:
        await connections.close(1.0)
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DELIVERED
        await hop.wait_closed()


# The same on the loop that workers use.


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_message_arrives_as_it_came,
        test_without_pipelining_each_command_waits_for_its_reply,
        test_a_large_message_goes_in_blocks,
        test_replies_in_single_bytes,
        test_a_server_that_says_good_bye_after_the_message,
        test_lost_in_the_middle_of_a_large_message,
        test_a_server_that_stops_reading,
        test_a_server_that_refuses_before_it_has_seen_it_all,
        test_nothing_listens,
        test_nobody_answers_the_connection,
        test_the_source_is_where_the_connection_comes_from,
        test_a_connection_serves_one_message_at_a_time,
        test_an_idle_connection_takes_its_leave,
        test_a_server_that_closed_meanwhile_is_connected_to_again,
        test_closing_waits_for_what_is_on_its_way,
        test_hosts_that_dns_knows_and_does_not,
    ],
)
def test_on_uvloop(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_server_of_another_make(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    debian_program: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    sink = debian_program("smtp-sink")
    tmp_path.chmod(0o777)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([sink, *user, "-d", "%M.", address, "100"], cwd=tmp_path)
    contents = [CONTENT + b".%d\r\n" % number * (number + 1) for number in range(50)]

    async def deliver(connections: Connections, content: bytes) -> Outcome:
        while True:
            delivery = make_delivery(content=content)
            (outcome,) = await send(connections, make_route(address), delivery)
            # The sink takes a moment to start.
            if outcome.status != "4.4.1":
                return outcome
            await asyncio.sleep(0.05)

    async def send_all() -> list[Outcome]:
        async with delivering() as connections:
            return await asyncio.gather(*(deliver(connections, content) for content in contents))

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            outcomes = runner.run(send_all())
    finally:
        process.terminate()
        process.wait(10)
    assert {outcome.disposition for outcome in outcomes} == {DELIVERED}
    dumps = [path.read_bytes() for path in tmp_path.iterdir()]
    for content in contents:
        # The sink puts its own lines on top, and ends lines as Unix does.
        lines = content.replace(b"\r\n", b"\n")
        assert sum(dump.rstrip(b"\n").endswith(b"\n" + lines.rstrip(b"\n")) for dump in dumps) == 1
