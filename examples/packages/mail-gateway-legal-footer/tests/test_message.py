"""What becomes of messages: the footer is there, and nothing else has changed."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from typing import Literal, cast

import pytest
from conftest import EN, FROM, JA, PLAIN_EN, PLAIN_JA, Footed, config
from gateway.testing import changes, mail, message
from hypothesis import given
from hypothesis import strategies as st

from mail_gateway_legal_footer import LegalFooter

Encoding = Literal["7bit", "8bit", "quoted-printable", "base64"]
HTML = "<html><body><p>Hello</p></body></html>\n"


def test_english_text_gets_the_english_footer(footed: Footed) -> None:
    result = footed().send(mail("Hello", sender=FROM))
    assert result.message.text == f"Hello\n\n{PLAIN_EN}"
    result.changes.only("text/plain")


def test_japanese_text_gets_the_japanese_footer(footed: Footed) -> None:
    result = footed().send(mail("こんにちは", sender=FROM))
    assert result.message.text == f"こんにちは\n\n{PLAIN_JA}"
    result.changes.only("text/plain")


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("iso-2022-jp", "7bit"),
        ("iso-2022-jp", "base64"),
        ("shift_jis", "8bit"),
        ("shift_jis", "quoted-printable"),
        ("euc-jp", "base64"),
        ("utf-8", "8bit"),
        ("utf-8", "quoted-printable"),
        ("utf-8", "base64"),
    ],
)
@pytest.mark.parametrize("html", [None, "<p>こんにちは</p>\n"])
def test_charset_and_transfer_encoding_stay(
    footed: Footed, charset: str, encoding: Encoding, html: str | None
) -> None:
    sent = mail("こんにちは", html=html, sender=FROM, charset=charset, encoding=encoding)
    result = footed().send(sent)
    result.changes.only("text/plain", "text/html")
    for before, after in zip(*map(_leaves, (sent, result.message.content)), strict=True):
        assert after.get_content_charset() == charset
        assert after["Content-Transfer-Encoding"] == encoding
        assert after["Content-Type"] == before["Content-Type"]
    # Japanese charsets have one wave dash, which is read as the other one.
    footer = PLAIN_JA if charset == "utf-8" else PLAIN_JA.replace("〜", "～")
    assert result.message.text == f"こんにちは\n\n{footer}"
    if html is not None:
        assert "例示商店㈱" in unescape(result.message.html or "")


def test_an_english_message_stays_ascii(footed: Footed) -> None:
    sent = mail("Hello", html=HTML, sender=FROM, charset="us-ascii")
    result = footed().send(sent)
    assert result.message.content.isascii()
    assert [part.get_content_charset() for part in _leaves(result.message.content)] == [
        "us-ascii",
        "us-ascii",
    ]


def test_html_keeps_a_charset_that_has_no_japanese(footed: Footed) -> None:
    sent = mail(None, html="<p>Grüße</p>\n", sender=FROM, charset="iso-8859-1")
    result = footed("ja").send(sent)
    (part,) = _leaves(result.message.content)
    assert part.get_content_charset() == "iso-8859-1"
    assert "&#36865;&#20449;&#32773;" in (result.message.html or "")  # 送信者
    result.changes.only("text/html")


def test_text_becomes_utf_8_where_its_charset_has_no_japanese(footed: Footed) -> None:
    sent = mail("Grüße", sender=FROM, charset="iso-8859-1")
    result = footed("ja").send(sent)
    assert result.message.text == f"Grüße\n\n{PLAIN_JA}"
    (part,) = _leaves(result.message.content)
    assert part.get_content_charset() == "utf-8"


def test_html_gets_links_and_nothing_in_it_is_markup(footed: Footed) -> None:
    result = footed().send(mail(None, html=HTML, sender=FROM))
    html = result.message.html or ""
    assert html.startswith("<html><body><p>Hello</p><div class=")
    assert html.endswith("\n</div>\n</body></html>\n")
    assert 'lang="en"' in html
    assert "Sender: Example &lt;Shop&gt; &amp; Co.<br>" in html
    assert '<a href="https://shop.example.com/contact">' in html
    assert '<a href="mailto:stop@shop.example.com">stop@shop.example.com</a>' in html
    result.changes.only("text/html")


def test_what_is_escaped_in_an_address_is_right_in_the_link(footed: Footed) -> None:
    result = footed("ja").send(mail(None, html=HTML, sender=FROM))
    assert 'href="https://shop.example.com/stop?a=1&amp;b=2"' in (result.message.html or "")


def test_the_language_is_that_of_the_message_in_both_versions(footed: Footed) -> None:
    result = footed().send(mail("Hello", html="<p>ようこそ</p>", sender=FROM))
    assert PLAIN_JA in (result.message.text or "")
    assert 'lang="ja"' in (result.message.html or "")


@pytest.mark.parametrize("text", ["Hello", "こんにちは"])
def test_the_language_can_be_said(footed: Footed, text: str) -> None:
    for language, footer in (("ja", PLAIN_JA), ("en", PLAIN_EN), ("both", PLAIN_JA + PLAIN_EN)):
        result = footed(language).send(mail(text, sender=FROM))
        assert result.message.text == f"{text}\n\n{footer}"


def test_a_language_that_is_not_there_is_replaced_by_the_other(footed: Footed) -> None:
    for language in ("auto", "ja", "en", "both"):
        gateway = footed(language, **{"shop.example.com": {"en": EN}})
        assert PLAIN_EN in (gateway.send(mail("こんにちは", sender=FROM)).message.text or "")
        gateway = footed(language, **{"shop.example.com": {"ja": JA}})
        assert PLAIN_JA in (gateway.send(mail("Hello", sender=FROM)).message.text or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", "Hello\n\n"),
        ("Hello\n", "Hello\n\n"),
        ("Hello\n\n\n", "Hello\n\n\n\n"),
        ("\n", "\n"),
    ],
)
def test_the_footer_is_set_off_by_an_empty_line(footed: Footed, text: str, expected: str) -> None:
    result = footed().send(mail(text, sender=FROM))
    assert result.message.text == expected + PLAIN_EN


def test_an_attachment_is_not_touched(footed: Footed) -> None:
    file = ("terms.txt", b"Terms\r\n", "text/plain")
    result = footed().send(mail("Hello", sender=FROM, attachments=[file]))
    result.changes.only("text/plain")
    body, attached = _leaves(result.message.content)
    assert attached.get_payload(decode=True) == b"Terms\r\n"
    assert PLAIN_EN in _text(body)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/signed; protocol=application/pgp-signature; micalg=pgp-sha256",
        "multipart/encrypted; protocol=application/pgp-encrypted",
    ],
)
def test_what_is_signed_or_encrypted_stays_as_it_is(footed: Footed, content_type: str) -> None:
    body = (
        b"--b\r\n\r\nHello\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n"
    )
    headers = {"MIME-Version": "1.0", "Content-Type": f"{content_type}; boundary=b"}
    result = footed().send(mail(raw=body, sender=FROM, headers=headers))
    assert not result.changes


def test_a_message_without_text_stays_as_it_is(footed: Footed) -> None:
    headers = {"MIME-Version": "1.0", "Content-Type": "application/pdf"}
    assert not footed().send(mail(raw=b"%PDF\r\n", sender=FROM, headers=headers)).changes


def test_of_several_texts_the_last_gets_the_footer(footed: Footed) -> None:
    part = b"--b\r\nContent-Type: text/plain\r\n\r\n"
    body = part + b"above\r\n" + part + b"below\r\n--b--\r\n"
    headers = {"MIME-Version": "1.0", "Content-Type": "multipart/mixed; boundary=b"}
    result = footed().send(mail(raw=body, sender=FROM, headers=headers))
    above, below = map(_text, _leaves(result.message.content))
    assert above.strip() == "above"
    assert below.strip() == f"below\n\n{PLAIN_EN}".strip()


# Never twice.


@pytest.mark.parametrize("text", ["Hello", "こんにちは", ""])
@pytest.mark.parametrize("charset", ["utf-8", "iso-2022-jp"])
@pytest.mark.parametrize("language", ["auto", "ja", "en", "both"])
def test_the_footer_is_added_once(footed: Footed, text: str, charset: str, language: str) -> None:
    gateway = footed(language)
    html = f"<html><body><p>{text}</p></body></html>\n"
    once = gateway.send(mail(text, html=html, sender=FROM, charset=charset))
    once.changes.only("text/plain", "text/html")
    assert {"text/plain", "text/html"} == once.changes.what
    assert not gateway.send(once.message.content, sender="a@example.com", to="b@e.com").changes


def test_details_that_are_there_in_another_layout_are_enough(footed: Footed) -> None:
    text = "1-1 Chiyoda,\n  Tokyo: Example <Shop> &\nCo.\nstop@shop.example.com\n"
    html = (
        "<p>1-1 <b>Chiyoda</b>,&nbsp;Tokyo <td>Example &lt;Shop&gt;</td> &amp; Co. "
        '<a href="mailto:stop@shop.example.com">no more</a>'
    )
    assert not footed().send(mail(text, html=html, sender=FROM)).changes


@pytest.mark.parametrize("missing", ["name", "address", "unsubscribe"])
def test_a_detail_that_is_missing_makes_the_footer_needed(footed: Footed, missing: str) -> None:
    text = "\n".join(str(EN[key]) for key in ("name", "address", "unsubscribe") if key != missing)
    result = footed().send(mail(text, html=f"<pre>{_escaped(text)}</pre>", sender=FROM))
    assert {"text/plain", "text/html"} == result.changes.what


def test_what_is_only_quoted_does_not_count(footed: Footed) -> None:
    gateway = footed()
    first = gateway.send(mail("Hello", html=HTML, sender=FROM)).message
    assert first.text
    quoted = "".join(f"> {line}\n" for line in first.text.splitlines())
    html = f"<p>Well</p><blockquote>{first.html}</blockquote>"
    second = gateway.send(mail(f"Well\n\n{quoted}", html=html, sender=FROM)).message
    assert (second.text or "").endswith(f"\n\n{PLAIN_EN}")
    assert (second.html or "").count("legal-footer") == 2


def test_what_nobody_sees_does_not_count(footed: Footed) -> None:
    details = "".join(_escaped(str(EN[key])) for key in ("name", "address", "unsubscribe"))
    for unseen in (f"<!-- {details} -->", f"<style>{details}</style>", f"<title>{details}</title>"):
        result = footed().send(mail(None, html=f"{unseen}<p>Hello</p>", sender=FROM))
        assert "legal-footer" in (result.message.html or "")


# Any message.


@given(st.text(max_size=200), st.sampled_from(["", "<!--", "<script>", "</body>", "<![CDATA["]))
def test_html_only_grows_and_only_once(text: str, before: str) -> None:
    plugin = LegalFooter(config())
    html = before + text.replace("\r", "").replace("\0", "")
    html = html.encode(errors="replace").decode() + "\n"
    one = message(None, html=html, sender=FROM)
    came = one.content
    plugin.message(one)
    changes(came, one.content).only("text/html")
    once = one.content
    plugin.message(one)
    assert one.content == once


@given(st.binary(max_size=300))
def test_no_octets_are_too_much(octets: bytes) -> None:
    plugin = LegalFooter(config())
    content = octets.replace(b"\r", b"").replace(b"\0", b"").replace(b"\n", b"\r\n")
    one = message(content=b"From: <a@shop.example.com>\r\n" + content)
    plugin.message(one)
    changes(b"From: <a@shop.example.com>\r\n" + content, one.content).only(*plugin.changes)


def _leaves(octets: bytes) -> list[EmailMessage]:
    parsed = message_from_bytes(octets, policy=policy.default)
    return [part for part in parsed.walk() if not part.is_multipart()]


def _text(part: EmailMessage) -> str:
    return cast(str, part.get_content()).replace("\r\n", "\n")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
