# ruff: noqa: E501 - a line of a message is one line
from __future__ import annotations

import base64
import email
import logging
import quopri
import random
import re
from email.message import Message as PythonMessage
from pathlib import Path

import dkim
import pytest

from gateway.hooks import Client, Message
from gateway.testing import NextHop
from plugins.tracking import Tracking, TrackingConfig, author_domain
from plugins.tracking.keys import Keyring
from plugins.tracking.token import Kind
from tests.assembly import Assembly, configure
from tests.plugins.dkim_keys import rsa_key
from tests.plugins.tracking_mail import (
    BASE,
    RECIPIENT,
    SENDER,
    Site,
    hrefs,
    html_message,
    images,
    make_message,
    text_message,
)
from tests.plugins.tracking_web import Outbox, call, make_context

LINK = '<a href="https://a.example/">x</a>'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def html_of(message: Message) -> str:
    return message.text_parts("text/html")[0].text


def multipart(kind: str, *parts: tuple[str, str], header: str = "") -> bytes:
    lines = [
        f"From: a@example.com\r\n{header}MIME-Version: 1.0\r\nContent-Type: {kind}; boundary=b\r\n"
    ]
    for part_header, body in parts:
        lines.append(f"--b\r\n{part_header}\r\n\r\n{body}\r\n")
    return "\r\n".join([lines[0], "".join(lines[1:]) + "--b--\r\n"]).encode()


def unsubscribe_url(message: Message) -> str:
    match = re.match(r"<(https?://[^>]+)>", message.headers.get("List-Unsubscribe", ""))
    assert match is not None
    return match[1]


# The image.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<p>x</p></body></html>\n", "<p>x</p>IMG</body></html>\n"),
        ("<p>x</p></BODY>\n", "<p>x</p>IMG</BODY>\n"),
        ("x</body>y</body><!-- </body> -->\n", "x</body>yIMG</body><!-- </body> -->\n"),
        ("<p>x</p>\n\n", "<p>x</p>IMG\n\n"),
        ("<p>日本</p>", "<p>日本</p>IMG\n"),
        ("<p>x</p><!-- open\n", "<p>x</p><!-- open\n"),
        ("<style>open\n", "<style>open\n"),
    ],
)
def test_the_image_is_the_last_of_the_body(site: Site, before: str, after: str) -> None:
    made = site.rewritten(before)
    found = images(made)
    assert re.sub(r"<img [^>]*>", "IMG", made) == after
    if "IMG" in after:
        (image,) = found
        assert {**image, "src": ""} == {
            "src": "", "alt": "", "width": "1", "height": "1", "border": "0", "style": "display:block",
        }  # fmt: skip
        assert site.token(image["src"], Kind.OPEN).recipient == RECIPIENT
    else:
        assert not found


def test_the_image_is_in_what_is_shown_first_only(site: Site) -> None:
    message = make_message(
        multipart(
            "multipart/mixed",
            ("Content-Type: text/plain", "x"),
            ("Content-Type: text/html", f"<p>1</p>{LINK}"),
            ("Content-Type: text/html", f"<p>2</p>{LINK}"),
            ("Content-Type: text/html\r\nContent-Disposition: attachment; filename=a.html", LINK),
        )
    )
    before = message.content
    site.plugin.message(message)

    first, second = message.text_parts("text/html")
    assert (len(images(first.text)), len(images(second.text))) == (1, 0)
    assert [site.is_tracked(url) for part in (first, second) for url in hrefs(part.text)] == [
        True
    ] * 2
    assert message.body.endswith(before.split(b"filename=a.html")[1])


def test_a_part_that_cannot_be_edited_takes_the_place_of_the_first(site: Site) -> None:
    message = make_message(
        multipart(
            "multipart/mixed",
            (
                "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64",
                "broken!!",
            ),
            ("Content-Type: text/html", "<p>2</p>"),
        )
    )
    before = message.body
    site.plugin.message(message)
    assert message.body == before


