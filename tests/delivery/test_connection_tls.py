"""Connections to next hops with TLS, on real sockets: what is reached, and every way to fail."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.attempt import Disposition, Hop, Outcome, Route, TlsLevel
from gateway.configuration.key_pair import KeyPair
from gateway.configuration.relay import RelayTls
from gateway.delivery.connection import Connection, Timeouts, open_connection
from gateway.delivery.protection import Protection
from gateway.delivery.tls import AVOIDED_SECONDS, Tls
from gateway.delivery.transaction import transact
from gateway.mail.large_content import BLOCK
from gateway.resolver import Resolver
from gateway.testing import Drop, Hang, NextHop, Raw, Trickle
from tests.delivery.authority import Authority, self_signed
from tests.delivery.sending import CONTENT, NOWHERE, SOURCE, lines, make_delivery, until

HOST = "mx.example.com"
AUTHORITY = Authority()
SERVER = AUTHORITY.issue(HOST)
TLS = SERVER.server()
_MISMATCH = "Hostname mismatch, certificate is not valid for 'mx.example.com'"
BAD = {
    "a self-signed one": (self_signed(HOST), "self-signed certificate"),
    "one of another authority": (
        Authority(name="Other").issue(HOST),
        "unable to get local issuer certificate",
    ),
    "an expired one": (AUTHORITY.issue(HOST, days=(-9, -8)), "certificate has expired"),
    "one of tomorrow": (AUTHORITY.issue(HOST, days=(1, 2)), "certificate is not yet valid"),
    "one for another name": (AUTHORITY.issue("mx.example.net"), _MISMATCH),
    "one without a name": (AUTHORITY.issue(common_name=HOST), _MISMATCH),
}
NONE, OPPORTUNISTIC, REQUIRED, VERIFIED = TlsLevel
BROKEN_HANDSHAKES: dict[str, Any] = {
    "rubbish": Raw(b"This is not TLS at all\r\n"),
    "the end": Drop(),
    "a reset": Drop(reset=True),
    "silence": Hang(),
    "deafness": Hang(reads=False),
}


def _patience(answer: object) -> Timeouts:
    """Little for a server that says nothing, the usual for others: this machine may be busy."""
    return Timeouts(tls=0.4) if isinstance(answer, Hang) else Timeouts()


class Client:
    """Opens connections to scripted next hops as a worker does."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.now = 1_000_000.0
        ca = folder / "ca.pem"
        AUTHORITY.write(ca)
        self.tls = Tls(
            RelayTls(**{"ca": ca, "mta_sts": False, **config}),
            Resolver([NOWHERE], authenticated=False),
            folder / "mta-sts",
            lambda: self.now,
        )

    async def protection(self, hop: Hop, *, require_tls: bool = False, **route: Any) -> Protection:
        """As the configuration and the route want it."""
        delivery = make_delivery(require_tls=require_tls)
        requirement = await self.tls.requirement(delivery, Route((hop,), "site", **route))
        protection = await self.tls.protection(requirement, hop)
        assert isinstance(protection, Protection), protection
        return protection

    async def open(
        self,
        server: NextHop,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (it is frozen)
        *,
        host: str = HOST,
        **how: Any,
    ) -> Connection | Outcome:
        """A connection to a next hop under a name."""
        address, port = server.address.split(":")
        hop = Hop(host, int(port))
        protection = await self.protection(hop, **how)
        async with asyncio.timeout(30):
            return await open_connection(hop, address, SOURCE, timeouts, protection)

    async def connect(self, server: NextHop, *args: Any, **how: Any) -> Connection:
        """The same, which has to work."""
        opened = await self.open(server, *args, **how)
        assert isinstance(opened, Connection), opened
        return opened

    async def fail(self, server: NextHop, *args: Any, **how: Any) -> Outcome:
        """The same, which must not work."""
        opened = await self.open(server, *args, **how)
        assert isinstance(opened, Outcome)
        await server.wait_closed()
        assert server.messages == []
        return opened


