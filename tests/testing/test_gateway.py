"""A gateway on real sockets: it delivers, its clock moves, and it is gone afterwards."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.hooks import (
    Accept,
    Context,
    Delay,
    Delivery,
    Event,
    Login,
    Message,
    Plugin,
    Reject,
    hookimpl,
)
from gateway.testing import Certificate, Clock, FakeDns, Gateway, NextHop, mail, message


class Config(BaseModel):
    text: str = ""


class Footer(Plugin[Config]):
    @hookimpl
    def start(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def message(self, message: Message) -> Delay | Reject | None:
        if message.headers.get("X-Do") == "later":
            return Delay(7200)
        if message.headers.get("X-Do") == "no":
            return Reject("no")
        if message.headers.get("X-Do") == "raise":
            raise KeyError("footer")
        message.headers.add("X-Footer", "1")
        return None


class Watcher(Plugin[Config]):
    observes = ("delivered", "deferred")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.seen: list[str] = []

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        self.seen += [event.type for event in events]


async def test_mail_comes_over_a_socket_and_is_delivered() -> None:
    async with NextHop() as hop, Gateway(Footer(Config()), next_hop=hop) as gateway:
        sent = await gateway.send(mail("Hello"))
        (received,) = await hop.wait(1)
        await gateway.wait_empty()
        assert gateway.address == f"127.0.0.1:{gateway.worker.port}"
    assert sent.accepted
    assert sent.id in received.content.decode()
    assert received.sender == "sender@example.com"
    assert b"\r\nX-Footer: 1\r\n" in received.content
    assert received.content.endswith(b"\r\n\r\nHello\r\n")


async def test_it_brings_what_it_needs() -> None:
    async with Gateway() as gateway:
        await gateway.send(message(sender="", to=["a@example.net", "b@example.org"]))
        received = await gateway.next_hop.wait(1)
        await gateway.wait_empty()
    assert {one.sender for one in received} == {""}


async def test_a_refusal_is_told() -> None:
    async with Gateway(Footer) as gateway:
        sent = await gateway.send(mail(headers={"X-Do": "no"}))
    assert sent.reply == "550 5.7.1 no"
    with pytest.raises(AssertionError, match=r"(?s)was not queued:\nC: .*S: 550 5.7.1 no"):
        _ = sent.id


def _attempts(gateway: Gateway, attempts: int) -> bool:
    return [row.attempts for row in gateway.queue()] == [attempts]


async def test_a_retry_comes_due_when_the_clock_is_moved() -> None:
    hop = NextHop(rcpt=["452 4.2.2 Mailbox full", "452 4.2.2 Mailbox full", "250 2.1.5 Ok"])
    async with Gateway(next_hop=hop) as gateway:
        await gateway.send()
        for attempts, wait in ((1, 300), (2, 900)):
            tried = partial(_attempts, gateway, attempts)
            await gateway.wait(tried)
            (row,) = gateway.queue()
            assert row.due == gateway.clock.now + wait
            gateway.clock.move(wait)
        await hop.wait(1)
        await gateway.wait_empty()


async def test_a_clock_that_is_not_moved_far_enough_changes_nothing() -> None:
    async with Gateway(Footer) as gateway:
        await gateway.send(mail(headers={"X-Do": "later"}))
        gateway.clock.move(7199)
        await asyncio.sleep(0.05)
        assert [row.state for row in gateway.queue()] == ["scheduled"]
        gateway.clock.move(1)
        await gateway.next_hop.wait(1)


async def test_mail_that_its_sender_wants_later() -> None:
    async with Gateway() as gateway:
        await gateway.send(mail_parameters="HOLDFOR=86400")
        gateway.clock.move(86400)
        await gateway.next_hop.wait(1)


class Throttle(Plugin[Config]):
    """Lets mail of one lane, or each for itself, wait until a time."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.until = float("inf")
        self.asked = 0
        self.answer = Delay(0)

    @hookimpl
    def start(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def admit(self, delivery: Delivery) -> Delay | None:
        self.asked += 1
        return self.answer if self.context.clock() < self.until else None


@pytest.mark.parametrize(
    "answer", [Delay(3), Delay(30, lane=True), Delay(600, lane=True), Delay(600)]
)
async def test_what_a_plugin_has_wait_goes_when_the_clock_is_moved(answer: Delay) -> None:
    throttle = Throttle(Config())
    throttle.answer = answer
    async with Gateway(throttle) as gateway:
        throttle.until = gateway.clock.now + answer.seconds
        await gateway.send(to=["a@example.net", "b@example.net"])
        await gateway.wait(lambda: throttle.asked)
        gateway.clock.move(answer.seconds / 2)
        await asyncio.sleep(0.02)
        assert not gateway.next_hop.messages
        gateway.clock.move(answer.seconds / 2)
        await gateway.next_hop.wait(1, timeout=2.5)
        await gateway.wait_empty()


async def test_observers_get_events_when_asked_to() -> None:
    watcher = Watcher(Config())
    async with Gateway(watcher) as gateway:
        await gateway.send()
        await gateway.next_hop.wait(1)
        await gateway.wait_empty()
        assert [event.type for event in gateway.events()] == ["delivered"]
        assert watcher.seen == []
        await gateway.observe()
        await gateway.observe()
        assert watcher.seen == ["delivered"]


async def test_what_a_plugin_does_wrong_fails_the_test_in_the_end() -> None:
    with pytest.raises(AssertionError, match="plugin footer failed in message: raised KeyError"):
        async with Gateway(Footer) as gateway:
            sent = await gateway.send(mail(headers={"X-Do": "raise"}))
    assert sent.reply.startswith("451")
    async with Gateway(Footer, may_fail=True) as gateway:
        await gateway.send(mail(headers={"X-Do": "raise"}))
        assert [fault.hook for fault in gateway.faults] == ["message"]


async def test_a_hook_that_never_ends_is_interrupted() -> None:
    class Endless(Plugin[Config]):
        @hookimpl
        def message(self, message: Message) -> None:
            while True:
                pass

    async with Gateway((Endless, {"timeout": "200ms"}), may_fail=True) as gateway:
        sent = await gateway.send()
    assert sent.reply.startswith("451")
    assert "ran longer than 0.2 s" in str(gateway.faults[0])


async def test_waiting_in_vain_shows_the_queue() -> None:
    async with Gateway(Footer) as gateway:
        await gateway.send(mail(headers={"X-Do": "later"}))
        with pytest.raises(TimeoutError) as failure:
            await gateway.wait_empty(timeout=0.05)
    assert str(failure.value) == (
        "waited 0.05 s for the queue to be empty; in the queue:\n"
        "  recipient@example.net: scheduled, 0 attempts, "
    )


class Doorman(Plugin[Config]):
    @hookimpl
    def auth(self, login: Login) -> Accept | None:
        return Accept() if login.password == "right" else None


async def test_tls_and_a_login() -> None:
    certificate = Certificate.make("127.0.0.1")
    client = certificate.client()
    async with Gateway(Doorman, tls=certificate.server(), implicit=True) as gateway:
        refused = await gateway.send(user="shop", password="wrong", tls=client)
        sent = await gateway.send(user="shop", password="right", tls=client)
        (received,) = await gateway.next_hop.wait(1)
    assert refused.reply.startswith("535 ")
    assert sent.accepted
    assert b"with ESMTPSA" in received.content


async def test_a_next_hop_with_a_certificate() -> None:
    certificate = Certificate.make("mx.example.net")
    dns = FakeDns({"mx.example.net": {"A": ["127.0.0.1"]}})
    async with NextHop(tls=certificate.server(), latency=0.01) as hop:
        port = hop.address.rpartition(":")[2]
        relay = f"relay: {{via: ['mx.example.net:{port}'], tls: {{level: required}}}}"
        async with Gateway(config=relay, next_hop=hop, dns=dns) as gateway:
            started = asyncio.get_running_loop().time()
            await gateway.send()
            (received,) = await hop.wait(1)
            # Banner, EHLO, STARTTLS, EHLO, and MAIL, RCPT and DATA in one.
            assert asyncio.get_running_loop().time() - started > 7 * 0.01
            await gateway.wait_empty()
    assert received.tls == "TLSv1.3"


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with Gateway(Footer) as gateway:
        folder = gateway.config.spool.path
        assert folder.is_dir()
        hop = gateway.next_hop.address
    assert not folder.exists()
    assert asyncio.all_tasks() == before
    host, _, port = hop.partition(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
    async with Gateway(Footer, folder=tmp_path):
        pass
    assert (tmp_path / "spool").is_dir()


def test_the_clock() -> None:
    clock = Clock()
    told: list[float] = []
    assert clock() == clock.now == 1780315200.0
    clock.listen(told.append)
    clock.move(0.5)
    clock.move(0)
    assert clock.now == 1780315200.5
    clock.forget(told.append)
    clock.move(1)
    assert told == [0.5, 0]
    with pytest.raises(ValueError, match="only moves forward"):
        clock.move(-1)
    with pytest.raises(ValueError, match="only moves forward"):
        clock.move(float("nan"))
    running = Clock(None)
    first = running()
    running.move(100)
    assert running() >= first + 100
    assert repr(Clock(1.0)) == "<Clock 1.000>"


def test_the_certificate(tmp_path: Path) -> None:
    certificate = Certificate.make("mx.example.net")
    paths = certificate.write(tmp_path)
    assert [path.name for path in paths] == ["cert.pem", "key.pem"]
    assert paths[1].stat().st_mode & 0o77 == 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*paths)
    assert b"BEGIN CERTIFICATE" in certificate.certificate
