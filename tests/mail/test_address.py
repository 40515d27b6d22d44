from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import (
    AddressSyntaxError,
    check,
    decode_xtext,
    domain_of,
    encode_xtext,
    parse_parameters,
    parse_path,
)


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("alice@example.com", "example.com"),
        ("alice@EXAMPLE.Com", "example.com"),
        ('"a@b"@example.com', "example.com"),
        ("alice@[192.0.2.1]", "[192.0.2.1]"),
        ("alice@日本語.jp", "xn--wgv71a119e.jp"),
        ("alice@日本語。jp", "xn--wgv71a119e.jp"),
        ("alice@BÜCHER.example", "xn--bcher-kva.example"),
        ("alice@Ü_x..example", "ü_x..example"),
        ("postmaster", ""),
        ("", ""),
    ],
)
def test_domain(address: str, domain: str) -> None:
    assert domain_of(address) == domain


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<alice@example.com>", "alice@example.com", ""),
        ("<alice@example.com> SIZE=10 BODY=8BITMIME", "alice@example.com", "SIZE=10 BODY=8BITMIME"),
        ("  <alice@example.com>", "alice@example.com", ""),
        ("<>", "", ""),
        ("<> SIZE=10", "", "SIZE=10"),
        ("<@a.example,@b.example:alice@example.com>", "alice@example.com", ""),
        ('<"a b>c\\"d@e"@example.com> X', '"a b>c\\"d@e"@example.com', "X"),
        ('<""@example.com>', '""@example.com', ""),
        ("<alice@[192.0.2.1]>", "alice@[192.0.2.1]", ""),
        ("<alice@[IPv6:2001:db8::1]>", "alice@[IPv6:2001:db8::1]", ""),
        ("<a..b@docomo.ne.jp>", "a..b@docomo.ne.jp", ""),
        ("<.a@docomo.ne.jp>", ".a@docomo.ne.jp", ""),
        ("<a.@ezweb.ne.jp>", "a.@ezweb.ne.jp", ""),
        ("<田中@例え.jp>", "田中@例え.jp", ""),
        ("<Postmaster>", "Postmaster", ""),
        ("alice@example.com", "alice@example.com", ""),
        ("alice@example.com SIZE=1", "alice@example.com", "SIZE=1"),
        ("<o'hara+tag=x/y{z}@a_b.example>", "o'hara+tag=x/y{z}@a_b.example", ""),
    ],
)
def test_path(text: str, address: str, rest: str) -> None:
    assert parse_path(text) == (address, rest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "<",
        ">",
        "<alice@example.com",
        "alice@example.com>",
        "<<alice@example.com>>",
        "<alice@example.com>>",
        "<alice@example.com>SIZE=1",
        "<alice>",
        "<alice@>",
        "<@example.com>",
        "<alice@@example.com>",
        "<alice@exam ple.com>",
        "<al ice@example.com>",
        "<alice@example..com>",
        "<alice@.example.com>",
        "<alice@example.com\r\nRCPT TO:<x@example.com>>",
        "<alice\x00@example.com>",
        '<"a\rb"@example.com>',
        "<alice@example.com>\n",
        "<al\x85ice@example.com>",
        "<al\u3000ice@example.com>",
        "<al\u2028ice@example.com>",
        "<al\udc80ice@example.com>",
        '<"alice@example.com>',
        "<alice@[192.0.2.1>",
        "alice",
        "postmaster",
        "alice smith@example.com",
        "alice@example.com,bob@example.com",
    ],
)
def test_path_that_is_refused(text: str) -> None:
    with pytest.raises(AddressSyntaxError, match=r"^the "):
        parse_path(text)


def test_path_has_at_most_256_octets_with_its_brackets() -> None:
    domain = "x" * 200 + ".example"
    longest = "a" * (256 - 2 - 1 - len(domain)) + "@" + domain
    assert parse_path(f"<{longest}>") == (longest, "")
    with pytest.raises(AddressSyntaxError, match="256"):
        parse_path(f"<a{longest}>")
    assert parse_path(f"<{longest}> SIZE=1000") == (longest, "SIZE=1000")
    with pytest.raises(AddressSyntaxError, match="256"):
        parse_path("<" + "あ" * 85 + "@b.example>")


@given(st.text(max_size=80))
def test_path_never_carries_a_control_character_or_loses_text(text: str) -> None:
    try:
        address, rest = parse_path(text)
    except AddressSyntaxError:
        return
    assert check(address) == address
    assert address in text
    assert text.endswith(rest)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20))
def test_quoted_local_part(local: str) -> None:
    quoted = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + ' x"@example.com'
    assert parse_path(f"<{quoted}> A") == (quoted, "A")


@pytest.mark.parametrize("address", ["a@b\r\n", "a\x00@b", "a@b\x7f", "a\x85@b"])
def test_check_refuses_control_characters(address: str) -> None:
    with pytest.raises(AddressSyntaxError):
        check(address)


def test_parameters() -> None:
    assert parse_parameters("") == {}
    assert parse_parameters("  ") == {}
    assert parse_parameters("size=10 SMTPUTF8  Orcpt=rfc822;A+40B") == {
        "SIZE": "10",
        "SMTPUTF8": None,
        "ORCPT": "rfc822;A+40B",
    }
    assert parse_parameters("ORCPT=utf-8;田中@例え.jp") == {"ORCPT": "utf-8;田中@例え.jp"}


@pytest.mark.parametrize(
    "text",
    ["SIZE=1 size=2", "SIZE=", "=1", "A=b=c", "-A", "A\tB", "A=\x01", "A=b\r\n", "A=b;c d=", "A,"],
)
def test_parameters_that_are_refused(text: str) -> None:
    with pytest.raises(AddressSyntaxError):
        parse_parameters(text)


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"])))
def test_xtext_round_trip(text: str) -> None:
    encoded = encode_xtext(text)
    assert encoded.isascii()
    assert " " not in encoded
    if "\\x{" not in text:
        assert decode_xtext(encoded) == text


def test_xtext() -> None:
    assert encode_xtext("a+b=c d") == "a+2Bb+3Dc+20d"
    assert decode_xtext("rfc822;a+2Bb@example.com") == "rfc822;a+b@example.com"
    assert decode_xtext("utf-8;\\x{7530}\\x{4E2D}@example.com") == "utf-8;田中@example.com"
    assert decode_xtext("utf-8;田中@example.com") == "utf-8;田中@example.com"


@pytest.mark.parametrize(
    "value",
    [
        "a+",
        "a+2",
        "a+2b",
        "a=b",
        "a b",
        "+0D+0A",
        "\\x{A}",
        "\\x{110000}",
        "\\x{D800}",
        "+FF",
        "\n",
    ],
)
def test_xtext_that_is_refused(value: str) -> None:
    with pytest.raises(AddressSyntaxError):
        decode_xtext(value)