@asynccontextmanager
async def _next_hop(tls: ssl.SSLContext | None = TLS, **script: Any) -> AsyncIterator[NextHop]:
    async with NextHop(tls=tls, **script) as server:
        yield server


async def _send(connection: Connection, content: bytes = CONTENT) -> None:
    """Delivers a message and takes leave."""
    outcomes = await transact(connection, make_delivery(content=content), Timeouts())
    assert isinstance(outcomes, list)
    (outcome,) = outcomes
    assert outcome.disposition is Disposition.DELIVERED, outcome


def _is_deferred(outcome: Outcome, status: str, *words: str) -> bool:
    assert (outcome.disposition, outcome.status) == (Disposition.DEFERRED, status), outcome
    assert outcome.stage == "tls"
    assert [word for word in words if word not in outcome.text] == [], outcome.text
    return True


# What is reached.


@pytest.mark.parametrize("level", TlsLevel)
async def test_a_server_as_it_should_be(tmp_path: Path, level: TlsLevel) -> None:
    client = Client(tmp_path, level=level)
    async with _next_hop() as server:
        connection = await client.connect(server)
        await _send(connection)
        (message,) = server.messages
        connection.quit()
        await server.wait_closed()
    assert message.content == CONTENT
    if level is NONE:
        assert (message.tls, connection.tls) == ("", "")
        assert lines(server)[:2] == ["EHLO gw.example.com", lines(server)[1]]
        assert "STARTTLS" not in lines(server)
        return
    verified = "verified by certificate" if level is VERIFIED else "not verified"
    assert message.tls == "TLSv1.3"
    assert connection.tls == f"TLSv1.3 with TLS_AES_256_GCM_SHA384, {verified}"
    assert lines(server)[:3] == ["EHLO gw.example.com", "STARTTLS", "EHLO gw.example.com"]
    assert lines(server)[-1] == "QUIT"


@pytest.mark.parametrize("level", [OPPORTUNISTIC, REQUIRED])
@pytest.mark.parametrize("bad", BAD)
async def test_without_demand_any_certificate_is_taken(
    tmp_path: Path, level: TlsLevel, bad: str
) -> None:
    async with _next_hop(BAD[bad][0].server()) as server:
        connection = await Client(tmp_path, level=level).connect(server)
        await _send(connection)
        assert server.messages[0].tls == "TLSv1.3"
        assert connection.tls.endswith("not verified")
        connection.abort()


@pytest.mark.parametrize("bad", BAD)
async def test_a_certificate_that_is_not_valid(tmp_path: Path, bad: str) -> None:
    identity, reason = BAD[bad]
    client = Client(tmp_path, level=VERIFIED)
    for implicit in (False, True):
        async with _next_hop(identity.server(), implicit_tls=implicit) as server:
            outcome = await client.fail(server, implicit_tls=implicit)
            assert server.connections == 1
            relay = f"{HOST}[127.0.0.1]:{server.address.partition(':')[2]}"
        assert outcome == Outcome(
            Disposition.DEFERRED,
            0,
            "4.7.5",
            f"no TLS with {relay}, which the configuration demands: {reason}",
            "tls",
            relay,
        )


async def test_a_host_that_is_an_address(tmp_path: Path) -> None:
    client = Client(tmp_path, level=VERIFIED)
    async with _next_hop() as server:
        assert _is_deferred(
            await client.fail(server, host="127.0.0.1"), "4.7.5", "IP address mismatch"
        )


async def test_the_name_is_told_to_the_server(tmp_path: Path) -> None:
    names: list[str | None] = []
    context = SERVER.server()

    def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        names.append(name)

    context.sni_callback = note
    client = Client(tmp_path)
    async with _next_hop(context) as server:
        for host in (HOST, f"{HOST}.", "127.0.0.1", "x" * 64 + ".example", "a..b", ".a", "ö.x"):
            connection = await client.connect(server, host=host)
            assert connection.tls
            connection.abort()
    assert names == [HOST, HOST, None, None, None, None, "xn--nda.x"]


