"""Clients that are slow, greedy or mad."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from gateway.web import connection
from gateway.web.asgi import Receive, Scope, Send
from tests.web.service import Answer, Client, Service, answer, apps, on_uvloop, step

FIELDS = "GET /site/ HTTP/1.1\r\nHost: t.example.com\r\n"


async def dribble(client: Client, text: str) -> bytes:
    """Sends an octet after the other, again and again, until the connection is closed."""

    async def send() -> None:
        while True:
            for letter in text:
                client.send(letter)
                await asyncio.sleep(0.02)

    sending = asyncio.create_task(send())
    try:
        return await client.closed()
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await sending


@pytest.mark.parametrize(
    ("begin", "more", "said"),
    [
        ("GET /site/", "a", b"408 Request Timeout"),
        (FIELDS, "X-Field: aaaaaaaa", b"408 Request Timeout"),
        (FIELDS, "A: a\r\n", b"408 Request Timeout"),
        # Empty lines before a request are no request.
        ("", "\r\n", b""),
        # The plugin would wait for them.
        (f"{FIELDS}Content-Length: 10000\r\n\r\n", "a", b""),
        (f"{FIELDS}Transfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n", b""),
        (f"{FIELDS}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", "A: a\r\n", b""),
    ],
)
@on_uvloop
async def test_a_client_that_dribbles_is_cut(begin: str, more: str, said: bytes) -> None:
    async with Service(timeout=0.4) as service:
        client = await service.connect()
        started = time.monotonic()
        client.send(begin)
        received = await dribble(client, more)
        assert time.monotonic() - started > 0.3
        assert said in received
        assert (received == b"") == (said == b"")
        assert b"hello" not in received
        assert (await service.ask("/site/")).body == b"hello"


@on_uvloop
async def test_a_client_that_says_nothing_is_let_go() -> None:
    async with Service(timeout=0.4) as service:
        silent, idle, refused = [await service.connect() for _ in range(3)]
        assert (await idle.ask("/site/")).body == b"hello"
        body = "x" * (1 << 18)
        assert (await refused.ask("/site/", method="POST", body=body)).status == 413
        for client in (silent, idle, refused):
            assert await client.closed() == b""


@on_uvloop
async def test_a_client_that_is_idle_for_less_than_its_time_stays() -> None:
    async with Service(timeout=1.0) as service:
        client = await service.connect()
        for _ in range(4):
            assert (await client.ask("/site/")).body == b"hello"
            await asyncio.sleep(0.4)


@on_uvloop
async def test_a_client_has_its_time_for_each_request() -> None:
    async with Service(timeout=1.0) as service:
        client = await service.connect()
        await asyncio.sleep(0.7)
        client.send(FIELDS)
        await asyncio.sleep(0.6)
        client.send("\r\n")
        assert (await client.answer()).body == b"hello"


@on_uvloop
async def test_a_client_does_not_pay_for_a_slow_plugin() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1.0)
        await answer(send, b"at last")

    async with Service(step(slow), timeout=0.2) as service:
        assert (await service.ask("/site/")).body == b"at last"


LARGE = b"x" * (8 << 20)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, LARGE)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    length = (b"content-length", str(len(LARGE)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    for start in range(0, len(LARGE), 1 << 16):
        part = LARGE[start : start + (1 << 16)]
        more = start + len(part) < len(LARGE)
        await send({"type": "http.response.body", "body": part, "more_body": more})


@pytest.mark.parametrize("path", ["/large/", "/stream/"])
@on_uvloop
async def test_a_client_that_takes_nothing_is_cut(path: str) -> None:
    async with Service(
        *apps(large=large, stream=stream), timeout=0.4, send_buffer=1 << 14
    ) as service:
        client = await service.connect(receive_buffer=1 << 14)
        reading: asyncio.ReadTransport = client.writer.transport  # type: ignore[assignment]
        reading.pause_reading()
        client.request(path)
        while service.connections == 0:
            await asyncio.sleep(0.005)
        while service.connections:
            await asyncio.sleep(0.02)
        reading.resume_reading()
        assert len(await client.closed()) < len(LARGE)


@pytest.mark.parametrize("path", ["/large/", "/stream/"])
@on_uvloop
async def test_a_client_that_takes_its_time_gets_everything(path: str) -> None:
    async with Service(
        *apps(large=large, stream=stream), timeout=0.4, send_buffer=1 << 16
    ) as service:
        client = await service.connect(receive_buffer=1 << 16)
        client.request(path)
        await client.reader.readuntil(b"\r\n\r\n")
        started = time.monotonic()
        for _ in range(32):
            assert len(await client.reader.readexactly(len(LARGE) // 32)) == 1 << 18
            await asyncio.sleep(0.04)
        assert time.monotonic() - started > 1.0
        assert (await client.ask("/health")).status == 200


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"{FIELDS}X: {'a' * 70_000}", 431),
        (f"GET /{'a' * 70_000}", 431),
        (FIELDS + "A: a\r\n" * connection.MAX_FIELDS + "\r\n", 431),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET /\xe9 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT smtp.example.com:25 HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        ("EHLO client.example.org\r\n", 400),
    ],
)
@on_uvloop
async def test_what_is_no_request_is_refused(
    text: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with Service() as service:
        client = await service.connect()
        client.send(text.encode("latin-1"))
        # In two parts: what is never finished must not be kept either.
        await asyncio.sleep(0.05)
        client.send(b"b" * 70_000 if status == 431 else b"")
        got = await client.answer()
        assert got.status == status
        assert got.headers["connection"] == "close"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert await client.closed() == b""
    assert caplog.records == []


@on_uvloop
async def test_a_large_request_is_cut_when_it_does_not_end() -> None:
    async with Service(max_body=1000) as service:
        client = await service.connect()
        client.request("/site/", "Content-Length: 1000000000", method="POST")
        assert (await client.answer()).status == 413
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 << 20:
                client.send(bytes(1 << 16))
                await client.writer.drain()
                sent += 1 << 16
        assert connection.SPARE < sent < 100 << 20

        # Trailers, too, are part of it.
        client = await service.connect()
        client.request("/site/", "Transfer-Encoding: chunked", method="POST", body="0\r\nA: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 << 20:
                client.send(b"a" * (1 << 16))
                await client.writer.drain()
                sent += 1 << 16
        assert sent < 100 << 20


@on_uvloop
async def test_a_client_that_is_refused_hears_why_while_it_sends() -> None:
    async with Service(max_body=1000) as service:
        client = await service.connect()
        body = "x" * (1 << 19)
        assert (await client.ask("/site/", method="POST", body=body)).status == 413
        assert (await client.ask("/site/")).body == b"hello"


@on_uvloop
async def test_a_trailer_is_no_header_field() -> None:
    async def fields(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        names = [name.decode() for name, _ in scope["headers"]]
        await answer(send, json.dumps(names).encode())

    async with Service(step(fields)) as service:
        client = await service.connect()
        body = "1\r\na\r\n0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        client.request("/site/", "Transfer-Encoding: chunked", method="POST", body=body)
        assert json.loads((await client.answer()).body) == ["host", "transfer-encoding"]


@on_uvloop
async def test_requests_at_a_time_are_answered_in_order() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        await asyncio.sleep(0.02 if scope["path"] == "/site/1" else 0)
        await answer(send, scope["path"].encode() + body)

    async with Service(step(echo)) as service:
        client = await service.connect()
        for number in range(1, 6):
            client.request(f"/site/{number}", "Content-Length: 2", method="POST", body="xy")
        for number in range(1, 6):
            assert (await client.answer()).body == f"/site/{number}xy".encode()

        client.send(f"{FIELDS}\r\n" * (connection.MAX_WAITING + 10))
        assert (await client.closed()).count(b"200 OK") <= 1


@on_uvloop
async def test_what_is_wrong_after_a_request_does_not_answer_it() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        await answer(send, b"")

    async with Service(step(slow)) as service:
        client = await service.connect()
        client.send(f"{FIELDS}\r\nnonsense\r\n\r\n")
        assert b"400" not in await client.closed()


@on_uvloop
async def test_a_websocket_is_a_request_like_others(caplog: pytest.LogCaptureFixture) -> None:
    async with Service() as service:
        got = await service.ask("/site/", "Connection: Upgrade", "Upgrade: websocket")
        assert (got.status, got.body) == (200, b"hello")
    assert caplog.records == []


@on_uvloop
async def test_older_clients_are_answered() -> None:
    async with Service() as service:
        client = await service.connect()
        client.send("GET /site/ HTTP/1.0\r\n\r\n")
        got = await client.answer()
        assert (got.body, got.headers["connection"]) == (b"hello", "close")
        assert await client.closed() == b""


@on_uvloop
async def test_too_many_clients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.server.MOST_CONNECTIONS", 3)
    async with Service() as service:
        clients = [await service.connect() for _ in range(3)]
        for client in clients:
            assert (await client.ask("/site/")).status == 200
        refused: Answer = await (await service.connect()).answer()
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert (await clients[0].ask("/site/")).status == 200
        clients[1].writer.close()
        await clients[1].writer.wait_closed()

        async def taken() -> bool:
            return (await service.ask("/site/")).status == 200

        while not await taken():
            await asyncio.sleep(0.005)
