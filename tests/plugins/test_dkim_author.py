from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import domain_name
from plugins.dkim.author import author_domains


@pytest.mark.parametrize(
    "value",
    [
        b" taro@example.com",
        b"taro@example.com",
        b" <taro@example.com>",
        b" Taro <taro@EXAMPLE.com> ",
        b' "Taro" <taro@example.com>',
        b' "info@other.example, Taro" <taro@example.com>',
        b' "a \\" <x@other.example>" <taro@example.com>',
        b" info@other.example <taro@example.com>",
        b" Suzuki, Taro <taro@example.com>",
        b" Taro (of x@other.example (really)) <taro@example.com>",
        b" taro@example.com (Taro <x@other.example>)",
        b" taro(comment)@(comment)example.com",
        b" (\\) x@other.example) taro@example.com",
        b" =?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?= <taro@example.com>",
        b" =?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?=\r\n =?utf-8?Q?a=40b?=\r\n\t<taro@example.com>",
        b" =?utf-8?Q?x@other.example,_(?= <taro@example.com>",
        b" \x1b$B;3ED@<\x1b(B <taro@example.com>",
        "  \u5c71\u7530 <taro@example.com>".encode(),
        b" \x8eR\x93c <taro@example.com>",
        b" Taro\r\n <taro@example.com>",
        b" <@relay.example,@x.example:taro@example.com>",
        b' "taro@other.example"@example.com',
        b' <"taro>@other.example"@example.com>',
        b" Sales: taro@example.com, hanako@example.com;",
        b" Sales:;, taro@example.com",
        b" taro@example.com, Hanako <hanako@example.com>",
        b" , taro@example.com,",
        b" a..b@example.com",
        b" a.@example.com",
        b" Re: hello <taro@example.com>",
        b" smile :) <taro@example.com>",
    ],
)
def test_the_domain_of_the_author(value: bytes) -> None:
    assert author_domains(value) == ("example.com",)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b" Taro",
        b" <>",
        b" Taro <>",
        b" taro@",
        b" @example.com",
        b" <@example.com>",
        b" <taro@example.com",
        b" taro@example.com>",
        b" <taro@example.com> <hanako@other.example>",
        b' "Taro <taro@example.com>',
        b" Taro (comment <taro@example.com>",
        b" <<taro@example.com>>",
        b" =?utf-8?Q?<x@other.example>?= <taro@example.com>",
        b" Taro Yamada taro@example.com",
        b" taro@example.com hanako@other.example",
        b" taro@[192.0.2.1]",
        b" taro@exa mple.com",
        b" taro@example..com",
        b" taro@example.com.",
        b" taro@\xff.example",
        b" taro@example.com\xc2\xa0",
        b" undisclosed:;",
        b" <taro@other.example>: hanako@example.com",
        b" taro@" + b"a." * 127,
        b" taro@" + b"a." * 127 + b"com",
        b" (comment) taro@" + b"a." * 127 + b"com",
        b" taro@example.com, Hanako <hanako@>",
    ],
)
def test_a_field_that_cannot_be_read_for_certain_has_no_domain(value: bytes) -> None:
    assert author_domains(value) == ()


def test_the_longest_domain() -> None:
    domain = "a." * 125 + "com"

    assert author_domains(f" taro@{domain}".encode()) == (domain,)
    assert author_domains(f" (comment) taro@{domain}".encode()) == (domain,)


def test_several_domains_come_in_order_and_once() -> None:
    value = b' a@one.example, "B, C" <b@two.example>, Group: c@one.example, d@three.example;'

    assert author_domains(value) == ("one.example", "two.example", "three.example")


def test_a_domain_in_japanese_becomes_its_a_label() -> None:
    value = "\u5c71\u7530 <taro@\u65e5\u672c\u8a9e.jp>".encode()

    assert author_domains(value) == ("xn--wgv71a119e.jp",)
    assert domain_name("B\u00fccher.EXAMPLE") == "xn--bcher-kva.example"


@pytest.mark.parametrize("name", ["", ".", "a..b", "exa mple.com", "*.example.com", "[192.0.2.1]"])
def test_what_is_no_domain_name(name: str) -> None:
    with pytest.raises(ValueError):
        domain_name(name)


TOKENS = [bytes([octet]) for octet in b'"\\()<>@,:;a. \t=?_\xe3']
TOKENS += [b"\r\n ", b"=?utf-8?Q?", b"?=", b"\x1b$B", b"\x1b(B", b"a@b.example"]


@given(st.lists(st.sampled_from(TOKENS)).map(b"".join))
def test_any_bytes_give_domain_names_or_none(value: bytes) -> None:
    assert all(domain_name(domain) == domain for domain in author_domains(value))


@pytest.mark.parametrize(
    "part",
    [b'"', b"<", b'<"', b'<"<"', b"<a", b"(", b'\\"', b"\x1b$B", b"=?", b"=?a?Q?", b"a@", b'"\\"'],
)
def test_a_very_long_field_is_read_in_linear_time(part: bytes) -> None:
    # In quadratic time this would take hours, and the test's timeout would end it.
    assert author_domains(part * (1_000_000 // len(part))) == ()