async def test_an_odd_name_where_tls_begins_at_the_first_octet(tmp_path: Path) -> None:
    async with _next_hop(implicit_tls=True) as server:
        for host in ("127.0.0.1", "x" * 64 + ".example", "a..b"):
            connection = await Client(tmp_path).connect(server, host=host, implicit_tls=True)
            assert connection.tls
            connection.abort()


async def test_what_is_reached_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with _next_hop() as server, _next_hop(None) as plain:
        for one in (server, plain):
            (await Client(tmp_path).connect(one)).abort()
        relay = f"{HOST}[127.0.0.1]:{server.address.partition(':')[2]}"
    assert [record.message for record in caplog.records if record.name.startswith("gateway")] == [
        f"connected to {relay}: TLSv1.3 with TLS_AES_256_GCM_SHA384, not verified"
    ]


async def test_a_host_that_no_certificate_can_name_is_never_verified(tmp_path: Path) -> None:
    client = Client(tmp_path, level=VERIFIED)
    hop = Hop("x" * 64 + ".example")
    requirement = await client.tls.requirement(make_delivery(), Route((hop,), "site"))
    outcome = await client.tls.protection(requirement, hop)
    assert isinstance(outcome, Outcome)
    assert _is_deferred(outcome, "4.7.5", "no certificate can have such a name")


async def test_what_is_offered_before_tls_is_forgotten(tmp_path: Path) -> None:
    before = "250-nexthop.test\n250-SMTPUTF8\n250-DSN\n250 STARTTLS"
    after = "250-nexthop.test\n250-REQUIRETLS\n250-MT-PRIORITY\n250 8BITMIME"
    ehlo = [text.replace("\n250-", "\n").replace("\n250 ", "\n").replace("250-", "250 ", 1)
            for text in (before, after)]  # fmt: skip
    async with _next_hop(ehlo=ehlo) as server:
        connection = await Client(tmp_path).connect(server)
        extensions = connection.extensions
        assert (extensions.smtputf8, extensions.dsn) == (False, False)
        assert (extensions.require_tls, extensions.mt_priority) == (True, True)
        assert extensions.eight_bit_mime
        connection.abort()


# Servers without TLS.


async def test_a_server_that_offers_no_tls(tmp_path: Path) -> None:
    async with _next_hop(None) as server:
        connection = await Client(tmp_path).connect(server)
        await _send(connection)
        assert (connection.tls, server.messages[0].tls) == ("", "")
        assert server.connections == 1
        connection.abort()
    for level in (REQUIRED, VERIFIED):
        async with _next_hop(None) as server:
            outcome = await Client(tmp_path, level=level).fail(server)
            assert _is_deferred(
                outcome, "4.7.4", "the configuration demands", "no STARTTLS is offered"
            )
            assert lines(server) == ["EHLO gw.example.com"]


async def test_a_server_that_knows_only_helo(tmp_path: Path) -> None:
    async with _next_hop(ehlo="502 5.5.2 What?") as server:
        outcome = await Client(tmp_path, level=REQUIRED).fail(server)
        assert _is_deferred(outcome, "4.7.4", "no STARTTLS is offered")


@pytest.mark.parametrize("said", ["454 4.7.0 TLS not available", "502 5.5.1 No TLS here"])
async def test_a_server_that_refuses_tls(tmp_path: Path, said: str) -> None:
    async with _next_hop(starttls=said) as server:
        connection = await Client(tmp_path).connect(server)
        await _send(connection)
        assert (connection.tls, server.messages[0].tls, server.connections) == ("", "", 1)
        connection.abort()
    async with _next_hop(starttls=said) as server:
        outcome = await Client(tmp_path, level=REQUIRED).fail(server)
        code, _, words = said.split(" ", 2)
        assert _is_deferred(outcome, "4.7.4", f"STARTTLS is refused: {code} {words}")


