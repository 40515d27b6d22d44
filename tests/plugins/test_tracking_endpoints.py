from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from plugins.tracking import recording
from plugins.tracking.bursts import MOST_REQUESTS
from plugins.tracking.endpoints import with_parameter
from plugins.tracking.request import Message
from plugins.tracking.token import Kind
from tests.assembly import until
from tests.plugins.test_tracking_pages import Page
from tests.plugins.test_tracking_robots import GMAIL
from tests.plugins.tracking_web import BROWSER, NOW, TARGET, Response, Web, call, form

SECRET = "a-long-secret-of-the-shop"
BEARER = ("authorization", f"Bearer {SECRET}")
JSON = ("content-type", "application/json")


@pytest.fixture
def web(tmp_path: Path) -> Web:
    return Web(tmp_path)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Web]:
    """Endpoints that take conversions in every way."""
    web = Web(
        tmp_path,
        {
            "conversions": {"pixel": True, "secret": SECRET},
            "click_parameter": "mail",
            "click_cookie": "mail_click",
        },
    )
    yield web
    await web.endpoints.close()


def check_image(response: Response) -> None:
    assert response.status == 200
    assert response.headers["content-type"] == "image/gif"
    assert response.headers["cache-control"] == "no-store"
    # One pixel, whose colour is the transparent one.
    assert response.body[:10] == b"GIF89a\x01\x00\x01\x00"
    assert b"!\xf9\x04\x01" in response.body
    assert response.body.endswith(b";")


# Clicks.


async def test_a_click_is_recorded_and_leads_to_the_page(web: Web) -> None:
    response = await web.get(f"/c/{web.token(Kind.CLICK, link='sale')}")

    assert (response.status, response.headers["location"]) == (302, TARGET)
    assert response.headers["cache-control"] == "no-store"
    assert response.body == b""
    assert "set-cookie" not in response.headers
    event = web.outbox.one
    assert (event.type, event.time, event.message_id) == ("clicked", NOW, "06N2CKTD00001")
    assert (event.recipient, event.sender) == ("taro@example.jp", "bounce@shop.example.com")
    assert (event.stream, event.client, event.user, event.reason) == ("bulk", "", "", "")
    assert event.notes == {"campaign": "spring", "variant": "b", "url": TARGET, "link": "sale"}


async def test_what_mail_programs_add_to_a_link_does_no_harm(web: Web) -> None:
    response = await web.get(f"/c/{web.token(Kind.CLICK)}?fbclid=%ff{'x' * 20_000}")
    assert (response.status, response.headers["location"]) == (302, TARGET)


async def test_the_head_of_a_click_is_the_same_and_is_no_persons(web: Web) -> None:
    response = await web.head(f"/c/{web.token(Kind.CLICK)}")
    assert (response.status, response.headers["location"]) == (302, TARGET)
    assert web.outbox.one.notes["robot"] == "head"


@pytest.mark.parametrize(
    ("agent", "headers", "robot"),
    [
        ("curl/8.5.0", [], "bot"),
        (None, [], "no-agent"),
        (BROWSER, [("sec-purpose", "prefetch;prerender")], "prefetch"),
        ("Barracuda Sentinel (EE)", [], "scanner"),
    ],
)
async def test_a_robots_click_works_and_is_marked(
    web: Web, agent: str | None, headers: list[tuple[str, str]], robot: str
) -> None:
    response = await web.get(f"/c/{web.token(Kind.CLICK)}", agent=agent, headers=headers)
    assert response.status == 302
    assert web.outbox.one.notes["robot"] == robot


def tampered(text: str) -> list[str]:
    middle = len(text) // 2
    other = "A" if text[middle] != "A" else "B"
    return [
        text[:middle] + other + text[middle + 1 :],
        *(text[:-1], text[1:], text + "A", text + "=", f"{text}/", f" {text}", text.swapcase()),
        *("", "x", "/", "..", "%00", "\0", "日本", "A" * 100_000, "<script>alert(1)</script>"),
    ]


