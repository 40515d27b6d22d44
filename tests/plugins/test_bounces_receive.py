"""What happens around a report: what is not lost, what is not told twice, and what is too odd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.hooks import Client, Event, Limits, Message, Quarantine, Tempfail
from plugins.bounces import Bounces, report
from plugins.bounces.recent import digest
from tests.plugins import bounces_site
from tests.plugins.bounces_site import DOMAIN, HANAKO, ID, NOW, Site, come, mail, path_of


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def plugin(site: Site) -> Bounces:
    return site.plugin()


def types(site: Site) -> list[str]:
    return [event.type for event in site.events]


# Nothing is lost.


async def test_the_client_hears_yes_when_the_events_are_on_disk(
    site: Site, plugin: Bounces
) -> None:
    path = path_of(plugin)
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def emit(event: Event) -> asyncio.Future[None]:
        site.events.append(event)
        return waiting

    plugin.start(replace(site.context(), emit=emit))
    task = asyncio.create_task(come(plugin, bounces_site.report("postfix", path), path))
    async with asyncio.timeout(10):
        while not site.events:
            await asyncio.sleep(0)
    assert not task.done()
    waiting.set_result(None)
    assert await task is None


async def test_the_client_keeps_a_report_that_cannot_be_noted(site: Site, plugin: Bounces) -> None:
    path = path_of(plugin)
    content = bounces_site.report("postfix", path)
    site.disk_full = True
    assert isinstance(await come(plugin, content, path), Tempfail)

    site.disk_full = False
    assert await come(plugin, content, path) is None
    assert types(site) == ["bounced"]


async def test_the_client_keeps_a_report_where_limits_cannot_be_read(
    site: Site, plugin: Bounces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose mail it was is in them; a complaint for anybody would hold everywhere."""
    path = path_of(plugin)
    content = bounces_site.report("postfix", path)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Limits, "read", fail)
        assert isinstance(await come(plugin, content, path), Tempfail)
    assert site.events == []
    assert await come(plugin, content, path) is None
    assert types(site) == ["bounced"]


async def test_a_report_that_nobody_thought_of_is_held(
    site: Site,
    plugin: Bounces,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RecursionError("too deep")

    path = path_of(plugin)
    monkeypatch.setattr(report, "read", fail)
    answer = await come(plugin, bounces_site.report("postfix", path), path)
    assert answer == Quarantine("a report that cannot be understood")
    assert "RecursionError: too deep" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"Subject: hi\r\n",
        b"Hello\r\n",
        b"From: a@example.net\r\n\r\n" + b"x" * 300_000,
        b"Content-Type: multipart/report; boundary=x\r\n\r\n",
        b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n--x--",
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n",
    ],
)
async def test_what_says_nothing_is_held(site: Site, plugin: Bounces, content: bytes) -> None:
    assert isinstance(await come(plugin, content, path_of(plugin), sender=""), Quarantine)
    assert site.events == []


