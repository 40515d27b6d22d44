"""Connections under ceilings: who gets one, who waits, and whose turn comes next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.attempt import Disposition, Source
from gateway.delivery import pool
from gateway.delivery.connection import Timeouts
from gateway.delivery.connections import Busy, Connections
from gateway.delivery.tls import Tls
from gateway.delivery.waiters import WAITERS_PER_LANE, Waiters
from gateway.limits import Limits, LimitsFullError
from gateway.testing import Hang, NextHop, Wait
from tests.delivery.sending import (
    CONTENT,
    SOURCE,
    attempt,
    delivering,
    lines,
    make_delivery,
    make_route,
    send,
    until,
)

DELIVERED, DEFERRED = Disposition.DELIVERED, Disposition.DEFERRED
WELCOME_ONE = ("220 Welcome", "421 4.7.0 Too many connections")
OTHER = Source("127.0.0.5", "five.example.com")


class Watched(NextHop):
    """A next hop that knows how many connections were open at most."""

    def __init__(self, **script: Any) -> None:
        super().__init__(**script)
        self.most = 0

    def received(self, message: Any) -> None:
        self.most = max(self.most, self.open_connections)
        super().received(message)


@asynccontextmanager
async def _two(path: Path) -> AsyncIterator[tuple[Connections, Connections]]:
    """What two workers have that share their limits."""
    async with delivering(limits=path) as one, delivering(limits=path) as two:
        yield one, two


async def _leased(path: Path, key: str, count: int) -> None:
    limits = Limits(path)
    await until(lambda: limits.leased(key) == count, f"{count} leases under {key}")
    limits.close()


async def test_there_are_no_more_connections_than_may_be(tmp_path: Path) -> None:
    async with Watched(dot=Wait(0.01, "250 Ok")) as hop, delivering() as connections:
        outcomes = await asyncio.gather(
            *(
                send(connections, hop, make_delivery(ceilings={"site": 3}, lane=f"{n % 8}.example"))
                for n in range(30)
            )
        )
        assert {outcome.disposition for (outcome,) in outcomes} == {DELIVERED}
        assert hop.most == 3
        assert hop.connections == 3


async def test_two_domains_take_turns_over_the_one_connection_there_may_be() -> None:
    async with Watched(dot=Wait(0.01, "250 Ok")) as hop, delivering() as connections:

        async def one_after_the_other(domain: str) -> None:
            for _ in range(10):
                delivery = make_delivery(f"b@{domain}", ceilings={"site": 1}, lane=domain)
                (outcome,) = await send(connections, hop, delivery)
                assert outcome.disposition is DELIVERED

        await asyncio.gather(one_after_the_other("one.net"), one_after_the_other("two.net"))
        order = [message.recipients[0][0] for message in hop.messages]
        assert order == ["b@one.net", "b@two.net"] * 10
        assert (hop.connections, hop.most) == (1, 1)


async def test_who_waited_longest_is_next() -> None:
    async with NextHop(dot=Wait(0.05, "250 Ok")) as hop, delivering() as connections:
        tasks = []
        for number in range(12):
            delivery = make_delivery(
                f"b{number}@example.net", ceilings={"site": 1}, lane=f"{number % 3}.example"
            )
            tasks.append(asyncio.create_task(send(connections, hop, delivery)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        order = [message.recipients[0][0] for message in hop.messages]
        assert order == [f"b{number}@example.net" for number in range(12)]


async def test_only_a_few_of_a_lane_wait() -> None:
    async with NextHop(dot=Wait(0.3, "250 Ok")) as hop, delivering() as connections:
        assert not connections._pool._waiters.is_crowded("a.example")

        def deliver(lane: str) -> asyncio.Task[Any]:
            delivery = make_delivery(ceilings={"site of a": 1}, lane=lane)
            return asyncio.create_task(attempt(connections, hop, delivery))

        first = deliver("a.example")
        await hop.wait(1)
        waiting = [deliver("a.example") for _ in range(WAITERS_PER_LANE)]
        await until(lambda: connections._pool._waiters.is_crowded("a.example"), "all to wait")
        began = time.monotonic()
        busy = await deliver("a.example")
        assert time.monotonic() - began < 0.2
        assert isinstance(busy, Busy)
        assert 0 < busy.seconds < 1
        assert busy.reason == "as many connections are open as may be: 1 under site of a"
        assert not connections._pool._waiters.is_crowded("b.example")
        waiting.append(deliver("b.example"))
        for task in (first, *waiting):
            assert not isinstance(await task, Busy)
        assert len(hop.messages) == 2 + WAITERS_PER_LANE
        assert not connections._pool._waiters.is_crowded("a.example")


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 0.3)
    async with NextHop(dot=Hang()) as hop, delivering() as connections:
        first = asyncio.create_task(
            attempt(connections, hop, make_delivery(ceilings={"site": 1}, lane="a.example"))
        )
        await hop.wait(1)
        began = time.monotonic()
        busy = await attempt(connections, hop, make_delivery(ceilings={"site": 1}, lane="b"))
        assert isinstance(busy, Busy)
        assert 0.25 < time.monotonic() - began < 5.0
        assert len(hop.messages) == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_ceiling_of_none_lets_nobody_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 0.1)
    async with NextHop() as hop, delivering() as connections:
        busy = await attempt(connections, hop, make_delivery(ceilings={"site": 0}))
        assert isinstance(busy, Busy)
        assert hop.connections == 0


async def test_an_idle_connection_makes_room_for_another_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LOOK", 60.0)
    async with Watched() as hop, delivering(idle=60.0) as connections:
        for source in (SOURCE, OTHER, SOURCE):
            began = time.monotonic()
            delivery = make_delivery(ceilings={"site": 1})
            (outcome,) = await send(connections, hop, delivery, source)
            assert outcome.disposition is DELIVERED
            assert time.monotonic() - began < pool.IDLE_UNDER_CEILING / 2
        assert (hop.connections, hop.most) == (3, 1)
        assert lines(hop, 1)[-1] == lines(hop, 2)[-1] == "QUIT"


async def test_a_busy_connection_makes_room_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "TURN", 0.3)
    async with Watched(dot=Wait(0.01, "250 Ok")) as hop, delivering() as connections:
        delivered = False

        async def keep_busy() -> None:
            while not delivered:
                delivery = make_delivery(ceilings={"site": 1}, lane="a.example")
                assert not isinstance(await attempt(connections, hop, delivery), Busy)

        busy = [asyncio.create_task(keep_busy()) for _ in range(3)]
        await hop.wait(3)
        delivery = make_delivery(ceilings={"site": 1}, lane="b.example")
        (outcome,) = await send(connections, hop, delivery, OTHER)
        assert outcome.disposition is DELIVERED
        delivered = True
        await asyncio.gather(*busy)
        assert hop.most == 1
        # Its turn was not over before the time, so that connections are worth their while.
        helos = [message.helo for message in hop.messages]
        assert helos.index(OTHER.helo) > 5


async def test_a_connection_counts_under_all_the_names_that_it_serves(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    async with NextHop() as hop, delivering(limits=path) as connections:
        await send(connections, hop, make_delivery(ceilings={"site": 5}))
        await _leased(path, "site", 1)
        await send(connections, hop, make_delivery(ceilings={"site": 5, "one.net": 5}))
        await send(connections, hop, make_delivery(ceilings={"two.net": 5}))
        await send(connections, hop, make_delivery())
        for key in ("site", "one.net", "two.net"):
            await _leased(path, key, 1)
        assert hop.connections == 1
        await connections.close(5.0)
        for key in ("site", "one.net", "two.net"):
            await _leased(path, key, 0)


async def test_a_name_that_is_full_needs_a_connection_that_counts_there() -> None:
    async with NextHop() as hop, delivering() as connections:
        await send(connections, hop, make_delivery(ceilings={"site": 5, "one.net": 1}))
        # The connection of the other source takes the place under one.net; this one has none.
        first = asyncio.create_task(
            send(connections, hop, make_delivery(ceilings={"site": 5, "two.net": 1}), OTHER)
        )
        await first
        delivery = make_delivery(ceilings={"site": 5, "two.net": 1})
        (outcome,) = await send(connections, hop, delivery)
        assert outcome.disposition is DELIVERED
        # Over the connection that counts under two.net it cannot go: that is another source's.
        assert [message.helo for message in hop.messages] == [
            "gw.example.com",
            "five.example.com",
            "gw.example.com",
        ]


async def test_a_lower_ceiling_closes_what_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_UNDER_CEILING", 60.0)
    path = tmp_path / "limits"
    hop = NextHop(dot=Wait(0.05, "250 Ok"))
    async with hop, delivering(limits=path, idle=60.0) as connections:
        await asyncio.gather(
            *(send(connections, hop, make_delivery(ceilings={"site": 4})) for _ in range(4))
        )
        await _leased(path, "site", 4)
        await asyncio.gather(
            *(send(connections, hop, make_delivery(ceilings={"site": 2})) for _ in range(4))
        )
        await until(lambda: hop.open_connections == 2, "the connections to close")
        assert hop.connections == 4


async def test_what_is_idle_under_a_ceiling_is_given_up_soon(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    async with NextHop() as hop, delivering(limits=path, idle=60.0) as connections:
        began = time.monotonic()
        await send(connections, hop, make_delivery(ceilings={"site": 1}))
        await hop.wait_closed()
        assert 0.9 < time.monotonic() - began < 10.0
        assert lines(hop)[-1] == "QUIT"
        await _leased(path, "site", 0)


async def test_a_connection_that_breaks_gives_its_place_back(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    async with delivering(limits=path) as connections:
        async with NextHop() as hop:
            await send(connections, hop, make_delivery(ceilings={"site": 1}))
        await _leased(path, "site", 0)


@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt", "dot"])
@pytest.mark.parametrize("cancelled", [True, False])
async def test_whatever_happens_the_place_is_given_back(
    tmp_path: Path, stage: str, cancelled: bool
) -> None:
    path = tmp_path / "limits"
    script: dict[str, Any] = {stage: Hang()}
    timeouts = Timeouts(*[60.0 if cancelled else 0.2] * len(Timeouts.__slots__))
    async with NextHop(**script) as hop, delivering(timeouts, limits=path) as connections:
        task = asyncio.create_task(
            attempt(connections, hop, make_delivery(ceilings={"site": 1, "x": 2}))
        )
        await _leased(path, "site", 1)
        await until(lambda: hop.open_connections, "the connection")
        if cancelled:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            outcomes = await task
            assert not isinstance(outcomes, Busy)
            assert outcomes[0].disposition is DEFERRED
        await _leased(path, "site", 0)
        await _leased(path, "x", 0)


async def test_a_place_that_is_given_back_is_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LOOK", 60.0)
    async with NextHop() as hop, delivering() as connections:
        deliveries = [
            make_delivery(ceilings={"site": 1}, messages_per_connection=1, lane=str(number))
            for number in range(5)
        ]
        outcomes = await asyncio.gather(*(send(connections, hop, one) for one in deliveries))
        assert {outcome.disposition for (outcome,) in outcomes} == {DELIVERED}
        assert [message.connection for message in hop.messages] == [1, 2, 3, 4, 5]


async def test_who_comes_later_does_not_take_the_place_of_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LOOK", 0.3)
    path = tmp_path / "limits"
    elsewhere = Limits(path)
    lease = elsewhere.lease({"site": 1})
    assert lease is not None
    async with NextHop() as hop, delivering(limits=path) as connections:
        tasks = []
        for name in ("sooner", "later"):
            delivery = make_delivery(f"{name}@x.net", ceilings={"site": 1}, lane=name)
            tasks.append(asyncio.create_task(send(connections, hop, delivery)))
            await asyncio.sleep(0.02)
            lease.release()
        await asyncio.gather(*tasks)
        assert [m.recipients[0][0] for m in hop.messages] == ["sooner@x.net", "later@x.net"]
    elsewhere.close()


async def test_a_connection_that_became_idle_meanwhile_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LOOK", 60.0)
    first_is_done = asyncio.Event()
    protection = Tls.protection
    asked = 0

    async def wait(self: Tls, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            await first_is_done.wait()
        return await protection(self, *arguments)

    monkeypatch.setattr(Tls, "protection", wait)
    async with NextHop(dot=Wait(0.1, "250 Ok")) as hop, delivering() as connections:
        first, second = (
            asyncio.create_task(
                send(connections, hop, make_delivery(ceilings={"site": 1}, lane=lane))
            )
            for lane in ("a", "b")
        )
        await first
        first_is_done.set()
        await second
        assert [message.connection for message in hop.messages] == [1, 1]


async def test_a_place_is_given_back_where_nobody_answers(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    async with delivering(limits=path) as connections:
        delivery = make_delivery(ceilings={"site": 1})
        (outcome,) = await send(connections, make_route("127.0.0.1:1", "127.0.0.1:2"), delivery)
        assert (outcome.disposition, outcome.status) == (DEFERRED, "4.4.1")
        await _leased(path, "site", 0)


async def test_a_waiter_that_is_cancelled_leaves_the_queue() -> None:
    async with NextHop(dot=Wait(0.2, "250 Ok")) as hop, delivering() as connections:

        def deliver(name: str) -> asyncio.Task[Any]:
            delivery = make_delivery(f"{name}@x.net", ceilings={"site": 1}, lane=name)
            return asyncio.create_task(attempt(connections, hop, delivery))

        first = deliver("first")
        await hop.wait(1)
        second, third = deliver("second"), deliver("third")
        await asyncio.sleep(0.02)
        second.cancel()
        assert not isinstance(await first, Busy)
        assert not isinstance(await third, Busy)
        with pytest.raises(asyncio.CancelledError):
            await second
        assert [m.recipients[0][0] for m in hop.messages] == ["first@x.net", "third@x.net"]
        assert hop.connections == 1


async def test_those_who_no_longer_wait_do_not_count() -> None:
    async with NextHop(dot=Hang()) as hop, delivering() as connections:

        def deliver() -> asyncio.Task[Any]:
            delivery = make_delivery(ceilings={"site": 1}, lane="a.example")
            return asyncio.create_task(attempt(connections, hop, delivery))

        tasks = [deliver()]
        await hop.wait(1)
        tasks += [deliver() for _ in range(WAITERS_PER_LANE)]
        await until(lambda: connections._pool._waiters.is_crowded("a.example"), "all to wait")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not connections._pool._waiters.is_crowded("a.example")


async def test_who_has_just_been_cancelled_gets_no_answer() -> None:
    async with NextHop(dot=Hang()) as hop, delivering() as connections:
        first, second = (
            asyncio.create_task(attempt(connections, hop, make_delivery(ceilings={"site": 1})))
            for _ in range(2)
        )
        await hop.wait(1)
        await until(lambda: connections._pool._waiters, "the second to wait")
        second.cancel()
        # It has not run since then.
        connections._pool.stop()
        with pytest.raises(asyncio.CancelledError):
            await second
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("most", [1, 1000])
async def test_what_a_cancelled_waiter_was_given_goes_to_the_next(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one message per connection it is a place, otherwise a connection."""
    answer = Waiters.answer
    tasks: dict[str, asyncio.Task[Any]] = {}

    def answer_and_cancel(self: Waiters, waiter: Any, given: Any) -> None:
        answer(self, waiter, given)
        if waiter.delivery.lane == "second":
            tasks["second"].cancel()

    monkeypatch.setattr(Waiters, "answer", answer_and_cancel)
    async with NextHop(dot=Wait(0.1, "250 Ok")) as hop, delivering() as connections:
        for name in ("first", "second", "third"):
            delivery = make_delivery(
                f"{name}@x.net", ceilings={"site": 1}, lane=name, messages_per_connection=most
            )
            tasks[name] = asyncio.create_task(send(connections, hop, delivery))
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await tasks["second"]
        ((outcome,),) = (await tasks["third"],)
        assert outcome.disposition is DELIVERED
        assert [m.recipients[0][0] for m in hop.messages] == ["first@x.net", "third@x.net"]
        assert hop.connections == (2 if most == 1 else 1)