def test_what_was_tracked_before_stays_as_it_is(site: Site) -> None:
    message = html_message(f"<body>{LINK}%%unsubscribe_url%%</body>")
    site.plugin.message(message)
    first = message.content
    site.plugin.message(message)
    assert message.content == first


def test_opens_and_clicks_can_be_left_out(tmp_path: Path) -> None:
    html = f"<body>{LINK}</body>\n"
    assert images(Site(tmp_path / "1", {"clicks": False}).rewritten(html))
    assert hrefs(Site(tmp_path / "1", {"clicks": False}).rewritten(html)) == ["https://a.example/"]
    assert not images(Site(tmp_path / "1", {"opens": False}).rewritten(html))
    assert Site(tmp_path / "1", {"opens": False, "clicks": False}).rewritten(html) == html


# What the URLs say.


def test_tokens_say_whose_mail_it_is(site: Site) -> None:
    message = html_message(f"<body>{LINK}%%unsubscribe_url%%</body>")
    message.notes.update(campaign="春のセール", variant="b")
    site.plugin.message(message)

    html = html_of(message)
    tokens = [
        site.token(hrefs(html)[0]),
        site.token(images(html)[0]["src"], Kind.OPEN),
        site.token(unsubscribe_url(message), Kind.UNSUBSCRIBE),
    ]
    for token in tokens:
        assert (token.message_id, token.recipient, token.sender) == (message.id, RECIPIENT, SENDER)
        assert (token.stream, token.campaign, token.variant) == ("bulk", "春のセール", "b")
        assert token.day == 20_717
    assert [token.url for token in tokens] == ["https://a.example/", "", ""]


def test_notes_are_made_fit_for_a_url(site: Site) -> None:
    message = html_message(LINK)
    message.notes.update(campaign="a\0b\r\nc" + "x" * 1000, variant="\x00")
    site.plugin.message(message)
    token = site.token(hrefs(html_of(message))[0])
    assert token.campaign.startswith("abcxxx")
    assert len(token.campaign) <= 100
    assert token.variant == ""


def test_the_longest_addresses_fit(site: Site) -> None:
    recipient, sender = f"{'r' * 64}@{'example.' * 23}net", f"{'s' * 64}@{'example.' * 23}org"
    message = Message("0H3K5M7P9R1T3", sender, Client("127.0.0.1"), "bulk")
    message.content = html_message(LINK).content
    message.add_recipient(recipient)
    emoji = [chr(0x1F300 + number * 37 % 600) for number in range(200)]
    message.notes.update(campaign="".join(emoji), variant="".join(reversed(emoji)))
    site.plugin.message(message)

    token = site.token(unsubscribe_url(message), Kind.UNSUBSCRIBE)
    assert (token.recipient, token.sender) == (recipient, sender)
    assert max(map(len, message.content.split(b"\r\n"))) <= 998


