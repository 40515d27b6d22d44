"""Plugins that fail do so alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.hooks.lifecycle import PluginStartError
from gateway.hooks.step import Step
from gateway.hooks.watchdog import Watchdog
from gateway.web.application import load_applications
from gateway.web.asgi import ASGIApplication, Receive, Scope, Send
from tests.web.service import Service, answer, hello, on_uvloop, step


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("boom")


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(3)


async def times_out(scope: Scope, receive: Receive, send: Send) -> None:
    raise TimeoutError("no database")


async def awaits_a_cancelled_task(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.create_task(asyncio.sleep(1000))
    task.cancel()
    await task


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def stops_early(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def raises_late(scope: Scope, receive: Receive, send: Send) -> None:
    await stops_early(scope, receive, send)
    raise ValueError("boom")


async def lies(scope: Scope, receive: Receive, send: Send) -> None:
    length = (b"content-length", b"2")
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": b"123"})


async def splits(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"", (b"location", b"/\r\nset-cookie: x=1"), status=302)


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(1000)


async def clings(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        raise RuntimeError("no way")


async def spins(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        pass


async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
    time.sleep(1000)


@pytest.mark.parametrize(
    ("app", "status", "said"),
    [
        (raises, 500, "raised ValueError: boom"),
        (exits, 500, "raised SystemExit: 3"),
        (times_out, 500, "raised TimeoutError: no database"),
        (awaits_a_cancelled_task, 500, "raised CancelledError"),
        (says_nothing, 500, "gave no answer"),
        (hangs, 503, "ran longer than 0.3 s"),
        (clings, 503, "ran longer than 0.3 s"),
        (spins, 503, "ran longer than 0.3 s"),
        (blocks, 503, "ran longer than 0.3 s"),
    ],
)
@on_uvloop
async def test_a_plugin_that_fails_is_told_from_others(
    app: ASGIApplication, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = step(app, "bad", 0.3), step(hello, "good")
    async with Service(bad, good, watched=app in (spins, blocks)) as service:
        client = await service.connect()
        got = await client.ask("/bad/")
        assert got.status == status
        assert got.body == {500: b"Internal Server Error\n", 503: b"Service Unavailable\n"}[status]
        assert got.headers["x-content-type-options"] == "nosniff"
        # The connection goes on, and so do all others.
        assert (await client.ask("/good/")).body == b"hello"
        assert (await service.ask("/good/")).body == b"hello"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(f"plugin bad failed in http: {said}")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (stops_early, "ended before its answer did"),
        (raises_late, "raised ValueError: boom"),
        (lies, "raised RuntimeError: Response content longer than Content-Length"),
        (splits, "raised RuntimeError: Invalid HTTP header value."),
    ],
)
@on_uvloop
async def test_an_answer_that_has_begun_is_cut_short(
    app: ASGIApplication, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Service(step(app, "bad", 0.3), step(hello, "good")) as service:
        client = await service.connect()
        client.request("/bad/")
        assert b"cookie" not in await client.closed()
        assert (await service.ask("/good/")).body == b"hello"
    (record,) = caplog.records
    assert record.getMessage().startswith(f"plugin bad failed in http: {said}")


@on_uvloop
async def test_a_client_that_goes_away_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    asked = asyncio.Event()
    seen: list[str] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        asked.set()
        seen.append((await receive())["type"])

    async with Service(step(waits)) as service:
        client = await service.connect()
        client.request("/site/")
        await asked.wait()
        client.writer.transport.abort()
        while not seen:
            await asyncio.sleep(0.005)
    assert seen == ["http.disconnect"]
    assert caplog.records == []


@on_uvloop
async def test_what_is_done_after_the_answer_has_the_same_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def works_on(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"done")
        await asyncio.sleep(1000)

    async with Service(step(works_on, timeout=0.2)) as service:
        client = await service.connect()
        assert (await client.ask("/site/")).body == b"done"
        while not caplog.records:
            await asyncio.sleep(0.005)
        assert (await client.ask("/health")).status == 200
    assert "plugin site failed in http: ran longer than 0.2 s" in caplog.text


@on_uvloop
async def test_other_requests_are_answered_while_one_waits() -> None:
    async with Service(step(hangs, "bad"), step(hello, "good")) as service:
        waiting = [await service.connect() for _ in range(10)]
        for client in waiting:
            client.request("/bad/")
        assert (await service.ask("/good/")).body == b"hello"


def test_what_a_step_did_is_counted() -> None:
    counted = step(raises)

    async def ask() -> None:
        async with Service(counted) as service:
            for _ in range(3):
                await service.ask("/site/")

    on_uvloop(ask)()
    assert (counted.calls, counted.faults) == (3, 3)
    assert counted.seconds > 0


# The hook.


def _failing(error: BaseException) -> Step:
    def hook() -> object:
        raise error

    return Step("site", "http", hook, False, (object,), None, 10.0, "tempfail", False)


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (_failing(ValueError("no pages")), "http raised ValueError: no pages"),
        (step(None), "http answered NoneType, and has to answer an ASGI application"),
        (step(lambda environ, start: []), "http answered function, and has to answer an ASGI"),
        (step(hello, "health"), "plugin health cannot be served: /health is the health check"),
    ],
)
def test_a_hook_that_fails_stops_the_start(hook: Step, said: str) -> None:
    with pytest.raises(PluginStartError, match=said):
        load_applications([hook], Watchdog())


def test_a_hook_that_hangs_stops_the_start() -> None:
    def hook() -> object:
        while True:
            pass

    watchdog = Watchdog()
    watchdog.start()
    try:
        hanging = Step("site", "http", hook, False, (object,), None, 0.2, "skip", False)
        with pytest.raises(
            PluginStartError, match=r"site cannot start: http ran longer than 0\.2 s"
        ):
            load_applications([hanging], watchdog)
    finally:
        watchdog.stop()


def test_two_plugins_under_one_path_stop_the_start() -> None:
    with pytest.raises(PluginStartError, match="cannot both be served under /site-2/"):
        load_applications([step(hello, "site#2"), step(hello, "site-2")], Watchdog())
