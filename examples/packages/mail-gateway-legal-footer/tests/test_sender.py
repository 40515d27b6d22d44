"""Whose details are added, and what the configuration may be."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import EN, FROM, PLAIN_EN, Footed, config
from gateway.testing import mail, message
from pydantic import ValidationError

from mail_gateway_legal_footer import LegalFooterConfig
from mail_gateway_legal_footer.author import author_domain


def named(name: str) -> dict[str, Any]:
    return {"en": {**EN, "name": name}}


SENDERS = {
    "example.com": named("itself"),
    ".example.com": named("below"),
    "mail.example.com": named("mail"),
    ".example.jp": named("jp"),
    "例え.jp": named("idn"),
}


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("example.com", "itself"),
        ("EXAMPLE.com", "itself"),
        ("mail.example.com", "mail"),
        ("a.mail.example.com", "below"),
        ("a.example.com", "below"),
        ("example.jp", None),
        ("a.b.example.jp", "jp"),
        ("xn--r8jz45g.jp", "idn"),
        ("notexample.com", None),
        ("com", None),
    ],
)
def test_the_nearest_domain_decides(footed: Footed, domain: str, name: str | None) -> None:
    result = footed(**SENDERS).send(mail(sender=f"a@{domain}"))
    if name is None:
        assert not result.changes
    else:
        assert f"Sender: {name}\n" in (result.message.text or "")


def test_all_other_domains_can_be_meant(footed: Footed) -> None:
    gateway = footed(**SENDERS, **{"*": named("rest")})
    for sender, name in (("a@example.com", "itself"), ("a@example.org", "rest")):
        text = gateway.send(mail(sender=sender)).message.text or ""
        assert f"Sender: {name}\n" in text


def test_it_is_the_author_who_counts_and_not_the_envelope(footed: Footed) -> None:
    result = footed().send(mail(sender=FROM), sender="bounces@example.org")
    assert PLAIN_EN in (result.message.text or "")
    assert not footed().send(mail(sender="a@example.org"), sender=FROM).changes


@pytest.mark.parametrize(
    ("field", "domain"),
    [
        ("a@example.com", "example.com"),
        ("Anna <a@example.com>", "example.com"),
        ('"x@no.example, <y@no.example>" <a@Example.COM>', "example.com"),
        ("=?utf-8?q?Anna?=\r\n <a@example.com> ", "example.com"),
        ("a@example.com (Anna)", "example.com"),
        ("<a@xn--r8jz45g.jp>", "xn--r8jz45g.jp"),
        ("<a@例え.jp>".encode(), "xn--r8jz45g.jp"),
        ("one@example.org, two@example.com", "example.com"),
        ("undisclosed:;", ""),
        ("Anna", ""),
        ("<a@[192.0.2.1]>", ""),
        (b"<a@\xff\xfe>", ""),
        ("(" * 5000, ""),
        ("@" * 5000, ""),
        ("@a (" * 5000, ""),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_the_domain_is_read_from_any_field(field: str | bytes, domain: str) -> None:
    octets = field if isinstance(field, bytes) else field.encode()
    one = message(content=b"From: " + octets + b"\r\n\r\nHello\r\n", sender="x@example.org")
    assert author_domain(one) == domain


def test_without_from_the_envelope_counts() -> None:
    assert author_domain(message(content=b"\r\nHello\r\n", sender="x@Example.ORG")) == "example.org"
    assert author_domain(message(content=b"\r\nHello\r\n", sender="")) == ""


# The configuration.


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({}, "senders"),
        ({"senders": {}}, "at least 1"),
        ({"senders": {"a.example": {}}}, "in Japanese (ja), in English (en) or in both"),
        ({"senders": {"a b": {"en": EN}}}, "is not a domain name"),
        ({"senders": {"a.example": {"en": EN}, "A.example": {"en": EN}}}, "is there twice"),
        ({"senders": {"a.example": {"en": {**EN, "name": "a\nb"}}}}, "expected one line"),
        ({"senders": {"a.example": {"en": {**EN, "name": " "}}}}, "expected one line"),
        ({"senders": {"a.example": {"en": {**EN, "contact": []}}}}, "at least 1"),
        (
            {"senders": {"a.example": {"en": {**EN, "unsubscribe": "javascript:alert(1)"}}}},
            "expected a web address",
        ),
        ({"senders": {"a.example": {"en": {**EN, "fax": "1"}}}}, "fax"),
        ({"senders": {"a.example": {"en": EN}}, "language": "fr"}, "language"),
    ],
)
def test_a_configuration_that_is_wrong_says_why(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        LegalFooterConfig.model_validate(wrong)
    assert text in str(refused.value)


def test_every_key_is_described() -> None:
    schema = LegalFooterConfig.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    keys = [key for model in models for key in model["properties"].values()]
    assert len(keys) == 9
    assert all("description" in key for key in keys)


def test_domains_are_compared_as_the_dns_does() -> None:
    assert list(config(**{"例え.JP": {"en": EN}, ".Example.COM": {"en": EN}}).senders) == [
        "xn--r8jz45g.jp",
        ".example.com",
    ]
