from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from plugins.tracking import TrackingConfig
from tests.plugins.tracking_mail import Site


def config(**settings: object) -> TrackingConfig:
    return TrackingConfig.model_validate({"base_url": "https://t.example.com", **settings})


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as error:
        config(**settings)
    (only,) = error.value.errors()
    return str(only["msg"]).removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("given", "base_url"),
    [
        ("https://t.example.com", "https://t.example.com"),
        ("https://t.example.com/", "https://t.example.com"),
        ("HTTPS://T.Example.com/Mail//", "https://t.example.com/Mail"),
        ("https://www.example.com/t/v1", "https://www.example.com/t/v1"),
        ("https://t.example.com:8443", "https://t.example.com:8443"),
        ("https://日本.jp/t", "https://xn--wgv71a.jp/t"),
        ("https://[::1]:8025/tracking", "https://[::1]:8025/tracking"),
        ("http://127.0.0.1:8025/tracking", "http://127.0.0.1:8025/tracking"),
        ("http://localhost:8025", "http://localhost:8025"),
        ("http://[::1]", "http://[::1]"),
    ],
)
def test_a_base_url_is_brought_into_one_form(given: str, base_url: str) -> None:
    assert config(base_url=given).base_url == base_url


@pytest.mark.parametrize(
    "given",
    [
        "",
        "t.example.com",
        "//t.example.com",
        "ftp://t.example.com",
        "https://",
        "https://user@t.example.com",
        "https://@t.example.com",
        "https://t.example.com?x",
        "https://t.example.com/?",
        "https://t.example.com/#",
        "https://t.example.com/#x",
        "https://t.example.com/a b",
        "https://t.example.com/%41",
        "https://t.example.com/日",
        "https://t.example.com//x",
        "https://t.example.com:x",
        "https://t.exa mple.com",
        "https://[::g]",
        'https://t.example.com/"onclick',
        "javascript:alert(1)",
    ],
)
def test_what_is_no_base_url_is_refused(given: str) -> None:
    text = refusal(base_url=given)
    assert "expected a URL such as https://t.example.com" in text or "is not a domain" in text


def test_a_base_url_has_tls_unless_it_is_on_this_machine_or_said_otherwise() -> None:
    text = "http://t.example.com has no TLS; use https, or set allow_http: true"
    assert refusal(base_url="http://t.example.com") == text
    assert refusal(domains={"a.jp": {"base_url": "http://t.example.com"}}) == text
    assert config(base_url="http://t.example.com", allow_http=True).base_url.startswith("http:")


def test_domains_are_compared_in_one_form_and_take_their_parents_settings() -> None:
    settings = config(
        domains={
            "Shop.Example.COM": {"base_url": "https://a.example.com"},
            "日本.jp": {"base_url": "https://b.example.com/"},
        }
    )
    assert settings.base_urls == (
        "https://t.example.com",
        "https://a.example.com",
        "https://b.example.com",
    )
    assert settings.base_url_of("shop.example.com") == "https://a.example.com"
    assert settings.base_url_of("x.y.shop.example.com") == "https://a.example.com"
    assert settings.base_url_of("example.com") == "https://t.example.com"
    assert settings.base_url_of("xn--wgv71a.jp") == "https://b.example.com"
    assert settings.base_url_of("") == "https://t.example.com"
    text = refusal(domains={"a b": {"base_url": "https://a.example.com"}})
    assert text == "'a b' is not a domain name"


@pytest.mark.parametrize("host", ["", "a b", "https://a.jp", "a/b", "a,b", "é*."])
def test_a_host_that_can_match_nothing_is_refused(host: str) -> None:
    assert "expected one such as example.com or *.example.com" in refusal(only_hosts=[host])


def test_a_placeholder_of_a_parameter_must_be_known() -> None:
    text = "utm: there is no {name}; known are {campaign}, {stream}, {variant}, {link}"
    assert refusal(parameters={"utm": "{name}"}) == text
    assert refusal(parameters={"": "x"}) == "a parameter needs a name"
    assert config(parameters={"utm": "{campaign}{link}", "a": "{", "b": "x}"}).parameters


def test_an_address_to_unsubscribe_at_is_checked() -> None:
    assert "expected user@example.com" in refusal(unsubscribe={"mailto": "a@b>\r\nX: y"})
    assert "expected user@example.com" in refusal(unsubscribe={"mailto": "mailto:a@example.com"})


@pytest.mark.parametrize("placeholder", ["", "abc", "a b c", "日本語日本語", "x" * 101, "a\nbcd"])
def test_a_placeholder_that_stands_everywhere_is_refused(placeholder: str) -> None:
    assert "4 to 100 ASCII characters" in refusal(unsubscribe={"placeholder": placeholder})


def test_unknown_keys_are_refused() -> None:
    assert "Extra inputs" in refusal(click=True)
    assert "Extra inputs" in refusal(unsubscribe={"header": True})
    assert "Extra inputs" in refusal(domains={"a.jp": {"base_url": "https://a.jp", "x": 1}})


def test_a_lifetime_is_longer_than_nothing() -> None:
    assert config(token_lifetime="365d").token_lifetime == 365 * 86_400
    assert "greater than 0" in refusal(token_lifetime=0)


def test_the_file_of_keys_can_be_elsewhere(tmp_path: Path) -> None:
    site = Site(tmp_path, {"keys": "secret/tracking.json"})
    assert (tmp_path / "secret" / "tracking.json").exists()
    assert not (tmp_path / "data").exists()
    assert site.is_tracked(site.rewritten('<a href="https://a.jp/">').split('"')[1])
