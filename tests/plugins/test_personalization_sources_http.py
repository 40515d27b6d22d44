from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.hooks import Message
from plugins.personalization.sources import SourceError
from tests.assembly import until
from tests.certificate import make_certificate
from tests.plugins.personalization_site import copies, message, started, values_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Recommendations:
    """An HTTP server that knows offers for everyone but nobody@….

    Attributes:
        requests: what it was asked, as JSON.
        headers: the header fields of each request.
        answer: answers instead, if it is set.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answer: Handler | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/values?key=geheim"

    def addresses(self) -> list[list[str]]:
        """Who was asked about, in each request."""
        return [[one["address"] for one in request["recipients"]] for request in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(f"{request.method} {request.path_qs}")
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.requests.append(json.loads(await request.read()))
        if self.answer is not None:
            return await self.answer(request)
        return web.json_response({"recipients": self.offers(self.requests[-1]["recipients"])})

    @staticmethod
    def offers(recipients: Sequence[dict[str, str]]) -> dict[str, Any]:
        return {
            one["address"]: {"offers": [f"for {one['address']}"], "campaign": one["campaign"]}
            for one in recipients
            if not one["address"].startswith("nobody@")
        }

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Recommendations]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=tls)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Recommendations]:
    async with Recommendations().running() as one:
        yield one


def source(server: Recommendations, **how: Any) -> dict[str, Any]:
    return {"http": {"url": server.url, "wait": "2ms", **how}}


async def refusal(tmp_path: Path, server: Recommendations, **how: Any) -> SourceError:
    """How a lookup fails."""
    async with started(tmp_path, source(server, **how)) as sources:
        with pytest.raises(SourceError) as refused:
            await values_of(sources, "taro@x.jp")
    assert refused.value.temporary
    return refused.value


async def test_a_recipient_is_asked_about(tmp_path: Path, server: Recommendations) -> None:
    headers = {"Authorization": "Bearer geheim", "User-Agent": "shop"}
    async with started(tmp_path, source(server, headers=headers)) as sources:
        assert await values_of(sources, "Taro@x.jp", id="ID7", campaign="spring") == {
            "offers": ["for Taro@x.jp"],
            "campaign": "spring",
        }
        assert await values_of(sources, "nobody@x.jp") == {}
    asked = {"address": "Taro@x.jp", "message_id": "ID7", "campaign": "spring", "stream": "bulk"}
    assert server.requests[0] == {"recipients": [asked]}
    assert server.paths[0] == "POST /values?key=geheim"
    assert server.headers[0]["authorization"] == "Bearer geheim"
    assert server.headers[0]["user-agent"] == "shop"
    assert server.headers[0]["content-type"] == "application/json"


async def test_messages_at_the_same_time_share_requests(
    tmp_path: Path, server: Recommendations
) -> None:
    async with started(tmp_path, source(server, batch=20, wait="1s")) as sources:
        addresses = [f"customer{number}@x.jp" for number in range(60)]
        answers = await asyncio.gather(*[values_of(sources, one, id=one) for one in addresses])
    assert [answer["offers"] for answer in answers] == [[f"for {one}"] for one in addresses]
    assert [len(asked) for asked in server.addresses()] == [20, 20, 20]


async def test_the_recipients_of_one_message_share_requests(
    tmp_path: Path, server: Recommendations
) -> None:
    async with started(tmp_path, source(server, batch=20, wait="1s")) as sources:
        whole = message(*[f"customer{number}@x.jp" for number in range(60)])
        for part, recipient in copies(whole):
            known = await sources.values(part, recipient)
            assert known["offers"] == [f"for {recipient.address}"]
    assert [len(asked) for asked in server.addresses()] == [20, 20, 20]


async def test_an_address_in_the_answer_may_differ_in_case(
    tmp_path: Path, server: Recommendations
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"recipients": {"TARO@X.jp": {"n": 1}, "else@x.jp": {"n": 2}}})

    server.answer = answer
    async with started(tmp_path, source(server)) as sources:
        assert await values_of(sources, "taro@x.jp") == {"n": 1}
        assert await values_of(sources, "hanako@x.jp") == {}


async def test_answers_are_kept_if_asked_for(tmp_path: Path, server: Recommendations) -> None:
    async with started(tmp_path, source(server, cache="60s")) as sources:
        for id_, campaign in [("ID1", "a"), ("ID2", "a"), ("ID3", "b")]:
            known = await values_of(sources, "taro@x.jp", id=id_, campaign=campaign)
            assert known["campaign"] == campaign
    assert [request["recipients"][0]["message_id"] for request in server.requests] == ["ID1", "ID3"]


def responding(*arguments: Any, **how: Any) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(*arguments, **how)

    return answer


BOMB = gzip.compress(b" " * 10_000_000)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (responding(status=500), "the server answered 500, not 200"),
        (responding(status=404), "the server answered 404, not 200"),
        (responding(status=302, headers={"Location": "/other"}), "the server answered 302"),
        (responding(status=204), "the server answered 204, not 200"),
        (responding(body=b""), "the answer is not JSON"),
        (responding(body=b"<html>"), "the answer is not JSON"),
        (responding(body=b"[" * 90_000), "the answer is not JSON"),
        (responding(body=b'{"recipients": {"taro@x.jp": {"n": NaN}}}'), "the answer is not JSON"),
        (responding(body=b"[]"), "the answer has no recipients; expected"),
        (responding(body=b'{"recipients": []}'), "the answer has no recipients; expected"),
        (responding(body=b'{"recipients": {"taro@x.jp": 1}}'), "values of a recipient cannot be"),
        (responding(body=b'{"recipients": {"taro@x.jp": {"a":"\\ud800"}}}'), "a: half of a"),
        (responding(body=b" " * 200_000), "the answer is larger than 100000 octets"),
        (responding(body=BOMB, headers={"Content-Encoding": "gzip"}), "the answer is not JSON"),
    ],
)
async def test_an_answer_that_cannot_be_used(
    tmp_path: Path,
    server: Recommendations,
    caplog: pytest.LogCaptureFixture,
    answer: Handler,
    reason: str,
) -> None:
    server.answer = answer
    refused = await refusal(tmp_path, server, size="100KB")
    assert refused.text.startswith("The recipient's data cannot be")
    assert reason in caplog.text
    assert "geheim" not in caplog.text
    assert len(server.requests) == 1
    async with started(tmp_path, source(server, size="100KB", fallback={"offers": []})) as sources:
        assert await values_of(sources, "taro@x.jp") == {"offers": []}


async def test_one_bad_recipient_does_not_spoil_the_others(
    tmp_path: Path, server: Recommendations
) -> None:
    server.answer = responding(body=b'{"recipients": {"bad@x.jp": {"n": {"a":[]}, "\\ud800": 1}, '
                               b'"taro@x.jp": {"n": 1}}}')  # fmt: skip
    async with started(tmp_path, source(server)) as sources:
        answers: list[Any] = await asyncio.gather(
            *[values_of(sources, one, id=one) for one in ("taro@x.jp", "bad@x.jp")],
            return_exceptions=True,
        )
    assert answers[0] == {"n": 1}
    assert isinstance(answers[1], SourceError)
    assert server.addresses() == [["taro@x.jp", "bad@x.jp"]]


async def test_the_values_to_fall_back_on_are_those_of_strangers_too(
    tmp_path: Path, server: Recommendations
) -> None:
    async with started(tmp_path, source(server, fallback={"offers": ["all"]})) as sources:
        assert await values_of(sources, "nobody@x.jp") == {"offers": ["all"]}
        assert (await values_of(sources, "taro@x.jp"))["offers"] == ["for taro@x.jp"]


async def test_a_late_answer_is_none(
    tmp_path: Path, server: Recommendations, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    server.answer = answer
    await refusal(tmp_path, server, timeout="50ms")
    assert "no answer within 0.05 s" in caplog.text
    assert len(server.requests) == 1, "it is not asked again"


async def test_an_answer_that_never_ends_is_none(
    tmp_path: Path, server: Recommendations, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    server.answer = answer
    await refusal(tmp_path, server, timeout="50ms")
    assert "no answer within 0.05 s" in caplog.text


async def test_a_broken_connection_is_tried_again(tmp_path: Path, server: Recommendations) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if len(server.requests) % 3:
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"recipients": {"taro@x.jp": {"n": len(server.requests)}}})

    server.answer = answer
    async with started(tmp_path, source(server, retries=2)) as sources:
        assert await values_of(sources, "taro@x.jp") == {"n": 3}
    await refusal(tmp_path, server, retries=1)
    assert len(server.requests) == 5


async def test_nobody_listens_and_then_somebody_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Recommendations()
    async with server.running():
        pass
    async with started(tmp_path, source(server)) as sources:
        with pytest.raises(SourceError):
            await values_of(sources, "taro@x.jp")
        assert "Cannot connect to host 127.0.0.1" in caplog.text
        async with server.running():
            assert await values_of(sources, "taro@x.jp")
        with pytest.raises(SourceError):
            await values_of(sources, "taro@x.jp")
        async with server.running():
            assert await values_of(sources, "taro@x.jp"), "a connection that was kept is renewed"


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with Recommendations().running(tls) as server:
        with pytest.raises(SourceError):
            async with started(
                tmp_path, {"http": {"url": server.url.replace("http:", "https:")}}
            ) as sources:
                await values_of(sources, "taro@x.jp")
        assert server.requests == []
    assert "certificate verify failed" in caplog.text.lower()


async def test_requests_at_a_time_are_bounded(tmp_path: Path, server: Recommendations) -> None:
    go_on = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await go_on.wait()
        return web.json_response({"recipients": {}})

    server.answer = answer
    async with started(tmp_path, source(server, batch=1, connections=3)) as sources:
        asking = [
            asyncio.create_task(values_of(sources, f"customer{n}@x.jp", id=f"ID{n}"))
            for n in range(10)
        ]
        await until(lambda: len(server.requests) == 3, "three requests")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert len(server.requests) == 3
        go_on.set()
        await asyncio.gather(*asking)
    assert len(server.requests) == 10


async def test_proxies_of_the_environment_are_not_asked(
    tmp_path: Path, server: Recommendations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with started(tmp_path, source(server)) as sources:
        assert await values_of(sources, "taro@x.jp")


async def test_hostile_keys_are_values_like_any(tmp_path: Path, server: Recommendations) -> None:
    keys = ["__class__", "{{ 7*7 }}", "'; DROP TABLE x; --", "", "a\r\nBcc: x@y.jp", "\0"]

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"recipients": {"taro@x.jp": dict.fromkeys(keys, keys)}})

    server.answer = answer
    whole: Message = message("taro@x.jp")
    async with started(tmp_path, source(server)) as sources:
        assert await sources.values(whole, whole.recipients[0]) == dict.fromkeys(keys, keys)