async def test_closing_sends_those_away_who_wait() -> None:
    async with NextHop(dot=Hang()) as hop, delivering() as connections:

        def deliver() -> asyncio.Task[Any]:
            delivery = make_delivery(ceilings={"site": 1})
            return asyncio.create_task(attempt(connections, hop, delivery))

        first = deliver()
        await hop.wait(1)
        second = deliver()
        await asyncio.sleep(0.02)
        closing = asyncio.create_task(connections.close(0.5))
        assert isinstance(await second, Busy)
        began = time.monotonic()
        assert isinstance(await deliver(), Busy)
        assert time.monotonic() - began < 0.3
        await closing
        ((outcome,),) = (await first,)
        assert outcome.disposition is DEFERRED
        assert len(hop.messages) == 1


# Several processes.


async def test_a_ceiling_holds_for_all_workers(tmp_path: Path) -> None:
    async with Watched(dot=Wait(0.01, "250 Ok")) as hop, _two(tmp_path / "limits") as both:

        async def some(connections: Connections, lane: str) -> None:
            for _ in range(10):
                delivery = make_delivery(ceilings={"site": 2}, lane=lane)
                while isinstance(await attempt(connections, hop, delivery), Busy):
                    pass

        await asyncio.gather(
            *(some(connections, lane) for connections in both for lane in ("a", "b", "c"))
        )
        assert len(hop.messages) == 60
        assert hop.most == 2


