"""The corpus: messages that SMTP carries, of many shapes, and the same at each call."""

from __future__ import annotations

import email
import re

import pytest

from gateway.hooks import Client, Message
from gateway.mail.address import parse_path
from gateway.smtp.content import flaw
from gateway.testing.corpus import Sample, samples

SAMPLES = samples()


def test_it_is_the_same_each_time() -> None:
    assert samples() == SAMPLES


def test_it_is_large_and_every_name_is_unique() -> None:
    assert len(SAMPLES) >= 100
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES)
    assert len({(sample.content, sample.sender, sample.recipients) for sample in SAMPLES}) == len(
        SAMPLES
    )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_smtp_carries_it(sample: Sample) -> None:
    assert flaw(sample.content, 998) is None
    for address in (sample.sender, *sample.recipients):
        assert parse_path(f"<{address}>") == (address, "")
        assert address.isascii() or sample.smtputf8


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_message_of_it_keeps_its_octets(sample: Sample) -> None:
    message = Message("ID1", sample.sender, Client("192.0.2.1"))
    message.content = sample.content
    for part in message.text_parts():
        assert isinstance(part.text, str)
    assert message.content == sample.content


def test_it_names_nobody_who_exists() -> None:
    reserved = re.compile(
        r"(?:[\w.-]*\.)?(?:example\.(?:com|net|org|jp)|example\d?\.net|example|invalid|test)"
        r"|docomo\.ne\.jp|ezweb\.ne\.jp|A\.b|localhost"
    )
    domains = {
        domain.rpartition("@")[2].lower()
        for sample in SAMPLES
        for domain in (sample.sender, *sample.recipients)
        if domain and not domain.endswith("]")
    }
    odd = {one for one in domains if not re.fullmatch(reserved, one) and "dddd" not in one}
    assert odd <= {"a.b"}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("newsletter", {"multipart/alternative", "text/plain", "text/html"}),
        ("signed-with-s-mime", {"multipart/signed", "application/pkcs7-signature"}),
        ("encrypted-with-openpgp", {"multipart/encrypted", "application/pgp-encrypted"}),
        ("calendar", {"text/calendar"}),
        ("amp", {"text/x-amp-html"}),
        ("forwarded", {"message/rfc822"}),
        ("delivery-report", {"multipart/report", "message/delivery-status"}),
        ("names-in-rfc-2231", {"application/pdf"}),
    ],
)
def test_it_is_what_its_name_says(name: str, kinds: set[str]) -> None:
    (sample,) = [sample for sample in SAMPLES if sample.name == name]
    found = {part.get_content_type() for part in email.message_from_bytes(sample.content).walk()}
    assert kinds <= found


def test_there_are_large_ones() -> None:
    assert max(len(sample.content) for sample in SAMPLES) > 1_000_000
    assert max(len(sample.recipients) for sample in SAMPLES) == 2000
