# ruff: noqa: E501 - one case of a table is one line
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import TextPart
from plugins.tracking import text_links
from tests.plugins.tracking_mail import BASE, Site, make_message, text_message

URL = "https://a.example/sale"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), {"text_links": True})


def found(text: str, **options: bool) -> list[str]:
    links = list(text_links.find(text, **options))
    for link in links:
        assert text[link.start : link.end] == link.value
    return [link.value for link in links]


def part(site: Site, text: str, parameters: str = "") -> TextPart:
    message = text_message(text, parameters)
    site.plugin.message(message)
    return message.text_parts("text/plain")[0]


@pytest.mark.parametrize(
    "text",
    [
        "U", "See U now.", "See U.", "See U, or", "See U; or", "U: here", "Have you seen U?", "U!",
        "U...", "(U)", "(see U).", "[U]", "<U>", '"U"', "'U'", "<url:U>", "*U*", "_U_", "~U~", "**U**",
        "U\n", "\tU\t", "> U", "=U", "|U", "U'", "{U", "日本U", "「U」", "『U』です", "（U）", "【U】",
        "U、", "U。", "U　次", "U・", "U！", "U？", "U”", "U…", "U★", "U→次", "[text](U)", "U\r\n", "U\u00a0x", "U\u2028",
    ],
)  # fmt: skip
def test_a_url_is_found_and_what_stands_around_it_is_not(text: str) -> None:
    assert found(text.replace("U", URL)) == [URL]


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example", "HTTPS://A.EXAMPLE/X", "https://a.example:8080/a-b_c~d", "https://a.example/?a=1&b=2#c",
        "https://a.example/a_(b)", "https://a.example/?a[]=1&b[0]=2", "https://a.example/%E6%97%A5", "https://a.example/a,b;c:d!e'f",
        "https://a.example/x_", "https://a.example/*", "https://a.example/?to=https://b.example/", "https://[::1]/x",
    ],
)  # fmt: skip
def test_all_of_a_url_is_found(url: str) -> None:
    for text in (url, f"({url}).", f"[{url}]", f"「{url}」", f"{url}, {url}"):
        assert set(found(text)) == {url}


@pytest.mark.parametrize(
    "text",
    [
        "", "https", "https://", "http:// x", "xhttps://a.example/", "9http://a.example/", "ftp://a.example/",
        "www.a.example", "a.example/x", "mailto:a@a.example",
        # Who knows where these end?
        "https://a.example/日本", "https://a.example/saleをご覧ください", "https://a.example/é",
        "https://a.example/e\u0301", "https://a.example/{{name}}", "https://a.example/{name}",
        "https://a.example/|x", "https://a.example/x\\y", "https://a.example/^", "https://a.example/`",
        "https://a.example/\u200bx", "https://a.example/\x07", "https://日本.jp/",
    ],
)  # fmt: skip
def test_a_url_is_left_alone_where_its_end_is_not_certain(text: str) -> None:
    assert [url for url in found(text) if len(url) > len("https://")] == []


def test_a_url_at_the_end_of_a_line_that_goes_on() -> None:
    text = f"See {URL} \nmore, {URL}\n{URL} x"
    assert found(text) == [URL] * 3
    assert found(text, delete_space=True) == [URL] * 2


@given(
    st.lists(
        st.sampled_from(
            [
                "https://a.example/",
                "x",
                ")",
                "(",
                ".",
                "*",
                " ",
                "\n",
                "日",
                "。",
                "{",
                "[",
                "]",
                "'",
            ]
        )
    ).map("".join)
)
def test_urls_are_apart_and_in_order(text: str) -> None:
    end = 0
    for link in text_links.find(text):
        assert end <= link.start < link.end
        end = link.end
        assert link.value == text[link.start : link.end]
        assert link.value.startswith("https://")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["https://", "https://a)", "(", ")", "*", "]", "https://a.example/)))]]]***", "%", "http"],
)
def test_hostile_input_takes_linear_time(piece: str) -> None:
    for text in (
        piece * (300_000 // len(piece)),
        "*https://a.example/" + piece * (300_000 // len(piece)),
    ):
        list(text_links.find(text))


def test_text_is_left_alone_unless_asked_for(tmp_path: Path) -> None:
    text = f"See {URL}.\n"
    assert part(Site(tmp_path), text).text == text


def test_links_in_text_are_rewritten_and_nothing_else(site: Site) -> None:
    text = f"割引中です。\n{URL}、または <{URL}?a=1&b=2>。\n\n> {URL}\n%%unsubscribe_url%%\n{BASE}/c/x\n"
    after = part(site, text).text

    urls = [url for url in found(after) if url.startswith(f"{BASE}/c/")][:3]
    assert [site.token(url).url for url in urls] == [URL, f"{URL}?a=1&b=2", URL]
    for new, old in zip(urls, (URL, f"{URL}?a=1&b=2", URL), strict=True):
        after = after.replace(new, old, 1) if new != urls[0] else after
    after = after.replace(urls[0], URL)
    head, _, rest = text.partition("%%unsubscribe_url%%")
    assert after.startswith(head)
    assert after.endswith(rest)


def test_flowed_lines_keep_the_space_at_their_end(site: Site) -> None:
    text = f"Some text \nand a URL {URL} \nand more of it \n{URL}\n"
    for parameters, tracked in (("; format=flowed", 2), ("; format=flowed; DelSp=yes", 1)):
        after = part(site, text, parameters).text
        urls = [url for url in found(after) if site.is_tracked(url)]
        assert len(urls) == tracked
        assert after.replace(urls[-1], URL) == text


def test_what_is_not_tracked_in_html_is_not_in_text(tmp_path: Path) -> None:
    site = Site(
        tmp_path,
        {"text_links": True, "exclude_hosts": ["b.example"], "parameters": {"x": "{stream}"}},
    )
    text = f"{URL} https://b.example/ https://user@a.example/ https://a.example/{'a' * 2000}\n"

    first, *others = found(part(site, text).text)
    assert site.token(first).url == f"{URL}?x=bulk"
    assert others == found(text)[1:]


def test_a_placeholder_that_looks_like_a_url_is_no_link(tmp_path: Path) -> None:
    site = Site(
        tmp_path,
        {"text_links": True, "unsubscribe": {"placeholder": "https://unsubscribe.invalid/"}},
    )
    after = part(site, "https://unsubscribe.invalid/ https://unsubscribe.invalid/x\n").text
    assert after.startswith(f"{BASE}/u/")
    assert after.count("/u/") == 2
    assert "/c/" not in after


def test_text_beside_html(site: Site) -> None:
    message = make_message(
        b"From: a@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nSee https://a.example/sale now\r\n"
        b'--b\r\nContent-Type: text/html\r\n\r\n<a href="https://a.example/sale">See</a>\r\n--b--\r\n'
    )
    site.plugin.message(message)
    plain, html = message.text_parts()
    (url,) = found(plain.text)
    assert f'"{url}"' in html.text
    assert site.token(url).url == URL