async def test_each_worker_has_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "TURN", 0.2)
    async with Watched(dot=Wait(0.005, "250 Ok")) as hop, _two(tmp_path / "limits") as both:
        served = {"one": 0, "two": 0}

        async def endlessly(connections: Connections, name: str) -> None:
            while min(served.values()) < 20:
                delivery = make_delivery(f"{name}@x.net", ceilings={"site": 1}, lane=name)
                if not isinstance(await attempt(connections, hop, delivery), Busy):
                    served[name] += 1

        async with asyncio.timeout(60):
            await asyncio.gather(
                *(
                    endlessly(connections, name)
                    for name, connections in zip(served, both, strict=True)
                    for _ in range(3)
                )
            )
        assert hop.most == 1
        # They alternate, and not with each message.
        assert 2 <= hop.connections <= len(hop.messages) / 4


async def test_workers_share_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "TURN", 0.2)
    async with Watched(dot=Wait(0.005, "250 Ok")) as hop, _two(tmp_path / "limits") as both:
        end = time.monotonic() + 3.0

        async def endlessly(connections: Connections, lane: str) -> None:
            while time.monotonic() < end:
                await attempt(connections, hop, make_delivery(ceilings={"site": 2}, lane=lane))

        async with asyncio.TaskGroup() as tasks:
            for connections in both:
                for lane in ("a", "b", "c"):
                    tasks.create_task(endlessly(connections, lane))
                # The first worker has both connections when the second one begins.
                await asyncio.sleep(0.1)
        assert hop.most == 2
        # It gives one away, and then each keeps its own.
        assert hop.connections <= 4


