"""Unsubscribing: the page, which does nothing by itself, and the POST of RFC 8058."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.hooks import Event
from gateway.spool.emitter import Emitter
from gateway.spool.spool import Spool
from plugins.tracking import pages, recording
from plugins.tracking.bursts import MOST_REQUESTS
from plugins.tracking.endpoints import Endpoints
from plugins.tracking.endpoints_config import EndpointsConfig
from plugins.tracking.token import Kind
from tests.plugins.test_tracking_pages import Page
from tests.plugins.tracking_web import NOW, Response, Web, call, form, make_context

FORM = ("content-type", "application/x-www-form-urlencoded")
ONE_CLICK = b"List-Unsubscribe=One-Click"
BUTTON = form({"unsubscribe": "yes"})
GMAIL = [
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-length", "26"),
    ("accept-encoding", "gzip, deflate, br"),
    ("connection", "keep-alive"),
]
REASONS = [
    {"name": "too-many", "en": "Too many emails", "ja": "メールが多すぎる"},
    {"name": "dull", "en": "Not <interesting>", "ja": "興味がない"},
]


@pytest.fixture
def web(tmp_path: Path) -> Web:
    return Web(tmp_path)


def link(web: Web, **fields: str) -> str:
    return f"/u/{web.token(Kind.UNSUBSCRIBE, **fields)}"


def check_page(response: Response, status: int = 200) -> Page:
    """A page with all that protects it; nothing is stored, nothing leaks."""
    headers = response.headers
    assert response.status == status
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"] == pages.CONTENT_SECURITY_POLICY
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "set-cookie" not in headers
    return Page(response.body)


# Looking at the page.


@pytest.mark.parametrize(
    "query", ["", "?List-Unsubscribe=One-Click", "?unsubscribe=yes", "?lang=ja&unsubscribe=yes"]
)
async def test_looking_does_nothing(web: Web, query: str) -> None:
    for body in (b"", ONE_CLICK):
        check_page(await web.get(link(web) + query, body=body, headers=[FORM]))
    head = await web.head(link(web) + query)
    assert (head.status, head.body) == (200, b"")
    assert web.outbox.events == []


async def test_the_language_is_the_browsers_or_the_chosen_one(web: Web) -> None:
    for query, field, language in [
        ("", "ja,en;q=0.5", "ja"),
        ("", "en-US,en;q=0.9", "en"),
        ("", "de", "en"),
        ("?lang=ja", "en", "ja"),
        ("?lang=en", "ja", "en"),
        ("?lang=xx", "ja", "ja"),
    ]:
        response = await web.get(link(web) + query, headers=[("accept-language", field)])
        assert check_page(response).all("html") == [{"lang": language}], (query, field)


async def test_the_language_where_the_browser_asks_for_neither(tmp_path: Path) -> None:
    web = Web(tmp_path, {"unsubscribe_page": {"language": "ja"}})
    page = check_page(await web.get(link(web), headers=[("accept-language", "fr")]))
    assert page.all("html") == [{"lang": "ja"}]


async def test_the_switch_leads_to_the_other_language(web: Web) -> None:
    target = link(web)
    page = check_page(await web.get(target, headers=[("accept-language", "ja")]))
    (switch,) = page.all("a")
    assert switch["href"] == "?lang=en"
    page = check_page(await web.get(f"{target}?lang=en", headers=[("accept-language", "ja")]))
    assert page.all("html") == [{"lang": "en"}]


async def test_the_page_has_the_words_of_the_site_and_a_masked_address(tmp_path: Path) -> None:
    config = {"ja": {"brand": "サンプル商店"}, "reasons": REASONS}
    web = Web(tmp_path, {"unsubscribe_page": config})
    page = check_page(await web.get(link(web) + "?lang=ja"))
    assert "サンプル商店" in page.text
    assert "メールが多すぎる" in page.text
    assert "t***@example.jp" in page.text
    english = check_page(await web.get(link(web) + "?lang=en"))
    assert "サンプル商店" not in english.text
    assert "Not <interesting>" in english.text


async def test_nothing_of_the_request_or_the_token_becomes_markup(web: Web) -> None:
    plain = check_page(await web.get(link(web)))
    markup = '"><script>alert(1)</script>'
    response = await web.get(
        link(web, recipient=f"{markup}@<b>.example", campaign=markup)
        + f"?lang={markup}&x={markup}",
        agent=markup,
        headers=[("accept-language", markup), ("referer", markup), ("host", markup)],
    )
    page = check_page(response)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert b"<script" not in response.body


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_link_that_is_none_of_ours_is_explained(web: Web, method: str) -> None:
    good = link(web)
    changed = good[:-1] + ("A" if good[-1] != "A" else "B")
    click = f"/u/{web.token(Kind.CLICK)}"
    for target in (
        changed,
        good[:-4],
        click,
        "/u/",
        "/u/<script>",
        f"{good}/x",
        "/u/" + "A" * 9999,
    ):
        response = await call(web.endpoints, method, target, body=ONE_CLICK, headers=[FORM])
        assert response.status == 404
        if method != "HEAD":
            text = check_page(response, 404).text
            assert "This link does not work" in text
            assert "このリンクは使えません" in text
    assert web.outbox.events == []


async def test_other_methods_are_refused(web: Web) -> None:
    response = await web.post(link(web), b"")
    assert response.status == 400
    for method in ("PUT", "DELETE", "OPTIONS", "PROPFIND"):
        response = await call(web.endpoints, method, link(web))
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, POST")
    assert web.outbox.events == []


# One click (RFC 8058).


async def test_one_click_as_gmail_sends_it(web: Web) -> None:
    response = await web.post(link(web), ONE_CLICK, headers=GMAIL, agent=None)
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert len(response.body) < 100
    assert not {"location", "set-cookie", "refresh"} & set(response.headers)
    event = web.outbox.one
    assert (event.type, event.time, event.message_id) == ("unsubscribed", NOW, "06N2CKTD00001")
    assert (event.recipient, event.sender) == ("taro@example.jp", "bounce@shop.example.com")
    assert (event.stream, event.reason) == ("bulk", "")
    assert event.notes == {"campaign": "spring", "variant": "b", "source": "one-click"}


async def test_one_click_as_multipart_form_data(web: Web) -> None:
    body = (
        b"--------------------------d74496d66958873e\r\n"
        b'Content-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
        b"One-Click\r\n"
        b"--------------------------d74496d66958873e--\r\n"
    )
    content_type = "multipart/form-data; boundary=------------------------d74496d66958873e"
    response = await web.post(link(web), body, headers=[("content-type", content_type)])
    assert response.status == 200
    assert web.outbox.one.notes["source"] == "one-click"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (ONE_CLICK, None),
        (ONE_CLICK, "application/x-www-form-urlencoded; charset=UTF-8"),
        (b"List-Unsubscribe=one-click", "text/plain"),
        (b"List%2DUnsubscribe=One%2DClick&x=1", "application/x-www-form-urlencoded"),
    ],
)
async def test_one_click_in_other_spellings(
    web: Web, body: bytes, content_type: str | None
) -> None:
    headers = [] if content_type is None else [("content-type", content_type)]
    response = await web.post(link(web), [body[:5], body[5:]], headers=headers)
    assert response.status == 200
    assert web.outbox.one.notes["source"] == "one-click"


async def test_one_click_again_is_fine(web: Web) -> None:
    target = link(web)
    for _ in range(3):
        assert (await web.post(target, ONE_CLICK, headers=[FORM])).status == 200
    assert [event.type for event in web.outbox.events] == ["unsubscribed"] * 3


@pytest.mark.parametrize(
    "body", [b"", b"List-Unsubscribe=", b"List-Unsubscribe=No", b"x=One-Click", b"reason=dull"]
)
async def test_a_post_that_says_something_else_does_nothing(web: Web, body: bytes) -> None:
    response = await web.post(link(web), body, headers=[FORM])
    assert response.status == 400
    assert "List-Unsubscribe=One-Click" in response.text
    assert web.outbox.events == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"x" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=1"] * 99), "application/x-www-form-urlencoded", 400),
        (ONE_CLICK, "multipart/form-data", 400),
        (b"{" * 9_000, "application/json", 400),
    ],
)
async def test_a_body_that_cannot_be_read_does_nothing(
    web: Web, body: bytes, content_type: str, status: int
) -> None:
    response = await web.post(link(web), body, headers=[("content-type", content_type)])
    assert response.status == status
    assert response.headers["connection"] == "close"
    assert web.outbox.events == []


async def test_who_goes_away_in_the_middle_has_not_unsubscribed(web: Web) -> None:
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": link(web),
        "query_string": b"",
        "headers": [],
        "client": None,
    }
    await web.endpoints(scope, receive, send)
    assert sent == []
    assert web.outbox.events == []


# The button of the page.


async def test_the_button_unsubscribes_and_the_page_confirms(web: Web) -> None:
    page = check_page(await web.get(link(web)))
    (shown,) = page.all("form")
    (button,) = page.all("button")
    body = form({str(button["name"]): str(button["value"])})
    response = await web.post(f"{link(web)}{shown['action']}", body, headers=[FORM])
    page = check_page(response)
    assert "You are unsubscribed" in page.text
    assert page.all("form") == []
    assert web.outbox.one.notes["source"] == "page"


async def test_the_confirmation_has_the_language_of_the_page(web: Web) -> None:
    response = await web.post(f"{link(web)}?lang=ja", BUTTON, headers=[FORM])
    assert "配信を停止しました" in check_page(response).text


@pytest.mark.parametrize(
    ("sent", "reason"),
    [("too-many", "too-many"), ("", ""), ("invented", ""), ("<script>\n", "")],
)
async def test_the_reason_is_one_of_those_to_choose_from(
    tmp_path: Path, sent: str, reason: str
) -> None:
    web = Web(tmp_path, {"unsubscribe_page": {"reasons": REASONS}})
    body = form({"unsubscribe": "yes", "reason": sent})
    check_page(await web.post(link(web), body, headers=[FORM]))
    assert web.outbox.one.reason == reason


# Never a false yes.


@pytest.mark.parametrize("body", [ONE_CLICK, BUTTON])
async def test_the_answer_comes_when_the_event_is_on_disk_and_not_before(
    web: Web, body: bytes
) -> None:
    web.outbox.stuck = True
    task = asyncio.create_task(web.post(link(web), body, headers=[FORM]))
    while not web.outbox.events:
        await asyncio.sleep(0)
    done, _ = await asyncio.wait((task,), timeout=0.05)
    assert not done
    web.outbox.release()
    assert (await task).status == 200


async def test_what_is_answered_with_yes_is_in_the_outbox_on_disk(tmp_path: Path) -> None:
    web = Web(tmp_path)
    spool = Spool(tmp_path / "spool", "nobody", 1)
    emitter = Emitter(spool, wanted=True, open_spool=lambda: spool.open(new=True))
    context = make_context(tmp_path, emitter.emit)
    endpoints = Endpoints(EndpointsConfig(), web.base_urls, web.keyring, context)
    response = await call(endpoints, "POST", link(web), body=ONE_CLICK, headers=[FORM])
    assert response.status == 200
    with closing(apsw.Connection(str(tmp_path / "spool/0001.db"))) as reader:
        rows = reader.execute("SELECT event FROM events").fetchall()
    await spool.drain()
    spool.close()
    ((text,),) = rows
    event = Event.from_json(str(text))
    assert (event.type, event.recipient) == ("unsubscribed", "taro@example.jp")


@pytest.mark.parametrize("way", ["fails", "raises", "hangs"])
async def test_what_cannot_be_saved_is_not_said_to_be(
    web: Web, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LONGEST_CONFIRMATION", 0.02)
    if way == "fails":
        web.outbox.failure = OSError("disk full")
    elif way == "raises":
        monkeypatch.setattr(web.outbox, "events", None)
    else:
        web.outbox.stuck = True
    response = await web.post(link(web), ONE_CLICK, headers=[FORM])
    assert response.status == 503
    assert "unsubscribed" not in response.text
    page = check_page(await web.post(f"{link(web)}?lang=ja", BUTTON, headers=[FORM]), 503)
    assert "配信はまだ停止されていません" in page.text
    # It can be tried again at once.
    assert page.all("form") == [{"method": "post", "action": "?lang=ja"}]


async def test_too_many_posts_of_one_link_are_told_to_stop(web: Web) -> None:
    target = link(web)
    for _ in range(MOST_REQUESTS):
        assert (await web.post(target, ONE_CLICK, headers=[FORM])).status == 200
    response = await web.post(target, ONE_CLICK, headers=[FORM])
    assert (response.status, response.headers["retry-after"]) == (429, "60")
    assert len(web.outbox.events) == MOST_REQUESTS
    other = link(web, recipient="hanako@example.jp")
    assert (await web.post(other, ONE_CLICK, headers=[FORM])).status == 200


async def test_robots_that_follow_every_link_keep_nobody_from_unsubscribing(web: Web) -> None:
    for _ in range(MOST_REQUESTS + 1):
        await web.get(link(web))
    assert (await web.post(link(web), ONE_CLICK, headers=[FORM])).status == 200