@pytest.mark.parametrize(
    "said", ["421 4.3.0 Going down", "250 2.0.0 Fine", Raw(b"\xff\xff\r\n"), "334 And?"]
)
async def test_a_server_that_answers_starttls_with_nonsense(tmp_path: Path, said: Any) -> None:
    async with _next_hop(starttls=said) as server:
        connection = await Client(tmp_path).connect(server)
        await _send(connection)
        assert (connection.tls, server.messages[0].tls, server.connections) == ("", "", 2)
        assert "STARTTLS" not in lines(server, 2)
        connection.abort()
    async with _next_hop(starttls=said) as server:
        outcome = await Client(tmp_path, level=VERIFIED).fail(server)
        assert _is_deferred(outcome, "4.7.4", "STARTTLS is refused")


# Handshakes that fail.


@pytest.mark.parametrize("handshake", BROKEN_HANDSHAKES.values(), ids=BROKEN_HANDSHAKES)
async def test_a_handshake_that_fails_and_must_not(tmp_path: Path, handshake: Any) -> None:
    for implicit in (False, True):
        async with _next_hop(handshake=handshake, implicit_tls=implicit) as server:
            client = Client(tmp_path, level=REQUIRED)
            opened = await client.open(server, _patience(handshake), implicit_tls=implicit)
            assert isinstance(opened, Outcome)
            status = "4.7.5" if isinstance(handshake, Raw) else "4.4.2"
            assert _is_deferred(opened, status, "the configuration demands")
            if isinstance(handshake, Hang):
                assert "timed out" in opened.text
            assert server.connections == 1
            assert server.messages == []


@pytest.mark.parametrize("handshake", BROKEN_HANDSHAKES.values(), ids=BROKEN_HANDSHAKES)
async def test_a_handshake_that_fails_and_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, handshake: Any
) -> None:
    """The message goes in the clear, over a new connection; for a while all do."""
    client = Client(tmp_path)
    async with _next_hop(handshake=handshake) as server:
        for number in (2, 3, 4):
            connection = await client.connect(server, _patience(handshake))
            await _send(connection)
            assert (connection.tls, server.connections) == ("", number)
            connection.quit()
        hop = Hop(HOST, int(server.address.partition(":")[2]))
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert (
            f"mail to {hop} is in the clear for 10 minutes: no TLS with {HOST}[" in record.message
        )
        # Others are not affected, nor is who demands TLS.
        assert (await client.protection(Hop(HOST, 1))).context is not None
        assert (await client.protection(hop, tls=REQUIRED)).context is not None
        client.now += AVOIDED_SECONDS - 1
        assert (await client.protection(hop)).context is None
        client.now += 1
        assert (await client.protection(hop)).context is not None
    assert "STARTTLS" in lines(server, 1)
    assert all("STARTTLS" not in lines(server, number) for number in (2, 3, 4))


async def test_a_server_that_is_dead_in_the_clear_too(tmp_path: Path) -> None:
    banner = ["220 nexthop.test", "554 5.7.1 Go away"]
    async with _next_hop(handshake=Drop(), banner=banner) as server:
        outcome = await Client(tmp_path).fail(server)
    assert (outcome.disposition, outcome.stage) == (Disposition.FAILED, "connect")


async def test_a_server_that_wants_a_certificate_and_gets_none(tmp_path: Path) -> None:
    """With TLS 1.3 it says so after the handshake, from the client's point of view."""
    strict = SERVER.server(client_ca=AUTHORITY.write(tmp_path / "clients.pem"))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        strict.maximum_version = strict.minimum_version = ssl.TLSVersion.TLSv1_2
        strict.maximum_version = version
        async with _next_hop(strict) as server:
            connection = await Client(tmp_path).connect(server)
            assert (connection.tls, server.connections) == ("", 2)
            connection.abort()
        async with _next_hop(strict) as server:
            outcome = await Client(tmp_path, level=REQUIRED).fail(server)
            assert outcome.stage == "tls"
            assert outcome.disposition is Disposition.DEFERRED
            assert outcome.status in ("4.7.5", "4.4.2")