async def test_a_place_of_another_worker_is_found_by_one_that_has_some(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    elsewhere = Limits(path)
    lease = elsewhere.lease({"site": 2})
    assert lease is not None
    async with NextHop(dot=[Hang(), "250 Ok"]) as hop, delivering(limits=path) as connections:
        first, second = (
            asyncio.create_task(
                attempt(connections, hop, make_delivery(ceilings={"site": 2}, lane=lane))
            )
            for lane in ("a", "b")
        )
        await hop.wait(1)
        began = time.monotonic()
        lease.release()
        assert not isinstance(await second, Busy)
        assert time.monotonic() - began < 3.0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    elsewhere.close()


async def test_who_has_nobody_to_wait_for_keeps_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TURN", 0.05)
    async with Watched(dot=Wait(0.02, "250 Ok")) as hop, _two(tmp_path / "limits") as (one, _):
        for _ in range(20):
            await send(one, hop, make_delivery(ceilings={"site": 1}))
        assert hop.connections == 1


# Servers that take no more connections than they like.


async def test_a_server_that_takes_no_more_is_content_with_those_it_has() -> None:
    async with NextHop(banner=[*WELCOME_ONE], dot=Wait(0.02, "250 Ok")) as hop:
        async with delivering() as connections:
            first = asyncio.create_task(send(connections, hop))
            await hop.wait(1)
            more = [
                asyncio.create_task(send(connections, hop, make_delivery(lane=f"{n}.example")))
                for n in range(20)
            ]
            for task in (first, *more):
                (outcome,) = await task
                assert outcome.disposition is DELIVERED
        assert {message.connection for message in hop.messages} == {1}
        assert len(hop.messages) == 21


async def test_when_that_connection_is_gone_the_server_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 0.3)
    async with NextHop(banner=[*WELCOME_ONE], dot=Hang()) as hop, delivering() as connections:
        first = asyncio.create_task(send(connections, hop))
        await hop.wait(1)
        busy = await attempt(connections, hop)
        assert isinstance(busy, Busy)
        assert "Too many connections" in busy.reason
        # Nobody waits for a connection that is gone.
        monkeypatch.setattr(pool, "PATIENCE", 60.0)
        waiting = asyncio.create_task(attempt(connections, hop))
        await until(lambda: connections._pool._waiters, "it to wait")
        first.cancel()
        assert isinstance(await waiting, Busy)
        await hop.wait_closed()
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DEFERRED
        assert "Too many connections" in outcome.text