async def test_a_link_that_was_not_made_here_leads_nowhere(web: Web, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    foreign = Web(other).token(Kind.CLICK)
    wrong = [web.token(Kind.OPEN), web.token(Kind.UNSUBSCRIBE), web.token(Kind.CONVERSION)]
    for text in [*tampered(web.token(Kind.CLICK)), *wrong, foreign]:
        response = await web.get(f"/c/{text}")
        assert response.status == 404, text[:100]
        assert "location" not in response.headers
        page = Page(response.body)
        assert "This link does not work" in page.text
        assert "このリンクは使えません" in page.text
        assert "default-src 'none'" in response.headers["content-security-policy"]
    assert web.outbox.events == []


@pytest.mark.parametrize("path", ["", "/", "/c", "/c/", "/x/y", "/v", "/o", "//", "/C/x", "/cc/x"])
async def test_other_paths_are_not_there(web: Web, path: str) -> None:
    assert (await web.get(path)).status == 404


@pytest.mark.parametrize(("start", "kind"), [("/c/", Kind.CLICK), ("/o/", Kind.OPEN)])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_other_methods_do_nothing(web: Web, start: str, kind: Kind, method: str) -> None:
    response = await call(web.endpoints, method, start + web.token(kind))
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
    assert web.outbox.events == []


# Opens.


async def test_an_open_is_recorded_and_shows_nothing(web: Web) -> None:
    check_image(await web.get(f"/o/{web.token(Kind.OPEN)}"))
    event = web.outbox.one
    assert (event.type, event.recipient) == ("opened", "taro@example.jp")
    assert event.notes == {"campaign": "spring", "variant": "b"}


async def test_an_open_through_gmail_is_a_persons_and_one_through_apple_is_not(web: Web) -> None:
    token = web.token(Kind.OPEN)
    check_image(await web.get(f"/o/{token}", agent=GMAIL))
    check_image(await web.get(f"/o/{token}", agent="Mozilla/5.0"))
    gmail, apple = web.outbox.events
    assert "robot" not in gmail.notes
    assert gmail.notes["proxy"] == "google"
    assert apple.notes["robot"] == "proxy-apple"


async def test_a_link_that_an_image_proxy_follows_is_a_robots_and_has_no_such_note(
    web: Web,
) -> None:
    await web.get(f"/c/{web.token(Kind.CLICK)}", agent=GMAIL)
    notes = web.outbox.one.notes
    assert notes["robot"] == "proxy-google"
    assert "proxy" not in notes


async def test_an_image_that_was_not_made_here_is_not_there(web: Web) -> None:
    for text in [*tampered(web.token(Kind.OPEN)), web.token(Kind.CLICK)]:
        response = await web.get(f"/o/{text}")
        assert response.status == 404
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert web.outbox.events == []


# What is kept of a request.


async def test_address_and_user_agent_are_kept_only_where_that_is_wanted(tmp_path: Path) -> None:
    agent = BROWSER + "\x1b[2J\r\n\x00<script>" + "x" * 1000
    for number, (address, user_agent) in enumerate(
        [(False, False), (True, False), (False, True), (True, True)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        web = Web(folder, {"store_address": address, "store_user_agent": user_agent})
        await web.get(f"/c/{web.token(Kind.CLICK)}", agent=agent)
        notes = web.outbox.one.notes
        assert notes.get("ip") == ("192.0.2.7" if address else None)
        kept = notes.get("user_agent")
        assert (kept is not None) is user_agent
        if kept is not None:
            assert kept.startswith(BROWSER + "[2J<script>xxx")
            assert len(kept) <= 300
            assert kept.isprintable()


# Bursts.


async def test_the_first_clicks_of_a_burst_are_marked_when_it_is_seen(web: Web) -> None:
    await web.get(f"/o/{web.token(Kind.OPEN)}")
    links = [web.token(Kind.CLICK, url=f"https://www.example.com/{name}") for name in "ab"]
    for text in [*links, links[0]]:
        assert (await web.get(f"/c/{text}")).status == 302

    image, first, *rest = web.outbox.events
    assert ("robot" in image.notes, "robot" in first.notes) == (False, False)
    # The same events again, so that who counts takes them for these and not for more.
    again, second, third = rest[1], rest[2], rest[3]
    assert (rest[0].type, rest[0].notes["robot"]) == ("opened", "burst")
    assert (again.type, again.time, again.message_id) == (first.type, first.time, first.message_id)
    assert again.notes == {**first.notes, "robot": "burst"}
    assert second.notes["robot"] == third.notes["robot"] == "burst"
    assert len(rest) == 4


async def test_following_the_link_to_unsubscribe_is_part_of_a_burst(web: Web) -> None:
    await web.get(f"/c/{web.token(Kind.CLICK)}")
    await web.get(f"/u/{web.token(Kind.UNSUBSCRIBE)}")
    first, again = web.outbox.events
    assert again.notes == {**first.notes, "robot": "burst"}


async def test_robots_that_are_known_do_not_make_a_person_one(web: Web) -> None:
    for name in "abcdef":
        url = f"https://www.example.com/{name}"
        await web.head(f"/c/{web.token(Kind.CLICK, url=url)}")
        await web.get(f"/c/{web.token(Kind.CLICK, url=url)}", agent="Slackbot 1.0")
    await web.get(f"/c/{web.token(Kind.CLICK)}")
    assert "robot" not in web.outbox.events[-1].notes


async def test_robots_that_are_known_keep_their_word_in_a_burst(web: Web) -> None:
    for name in "ab":
        await web.get(f"/c/{web.token(Kind.CLICK, url=f'https://www.example.com/{name}')}")
    await web.get(f"/c/{web.token(Kind.CLICK)}", agent="Barracuda Sentinel (EE)")
    words = [event.notes.get("robot") for event in web.outbox.events]
    assert words == [None, "burst", "burst", "scanner"]


async def test_a_flood_is_answered_and_not_recorded(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    text = web.token(Kind.CLICK)
    for _ in range(MOST_REQUESTS + 20):
        assert (await web.get(f"/c/{text}")).status == 302
    assert len(web.outbox.events) == MOST_REQUESTS
    (record,) = caplog.records
    assert record.getMessage() == (
        "06N2CKTD00001 is asked for more than 100 times within 10 s; the rest is not recorded"
    )


# A disk that does not work.


async def test_a_click_waits_for_the_disk_but_not_for_long(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.outbox.stuck = True
    task = asyncio.create_task(web.get(f"/c/{web.token(Kind.CLICK)}"))
    done, _ = await asyncio.wait((task,), timeout=0.05)
    assert not done
    web.outbox.release()
    assert (await task).status == 302

    web.outbox.stuck = True
    monkeypatch.setattr(recording, "LONGEST_WAIT", 0.01)
    response = await web.get(f"/c/{web.token(Kind.CLICK)}")
    assert (response.status, response.headers["location"]) == (302, TARGET)
    # What was not waited for is not given up.
    web.outbox.release()
    assert len(web.outbox.events) == 2


@pytest.mark.parametrize("path", ["/c/", "/o/"])
async def test_what_cannot_be_recorded_works_for_people_and_is_logged_once(
    web: Web, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    web.outbox.failure = OSError("disk full")
    kind = Kind.CLICK if path == "/c/" else Kind.OPEN
    for _ in range(5):
        assert (await web.get(path + web.token(kind))).status in (200, 302)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == ("events that could not be recorded: 1; OSError('disk full')")


async def test_no_more_events_wait_than_there_is_room_for(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "MOST_PENDING", 3)
    monkeypatch.setattr(recording, "LONGEST_WAIT", 0.001)
    web.outbox.stuck = True
    for number in range(6):
        text = web.token(Kind.CLICK, recipient=f"{number}@example.jp")
        assert (await web.get(f"/c/{text}")).status == 302
    assert len(web.outbox.events) == 3
    assert "3 events wait for the disk" in caplog.text
    web.outbox.release()
    await asyncio.sleep(0)
    await web.get(f"/c/{web.token(Kind.CLICK)}")
    assert len(web.outbox.events) == 4


# Conversions: the mark of a click.


@pytest.mark.parametrize(
    ("url", "marked"),
    [
        ("https://a.example", "https://a.example?m=1"),
        ("https://a.example/", "https://a.example/?m=1"),
        ("https://a.example/?", "https://a.example/?m=1"),
        ("https://a.example/?b=2", "https://a.example/?b=2&m=1"),
        ("https://a.example/?b=2&", "https://a.example/?b=2&m=1"),
        ("https://a.example/#x?y", "https://a.example/?m=1#x?y"),
        ("https://a.example/?b#", "https://a.example/?b&m=1#"),
    ],
)
def test_a_parameter_more(url: str, marked: str) -> None:
    assert with_parameter(url, "m", "1") == marked


async def test_a_click_gives_the_shop_a_mark(shop: Web) -> None:
    response = await shop.get(f"/c/{shop.token(Kind.CLICK)}")
    location = response.headers["location"]
    start, _, mark = location.partition("&mail=")
    assert start == "https://www.example.com/sale?item=1"
    assert mark.endswith("#top")
    name, _, rest = response.headers["set-cookie"].partition("=")
    value, *attributes = rest.split("; ")
    assert name == "mail_click"
    assert attributes == ["Max-Age=2592000", "Path=/", "HttpOnly", "SameSite=Lax", "Secure"]
    for text in (mark.removesuffix("#top"), value):
        token = shop.keyring.open(text, Kind.CONVERSION)
        assert token is not None
        assert (token.message_id, token.recipient) == ("06N2CKTD00001", "taro@example.jp")
        assert (token.campaign, token.variant, token.url) == ("spring", "b", "")
    # With the mark nobody can click or unsubscribe.
    assert (await shop.get(f"/c/{value}")).status == 404
    assert (await shop.get(f"/u/{value}")).status == 404


async def test_without_tls_the_cookie_is_sent_without_too(tmp_path: Path) -> None:
    web = Web(tmp_path, {"click_cookie": "m"}, base_urls=("http://127.0.0.1:8025/tracking",))
    response = await web.get(f"/c/{web.token(Kind.CLICK)}")
    assert "Secure" not in response.headers["set-cookie"]
    assert response.headers["location"] == TARGET


# Conversions: the pixel.


async def test_the_pixel_records_an_order_once(shop: Web) -> None:
    text = shop.token(Kind.CONVERSION)
    for _ in range(3):
        check_image(await shop.get(f"/v?t={text}&value=1200&currency=jpy&order=A-1"))
    assert (await shop.head(f"/v?t={text}&value=1200&currency=jpy&order=A-2")).status == 200
    event = shop.outbox.one
    assert (event.type, event.message_id, event.recipient) == (
        *("converted", "06N2CKTD00001", "taro@example.jp"),
    )
    assert event.notes == {
        "campaign": "spring",
        "variant": "b",
        "source": "pixel",
        "value": "1200",
        "currency": "JPY",
        "order": "A-1",
    }


async def test_the_pixel_finds_the_cookie(shop: Web) -> None:
    cookie = ("cookie", f"other=1; mail_click={shop.token(Kind.CONVERSION)}")
    check_image(await shop.get("/v?order=A-1", headers=[cookie]))
    assert shop.outbox.one.notes["order"] == "A-1"


@pytest.mark.parametrize("headers", [[], [("cookie", "mail_click=nonsense")], [("cookie", "a")]])
async def test_who_comes_from_elsewhere_makes_no_conversion(
    shop: Web, headers: list[tuple[str, str]]
) -> None:
    check_image(await shop.get("/v?value=1&currency=JPY&order=A-1", headers=headers))
    assert shop.outbox.events == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("t={t}&value=x&currency=JPY", 400),
        ("t={t}&value=1", 400),
        ("t={t}&order=" + "x" * 129, 400),
        ("t={t}&order=a%0Ab", 400),
        ("t={t}&order=%ff", 400),
        ("t={t}&" + "x" * 9000, 414),
        ("t={t}x", 404),
        ("t={c}", 404),
        ("t=x&t={t}", 404),
    ],
)
async def test_a_pixel_that_is_not_valid_records_nothing(
    shop: Web, query: str, status: int
) -> None:
    tokens = {"t": shop.token(Kind.CONVERSION), "c": shop.token(Kind.CLICK)}
    assert (await shop.get(f"/v?{query.format(**tokens)}")).status == status
    assert shop.outbox.events == []


async def test_a_robots_pixel_is_marked(shop: Web) -> None:
    check_image(await shop.get(f"/v?t={shop.token(Kind.CONVERSION)}", agent="curl/8.5.0"))
    assert shop.outbox.one.notes["robot"] == "bot"


async def test_a_pixel_that_cannot_be_saved_says_so(shop: Web) -> None:
    shop.outbox.failure = OSError("disk full")
    target = f"/v?t={shop.token(Kind.CONVERSION)}&order=A-1"
    assert (await shop.get(target)).status == 503
    shop.outbox.failure = None
    check_image(await shop.get(target))
    assert len(shop.outbox.events) == 1


# Conversions: the shop's server.


async def test_the_server_reports_an_order_once(shop: Web) -> None:
    data = {"t": shop.token(Kind.CONVERSION), "value": 12.5, "currency": "EUR", "order": "B-1"}
    for outcome in ("recorded", "known"):
        response = await shop.post("/v", json.dumps(data).encode(), headers=[BEARER, JSON])
        assert response.status == 200
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.body) == {"conversion": outcome}
    assert shop.outbox.one.notes == {
        "campaign": "spring",
        "variant": "b",
        "source": "server",
        "value": "12.5",
        "currency": "EUR",
        "order": "B-1",
    }


async def test_the_server_may_send_a_form_and_is_no_robot(shop: Web) -> None:
    body = form({"t": shop.token(Kind.CONVERSION), "order": "注文 1"})
    response = await shop.post("/v", body, headers=[("authorization", f"bearer  {SECRET}")])
    assert response.status == 200
    assert shop.outbox.one.notes["order"] == "注文 1"
    response = await shop.post("/v", body, headers=[BEARER], agent="python-requests/2.32.3")
    assert json.loads(response.body) == {"conversion": "known"}


async def test_the_pixel_and_the_server_do_not_count_one_order_twice(shop: Web) -> None:
    text = shop.token(Kind.CONVERSION)
    await shop.get(f"/v?t={text}&order=A-1")
    response = await shop.post("/v", form({"t": text, "order": "A-1"}), headers=[BEARER])
    assert json.loads(response.body) == {"conversion": "known"}
    assert len(shop.outbox.events) == 1


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "Bearer", "Bearer ", SECRET, f"Basic {SECRET}", f"Bearer {SECRET}x"),
        *(f"Bearer {SECRET[:-1]}", f"Bearer x{SECRET}", b"Bearer \xff\xfe\x00"),
    ],
)
async def test_without_the_secret_nobody_gets_in(shop: Web, value: str | bytes | None) -> None:
    headers = [] if value is None else [("authorization", value)]
    body = form({"t": shop.token(Kind.CONVERSION), "order": "A-1"})
    response = await shop.post("/v", body, headers=headers)
    assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
    assert shop.outbox.events == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 404),
        (b'{"t": "x"}', 404),
        (b'{"t": "TOKEN", "value": -1, "currency": "JPY"}', 400),
        (b'{"t": "TOKEN", "value": NaN, "currency": "JPY"}', 400),
        (b'{"t": "TOKEN", "value": 1e400, "currency": "JPY"}', 400),
        (b'{"t": "TOKEN", "value": "1"}', 400),
        (b'{"t": "TOKEN", "order": "\\ud800"}', 400),
        (b'{"t": "TOKEN", "order": {}}', 400),
        (b"x" * 20_000, 413),
    ],
)
async def test_a_report_that_is_not_valid_is_told_why(shop: Web, body: bytes, status: int) -> None:
    body = body.replace(b"TOKEN", shop.token(Kind.CONVERSION).encode())
    response = await shop.post("/v", body, headers=[BEARER, JSON])
    assert response.status == status
    assert set(json.loads(response.body)) == {"error"}
    assert shop.outbox.events == []