@pytest.mark.parametrize("implicit", [False, True])
async def test_what_a_server_says_after_the_handshake_counts(
    tmp_path: Path, implicit: bool
) -> None:
    client = Client(tmp_path, level=REQUIRED)
    ehlo: Any = "550 5.7.1 Not you"
    if not implicit:
        ehlo = ["250 nexthop.test\nSTARTTLS", ehlo]
    async with _next_hop(ehlo=ehlo, helo="550 5.7.1 Nor so", implicit_tls=implicit) as server:
        outcome = await client.fail(server, implicit_tls=implicit)
    assert (outcome.disposition, outcome.status) == (Disposition.FAILED, "5.7.1")
    assert outcome.stage == "ehlo"


async def test_a_server_that_falls_silent_after_the_handshake(tmp_path: Path) -> None:
    ehlo: list[Any] = ["250 nexthop.test\nSTARTTLS", Hang(), "250 nexthop.test"]
    async with _next_hop(ehlo=ehlo) as server:
        outcome = await Client(tmp_path, level=REQUIRED).open(server, Timeouts(ehlo=1.0))
        assert isinstance(outcome, Outcome)
        assert _is_deferred(outcome, "4.4.2", "timed out")
    async with _next_hop(ehlo=ehlo) as server:
        connection = await Client(tmp_path).connect(server, Timeouts(ehlo=1.0))
        assert (connection.tls, server.connections) == ("", 2)
        connection.abort()


# Hostile servers, and people in between.


@pytest.mark.parametrize("evil", [b"250 evil.example\r\n", b"250-x\r\n250 AUTH PLAIN\r\n", b"x"])
async def test_what_is_put_in_before_the_handshake_is_not_heard(
    tmp_path: Path, evil: bytes
) -> None:
    """Words in the clear behind the 220 must not pass for words of the server (RFC 3207)."""
    async with _next_hop(starttls=Raw(b"220 Go ahead\r\n" + evil)) as server:
        connection = await Client(tmp_path, level=VERIFIED).connect(server)
        await _send(connection)
        assert server.messages[0].tls == "TLSv1.3"
        assert not connection.lost
        connection.abort()


async def test_what_is_put_in_later_breaks_the_handshake(tmp_path: Path) -> None:
    evil = Raw(b"250-evil.example\r\n250 AUTH PLAIN\r\n")
    async with _next_hop(handshake=evil) as server:
        outcome = await Client(tmp_path, level=VERIFIED).fail(server)
        assert _is_deferred(outcome, "4.7.5")


async def test_a_server_that_says_too_much_after_the_handshake(tmp_path: Path) -> None:
    ehlo: list[Any] = [
        "250 nexthop.test\nSTARTTLS",
        Raw(b"250 nexthop.test\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go\r\n250 Ok\r\n"),
    ]
    async with _next_hop(ehlo=ehlo) as server:
        connection = await Client(tmp_path).connect(server)
        assert "out of turn" in connection.lost
        assert await connection.exchange(b"MAIL FROM:<>\r\n", 1, 5.0) == []


async def test_endless_words_after_the_handshake(tmp_path: Path) -> None:
    ehlo: list[Any] = ["250 nexthop.test\nSTARTTLS", Raw(b"250-x\r\n" * 100_000)]
    async with _next_hop(ehlo=ehlo) as server:
        opened = await Client(tmp_path, level=REQUIRED).open(server)
        assert isinstance(opened, Outcome)
        assert opened.disposition is Disposition.DEFERRED


async def test_replies_in_single_bytes(tmp_path: Path) -> None:
    async with _next_hop(starttls=Trickle("220 Go ahead"), dot=Trickle("250 2.0.0 Ok")) as server:
        connection = await Client(tmp_path, level=REQUIRED).connect(server)
        await _send(connection)
        connection.abort()


