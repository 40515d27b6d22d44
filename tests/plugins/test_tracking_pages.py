from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plugins.tracking import pages
from plugins.tracking.endpoints_config import EndpointsConfig, UnsubscribePageConfig
from plugins.tracking.pages import LANGUAGES, TEXTS, Language, masked, preferred_language

VOID = {"meta", "input"}
KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "p", "span", "section"),
    *("form", "fieldset", "legend", "label", "input", "button", "nav", "a"),
}


class Page(HTMLParser):
    """A page as a strict reader sees it: its elements, in order, and the text that people see."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self._open: list[str] = []
        source = body.decode("utf-8")
        assert source.startswith("<!DOCTYPE html>\n")
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in KNOWN, tag
        assert len({name for name, _ in attrs}) == len(attrs)
        for name, _ in attrs:
            assert not name.startswith("on"), "scripts"
            assert name not in ("style", "src", "srcset", "background", "ping"), name
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            self.style += data
        elif "title" not in self._open:
            self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def ask(
    language: Language = "en",
    address: str = "taro@example.jp",
    reasons: tuple[tuple[str, str], ...] = (),
    **texts: str,
) -> Page:
    return Page(pages.ask_page(language, replace(TEXTS[language], **texts), address, list(reasons)))


def every_page(language: Language) -> list[bytes]:
    texts = TEXTS[language]
    return [
        pages.ask_page(language, texts, "taro@example.jp", [("dull", "Dull")]),
        pages.done_page(language, texts, "taro@example.jp"),
        pages.try_again_page(language, texts, "taro@example.jp"),
    ]


@pytest.mark.parametrize("body", [*every_page("en"), *every_page("ja"), pages.not_found_page()])
def test_a_page_is_whole_accessible_and_needs_nothing_from_elsewhere(body: bytes) -> None:
    page = Page(body)
    assert page.all("html")[0]["lang"] in LANGUAGES
    assert len(page.all("title")) == len(page.all("main")) == 1
    assert page.all("h1")
    viewports = [meta for meta in page.all("meta") if meta.get("name") == "viewport"]
    assert viewports == [{"name": "viewport", "content": "width=device-width, initial-scale=1"}]
    assert not re.search(rb"https?:|//|url\(|@import|<script|javascript:", body)
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in pages.CONTENT_SECURITY_POLICY


def test_the_policy_allows_nothing_but_the_style_and_the_form() -> None:
    directives = dict(
        directive.split(maxsplit=1) for directive in pages.CONTENT_SECURITY_POLICY.split("; ")
    )
    assert directives["default-src"] == "'none'"
    assert directives["base-uri"] == directives["frame-ancestors"] == "'none'"
    assert directives["form-action"] == "'self'"
    assert set(directives) == {
        *("default-src", "style-src", "form-action", "base-uri", "frame-ancestors")
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_that_asks_has_one_form_and_a_switch(language: Language) -> None:
    page = ask(language)
    assert page.all("html") == [{"lang": language}]
    assert page.all("form") == [{"method": "post", "action": f"?lang={language}"}]
    assert page.all("button") == [{"type": "submit", "name": "unsubscribe", "value": "yes"}]
    assert page.all("fieldset") == []
    (link,) = page.all("a")
    (other,) = [one for one in LANGUAGES if one != language]
    assert link == {"href": f"?lang={other}", "lang": other, "hreflang": other}
    assert TEXTS[language].question in page.text
    assert "t***@example.jp" in page.text
    assert "taro" not in page.text


def test_reasons_have_labels_and_none_is_chosen() -> None:
    page = ask(reasons=(("too-many", "Too many"), ("dull", "Dull")))
    assert page.all("input") == [
        {"type": "radio", "name": "reason", "value": "too-many"},
        {"type": "radio", "name": "reason", "value": "dull"},
    ]
    assert len(page.all("label")) == 2
    assert len(page.all("legend")) == 1


def test_all_texts_exist_in_both_languages() -> None:
    for language in LANGUAGES:
        texts = TEXTS[language]
        for name in type(texts).__dataclass_fields__:
            assert name == "brand" or getattr(texts, name), (language, name)
    japanese = "".join(Page(body).text for body in every_page("ja"))
    assert not re.search(r"[a-z]{3,}", re.sub(r"t\*\*\*@example\.jp|English|Dull", "", japanese))


def test_a_link_that_does_not_work_is_explained_in_both_languages() -> None:
    page = Page(pages.not_found_page())
    assert [section["lang"] for section in page.all("section")] == ["en", "ja"]
    assert "This link does not work" in page.text
    assert "このリンクは使えません" in page.text


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_becomes_markup(address: str, brand: str, reason: str) -> None:
    plain = [name for name, _ in ask(brand="x", reasons=(("x", "x"),)).elements]
    page = ask(address=address, brand=brand or "x", reasons=((reason, reason),))
    assert [name for name, _ in page.elements] == plain


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>", "&lt;"]
)
def test_markup_is_shown_and_not_obeyed(text: str) -> None:
    page = ask(brand=text, heading=text, button=text, reasons=((text, text),))
    # In the brand, the heading, the button and the reason.
    assert page.text.count(text) == 4
    assert page.all("input")[0]["value"] == text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("taro@example.jp", "t***@example.jp"),
        ("t@example.jp", "t***@example.jp"),
        ('"a@b"@example.jp', '"***@example.jp'),
        ("太郎@例え.jp", "太***@例え.jp"),
        ("@example.jp", "***@example.jp"),
        ("postmaster", "p***"),
        ("", "***"),
    ],
)
def test_an_address_is_masked(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_octets_that_are_no_text_are_shown_somehow() -> None:
    page = ask(address="\udcff\udcfe@\udcffexample.jp")
    assert "***@" in page.text


@pytest.mark.parametrize(
    ("field", "default", "language"),
    [
        ("ja", "en", "ja"),
        ("en", "ja", "en"),
        ("ja-JP,ja;q=0.9,en-US;q=0.8,en;q=0.7", "en", "ja"),
        ("en-US,en;q=0.9,ja;q=0.8", "ja", "en"),
        ("de-DE, de;q=0.9, ja;q=0.2", "en", "ja"),
        ("en;q=0.1, JA ; q = 1.0", "en", "ja"),
        ("ja;q=0", "en", "en"),
        ("ja;q=0, en;q=0", "ja", "ja"),
        ("", "ja", "ja"),
        ("*", "ja", "ja"),
        ("de,fr", "en", "en"),
        ("ja;q=nan, en;q=inf", "ja", "ja"),
        ("en;q=1e9, ja;q=0.1", "en", "ja"),
        ("jav, enm", "ja", "ja"),
        ("ja;level=1", "en", "en"),
        (";;;,,,=;q", "en", "en"),
        ("en," * 100_000 + "ja", "ja", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_prefers(
    field: str, default: Language, language: Language
) -> None:
    assert preferred_language(field, default) == language


@given(st.text(max_size=200))
def test_any_accept_language_gives_a_language(field: str) -> None:
    assert preferred_language(field, "ja") in LANGUAGES


# The configuration.


def test_words_of_the_site_stand_in_place_of_ours() -> None:
    config = UnsubscribePageConfig.model_validate(
        {"en": {"brand": "Example Shop"}, "ja": {"brand": "サンプル商店", "done": "停止済みです。"}}
    )
    assert config.en.texts("en") == replace(TEXTS["en"], brand="Example Shop")
    assert config.ja.texts("ja") == replace(
        TEXTS["ja"], brand="サンプル商店", done="停止済みです。"
    )


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"burst_links": 1}, "greater than or equal to 2"),
        ({"burst_window": "0s"}, "greater than or equal to 1"),
        ({"click_parameter": "a b"}, "'a b' is no name; expected letters"),
        ({"click_cookie": "a=b"}, "'a=b' is no name"),
        ({"click_cookie": ""}, "'' is no name"),
        ({"conversions": {}}, "no conversion can come in; set pixel: true, or a secret"),
        ({"conversions": {"secret": "short"}}, "at least 16 printable ASCII characters"),
        ({"conversions": {"secret": "秘密" * 20}}, "printable ASCII"),
        ({"conversions": {"pixel": True, "remember": "0s"}}, "greater than 0"),
        ({"unsubscribe_page": {"language": "de"}}, "'en' or 'ja'"),
        ({"unsubscribe_page": {"en": {"heading": ""}}}, "at least 1 character"),
        ({"unsubscribe_page": {"en": {"headline": "x"}}}, "Extra inputs"),
        ({"unsubscribe_page": {"reasons": [{"name": "x", "en": "x"}]}}, "ja"),
        (
            {"unsubscribe_page": {"reasons": [{"name": "A b", "en": "x", "ja": "x"}]}},
            "'A b' is no name for a reason; expected small letters, digits, - and _",
        ),
        (
            {"unsubscribe_page": {"reasons": [{"name": "x", "en": "x", "ja": "x"}] * 2}},
            "the reason x is there twice",
        ),
    ],
)
def test_a_wrong_configuration_is_an_error_that_says_why(
    config: dict[str, object], text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        EndpointsConfig.model_validate(config)
    assert text in str(caught.value)


def test_a_secret_is_not_shown() -> None:
    config = EndpointsConfig.model_validate({"conversions": {"secret": "very-secret-secret"}})
    assert "very-secret" not in repr(config)