async def test_a_report_that_cannot_be_saved_says_so(shop: Web) -> None:
    shop.outbox.failure = OSError("disk full")
    body = form({"t": shop.token(Kind.CONVERSION), "order": "A-1"})
    assert (await shop.post("/v", body, headers=[BEARER])).status == 503
    shop.outbox.failure = None
    response = await shop.post("/v", body, headers=[BEARER])
    assert json.loads(response.body) == {"conversion": "recorded"}


async def test_only_the_ways_that_are_configured_are_open(tmp_path: Path) -> None:
    for number, (conversions, allow) in enumerate(
        [({"pixel": True}, "GET, HEAD"), ({"secret": SECRET}, "POST")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        web = Web(folder, {"conversions": conversions})
        text = web.token(Kind.CONVERSION)
        pixel = await web.get(f"/v?t={text}&order=A-1")
        report = await web.post("/v", form({"t": text, "order": "A-2"}), headers=[BEARER])
        assert sorted([pixel.status, report.status]) == [200, 405]
        refused = report if allow == "GET, HEAD" else pixel
        assert refused.headers["allow"] == allow
        assert len(web.outbox.events) == 1
        await web.endpoints.close()


async def test_orders_are_known_after_a_restart(tmp_path: Path) -> None:
    for outcome in ("recorded", "known"):
        web = Web(tmp_path, {"conversions": {"secret": SECRET}})
        body = form({"t": web.token(Kind.CONVERSION), "order": "A-1"})
        response = await web.post("/v", body, headers=[BEARER])
        assert json.loads(response.body) == {"conversion": outcome}
        await web.endpoints.close()


# Whatever comes.


async def test_what_is_not_http_is_not_served(web: Web) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await web.endpoints({"type": "websocket", "path": "/c/x"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
    await web.endpoints({"type": "lifespan"}, receive, send)
    assert len(sent) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "x"]),
    start=st.sampled_from(["/c/", "/o/", "/u/", "/v", ""]),
    rest=st.text(st.characters(codec="latin-1"), max_size=40),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("user-agent", "accept-language", "cookie", "content-type", "authorization"),
                    *("content-length", "sec-purpose", "host"),
                ]
            ),
            st.binary(max_size=40),
        ),
        max_size=5,
    ),
    body=st.binary(max_size=60),
    good=st.booleans(),
)
async def test_nothing_that_is_sent_is_an_error_of_ours(
    shop: Web,
    method: str,
    start: str,
    rest: str,
    headers: list[tuple[str, bytes]],
    body: bytes,
    good: bool,
) -> None:
    kinds = {"/c/": Kind.CLICK, "/o/": Kind.OPEN, "/u/": Kind.UNSUBSCRIBE}
    target = f"{start}{shop.token(kinds[start]) if good and start in kinds else ''}"
    response = await call(
        shop.endpoints, method, target + rest, headers=headers, body=body, agent=None
    )
    assert response.status < 500


