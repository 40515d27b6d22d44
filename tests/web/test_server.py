"""How the service ends, and what it says at its start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from pathlib import Path

import pytest

from gateway.configuration.key_pair import KeyPair
from gateway.hooks.watchdog import Watchdog
from gateway.web.asgi import Receive, Scope, Send
from gateway.web.connection import LINGER
from gateway.web.health import Health
from gateway.web.server import start_server
from tests.certificate import make_certificate
from tests.web.service import Service, answer, hello, on_uvloop, step


@on_uvloop
async def test_requests_under_way_are_finished() -> None:
    begun = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(0.3)
        await answer(send, b"at last")

    async with Service(step(slow)) as service:
        client, late = await service.connect(), await service.connect()
        client.request("/site/")
        late.request("/site/", "Content-Length: 4", method="POST")
        await begun.wait()
        ending = asyncio.create_task(service.close(30.0))
        await asyncio.sleep(0)
        late.send("body")
        for one in (client, late):
            got = await one.answer()
            assert (got.body, got.headers["connection"]) == (b"at last", "close")
            assert await one.closed() == b""
        started = time.monotonic()
        await ending
        assert time.monotonic() - started < 10


@on_uvloop
async def test_a_request_that_was_already_sent_is_answered() -> None:
    async with Service() as service:
        fresh, kept, silent = [await service.connect() for _ in range(3)]
        assert (await kept.ask("/site/")).body == b"hello"
        # Connected is what the kernel says; the service knows when it has answered one.
        assert (await silent.ask("/site/")).body == b"hello"
        ending = asyncio.create_task(service.close(30.0))
        await asyncio.sleep(LINGER / 4)
        for client in (fresh, kept):
            got = await client.ask("/site/")
            assert (got.body, got.headers["connection"]) == (b"hello", "close")
            assert await client.closed() == b""
        assert not ending.done()
        assert await silent.closed() == b""
        await ending
        with pytest.raises(ConnectionRefusedError):
            await service.connect()


@on_uvloop
async def test_requests_that_do_not_end_are_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(1000)

    async with Service(step(hangs)) as service:
        client = await service.connect()
        client.request("/site/")
        await begun.wait()
        await service.close(0.2)
        assert (await client.answer()).status == 503
        assert await client.closed() == b""
    assert [record.getMessage() for record in caplog.records] == ["1 requests are cut short"]


@on_uvloop
async def test_without_clients_the_end_is_now() -> None:
    async with Service() as service:
        started = time.monotonic()
        await service.close(1000.0)
        assert time.monotonic() - started < LINGER / 2


@on_uvloop
async def test_a_client_that_is_shaking_hands_is_answered(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(certificate))
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

    async with Service(tls=KeyPair(certificate=certificate, key=key)) as service:
        client = await service.connect()

        async def exchange() -> None:
            client.send(outgoing.read())
            incoming.write(await client.reader.read(1 << 16))

        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await exchange()
        ending = asyncio.create_task(service.close(30.0))
        await asyncio.sleep(LINGER / 4)
        assert not ending.done()
        tls.do_handshake()
        tls.write(b"GET /site/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b"hello" not in received:
            await exchange()
            with contextlib.suppress(ssl.SSLWantReadError):
                while record := tls.read(1 << 16):
                    received += record
        assert b"connection: close" in received
        client.writer.close()
        await ending


@on_uvloop
async def test_without_a_section_a_plugin_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    unasked = step(hello)
    unasked.call = lambda: pytest.fail("it was asked")

    async def metrics() -> bytes:
        return b""

    assert await start_server(None, [unasked], Watchdog(), {}, Health, metrics) is None
    assert caplog.messages == ["plugin site is not served: gateway.yaml has no section http"]


@on_uvloop
async def test_the_log_says_what_is_served_where(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")
    async with Service(step(hello, "b"), step(hello, "a")):
        assert caplog.messages == ["HTTP on 127.0.0.1:0: /health, /metrics, /b/, /a/"]


@on_uvloop
async def test_the_date_is_that_of_the_answer() -> None:
    async with Service(timeout=0.2) as service:
        first = (await service.ask("/health")).headers["date"]
        while (await service.ask("/health")).headers["date"] == first:
            await asyncio.sleep(0.02)