async def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        hop = Hop(HOST, bound.getsockname()[1])
        protection = await Client(tmp_path).protection(hop)
        opened = await open_connection(hop, "127.0.0.1", SOURCE, Timeouts(), protection)
    assert isinstance(opened, Outcome)
    assert (opened.status, opened.stage) == ("4.4.1", "connect")


async def test_who_gives_up_leaves_nothing_open(tmp_path: Path) -> None:
    for handshake, implicit in ((Hang(), False), (Hang(), True), (Hang(reads=False), False)):
        async with _next_hop(handshake=handshake, implicit_tls=implicit) as server:
            client = Client(tmp_path, level=REQUIRED)
            opening = asyncio.create_task(client.open(server, implicit_tls=implicit))
            await until(lambda: server.handshakes == 1, "the handshake")
            while not opening.done():
                # Python before 3.12 may overlook one: see `gateway.delivery.connections`.
                opening.cancel()
                await asyncio.wait([opening], timeout=0.1)
            with pytest.raises(asyncio.CancelledError):
                await opening
            if handshake.reads:
                await server.wait_closed()


# What the configuration says of TLS.


async def test_the_oldest_version(tmp_path: Path) -> None:
    old = SERVER.server()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with _next_hop(old) as server:
        connection = await Client(tmp_path, level=REQUIRED).connect(server)
        assert connection.tls.startswith("TLSv1.2 with ")
        connection.abort()
        opened = await Client(tmp_path, level=REQUIRED, minimum="1.3").open(server)
        assert isinstance(opened, Outcome)
        assert (opened.disposition, opened.stage) == (Disposition.DEFERRED, "tls")


async def test_ciphers(tmp_path: Path) -> None:
    old = SERVER.server()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with _next_hop(old) as server:
        client = Client(tmp_path, level=REQUIRED, ciphers="ECDHE-ECDSA-CHACHA20-POLY1305")
        connection = await client.connect(server)
        assert connection.tls == "TLSv1.2 with ECDHE-ECDSA-CHACHA20-POLY1305, not verified"
        connection.abort()


async def test_where_nobody_demands_tls_weak_ciphers_are_better_than_none(tmp_path: Path) -> None:
    weak = SERVER.server()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    async with _next_hop(weak) as server:
        connection = await Client(tmp_path).connect(server)
        assert connection.tls == "TLSv1.2 with ECDHE-ECDSA-AES128-SHA, not verified"
        connection.abort()


async def test_a_certificate_for_servers_that_want_one(tmp_path: Path) -> None:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    own = AUTHORITY.issue("gw.example.com", extensions=[(usage, False)]).write(tmp_path / "own.pem")
    strict = SERVER.server(client_ca=AUTHORITY.write(tmp_path / "clients.pem"))
    pair = KeyPair(certificate=own, key=own)
    for level in (OPPORTUNISTIC, REQUIRED, VERIFIED):
        async with _next_hop(strict) as server:
            connection = await Client(tmp_path, level=level, client=pair).connect(server)
            await _send(connection)
            assert server.messages[0].tls == "TLSv1.3"
            connection.abort()


async def test_tls_from_the_first_octet(tmp_path: Path) -> None:
    for level in (NONE, OPPORTUNISTIC, REQUIRED, VERIFIED):
        async with _next_hop(implicit_tls=True) as server:
            connection = await Client(tmp_path, level=level).connect(server, implicit_tls=True)
            await _send(connection)
            assert server.messages[0].tls == "TLSv1.3"
            assert lines(server)[0] == "EHLO gw.example.com"
            assert "STARTTLS" not in lines(server)
            connection.abort()


@pytest.mark.parametrize("banner", ["554 5.7.1 No", "421 4.3.2 Later", Drop(), Hang()])
async def test_no_banner_after_the_first_octets(tmp_path: Path, banner: Any) -> None:
    async with _next_hop(implicit_tls=True, banner=banner) as server:
        timeouts = Timeouts(tls=2.0) if isinstance(banner, Hang) else Timeouts()
        opened = await Client(tmp_path).open(server, timeouts, implicit_tls=True)
    assert isinstance(opened, Outcome)
    assert opened.stage == "connect"
    expected = Disposition.FAILED if banner == "554 5.7.1 No" else Disposition.DEFERRED
    assert opened.disposition is expected


