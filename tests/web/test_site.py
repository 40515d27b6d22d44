"""Which plugin answers, and with what."""

from __future__ import annotations

import json
from http import HTTPStatus
from ipaddress import ip_network

import pytest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.web.asgi import Receive, Scope, Send
from gateway.web.health import Health
from tests.web.service import Answer, Service, answer, apps, on_uvloop

SECURITY = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells what it was given."""
    message = await receive()
    told = {
        "method": scope["method"],
        "root_path": scope["root_path"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "body": message["body"].decode(),
        "more_body": message["more_body"],
    }
    await answer(send, json.dumps(told).encode())


def told(got: Answer) -> dict[str, object]:
    assert got.status == 200
    told: dict[str, object] = json.loads(got.body)
    return told


@on_uvloop
async def test_a_request_reaches_its_plugin() -> None:
    async with Service(*apps(echo=echo, other=echo)) as service:
        assert told(await service.ask("/echo/a%20b/c?x=%31&y", body="hello", method="POST")) == {
            "method": "POST",
            "root_path": "/echo",
            "path": "/echo/a b/c",
            "raw_path": "/echo/a%20b/c",
            "query": "x=%31&y",
            "client": "127.0.0.1",
            "scheme": "http",
            "body": "hello",
            "more_body": False,
        }
        assert told(await service.ask("/other/"))["root_path"] == "/other"
        assert told(await service.ask("/other//"))["path"] == "/other//"
        assert told(await service.ask("http://t.example.com/other/x"))["path"] == "/other/x"


@on_uvloop
async def test_starlette_finds_its_routes_and_urls() -> None:
    def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.url_for("page", number=7)))

    app = Starlette(routes=[Route("/page/{number:int}", page, name="page")])
    async with Service(*apps(site=app)) as service:
        got = await service.ask("/site/page/1", "X-Forwarded-Proto: https")
        assert (got.status, got.body) == (200, b"https://t.example.com/site/page/7")
        assert (await service.ask("/site/none")).status == 404
        assert SECURITY.items() <= (await service.ask("/site/none")).headers.items()


@pytest.mark.parametrize("path", ["/", "/none", "/none/", "/echo2/", "/health/", "//echo/", "*"])
@on_uvloop
async def test_what_nobody_serves_is_not_found(path: str) -> None:
    async with Service(*apps(echo=echo)) as service:
        for method in ("GET", "POST", "OPTIONS"):
            got = await service.ask(path, method=method)
            assert (got.status, got.body) == (404, b"Not Found\n")
            assert got.headers["content-type"] == "text/plain; charset=utf-8"
            assert SECURITY.items() <= got.headers.items()


@on_uvloop
async def test_a_plugin_without_the_slash_is_behind_it() -> None:
    async with Service(*apps(echo=echo)) as service:
        got = await service.ask("/echo?x=1")
        # Relative: a proxy may serve it elsewhere.
        assert (got.status, got.headers["location"]) == (307, "echo/?x=1")
        assert (await service.ask("/echo")).headers["location"] == "echo/"


@on_uvloop
async def test_health() -> None:
    async with Service() as service:
        got = await service.ask("/health")
        assert (got.status, json.loads(got.body)) == (200, {"status": "ok"})
        assert got.headers["content-type"] == "application/json"
        assert got.headers["cache-control"] == "no-store"
        assert SECURITY.items() <= got.headers.items()
        head = await service.ask("/health", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(got.body))
        options = await service.ask("/health", method="OPTIONS")
        assert (options.status, options.headers["allow"]) == (200, "GET, HEAD, OPTIONS")
        post = await service.ask("/health", method="POST")
        assert (post.status, post.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        service.health = Health({"spool": "no room"})
        got = await service.ask("/health")
        assert (got.status, json.loads(got.body)["status"]) == (503, "failing")


@on_uvloop
async def test_metrics() -> None:
    async with Service() as service:
        got = await service.ask("/metrics")
        assert (got.status, got.body) == (200, b"gateway_up 1\n")
        assert got.headers["content-type"] == CONTENT_TYPE_PLAIN_0_0_4
        assert got.headers["cache-control"] == "no-store"
        assert SECURITY.items() <= got.headers.items()
        head = await service.ask("/metrics", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        options = await service.ask("/metrics", method="OPTIONS")
        assert (options.status, options.headers["allow"]) == (200, "GET, HEAD, OPTIONS")
        assert (await service.ask("/metrics", method="POST")).status == 405
        assert (await service.ask("/metrics/")).status == 404


@on_uvloop
async def test_metrics_that_cannot_be_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Service() as service:
        service.text = RuntimeError("secret")
        got = await service.ask("/metrics")
        assert (got.status, got.body) == (500, b"Internal Server Error\n")
    assert "the metrics cannot be told" in caplog.text


@on_uvloop
async def test_metrics_are_not_for_everybody() -> None:
    async with Service(metrics=()) as service:
        for method in ("GET", "HEAD", "POST"):
            assert (await service.ask("/metrics", method=method)).status == 403
        assert (await service.ask("/health")).status == 200
    async with Service() as service:
        # A client behind a trusted proxy is who the proxy says it is.
        for address, status in (("192.0.2.1", 403), ("127.0.0.1, 192.0.2.1", 403), ("::1", 200)):
            got = await service.ask("/metrics", f"X-Forwarded-For: {address}")
            assert got.status == status, address
        assert (await service.ask("/metrics")).status == 200
    async with Service(metrics=(ip_network("192.0.2.0/24"),)) as service:
        got = await service.ask("/metrics", "X-Forwarded-For: 192.0.2.1")
        assert got.status == 200
        assert (await service.ask("/metrics")).status == 403
    # Who is no proxy can claim nothing.
    async with Service(metrics=(ip_network("192.0.2.0/24"),), proxies=()) as service:
        assert (await service.ask("/metrics", "X-Forwarded-For: 192.0.2.1")).status == 403


@on_uvloop
async def test_what_a_plugin_says_itself_stands() -> None:
    async def own(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"", (b"Referrer-Policy", b"origin"), (b"x-own", b"1"))

    async with Service(*apps(own=own)) as service:
        headers = (await service.ask("/own/")).headers
        assert (headers["referrer-policy"], headers["x-own"]) == ("origin", "1")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["date"].endswith(" GMT")
        assert "server" not in headers


@on_uvloop
async def test_the_client_behind_a_proxy() -> None:
    fields = ("X-Forwarded-For: 192.0.2.1, 198.51.100.7", "X-Forwarded-Proto: https")
    async with Service(*apps(echo=echo)) as service:
        got = told(await service.ask("/echo/", *fields))
        assert (got["client"], got["scheme"]) == ("198.51.100.7", "https")
        got = told(await service.ask("/echo/", "X-Forwarded-Proto: gopher"))
        assert (got["client"], got["scheme"]) == ("127.0.0.1", "http")
    async with Service(*apps(echo=echo), proxies=()) as service:
        got = told(await service.ask("/echo/", *fields))
        assert (got["client"], got["scheme"]) == ("127.0.0.1", "http")


@on_uvloop
async def test_a_body_is_given_whole_and_no_larger_than_allowed() -> None:
    def chunks(*parts: str) -> str:
        return "".join(f"{len(part):x}\r\n{part}\r\n" for part in (*parts, ""))

    async with Service(*apps(echo=echo), max_body=10) as service:
        assert told(await service.ask("/echo/", method="POST", body="0123456789"))["body"]
        got = await service.ask("/echo/", method="POST", body="0123456789A")
        assert (got.status, got.body) == (413, f"{HTTPStatus(413).phrase}\n".encode())
        assert SECURITY.items() <= got.headers.items()

        # Nobody knows how long it is, and the connection goes on after it.
        client = await service.connect()
        chunked = "Transfer-Encoding: chunked"
        for parts, status in ((("01234", "56789"), 200), (("01234", "56789A"), 413), (("0",), 200)):
            client.request("/echo/", chunked, method="POST", body=chunks(*parts))
            got = await client.answer()
            assert got.status == status
            if status == 200:
                assert (told(got)["body"], told(got)["more_body"]) == ("".join(parts), False)

        # It is refused before it was sent.
        client = await service.connect()
        client.request("/echo/", "Content-Length: 11", "Expect: 100-continue", method="POST")
        assert (await client.answer()).status == 413


@on_uvloop
async def test_a_client_that_goes_away_within_its_body_reaches_no_plugin() -> None:
    calls = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await answer(send, b"")

    async with Service(*apps(site=app)) as service:
        client = await service.connect()
        client.request("/site/gone", "Content-Length: 10", method="POST", body="half")
        client.writer.write_eof()
        assert await client.closed() == b""
        assert (await service.ask("/site/here", method="POST", body="whole")).status == 200
    assert calls == ["/site/here"]
