from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Event
from plugins.tracking import bursts
from plugins.tracking.bursts import Bursts
from plugins.tracking.robots import image_proxy, verdict

WORDS = {
    *("", "head", "prefetch", "scanner", "preview", "bot", "no-agent"),
    *("proxy-apple", "proxy-google", "proxy-yahoo"),
}

PEOPLE = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    # Apple Mail without its privacy protection.
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Thunderbird/115.12.2",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17628; Pro)",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0; ms-office; "
    "MSOffice 16)",
    # A telephone whose name ends in "bot".
    "Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/120.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 9; CUBOT_NOTE_S Build/O11019) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
    # Browsers inside of applications.
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Mobile/15E148 Safari Line/14.9.0",
    "Mozilla/5.0 (Linux; Android 14; SO-51D) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 "
    "Chrome/126.0.0.0 Mobile Safari/537.36 YJApp-ANDROID jp.co.yahoo.android.ymail/6.30.0",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Mobile Safari/537.36 [Pinterest/Android]",
    "Mozilla/5.0 (Linux; Android 13; SAMSUNG SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) "
    "SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) GSA/320.0.640 Mobile/15E148 Safari/604.1",
    "Opera/9.80 (J2ME/MIDP; Opera Mini/9.80) Presto/2.5.25 Version/10.54",
]

ROBOTS = [
    ("Barracuda Sentinel (EE)", "scanner"),
    ("Mozilla/5.0 (compatible; proofpoint)", "scanner"),
    ("Mozilla/5.0 (Windows NT 10.0) Mimecast/1.0", "scanner"),
    ("Microsoft-URLAnalyzer/1.0", "scanner"),
    (
        "Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/534+ (KHTML, like Gecko) BingPreview/1.0b",
        "scanner",
    ),
    ("Google-Safety; (+http://www.google.com/bot.html)", "scanner"),
    ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "preview"),
    ("facebookexternalhit/1.1;line-poker/1.0", "preview"),
    ("WhatsApp/2.23.20.0", "preview"),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
    ("Mozilla/5.0 (compatible; YandexBot/3.0)", "bot"),
    ("SomeBot", "bot"),
    ("curl/8.5.0", "bot"),
    ("Wget/1.21.4", "bot"),
    ("python-requests/2.32.3", "bot"),
    ("Python/3.11 aiohttp/3.9.5", "bot"),
    ("Go-http-client/2.0", "bot"),
    ("Java/17.0.11", "bot"),
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "HeadlessChrome/126.0.0.0 Safari/537.36",
        "bot",
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0",
        "prefetch",
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Gmail-content-sampling",
        "prefetch",
    ),
    ("NetworkingExtension/8618.2.12 Network/4277.122.3 iOS/17.5.1", "prefetch"),
    ("", "no-agent"),
    (" \t", "no-agent"),
]
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
YAHOO = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"


@pytest.mark.parametrize("agent", PEOPLE)
@pytest.mark.parametrize("kind", ["click", "open"])
def test_people(agent: str, kind: str) -> None:
    assert verdict(kind, "GET", agent, "") == ""


@pytest.mark.parametrize(("agent", "word"), ROBOTS)
@pytest.mark.parametrize("kind", ["click", "open"])
def test_programs(agent: str, word: str, kind: str) -> None:
    assert verdict(kind, "GET", agent, "") == word


@pytest.mark.parametrize("kind", ["click", "open"])
def test_who_asks_for_the_head_only_is_no_person(kind: str) -> None:
    assert verdict(kind, "HEAD", PEOPLE[0], "") == "head"


@pytest.mark.parametrize("purpose", ["prefetch", "prefetch;prerender", "Preview"])
def test_what_is_fetched_in_advance_is_nobodys_click(purpose: str) -> None:
    assert verdict("click", "GET", PEOPLE[0], purpose) == "prefetch"


def test_apple_loads_images_whether_or_not_mail_is_read() -> None:
    assert verdict("open", "GET", "Mozilla/5.0", "") == "proxy-apple"
    assert verdict("click", "GET", "Mozilla/5.0", "") == "bot"


@pytest.mark.parametrize(("agent", "name"), [(GMAIL, "google"), (YAHOO, "yahoo")])
def test_image_proxies_show_images_to_people_and_do_not_click(agent: str, name: str) -> None:
    assert verdict("open", "GET", agent, "") == ""
    assert image_proxy(agent) == name
    assert verdict("click", "GET", agent, "") == f"proxy-{name}"
    assert verdict("unsubscribe", "GET", agent, "") == f"proxy-{name}"