async def test_plain_words_where_tls_should_begin(tmp_path: Path) -> None:
    async with _next_hop(None) as server:
        opened = await Client(tmp_path).open(server, implicit_tls=True)
    assert isinstance(opened, Outcome)
    assert _is_deferred(opened, "4.7.5")


# Messages over TLS.


async def test_a_large_message(tmp_path: Path) -> None:
    content = b"Subject: x\r\n\r\n" + b"".join(
        b".%d %s\r\n" % (number, b"x" * (number % 900)) for number in range(8_000)
    )
    assert len(content) > 10 * BLOCK
    async with _next_hop() as server:
        connection = await Client(tmp_path).connect(server)
        for _ in range(2):
            await _send(connection, content)
        assert [message.content == content for message in server.messages] == [True, True]
        assert connection.transactions == 2
        connection.quit()
        await server.wait_closed()


async def test_lost_in_the_middle_of_a_large_message(tmp_path: Path) -> None:
    async with _next_hop(content=Drop(reset=True)) as server:
        connection = await Client(tmp_path).connect(server)
        content = b"x" * 900 + b"\r\n"
        outcomes = await transact(connection, make_delivery(content=content * 20_000), Timeouts())
        assert isinstance(outcomes, list)
        assert outcomes[0].disposition is Disposition.DEFERRED
        assert connection.lost


async def test_a_server_that_stops_reading(tmp_path: Path) -> None:
    async with _next_hop(content=Hang(reads=False)) as server:
        connection = await Client(tmp_path).connect(server)
        content = b"x" * 900 + b"\r\n"
        timeouts = Timeouts(block=0.2)
        outcomes = await transact(connection, make_delivery(content=content * 20_000), timeouts)
        assert isinstance(outcomes, list)
        assert "timed out" in outcomes[0].text
        assert connection.lost


async def test_an_idle_connection_takes_its_leave(tmp_path: Path) -> None:
    async with _next_hop() as server:
        connection = await Client(tmp_path).connect(server)
        await _send(connection)
        connection.rest(0.05)
        await server.wait_closed()
        assert lines(server)[-1] == "QUIT"
        assert connection.lost


async def test_a_server_that_leaves_an_idle_connection(tmp_path: Path) -> None:
    async with _next_hop() as server:
        connection = await Client(tmp_path).connect(server)
        await _send(connection)
        connection.rest(60.0)
    await until(lambda: connection.lost, "the loss")
    assert "closed the connection" in connection.lost


@pytest.mark.parametrize(
    "scenario",
    [
        *(partial(test_a_server_as_it_should_be, level=level) for level in TlsLevel),
        *(partial(test_a_certificate_that_is_not_valid, bad=bad) for bad in BAD),
        *(
            partial(test_a_handshake_that_fails_and_must_not, handshake=handshake)
            for handshake in BROKEN_HANDSHAKES.values()
        ),
        test_a_server_that_offers_no_tls,
        test_a_server_that_wants_a_certificate_and_gets_none,
        test_what_is_put_in_later_breaks_the_handshake,
        test_a_server_that_says_too_much_after_the_handshake,
        test_tls_from_the_first_octet,
        test_plain_words_where_tls_should_begin,
        test_a_large_message,
        test_lost_in_the_middle_of_a_large_message,
        test_a_server_that_stops_reading,
        test_an_idle_connection_takes_its_leave,
        test_the_name_is_told_to_the_server,
        test_who_gives_up_leaves_nothing_open,
        test_an_odd_name_where_tls_begins_at_the_first_octet,
        test_a_server_that_leaves_an_idle_connection,
    ],
)
def test_on_uvloop(scenario: Callable[[Path], Coroutine[Any, Any, None]], tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(tmp_path))