async def test_events_say_who_it_was_about_in_the_log(
    site: Site, plugin: Bounces, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = path_of(plugin)
    await come(plugin, bounces_site.report("postfix", path), path)
    line = f"06F8K2N4QXW7B: about {ID}: to=<{HANAKO}>, bounced, campaign=week-47"
    assert line in caplog.text


# Nothing is told twice.


async def test_a_report_that_is_sent_again_counts_once(site: Site, plugin: Bounces) -> None:
    path = path_of(plugin)
    content = bounces_site.report("postfix", path)
    again = content.replace(b"06F8K2N4QXW7B", b"06F8K2N4QXW7D").replace(b":05 +", b":35 +", 1)
    assert again != content
    for one in (content, content, again):
        assert await come(plugin, one, path) is None
    assert types(site) == ["bounced"]
    # To any worker.
    assert await come(site.plugin(), content, path) is None
    assert types(site) == ["bounced"]


async def test_another_report_counts(site: Site, plugin: Bounces) -> None:
    for message_id in (ID, "06F8K2N4QXW7C"):
        path = path_of(plugin, message_id=message_id)
        for name in ("postfix-delayed", "postfix", "vacation"):
            assert await come(plugin, bounces_site.report(name, path), path) is None
    assert types(site) == ["deferred", "bounced", "replied"] * 2


async def test_reports_are_remembered_for_a_day(site: Site, plugin: Bounces) -> None:
    path = path_of(plugin)
    content = bounces_site.report("postfix", path)
    await come(plugin, content, path)
    site.now = NOW + 86_400
    await come(plugin, content, path)
    assert types(site) == ["bounced"] * 2


async def test_what_is_remembered_has_a_fixed_size(site: Site) -> None:
    plugin = site.plugin()
    path = path_of(plugin)
    content = bounces_site.report("postfix", path)
    for number in range(300):
        one = content.replace(b"<20261121100004", f"<{number}".encode())
        await come(plugin, one, path)
    assert len(site.events) == 300
    limits = site.context().limits
    cells = limits.cells("bounces:report:", site.now)
    assert 0 < len(cells) <= 300
    assert all(len(cell.text) <= 250 for cell in cells)


async def test_a_cell_forgets_the_oldest(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.bounces.recent._CELLS", 1)
    plugin = site.plugin()
    path = path_of(plugin)
    content = bounces_site.report("postfix", path)

    async def comes(number: int) -> int:
        before = len(site.events)
        await come(plugin, content.replace(b"<20261121100004", f"<{number}".encode()), path)
        return len(site.events) - before

    assert [await comes(number) for number in range(25)] == [1] * 25
    assert [await comes(number) for number in (24, 23, 6)] == [0] * 3
    assert await comes(0) == 1


def test_the_digest_is_of_what_the_sender_wrote() -> None:
    content = b"Received: a\r\nMessage-ID: <1@a>\r\nDate: now\r\n\r\nHello\r\n"
    same = b"Received: b\r\n\tc\r\nMessage-ID: <1@a>\r\nDate: later\r\n\r\nHello\r\n"
    assert digest(["a@x", "b@x"], content) == digest(["B@x", "a@x"], same)
    for other in (content.replace(b"<1@a>", b"<2@a>"), content.replace(b"Hello", b"Hallo")):
        assert digest(["a@x", "b@x"], other) != digest(["a@x", "b@x"], content)
    assert digest(["a@x"], content) != digest(["a@x", "b@x"], content)


async def test_without_limits_reports_are_taken_all_the_same(
    site: Site, plugin: Bounces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = path_of(plugin)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Limits, "change", full)
    content = bounces_site.report("postfix", path)
    for _ in range(2):
        assert await come(plugin, content, path) is None
    assert types(site) == ["bounced"] * 2
    assert "a report cannot be remembered" in caplog.text


# Whose mail it was.


async def test_one_report_to_two_return_paths_is_about_both(site: Site, plugin: Bounces) -> None:
    paths = [path_of(plugin), path_of(plugin, "taro@example.net", message_id="06F8K2N4QXW7C")]
    await come(plugin, bounces_site.report("qmail", paths[0]), *paths)
    assert [(event.message_id, event.recipient) for event in site.events] == [
        (ID, HANAKO),
        ("06F8K2N4QXW7C", "taro@example.net"),
    ]


async def test_a_report_cannot_be_about_somebody_else(site: Site, plugin: Bounces) -> None:
    """Who has one return path can bounce that one message, and nobody else's."""
    path = path_of(plugin, "eve@example.net")
    await come(plugin, bounces_site.report("postfix", path), path)
    (event,) = site.events
    assert (event.type, event.recipient) == ("bounced", "eve@example.net")
    assert event.notes["final"] == HANAKO


async def test_the_sender_is_the_author_or_else_the_domain(site: Site) -> None:
    plugin = site.plugin()
    for sender, expected in (
        ("bounces@shop.example.com", "news@shop.example.com"),
        ("bounces@mail.example.com", "@mail.example.com"),
        ("bounces@例え.jp", "@xn--r8jz45g.jp"),
    ):
        path = path_of(plugin, sender=sender)
        await come(plugin, bounces_site.report("postfix", path), path)
        assert site.events[-1].sender == expected


async def test_an_origin_that_was_forgotten_leaves_the_author(site: Site, plugin: Bounces) -> None:
    path = path_of(plugin, sender="a@mail.example.com", stream="bulk")
    site.now += 20 * 86_400
    limits = site.context().limits
    for cell in limits.cells("bounces:origin:", site.now):
        limits.remove(cell.key)
    await come(plugin, bounces_site.report("postfix", path), path)
    (event,) = site.events
    assert (event.sender, event.stream) == ("news@shop.example.com", "")


async def test_a_domain_of_one_sender_tells_whose_it_is(site: Site) -> None:
    plugin = site.plugin(domains={"mail.example.com": DOMAIN})
    path = path_of(plugin, sender="a@mail.example.com")
    limits = site.context().limits
    for cell in limits.cells("bounces:origin:", site.now):
        limits.remove(cell.key)
    await come(plugin, bounces_site.report("postfix", path), path)
    assert site.events[0].sender == "@mail.example.com"


async def test_origins_are_written_once_a_day_and_known_for_long(site: Site) -> None:
    plugin = site.plugin()
    for number in range(50):
        path = path_of(plugin, f"h{number}@example.net", stream="bulk")
    path_of(plugin, stream="other")
    limits = site.context().limits
    assert sorted(cell.text for cell in limits.cells("bounces:origin:", site.now)) == [
        "shop.example.com bulk",
        "shop.example.com other",
    ]
    assert len(limits.cells("bounces:origin:", site.now + 390 * 86_400)) == 2
    site.now += 86_400
    path_of(plugin, stream="bulk")
    assert len(limits.cells("bounces:origin:", site.now + 399.5 * 86_400)) == 1
    assert path


async def test_the_campaign_is_what_the_returned_message_says(site: Site) -> None:
    for header, campaign in (("Subject", "This week at the shop"), (None, None), ("X-No", None)):
        plugin = site.plugin(domain=DOMAIN, campaign_header=header)
        path = path_of(plugin, message_id=f"06F8K2N4QXW{header or 'none'}"[:13].replace("-", "0"))
        await come(plugin, bounces_site.report("postfix", path), path)
        assert site.events[-1].notes.get("campaign") == campaign


async def test_a_report_is_only_read(site: Site) -> None:
    plugin = site.plugin()
    path = path_of(plugin)
    message = Message("06F8K2N4QXW7B", "", Client("192.0.2.25"))
    message.add_recipient(path)
    message.receive(bounces_site.report("postfix", path))
    before = message.copy()
    await plugin.receive(message)
    assert message.equals(before)


async def test_a_service_process_needs_nothing_of_all_that(site: Site) -> None:
    site.plugin("service")
    assert not site.keys.exists()
    plugin = site.plugin()
    message = mail(HANAKO)
    plugin.message(message)
    assert site.keys.exists()