# Servers that take their time for each reply.


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelining", "plain"])
async def test_one_message_does_not_take_for_ever(
    extensions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LONGEST", 0.5)
    to = [f"b{number}@example.net" for number in range(100)]
    async with NextHop(extensions=extensions, rcpt=Wait(0.1, "250 Ok")) as hop:
        async with delivering() as connections:
            began = time.monotonic()
            outcomes = await send(connections, hop, make_delivery(*to))
            assert time.monotonic() - began < 5.0
            assert {outcome.disposition for outcome in outcomes} == {DEFERRED}
            assert all("longer than 0.5 seconds" in outcome.text for outcome in outcomes)
        await hop.wait_closed()
        assert hop.messages == []


async def test_many_messages_may_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LONGEST", 0.2)
    async with NextHop(dot=Wait(0.05, "250 Ok")) as hop, delivering() as connections:
        for _ in range(20):
            (outcome,) = await send(connections, hop)
            assert outcome.disposition is DELIVERED
        await asyncio.sleep(0.5)
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DELIVERED
        assert hop.connections == 1


# What goes wrong here.


async def test_limits_that_cannot_be_read_are_an_error_before_anything_is_tried(
    tmp_path: Path,
) -> None:
    async with NextHop() as hop, delivering(limits=tmp_path) as connections:
        with pytest.raises(OSError):
            await attempt(connections, hop, make_delivery(ceilings={"site": 1}))
        assert hop.connections == 0
        (outcome,) = await send(connections, hop)
        assert outcome.disposition is DELIVERED


async def test_what_was_delivered_stays_delivered_though_limits_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LOOK", 60.0)
    async with NextHop(dot=Wait(0.2, "250 Ok")) as hop, delivering() as connections:
        first = asyncio.create_task(
            send(connections, hop, make_delivery(ceilings={"site": 1}, lane="a"))
        )
        await hop.wait(1)
        second = asyncio.create_task(
            attempt(connections, hop, make_delivery(ceilings={"site": 1, "more": 1}, lane="b"))
        )
        await until(lambda: connections._pool._waiters, "the second to wait")

        def full(*_: object) -> None:
            raise LimitsFullError("no place for another key")

        monkeypatch.setattr(Limits, "lease", full)
        (outcome,) = await first
        assert outcome.disposition is DELIVERED
        with pytest.raises(LimitsFullError):
            await second


# Few messages over a connection.


async def test_messages_per_connection_of_a_delivery() -> None:
    async with NextHop() as hop, delivering() as connections:
        for number in (None, 3, 3, 3, None, 1):
            await send(connections, hop, make_delivery(messages_per_connection=number))
        assert [m.connection for m in hop.messages] == [1, 1, 1, 2, 2, 3]
        # The last took a new one, as two messages had gone over the other, and closed it.
        await until(lambda: lines(hop, 3)[-1] == "QUIT", "the leave")


async def test_messages_per_connection_count_for_those_who_wait() -> None:
    async with Watched(dot=Wait(0.02, "250 Ok")) as hop, delivering() as connections:
        deliveries = [
            make_delivery(ceilings={"site": 1}, messages_per_connection=2, lane=str(number))
            for number in range(6)
        ]
        await asyncio.gather(*(send(connections, hop, one) for one in deliveries))
        assert [m.connection for m in hop.messages] == [1, 1, 2, 2, 3, 3]
        assert hop.most == 1
        assert all(message.content == CONTENT for message in hop.messages)