def test_libraries_of_mail_applications_show_images_and_do_not_click() -> None:
    for agent in ("okhttp/4.12.0", "Mail/1 CFNetwork/1496.0.7 Darwin/23.5.0"):
        assert verdict("open", "GET", agent, "") == ""
        assert verdict("click", "GET", agent, "") == "bot"
    assert image_proxy(PEOPLE[0]) == ""


@given(st.sampled_from(["click", "open"]), st.text(max_size=300), st.text(max_size=30))
def test_any_text_has_a_verdict(kind: str, agent: str, purpose: str) -> None:
    assert verdict(kind, "GET", agent, purpose) in WORDS


# Bursts.


def event(name: str) -> Event:
    return Event("clicked", 0.0, name)


def steps(made: Bursts, *visits: tuple[float, str]) -> list[bool]:
    return [made.step("ID1", "taro@example.jp", link, now).burst for now, link in visits]


def test_three_links_within_the_window_are_a_burst() -> None:
    assert steps(Bursts(3, 10), (0, "a"), (4, "b"), (8, "c"), (9, "a")) == [
        *(False, False, True, True)
    ]


def test_links_that_are_followed_at_leisure_are_none() -> None:
    assert not any(steps(Bursts(3, 10), (0, "a"), (6, "b"), (12, "c"), (18, "d"), (24, "e")))


def test_two_links_within_a_second_are_a_burst_until_its_window_has_passed() -> None:
    visits = [(0.0, "a"), (0.5, "b"), (5.0, "a"), (10.4, "a"), (10.6, "a")]
    assert steps(Bursts(3, 10), *visits) == [False, True, True, True, False]


def test_one_link_again_and_again_is_none() -> None:
    assert not any(steps(Bursts(3, 10), *[(number / 10, "a") for number in range(50)]))


def test_images_are_no_links_but_part_of_a_burst() -> None:
    assert steps(Bursts(3, 10), (0, ""), (0, ""), (0, "a"), (0.1, "b"), (0.2, "")) == [
        *(False, False, False, True, True)
    ]


def test_each_recipient_of_a_message_has_a_trail_of_their_own() -> None:
    made = Bursts(2, 10)
    made.step("ID1", "taro@example.jp", "a", 0)
    assert not made.step("ID1", "hanako@example.jp", "b", 0).burst
    assert not made.step("ID2", "taro@example.jp", "b", 0).burst
    assert made.step("ID1", "taro@example.jp", "b", 0).burst


def test_what_was_a_persons_before_the_burst_is_given_back_once() -> None:
    made = Bursts(3, 10)
    for now, name in ((0, "old"), (12, "first"), (14, "second")):
        trail = made.step("ID1", "taro@example.jp", name, now)
        assert not trail.burst
        trail.keep(event(name))
    trail = made.step("ID1", "taro@example.jp", "third", 16)
    assert trail.burst
    assert [one.message_id for one in trail.take()] == ["first", "second"]
    assert trail.take() == []


def test_too_many_requests_of_one_message_are_a_flood_until_the_window_has_passed() -> None:
    made = Bursts(3, 10)
    floods = [
        made.step("ID1", "taro@example.jp", "a", number / 100).flood
        for number in range(bursts.MOST_REQUESTS + 2)
    ]
    assert floods == [False] * bursts.MOST_REQUESTS + [True, True]
    assert not made.step("ID2", "taro@example.jp", "a", 2).flood
    assert not made.step("ID1", "taro@example.jp", "a", 12).flood


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bursts, "TRAILS", 50)
    made = Bursts(3, 10)
    for number in range(500):
        trail = made.step(f"ID{number}", "taro@example.jp", "a", 0)
    assert len(made) == 50
    for number in range(500):
        trail = made.step("ID499", "taro@example.jp", f"link {number}", 1)
        trail.keep(event("x"))
    assert len(trail.links) <= bursts.MOST_LINKS
    assert len(trail.unmarked) <= bursts.MOST_UNMARKED
    made.step("new", "taro@example.jp", "a", 100)
    assert len(made) == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.sampled_from(["", "a", "b", "c", "d"])),
        min_size=1,
        max_size=40,
    )
)
def test_a_burst_is_what_its_definition_says(visits: list[tuple[float, str]]) -> None:
    made = Bursts(3, 10)
    seen: list[tuple[float, str]] = []
    now, until = 0.0, -1.0
    for pause, link in visits:
        now += pause
        if link:
            seen.append((now, link))
        last = {name: time for time, name in seen if time >= now - 10}
        at_once = {name for name, time in last.items() if time > now - 1}
        if len(last) > 2 or len(at_once) > 1:
            until = now + 10
        assert made.step("ID1", "taro@example.jp", link, now).burst is (now < until)