# On a real server.


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    """Serves an application by uvicorn, with the parser that the gateway uses."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http="httptools", lifespan="off", ws="none", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started, "the server")
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def spoken(port: int, *requests: bytes) -> list[bytes]:
    """What the server answers to requests over one connection, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = b"" if request.startswith(b"HEAD") else await reader.readexactly(length)
        answers.append(head + body)
    writer.close()
    await writer.wait_closed()
    return answers


async def test_over_a_connection_that_is_kept_and_below_a_mount(web: Web) -> None:
    tokens = {kind: web.token(kind) for kind in Kind}
    agent = f"User-Agent: {BROWSER}\r\n".encode()

    def request(method: str, path: str, extra: bytes = b"", body: bytes = b"") -> bytes:
        head = f"{method} /tracking{path} HTTP/1.1\r\nHost: t.example.com\r\n".encode()
        return head + agent + extra + b"\r\n" + body

    async with served(Starlette(routes=[Mount("/tracking", web.endpoints)])) as port:
        answers = await spoken(
            port,
            request("GET", f"/c/{tokens[Kind.CLICK]}"),
            request("HEAD", f"/c/{tokens[Kind.CLICK]}"),
            request("GET", f"/o/{tokens[Kind.OPEN]}"),
            request("HEAD", f"/o/{tokens[Kind.OPEN]}"),
            request("GET", f"/u/{tokens[Kind.UNSUBSCRIBE]}"),
            request("GET", "/c/x"),
            request(
                "POST",
                f"/u/{tokens[Kind.UNSUBSCRIBE]}",
                b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\n",
                b"List-Unsubscribe=One-Click",
            ),
            request("GET", f"/o/{tokens[Kind.OPEN]}"),
        )
    codes = [int(answer.split()[1]) for answer in answers]
    assert codes == [302, 302, 200, 200, 200, 404, 200, 200]
    assert f"\r\nlocation: {TARGET}\r\n".encode() in answers[0]
    assert answers[2].endswith(b"\x00;")
    kinds = [(event.type, event.notes.get("robot")) for event in web.outbox.events]
    assert kinds[:5] == [
        *(("clicked", None), ("clicked", "head"), ("opened", None), ("opened", "head")),
        # The link to unsubscribe came within a second of the first.
        ("clicked", "burst"),
    ]
    assert ("unsubscribed", None) in kinds


