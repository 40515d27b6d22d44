"""Which addresses are tried, in which order, and which are left alone for a while."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attempt import Disposition, Hop, Outcome, Source, TlsLevel
from gateway.configuration.endpoint import Endpoint
from gateway.delivery import failures
from gateway.delivery.candidates import Candidates, alternating
from gateway.delivery.connection import Timeouts
from gateway.delivery.failures import Failures
from gateway.delivery.identity import Identity
from gateway.delivery.protection import Protection
from gateway.delivery.tls import Requirement, Tls
from gateway.resolver import Resolver
from gateway.testing import Drop, Hang, NextHop
from tests.delivery.sending import (
    NOWHERE,
    SOURCE,
    attempt,
    delivering,
    make_route,
    send,
)

DELIVERED, DEFERRED, FAILED = Disposition.DELIVERED, Disposition.DEFERRED, Disposition.FAILED
BUSY = "421 4.7.0 Too many connections"
HELLO = "220 Welcome"


@contextmanager
def _black_hole() -> Iterator[str]:
    """An address that takes no connection and does not refuse any either."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        for filler in fillers:
            filler.close()


def _pauses(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(failures, "_QUICK_PAUSES", (seconds, 60.0))
    monkeypatch.setattr(failures, "_SLOW_PAUSES", (seconds, 60.0))


# Both versions of IP.


@given(
    st.lists(st.integers(0, 99), max_size=9, unique=True),
    st.lists(st.integers(0, 99), max_size=9, unique=True),
    st.randoms(use_true_random=False),
)
def test_addresses_of_both_versions_alternate(six: list[int], four: list[int], chance: Any) -> None:
    addresses = [f"2001:db8::{n:x}" for n in six] + [f"192.0.2.{n}" for n in four]
    if not addresses:
        return
    chance.shuffle(addresses)
    found = alternating(addresses)
    for version in (True, False):
        same = [address for address in addresses if (":" in address) is version]
        assert [address for address in found if (":" in address) is version] == same
    assert found[0] == addresses[0]
    both = found[: 2 * min(len(six), len(four))]
    assert all((":" in one) != (":" in next_) for one, next_ in itertools.pairwise(both))


async def test_many_addresses_of_one_version_do_not_hide_the_other(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    # There is no way to these from anywhere.
    unreachable = "".join(f"::{n} relay.example\n" for n in range(2, 12))
    hosts.write_text(f"{unreachable}127.0.0.1 relay.example\n")
    async with NextHop() as hop:
        port = Hop.parse(hop.address).port
        async with delivering(resolver=Resolver([NOWHERE], hosts=hosts)) as connections:
            (outcome,) = await send(connections, make_route(f"relay.example:{port}"))
    assert (outcome.disposition, outcome.relay) == (DELIVERED, f"relay.example[127.0.0.1]:{port}")


async def test_a_source_reaches_its_own_version_only(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("::2 both.example\n127.0.0.1 both.example\n::2 six.example\n")
    source = Source("127.0.0.9", "nine.example.com")
    async with NextHop() as hop:
        port = Hop.parse(hop.address).port
        async with delivering(resolver=Resolver([NOWHERE], hosts=hosts)) as connections:
            (outcome,) = await send(connections, make_route(f"both.example:{port}"), None, source)
            assert outcome.relay == f"both.example[127.0.0.1]:{port}"
            (outcome,) = await send(connections, make_route(f"six.example:{port}"), None, source)
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.4")
            assert "has no address that 127.0.0.9 can reach" in outcome.text


# What is left alone.


async def test_a_black_hole_is_met_once() -> None:
    with _black_hole() as hole:
        async with delivering(Timeouts(connect=1.1)) as connections:
            (outcome,) = await send(connections, make_route(hole))
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.1")
            began = time.monotonic()
            for _ in range(50):
                (outcome,) = await send(connections, make_route(hole))
                assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.1")
                assert (outcome.stage, outcome.code) == ("connect", 0)
                assert "timed out (" in outcome.text
                assert "left alone" in outcome.text
            assert time.monotonic() - began < 1.0


async def test_what_is_known_at_once_leaves_others_their_turn() -> None:
    async with delivering() as connections:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(take_turns())
        for _ in range(100):
            (outcome,) = await send(connections, make_route(NOWHERE))
            assert outcome.disposition is DEFERRED
        assert turns >= 99
        other.cancel()


async def test_a_server_that_hangs_is_no_better_than_a_black_hole() -> None:
    for stage in ("banner", "ehlo", "mail"):
        script: dict[str, Any] = {stage: Hang()}
        timeouts = Timeouts(banner=1.1, ehlo=1.1, mail=1.1)
        async with NextHop(**script) as hop, delivering(timeouts) as connections:
            for _ in range(5):
                (outcome,) = await send(connections, hop)
                assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.2")
            assert hop.connections == 1


async def test_what_is_down_comes_last() -> None:
    with _black_hole() as hole:
        timeouts = Timeouts(connect=1.1)
        async with NextHop() as good, delivering(timeouts, lifetime=0) as connections:
            for number in range(5):
                began = time.monotonic()
                (outcome,) = await send(connections, make_route(hole, good))
                assert outcome.disposition is DELIVERED
                assert (time.monotonic() - began > 1.0) == (number == 0)


async def test_what_is_down_is_tried_again_when_the_others_fail_too() -> None:
    first, second = NextHop(banner=[BUSY, HELLO]), NextHop(banner=[HELLO, BUSY])
    async with first, second, delivering(lifetime=0) as connections:
        for _ in range(2):
            (outcome,) = await send(connections, make_route(first, second))
            assert outcome.disposition is DELIVERED
        assert [len(hop.messages) for hop in (first, second)] == [1, 1]
        assert [hop.connections for hop in (first, second)] == [2, 2]


async def test_after_the_pause_one_asks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    _pauses(monkeypatch, 1.0)
    async with NextHop(banner=BUSY) as hop, delivering() as connections:
        for count in (1, 2):
            outcomes = [
                outcome
                for _ in range(3)
                for (outcome,) in await asyncio.gather(
                    *(send(connections, hop) for _ in range(1 if count == 1 else 10))
                )
            ]
            assert {outcome.disposition for outcome in outcomes} == {DEFERRED}
            assert all("Too many connections" in outcome.text for outcome in outcomes)
            assert hop.connections == count
            await asyncio.sleep(1.05)


async def test_who_lets_us_in_again_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    _pauses(monkeypatch, 0.2)
    async with NextHop(banner=[BUSY, HELLO]) as hop, delivering(lifetime=0) as connections:
        (outcome,) = await send(connections, hop)
        assert (outcome.disposition, outcome.code) == (DEFERRED, 421)
        await asyncio.sleep(0.25)
        for _ in range(5):
            (outcome,) = await send(connections, hop)
            assert outcome.disposition is DELIVERED
        assert hop.connections == 6


async def test_a_no_for_good_is_said_to_each_message() -> None:
    async with NextHop(banner="554 5.7.1 Go away") as hop, delivering() as connections:
        for number in (1, 2, 3):
            (outcome,) = await send(connections, hop)
            assert (outcome.disposition, outcome.code) == (FAILED, 554)
            assert hop.connections == number


async def test_each_source_finds_out_for_itself() -> None:
    async with NextHop(banner=[BUSY, HELLO]) as hop, delivering() as connections:
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DEFERRED
        (outcome,) = await send(connections, hop, None, Source("127.0.0.5", "gw.example.com"))
        assert outcome.disposition is DELIVERED


async def test_all_sites_know_of_an_address() -> None:
    async with NextHop(banner=BUSY) as hop, delivering() as connections:
        for site in ("one", "two"):
            (outcome,) = await send(connections, make_route(hop, site=site))
            assert outcome.disposition is DEFERRED
        assert hop.connections == 1


async def test_tls_that_fails_concerns_only_those_who_demand_it() -> None:
    async with NextHop() as hop, delivering() as connections:
        for _ in range(2):
            (outcome,) = await send(connections, make_route(hop, tls=TlsLevel.REQUIRED))
            assert (outcome.disposition, outcome.stage) == (DEFERRED, "tls")
        assert hop.connections == 1
        (outcome,) = await send(connections, make_route(hop, tls=TlsLevel.NONE))
        assert outcome.disposition is DELIVERED


async def test_a_hop_that_must_not_be_used_counts_as_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Outcome(DEFERRED, 0, "4.7.5", "it is not among the servers in the policy", "tls")
    protection = Tls.protection

    async def refuse(self: Tls, requirement: Requirement, hop: Hop) -> Protection | Outcome:
        return policy if hop.port == 1 else await protection(self, requirement, hop)

    monkeypatch.setattr(Tls, "protection", refuse)
    async with NextHop(banner=BUSY) as hop, delivering() as connections:
        for _ in range(3):
            (outcome,) = await send(connections, make_route(NOWHERE, hop))
            assert "Too many connections" in outcome.text
        assert hop.connections == 1
        (outcome,) = await send(connections, make_route(NOWHERE))
        assert outcome == policy


async def test_a_name_that_is_ours_to_mend_is_no_failure_of_theirs() -> None:
    async with NextHop() as hop, delivering() as connections:
        for helo, disposition in (("two words", DEFERRED), ("gw.example.com", DELIVERED)):
            (outcome,) = await send(connections, hop, None, Source(None, helo))
            assert outcome.disposition is disposition


async def test_a_delivery_that_is_cancelled_leaves_no_trace() -> None:
    # Whenever the cancellation comes: while it connects, as it is connected, and afterwards.
    async with NextHop(banner=[*[Hang()] * 60, HELLO]) as hop, delivering() as connections:
        for number in range(60):
            task = asyncio.create_task(attempt(connections, hop))
            while hop.connections <= number:
                await asyncio.sleep(0)
            for _ in range(number % 6):
                await asyncio.sleep(0)
            task.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 5.0
        await hop.wait_closed()
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DELIVERED


async def test_a_refused_login_is_not_repeated_soon() -> None:
    known = Failures()

    def candidates() -> Candidates:
        return Candidates(
            make_route("192.0.2.1:587"),
            SOURCE,
            "login",
            resolver=Resolver([NOWHERE]),
            failures=known,
            identity=Identity(),
        )

    first = candidates()
    found = await first.next()
    assert found == (Hop("192.0.2.1", 587), "192.0.2.1")
    refused = Outcome(DEFERRED, 535, "4.7.8", "no such user", "auth", "192.0.2.1")
    first.begin(*found)
    first.failed(*found, refused)
    assert await first.next() is None
    assert first.refused == [refused]
    second = candidates()
    assert await second.next() is None
    (reason,) = second.refused
    assert "left alone for another 30 s" in reason.text


async def test_a_server_that_breaks_off_after_mail_is_no_failure_of_its_address() -> None:
    async with NextHop(rcpt=Drop()) as hop, delivering() as connections:
        for number in (1, 2, 3):
            (outcome,) = await send(connections, hop)
            assert (outcome.disposition, outcome.stage) == (DEFERRED, "rcpt")
            assert hop.connections == number


# Never to ourselves.


def _listening_at(hop: NextHop) -> Identity:
    return Identity("gw.example.com", (Endpoint.parse(hop.address),))


async def test_an_exchanger_that_is_ourselves_ends_the_list() -> None:
    async with NextHop() as ours, NextHop() as later, NextHop(banner="450 No") as sooner:
        async with delivering(identity=_listening_at(ours)) as connections:
            (outcome,) = await send(connections, make_route(ours, later, is_mx=True))
            assert (outcome.disposition, outcome.status) == (FAILED, "5.4.6")
            assert "loops back" in outcome.text
            (outcome,) = await send(connections, make_route(sooner, ours, later, is_mx=True))
            assert (outcome.disposition, outcome.code) == (DEFERRED, 450)
            (outcome,) = await send(connections, make_route(later, ours, is_mx=True))
            assert outcome.disposition is DELIVERED
        assert ours.connections == 0


async def test_a_smarthost_that_is_ourselves_is_passed_over() -> None:
    async with NextHop() as ours, NextHop() as other:
        async with delivering(identity=_listening_at(ours)) as connections:
            (outcome,) = await send(connections, make_route(ours, other))
            assert outcome.disposition is DELIVERED
            (outcome,) = await send(connections, make_route(ours, site="ours"))
            # A mistake that a person mends: no reason to give up the mail.
            assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.6")
        assert (ours.connections, other.connections) == (0, 1)
