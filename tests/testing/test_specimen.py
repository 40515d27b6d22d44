"""The messages that tests are made with are what they say, in every encoding."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Client
from gateway.testing import mail, message
from gateway.testing.envelope import recipients_of, sender_of


def parsed(octets: bytes) -> EmailMessage:
    """What the standard library reads."""
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")
    return email.message_from_bytes(octets, policy=email.policy.default)


def test_the_simplest_message() -> None:
    assert mail() == (
        b"From: sender@example.com\r\n"
        b"To: recipient@example.net\r\n"
        b"Subject: Hello\r\n"
        b"Date: Mon, 01 Jun 2026 12:00:00 +0000\r\n"
        b"Message-ID: <1@example.com>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello\r\n"
    )


@pytest.mark.parametrize("charset", ["utf-8", "iso-2022-jp", "shift_jis", "euc-jp"])
@pytest.mark.parametrize("encoding", [None, "quoted-printable", "base64", "8bit"])
def test_text_and_subject_in_charsets_and_encodings(
    charset: str, encoding: Literal["quoted-printable", "base64", "8bit"] | None
) -> None:
    text, subject = "こんにちは。\n.\nさようなら", "ご注文ありがとうございます" * 5
    octets = mail(text, subject=subject, charset=charset, encoding=encoding)
    found = parsed(octets)
    assert found.get_content().replace("\r\n", "\n") == f"{text}\n"
    assert found["Subject"].replace(" ", "") == subject
    assert found.get_content_charset() == charset
    assert all(len(line) <= 78 for line in octets.split(b"\r\n\r\n")[0].split(b"\r\n"))
    assert charset in ("utf-8", "shift_jis", "euc-jp") or b"=?utf-8?" not in octets.lower()
    assert message(text, charset=charset, encoding=encoding).text_parts()[0].text == f"{text}\n"


def test_seven_bits_where_they_are_enough() -> None:
    assert b"Content-Transfer-Encoding: 7bit" in mail("こんにちは", charset="iso-2022-jp")
    assert b"Content-Transfer-Encoding: quoted-printable" in mail("é")
    assert b"Content-Transfer-Encoding: quoted-printable" in mail("x" * 999)
    with pytest.raises(ValueError, match="does not fit 7bit"):
        mail("é", encoding="7bit")
    with pytest.raises(UnicodeEncodeError):
        mail("é", charset="us-ascii")


def test_alternatives_and_attachments() -> None:
    octets = mail(
        "Hello",
        html="<p>Hello</p>",
        attachments=[("a.bin", b"\0\1"), ("b.csv", b"1,2", "text/csv")],
    )
    found = parsed(octets)
    assert found.get_content_type() == "multipart/mixed"
    body = found.get_body(("plain",))
    assert body is not None
    assert body.get_content() == "Hello\r\n"
    html = found.get_body(("html",))
    assert html is not None
    assert html.get_content() == "<p>Hello</p>\r\n"
    files = list(found.iter_attachments())
    assert [one.get_filename() for one in files] == ["a.bin", "b.csv"]
    assert files[0].get_content() == b"\0\1"
    texts = [part.text for part in message("Hello", html="<p>Hello</p>").text_parts()]
    assert texts == ["Hello\n", "<p>Hello</p>\n"]
    assert parsed(mail(None, html="<p>x</p>")).get_content_type() == "text/html"
    assert parsed(mail(None, attachments=[("a", b"x")])).get_content_type() == "multipart/mixed"


def test_header_fields_are_added_replaced_and_left_out() -> None:
    octets = mail(headers={"Subject": "Hi", "Date": None, "X-Odd": b"  two\r\n folded"})
    assert b"\r\nSubject: Hi\r\n" in octets
    assert b"Date:" not in octets
    assert b"\r\nX-Odd:  two\r\n folded\r\n" in octets
    twice = mail(headers=[("Received", "one"), ("Received", "two"), ("Subject", "Hi")])
    assert twice.count(b"\r\nReceived: ") == 2
    assert twice.count(b"\r\nSubject: ") == 2


def test_a_body_as_it_is() -> None:
    octets = mail(raw=b"\xff no end", headers={"Content-Type": "application/x-odd"})
    assert octets.endswith(b"\r\nContent-Type: application/x-odd\r\n\r\n\xff no end")
    assert b"MIME-Version" not in octets


def test_equal_arguments_give_equal_octets() -> None:
    first, second = (mail("é", html="é", attachments=[("a", b"x")]) for _ in "12")
    assert first == second


def test_a_message_has_an_envelope() -> None:
    new = message("Hi", sender="a@example.com", to=["b@example.net", "c@example.net"], user="shop")
    assert new.sender == "a@example.com"
    assert [recipient.address for recipient in new.recipients] == ["b@example.net", "c@example.net"]
    assert new.recipients[0].message is new
    assert new.headers.get("To") == "b@example.net, c@example.net"
    assert (new.client.address, new.client.user) == ("127.0.0.1", "shop")
    client = Client("192.0.2.1")
    assert message(client=client).client is client
    assert message(content=b"A: b\r\n\r\n").content == b"A: b\r\n\r\n"
    assert message(sender="").headers.get("From") == "MAILER-DAEMON@example.com"


def test_the_envelope_of_octets() -> None:
    octets = mail(sender='"a, b" <a@example.com>', to="B <b@example.net>, b@example.net, nobody")
    assert sender_of(octets) == "a@example.com"
    assert recipients_of(octets) == ["b@example.net"]
    assert sender_of(b"no header") == "sender@example.com"
    assert recipients_of(b"no header") == ["recipient@example.net"]
    assert recipients_of(b"To: a@b\r\nCc: c@d\r\nBcc: e@f\r\n\r\n") == ["a@b", "c@d", "e@f"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=80), st.booleans())
def test_any_text_comes_back(text: str, alone: bool) -> None:
    new = message(text, html=None if alone else text)
    assert {part.text for part in new.text_parts()} == {f"{text}\n"}


@given(st.binary(max_size=80))
def test_an_envelope_is_found_in_any_octets(octets: bytes) -> None:
    assert "@" in sender_of(b"From: " + octets)
    assert all("@" in address for address in recipients_of(b"To: " + octets))