def test_what_is_too_long_for_a_header_line_is_tracked_all_the_same(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything as long as it can be, and such that nothing makes it shorter."""
    caplog.set_level(logging.INFO, "gateway.plugin.tracking")
    noise = random.Random(1)
    letters = [chr(code) for code in range(0x20000, 0x2A000)]
    recipient, sender = (
        "".join(noise.choices(letters, k=16))
        + "@"
        + "".join(noise.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=189))
        for _ in range(2)
    )
    message = make_message(html_message(LINK).content, recipient, sender)
    message.notes.update(
        campaign="".join(noise.choices(letters, k=100)),
        variant="".join(noise.choices(letters, k=100)),
    )
    site.plugin.message(message)

    assert "List-Unsubscribe" not in message.headers
    assert "no List-Unsubscribe, its URL is too long" in caplog.text
    html = html_of(message)
    token = site.token(images(html)[0]["src"], Kind.OPEN)
    assert (token.recipient, token.sender) == (recipient, sender)
    assert token.variant == message.notes["variant"]
    assert max(map(len, hrefs(html))) <= 2000


def test_each_recipient_has_urls_of_its_own(site: Site) -> None:
    content = html_message(LINK).content
    messages = [
        make_message(content, recipient) for recipient in ("a@example.net", "b@example.net")
    ]
    for message in messages:
        site.plugin.message(message)
    urls = [hrefs(html_of(message))[0] for message in messages]
    assert urls[0] != urls[1]
    assert [site.token(url).recipient for url in urls] == ["a@example.net", "b@example.net"]


@pytest.mark.parametrize(
    ("author", "base"),
    [
        ("news@shop.example.com", "https://t.shop.example.com/m"),
        ("Shop <news@SHOP.example.com>", "https://t.shop.example.com/m"),
        ('"a@b, c" <news@mail.shop.example.com> (x)', "https://t.shop.example.com/m"),
        ("news@notshop.example.com", BASE),
        ("news@example.com", BASE),
        ("店 <news@日本.jp>", "https://t.example.jp"),
        ("news@xn--wgv71a.jp", "https://t.example.jp"),
        ("nobody", BASE),
        ("", BASE),
        ("<" * 5000, BASE),
    ],
)
def test_a_domain_has_urls_of_its_own(tmp_path: Path, author: str, base: str) -> None:
    domains = {
        "shop.example.com": {"base_url": "https://t.shop.example.com/m"},
        "日本.jp": {"base_url": "https://t.example.jp"},
    }
    site = Site(tmp_path, {"domains": domains})
    message = html_message(f'{LINK}<a href="https://t.example.jp/c/x">y</a>')
    message.headers.delete("From")
    if author:
        message.headers.add("From", author.encode())
    site.plugin.message(message)

    url, other = hrefs(html_of(message))
    assert site.token(url, base=base).url == "https://a.example/"
    assert other == "https://t.example.jp/c/x"
    assert unsubscribe_url(message).startswith(f"{base}/u/")


def test_the_domain_of_an_author() -> None:
    assert author_domain("A <a@例え.jp>") == "xn--r8jz45g.jp"
    assert author_domain("a@[192.0.2.1]") == ""
    for hostile in ("(", "<", ":", '"', "@", ",", "\\", "a "):
        for length in (1999, 1_000_000):
            assert author_domain(hostile * length) == ""


# Unsubscribing.


def test_mail_programs_are_offered_to_unsubscribe(site: Site) -> None:
    message = html_message("<p>x</p>")
    site.plugin.message(message)

    raw = email.message_from_bytes(message.content)
    url = unsubscribe_url(message)
    assert raw["List-Unsubscribe"] == f"<{url}>"
    assert raw["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert site.token(url, Kind.UNSUBSCRIBE).recipient == RECIPIENT


def test_text_alone_is_offered_to_unsubscribe_and_else_left_alone(site: Site) -> None:
    message = text_message("See https://a.example/\n")
    before = message.body
    site.plugin.message(message)
    assert message.body == before
    assert "List-Unsubscribe" in message.headers


def test_an_address_can_be_offered_as_well(tmp_path: Path) -> None:
    site = Site(tmp_path, {"unsubscribe": {"mailto": "leave+x@example.com"}})
    message = html_message("<p>x</p>")
    site.plugin.message(message)
    token = unsubscribe_url(message).rpartition("/")[2]
    assert message.headers.get("List-Unsubscribe") == (
        f"<{BASE}/u/{token}>, <mailto:leave+x@example.com?subject=unsubscribe%20{token}>"
    )
    assert message.headers.fields("List-Unsubscribe")[0].raw.count(b"\r\n") == 2


OWN = "<mailto:a@example.com>, <https://a.example/u?a=1&b=2>"


def test_an_offer_that_is_there_stays_and_its_url_is_not_tracked(site: Site) -> None:
    body = '<a href="https://a.example/u?a=1&amp;b=2">out</a><a href="https://a.example/u">x</a>%%unsubscribe_url%%'
    folded = OWN.replace("?", "?\r\n\t")
    message = html_message(body, extra=f"list-unsubscribe: {folded}\r\n")
    site.plugin.message(message)

    assert message.headers.get_all("List-Unsubscribe") == [OWN.replace("?", "?\t")]
    assert f"list-unsubscribe: {folded}\r\n".encode() in message.content
    assert "List-Unsubscribe-Post" not in message.headers
    own, other = hrefs(html_of(message))
    assert own == "https://a.example/u?a=1&b=2"
    assert site.is_tracked(other)
    assert f"{BASE}/u/" in html_of(message)


def test_an_offer_that_is_there_can_be_replaced(tmp_path: Path) -> None:
    site = Site(tmp_path, {"unsubscribe": {"existing": "replace"}})
    extra = f"List-Unsubscribe: {OWN}\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nX-Odd:  y\r\n"
    message = html_message(f'{LINK}<a href="https://a.example/u?a=1&amp;b=2">x</a>', extra=extra)
    site.plugin.message(message)

    assert message.headers.get_all("List-Unsubscribe") == [f"<{unsubscribe_url(message)}>"]
    assert message.headers.get_all("List-Unsubscribe-Post") == ["List-Unsubscribe=One-Click"]
    assert unsubscribe_url(message).startswith(BASE)
    assert b"X-Odd:  y\r\n" in message.content
    assert all(site.is_tracked(url) for url in hrefs(html_of(message)))


def test_the_headers_can_be_left_out(tmp_path: Path) -> None:
    site = Site(tmp_path, {"unsubscribe": {"headers": False}})
    message = html_message("%%unsubscribe_url%%")
    site.plugin.message(message)
    assert "List-Unsubscribe" not in message.headers
    assert f"{BASE}/u/" in html_of(message)


@pytest.mark.parametrize(
    "written",
    [
        '<a href="%%unsubscribe_url%%">out</a>',
        "<a href=%%unsubscribe_url%%>out</a>",
        '<a href="http://%%unsubscribe_url%%">out</a>',
        '<a href="HTTPS://%%unsubscribe_url%%">out</a>',
        '<a href="%25%25unsubscribe_url%25%25">out</a>',
        '<v:rect href="%%unsubscribe_url%%">out</v:rect>',
        "<p>%%unsubscribe_url%%</p>",
    ],
)
def test_the_placeholder_becomes_the_url(site: Site, written: str) -> None:
    message = html_message(f"{written}{LINK}%%unsubscribe_url%%")
    site.plugin.message(message)

    url = unsubscribe_url(message)
    html = html_of(message)
    assert html.count(url) == 2
    expected = re.sub(r"(?i)(https?://)?(%%|%25%25)unsubscribe_url(%%|%25%25)", url, written)
    assert html.startswith(expected + "<a href=")
    assert "unsubscribe_url" not in html


def test_the_placeholder_is_replaced_in_text_too(site: Site) -> None:
    message = text_message("Out: %%unsubscribe_url%%\n")
    site.plugin.message(message)
    assert message.text_parts()[0].text == f"Out: {unsubscribe_url(message)}\n"


@pytest.mark.parametrize(
    ("placeholder", "written"),
    [
        ("{{unsubscribe}}", '<a href="{{unsubscribe}}">'),
        ("[[out]]", '<a href="%5B%5Bout%5D%5D">'),
        ("<%out%>", '<a href="&lt;%out%&gt;">'),
        ("*|UNSUB|*", '<a href="http://*|UNSUB|*">'),
        ("https://example.com/OUT", '<a href="https://example.com/OUT">'),
        ("OUT_URL", '<a href="https://OUT_URL">'),
        ("OUT_URL", '<a href="https://example.com/OUT_URL">'),
    ],
)
def test_other_placeholders(tmp_path: Path, placeholder: str, written: str) -> None:
    site = Site(tmp_path, {"unsubscribe": {"placeholder": placeholder}})
    message = html_message(f"{written}out</a>{LINK}%%unsubscribe_url%%")
    site.plugin.message(message)
    first, second = hrefs(html_of(message))
    assert first.endswith(unsubscribe_url(message))
    assert site.is_tracked(second)
    assert "%%unsubscribe_url%%" in html_of(message)


# What is left alone.


@pytest.mark.parametrize(
    "content",
    [
        multipart(
            "multipart/signed; protocol=x/y; micalg=sha1",
            ("Content-Type: text/html", LINK),
            ("Content-Type: application/pgp-signature", "x"),
        ),
        b"Content-Type: text/html; charset=utf-8\r\n\r\n\xff<a href=https://a.example/>x</a>\r\n",
        b"Content-Type: text/html; charset=x-unknown\r\n\r\n<a href=https://a.example/>x</a>\r\n",
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n<a href=https://a.example/>x\r\n",
    ],
    ids=["signed", "not UTF-8", "unknown charset", "not base64"],
)
def test_what_cannot_be_edited_stays_and_is_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    caplog.set_level(logging.INFO, "gateway.plugin.tracking")
    message = make_message(content)
    before = message.body
    site.plugin.message(message)

    assert message.body == before
    assert [record.getMessage() for record in caplog.records] == [
        "0H3K5M7P9R1T3: its text/html stays as it is"
    ]
    assert "List-Unsubscribe" in message.headers


def test_text_that_would_not_change_is_not_in_the_log(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.plugin.tracking")
    content = b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff https://a.example/\r\n"
    site.plugin.message(make_message(content))
    assert not caplog.records
    other = Site(tmp_path, {"text_links": True})
    caplog.clear()
    other.plugin.message(make_message(content))
    assert "its text/plain stays as it is" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: application/pkcs7-mime\r\n\r\nx\r\n",
        b"Content-Type: message/rfc822\r\n\r\nContent-Type: text/html\r\n\r\n<a href=https://a.example/>x</a>\r\n",
        b"Content-Type: text/calendar\r\n\r\nURL:https://a.example/\r\n",
        b"\r\n",
        b"",
        b"no header\r\n",
    ],
)
def test_what_has_no_text_to_show_stays(site: Site, content: bytes) -> None:
    message = make_message(content)
    before = message.body
    site.plugin.message(message)
    assert message.body == before


def test_reports_are_left_alone(site: Site) -> None:
    message = Message("ID", "", Client("127.0.0.1"))
    message.content = html_message(LINK).content
    before = message.content
    message.add_recipient(RECIPIENT)
    site.plugin.message(message)
    assert message.content == before


def test_a_message_to_nobody_is_left_alone(site: Site) -> None:
    message = html_message(LINK)
    message.remove_recipient(message.recipients[0])
    before = message.content
    site.plugin.message(message)
    assert message.content == before


# Encodings.


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize("charset", ["utf-8", "iso-2022-jp", "shift_jis", "us-ascii"])
def test_every_encoding_is_kept(site: Site, encoding: str, charset: str) -> None:
    text = f"<html><body>\n<p>{'x' if charset == 'us-ascii' else '日本語①'}</p>\n{LINK * 3}\n</body></html>\n"
    if charset in ("iso-2022-jp", "shift_jis"):
        text = text.replace("①", "")
    data = text.replace("\n", "\r\n").encode(charset)
    if encoding == "7bit" and not data.isascii():
        encoding = "8bit"
    made = PythonMessage()
    made["Content-Transfer-Encoding"] = encoding
    made.set_type("text/html")
    made.set_param("charset", charset)
    if encoding == "base64":
        data = base64.encodebytes(data)
    elif encoding == "quoted-printable":
        data = quopri.encodestring(data.replace(b"\r\n", b"\n"))
    made.set_payload(data.decode("ascii", "surrogateescape"))
    content = made.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    message = make_message(content)
    site.plugin.message(message)

    read = email.message_from_bytes(message.content)
    assert read["Content-Transfer-Encoding"] == encoding
    assert read.get_content_charset() == charset
    payload = read.get_payload(decode=True)
    assert isinstance(payload, bytes)
    html = payload.decode(charset).replace("\r\n", "\n")
    assert [site.token(url).url for url in hrefs(html)] == ["https://a.example/"] * 3
    assert len(images(html)) == 1
    plain = re.sub(r"<img [^>]*>", "", html).replace(hrefs(html)[0], "https://a.example/")
    assert plain == text


# In a gateway.


async def test_what_is_written_is_answered_by_the_same_plugin(tmp_path: Path) -> None:
    outbox = Outbox()
    plugin = Tracking(TrackingConfig.model_validate({"base_url": BASE}))
    plugin.start(make_context(tmp_path, outbox.emit))
    message = html_message('<a href="https://a.example/?x=1&amp;y=日">x</a>')
    plugin.message(message)
    endpoints = plugin.http()

    html = html_of(message)
    clicked = await call(endpoints, "GET", hrefs(html)[0].removeprefix(BASE))
    opened = await call(endpoints, "GET", images(html)[0]["src"].removeprefix(BASE))
    asked = await call(endpoints, "GET", unsubscribe_url(message).removeprefix(BASE))
    await plugin.stop()

    assert (clicked.status, clicked.headers["location"]) == (
        302,
        "https://a.example/?x=1&y=%E6%97%A5",
    )
    assert (opened.status, opened.headers["content-type"]) == (200, "image/gif")
    assert (asked.status, asked.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert {event.type for event in outbox.events} == {"clicked", "opened"}
    assert {event.recipient for event in outbox.events} == {RECIPIENT}


async def test_recipients_get_editions_of_their_own_and_signatures_hold(tmp_path: Path) -> None:
    """Over SMTP: split by the core, tracked, signed by dkim after that, and opened again."""
    rsa_key().write(tmp_path / "s1.pem")
    (tmp_path / "site.py").write_text(
        "from plugins.tracking import Tracking, TrackingConfig\nclass Site(Tracking):\n    pass\n"
    )
    content = html_message(
        f"<body>{LINK}</body>\n", extra="X-Campaign: spring\r\nX-Odd:   y \r\n"
    ).content
    async with NextHop() as receiver:
        config = configure(
            tmp_path,
            f"""
relay: {{via: ["{receiver.address}"]}}
plugins:
  - ./site.py: {{base_url: "https://t.example.com"}}
  - dkim: {{keys: [{{domain: shop.example.com, selector: s1, file: s1.pem}}]}}
""",
        )
        async with Assembly(config) as gateway:
            reply = await gateway.submit("a@example.net", "b@example.net", content=content)
            assert reply.startswith("250")
            received = await receiver.wait(2)
    keyring = Keyring(next(tmp_path.glob("spool/plugins/*/keys.json")))
    seen = set()
    for delivered in received:
        ((recipient, *_),) = delivered.recipients
        parsed = email.message_from_bytes(delivered.content)
        payload = parsed.get_payload(decode=True)
        assert isinstance(payload, bytes)
        token = keyring.open(hrefs(payload.decode())[0].removeprefix(f"{BASE}/c/"), Kind.CLICK)
        assert token is not None
        assert (token.recipient, token.campaign) == (recipient, "spring")
        assert token.message_id in reply
        assert b"X-Odd:   y \r\n" in delivered.content
        record = rsa_key().record.encode()
        assert dkim.verify(delivered.content, dnsfunc=lambda *_, record=record, **__: record)
        signed = re.sub(r"\s", "", str(parsed["DKIM-Signature"])).lower()
        assert "list-unsubscribe:" in signed
        assert "list-unsubscribe-post:" in signed
        seen.add(recipient)
    assert seen == {"a@example.net", "b@example.net"}
