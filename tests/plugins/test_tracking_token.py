from __future__ import annotations

import dataclasses
import json
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.tracking.keys import LONGEST_TEXT, Keyring
from plugins.tracking.token import Kind, Token, day_of, decode, encode_common, encode_own

FIELD = st.text(st.characters(exclude_characters="\0"), max_size=30)
URL = st.text(
    st.sampled_from([chr(code) for code in range(33, 127)]), min_size=1, max_size=200
).map(lambda rest: f"https://{rest}")
USUAL = Token(
    Kind.CLICK,
    "0H3K5M7P9R1T3",
    "taro.yamada@example.net",
    "bounces@shop.example.com",
    "bulk",
    "spring-sale",
    "b",
    20_000,
    "https://www.shop.example.com/products/spring/jacket-1234?color=blue&size=m",
    "hero",
)


# USUAL under the key 7, whose secret is 00 01 02 … 1F.
GOLDEN = (
    "BxNqmUT5A7sHAWMV0jXpUY66Mnakzc0xdJ0OaBUOquFmUfbGOax6OFKvRRYjcDgSVcsKyrZMmD4JtFbn"
    "I1JyM-twahe-PDeKEqaao6uC9wZtIGxZT2ijyTruCtiRm2f36lqyPAe52cD7bkWo4ifncAOevWDxBCiE"
    "srkBWXRNrf9Zn2xfAXMTAoVhi0Nm"
)


def tokens() -> st.SearchStrategy[Token]:
    def build(kind: Kind, fields: list[str], day: int, url: str) -> Token:
        message_id, recipient, sender, stream, campaign, variant, link = fields
        url = url if kind is Kind.CLICK else ""
        return Token(kind, message_id, recipient, sender, stream, campaign, variant, day, url, link)

    fields = st.lists(FIELD, min_size=7, max_size=7)
    return st.builds(build, st.sampled_from(Kind), fields, st.integers(0, 65_535), URL)


def encoded(token: Token) -> bytes:
    common = encode_common(
        token.message_id,
        token.recipient,
        token.sender,
        token.stream,
        token.campaign,
        token.variant,
        token.day,
    )
    return common + encode_own(token.kind, token.url, token.link)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys.json")


@given(tokens())
def test_what_goes_in_comes_out(token: Token) -> None:
    assert decode(encoded(token)) == token


@given(st.binary(max_size=200))
def test_anything_else_is_none(data: bytes) -> None:
    token = decode(data)
    assert token is None or decode(encoded(token)) == token


@pytest.mark.parametrize("fields", range(10))
def test_another_number_of_fields_is_none(fields: int) -> None:
    deflate = zlib.compressobj(wbits=-10)
    common = deflate.compress(b"\x4e\x20" + b"\0" * fields) + deflate.flush()
    for own in (
        b"o\0",
        b"chttps\0https://a.example/",
        b"o",
        b"",
        b"x\0",
        b"ox\0https://a.example/",
    ):
        assert (decode(common + own) is not None) is (
            fields == 5 and own in (b"o\0", b"chttps\0https://a.example/")
        )
    assert decode(common) is None
    assert decode(common[:-1]) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://www.example.com/?utm_source=a&utm_medium=email&utm_campaign=b",
        "http://www.example.co.jp/",
        "HTTPS://WWW.EXAMPLE.COM/",
        "https://example.com/?to=https://www.example.com/http://x.co.jp/.com/",
        "https://a",
    ],
)
def test_frequent_strings_come_out_as_they_went_in(url: str) -> None:
    token = dataclasses.replace(USUAL, url=url)
    assert decode(encoded(token)) == token


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://example.com/",
        "//example.com/",
        "/path",
        "https:",
        "https://",
        " https://example.com/",
        "https://example.com/ x",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://example.com/\x01",
        "https://日本.jp/",
        "xhttps://example.com/",
        "mailto:a@example.com",
    ],
)
def test_only_web_addresses_are_sealed(keyring: Keyring, url: str) -> None:
    with pytest.raises(ValueError, match="http or https URL"):
        keyring.seal(dataclasses.replace(USUAL, url=url))


def test_a_web_address_is_in_tokens_of_clicks_only(keyring: Keyring) -> None:
    for kind in (Kind.OPEN, Kind.UNSUBSCRIBE, Kind.CONVERSION):
        with pytest.raises(ValueError, match="has no URL"):
            keyring.seal(dataclasses.replace(USUAL, kind=kind))


@pytest.mark.parametrize(
    "name", ["message_id", "recipient", "sender", "stream", "campaign", "variant", "link"]
)
def test_a_nul_is_refused(keyring: Keyring, name: str) -> None:
    change: dict[str, Any] = {name: "a\0b"}
    with pytest.raises(ValueError, match="NUL"):
        keyring.seal(dataclasses.replace(USUAL, **change))


@pytest.mark.parametrize("kind", Kind)
def test_no_kind_is_taken_for_another(keyring: Keyring, kind: Kind) -> None:
    token = dataclasses.replace(USUAL, kind=kind, url=USUAL.url if kind is Kind.CLICK else "")
    text = keyring.seal(token)

    assert keyring.open(text) == keyring.open(text, kind) == token
    for other in Kind:
        if other is not kind:
            assert keyring.open(text, other) is None


def test_a_usual_token_is_short_and_hides_the_address(keyring: Keyring) -> None:
    text = keyring.seal(USUAL)

    assert len(text) < 220
    assert len(keyring.seal(dataclasses.replace(USUAL, kind=Kind.OPEN, url=""))) < 140
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()


def test_one_token_has_one_text(keyring: Keyring) -> None:
    assert keyring.seal(USUAL) == keyring.seal(USUAL)
    assert keyring.seal(USUAL) != keyring.seal(
        dataclasses.replace(USUAL, recipient="b@example.net")
    )


def test_a_token_for_a_url_too_long_is_refused(keyring: Keyring) -> None:
    long = dataclasses.replace(USUAL, url="https://example.com/" + "a" * LONGEST_TEXT)
    with pytest.raises(ValueError, match="too long"):
        keyring.seal(long)


def test_a_token_without_a_day_gets_that_of_its_making(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "keys.json", lambda: 20_345 * 86_400.0 + 5)

    made = keyring.open(keyring.seal(dataclasses.replace(USUAL, day=0)))

    assert made is not None
    assert made.day == 20_345 == day_of(20_345 * 86_400.0 + 86_399)
    assert keyring.open(keyring.seal(USUAL)) == USUAL


def test_fields_that_could_not_be_read_again_are_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        encode_common("1", "a" * 20_000)
    with pytest.raises(ValueError, match="no day"):
        encode_common("1", "a", day=65_536)


def test_tokens_of_the_first_version_are_read_for_ever(tmp_path: Path) -> None:
    secret = b64encode(bytes(range(32))).decode()
    created = "2025-01-01T00:00:00+00:00"
    path = tmp_path / "keys.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"keys": [{"id": 7, "created": created, "secret": secret}]}))

    assert Keyring(path).open(GOLDEN) == USUAL


def test_the_age_counts_from_the_end_of_the_day() -> None:
    end = (USUAL.day + 1) * 86_400
    assert not USUAL.older_than(3600, end)
    assert not USUAL.older_than(3600, end + 3600)
    assert USUAL.older_than(3600, end + 3601)