HOSTILE = [
    b"GET /c/%00%ff%0d%0aX:1 HTTP/1.1",
    b"GET /c/\xe6\x97\xa5 HTTP/1.1",
    b"GET /c/" + b"A" * 30_000 + b" HTTP/1.1",
    b"GET /u/x?lang=%00%ff&" + b"a=1&" * 5000 + b" HTTP/1.1",
    b"GET //c//../c/x HTTP/1.1",
    b"GET http://other.example/c/x HTTP/1.1",
    b"GET * HTTP/1.1",
]


async def test_hostile_request_lines_are_no_errors_of_ours(web: Web) -> None:
    header = b"\r\nHost: t.example.com\r\nUser-Agent: \xff\x01\r\n\r\n"
    async with served(web.endpoints) as port:
        for line in HOSTILE:
            (answer,) = await spoken(port, line + header)
            assert answer.split()[1] in (b"400", b"404", b"414"), line[:40]
    assert web.outbox.events == []


async def test_a_body_that_is_too_long_ends_the_connection(web: Web) -> None:
    target = f"/u/{web.token(Kind.UNSUBSCRIBE)}".encode()
    async with served(web.endpoints) as port:
        (answer,) = await spoken(
            port,
            b"POST " + target + b" HTTP/1.1\r\nHost: t\r\nContent-Length: 99999\r\n\r\nx=",
        )
    assert answer.split()[1] == b"413"
    assert b"\r\nconnection: close\r\n" in answer.lower()
