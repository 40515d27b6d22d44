"""Messages as four kinds of systems write them, with the links that a reader can follow."""

from __future__ import annotations

import base64
import quopri
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP


@dataclass(frozen=True)
class Produced:
    """A message.

    Attributes:
        content: its bytes, with CRLF.
        domain: the domain in From.
        links: where its tracked links lead to, as a browser reads them, in order.
        written: the same as they are written in the HTML.
        name: what `{{ name }}` in it becomes.
        untouched: targets in it that must stay as they are.
        words: what a reader has to find in the HTML.
    """

    content: bytes
    domain: str
    links: tuple[str, ...]
    written: tuple[str, ...]
    name: str
    untouched: tuple[str, ...]
    words: tuple[str, ...]


def python_email(site: str) -> Produced:
    """What Python's `email` package makes of text, HTML and an attachment."""
    message = EmailMessage(SMTP)
    message["From"] = "Example Shop <shop@python.example>"
    message["To"] = "Ada <ada@example.net>"
    message["Subject"] = "Your order has been sent – danke"
    message["Date"] = "Sat, 21 Nov 2026 09:00:00 +0000"
    message["Message-ID"] = "<1@python.example>"
    message["X-Campaign"] = "orders"
    message["X-Merge-Data"] = '{"*": {"name": "Ada"}}'
    message.set_content(f"See {site}/order?id=1&lang=en\n\nGrüße\n")
    message.add_alternative(
        "<html><body><p>Grüße, {{ name }}</p>\n"
        f'<a href="{site}/order?id=1&amp;lang=en">your order</a>\n'
        f"<a href='{site}/help#returns'>returns</a> <a href={site}/plain>plain</a>\n"
        '<a href="mailto:shop@python.example">write</a> <a href="tel:+81312345678">call</a>\n'
        f'<a href="{site}/private" data-track="off">private</a></body></html>\n',
        subtype="html",
    )
    message.add_attachment(b"%PDF-1.4 ...", maintype="application", subtype="pdf", filename="a.pdf")
    return Produced(
        message.as_bytes(),
        "python.example",
        (f"{site}/order?id=1&lang=en", f"{site}/help#returns", f"{site}/plain"),
        (f"{site}/order?id=1&amp;lang=en", f"{site}/help#returns", f"{site}/plain"),
        "Ada",
        ("mailto:shop@python.example", "tel:+81312345678", f"{site}/private"),
        ("Grüße, Ada", "your order"),
    )


def newsletter(site: str) -> Produced:
    """A newsletter tool: quoted-printable, a precedence, a List-Unsubscribe of its own."""
    html = (
        "<!doctype html>\n<html>\n<head><style>a{color:#333}</style>"
        "</head>\n<body>\n<table><tr><td>\n<p>Hello {{ name }}!</p>\n"
        f'<a href="{site}/article?utm_source=newsletter&amp;id=7" target="_blank">Read on</a>\n'
        f'<a class="button" href="{site}/sale?x=caf%C3%A9&y=2">To the sale →</a>\n'
        '<a href="#top">top</a>\n'
        "<!-- <a href='https://old.example.com/'>old</a> -->\n"
        '<a href="%%unsubscribe_url%%">Unsubscribe</a>\n'
        "</td></tr></table>\n</body>\n</html>\n"
    )
    text = f"Read on: {site}/article\n\nUnsubscribe: %%unsubscribe_url%%\n"
    lines = [
        "Date: Sat, 21 Nov 2026 09:00:00 +0000",
        "From: Example News <news@newsletter.example>",
        "To: ada@example.net",
        "Subject: =?UTF-8?q?This_week=E2=80=99s_news?=",
        "Message-Id: <1763715600.7@newsletter.example>",
        "Mime-Version: 1.0",
        "Precedence: bulk",
        "X-Campaign: week-47",
        'X-Merge-Data: {"ada@example.net": {"name": "Ada <b>"}, "*": {"name": "you"}}',
        "List-Id: <news.newsletter.example>",
        'Content-Type: multipart/alternative;\r\n boundary="b1_7c3f"',
        "",
        "--b1_7c3f",
        "Content-Transfer-Encoding: quoted-printable",
        "Content-Type: text/plain; charset=UTF-8",
        "",
        _quoted(text),
        "--b1_7c3f",
        "Content-Transfer-Encoding: quoted-printable",
        "Content-Type: text/html; charset=UTF-8",
        "",
        _quoted(html),
        "--b1_7c3f--",
        "",
    ]
    return Produced(
        "\r\n".join(lines).encode(),
        "newsletter.example",
        (
            f"{site}/article?utm_source=newsletter&id=7",
            f"{site}/sale?x=caf%C3%A9&y=2",
        ),
        (
            f"{site}/article?utm_source=newsletter&amp;id=7",
            f"{site}/sale?x=caf%C3%A9&y=2",
        ),
        "Ada &lt;b&gt;",
        ("#top",),
        ("Hello Ada <b>!", "To the sale →"),
    )


def outlook(site: str) -> Produced:
    """Outlook-made HTML: conditional comments, VML buttons, Windows-1252, a related image."""
    html = (
        '<html xmlns:v="urn:schemas-microsoft-com:vml" '
        'xmlns:o="urn:schemas-microsoft-com:office:office">\r\n'
        "<head><!--[if gte mso 9]><xml><o:OfficeDocumentSettings><o:AllowPNG/>"
        "</o:OfficeDocumentSettings></xml><![endif]-->\r\n"
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"></head>\r\n'
        "<body lang=EN-GB link=blue vlink=purple>\r\n<div class=WordSection1>\r\n"
        "<p class=MsoNormal>{{ name }}, the price: 30 € – “today”<o:p></o:p></p>\r\n"
        f'<!--[if mso]><v:roundrect href="{site}/vml?a=1&amp;b=2" style="height:40px">'
        "<center>Buy</center></v:roundrect><![endif]-->\r\n"
        f'<![if !mso]><a href="{site}/buy?a=1&amp;b=2" style="color:#fff">Buy</a><![endif]>\r\n'
        f'<a\r\n   href="{site}/report"><img src="cid:logo@outlook.example" alt="logo"></a>\r\n'
        "</div></body></html>\r\n"
    )
    encoded = base64.encodebytes(html.encode("windows-1252")).replace(b"\n", b"\r\n").decode()
    image = base64.encodebytes(b"\x89PNG\r\n\x1a\nnot really").replace(b"\n", b"\r\n").decode()
    lines = [
        'From: "Doe, Jane" <jane@outlook.example>',
        'To: "ada@example.net" <ada@example.net>',
        "Subject: Quarterly prices",
        "Thread-Topic: Quarterly prices",
        "Thread-Index: AQHcWw3y1yZ8fJb0vkyqQ3nW6d9c5w==",
        "Date: Sat, 21 Nov 2026 09:00:00 +0000",
        "Message-ID: <DB7PR01MB0001@outlook.example>",
        "Accept-Language: en-GB, ja-JP",
        "X-MS-Has-Attach: yes",
        "X-Campaign: prices",
        'X-Merge-Data: {"*": {"name": "Zoë"}}',
        "Content-Type: multipart/related;",
        '\tboundary="_004_DB7PR01MB0001_";',
        '\ttype="text/html"',
        "MIME-Version: 1.0",
        "",
        "--_004_DB7PR01MB0001_",
        'Content-Type: text/html; charset="windows-1252"',
        "Content-Transfer-Encoding: base64",
        "",
        encoded,
        "--_004_DB7PR01MB0001_",
        'Content-Type: image/png; name="logo.png"',
        "Content-ID: <logo@outlook.example>",
        "Content-Transfer-Encoding: base64",
        "",
        image,
        "--_004_DB7PR01MB0001_--",
        "",
    ]
    return Produced(
        "\r\n".join(lines).encode(),
        "outlook.example",
        (f"{site}/vml?a=1&b=2", f"{site}/buy?a=1&b=2", f"{site}/report"),
        (f"{site}/vml?a=1&amp;b=2", f"{site}/buy?a=1&amp;b=2", f"{site}/report"),
        "Zoë",
        ("cid:logo@outlook.example",),
        ("Zoë, the price: 30 € – “today”",),
    )


def japanese_shop(site: str) -> Produced:
    """A shop in Japan: ISO-2022-JP, with characters that only Microsoft's variant has."""
    html = (
        "<html><body>\r\n"
        "<p>{{ name }} 様、㈱例示商店です。ご注文①をお送りしました。</p>\r\n"
        f'<a href="{site}/品?id=1">商品を見る</a>\r\n'
        f'<a href="{site}/mypage?id=7&amp;lang=ja">マイページ</a>\r\n'
        "</body></html>\r\n"
    )
    text = f"㈱例示商店です。\r\nこちら→{site}/jp をご覧ください。\r\n"
    subject = base64.b64encode(_iso_2022_jp("ご注文①ありがとうございます")).decode()
    sender = base64.b64encode(_iso_2022_jp("例示商店")).decode()
    lines: list[bytes] = [
        b"Return-Path: <order@jp.example>",
        f"From: =?ISO-2022-JP?B?{sender}?= <order@jp.example>".encode(),
        b"To: ada@example.net",
        f"Subject: =?ISO-2022-JP?B?{subject}?=".encode(),
        b"Date: Sat, 21 Nov 2026 18:00:00 +0900",
        b"Message-Id: <20261121180000.0001@jp.example>",
        b"X-Campaign: go-chumon",
        b'X-Merge-Data: {"*": {"name": "\\u592a\\u90ce"}}',
        b"MIME-Version: 1.0",
        b'Content-Type: multipart/alternative; boundary="=_jp_1"',
        b"",
        b"--=_jp_1",
        b'Content-Type: text/plain; charset="ISO-2022-JP"',
        b"Content-Transfer-Encoding: 7bit",
        b"",
        _iso_2022_jp(text),
        b"--=_jp_1",
        b'Content-Type: text/html; charset="ISO-2022-JP"',
        b"Content-Transfer-Encoding: 7bit",
        b"",
        _iso_2022_jp(html),
        b"--=_jp_1--",
        b"",
    ]
    return Produced(
        b"\r\n".join(lines),
        "jp.example",
        (f"{site}/%E5%93%81?id=1", f"{site}/mypage?id=7&lang=ja"),
        (f"{site}/品?id=1", f"{site}/mypage?id=7&amp;lang=ja"),
        "太郎",
        (),
        ("太郎 様、㈱例示商店です。ご注文①をお送りしました。", "マイページ"),
    )


def _iso_2022_jp(text: str) -> bytes:
    # The rows of CP932 that JIS X 0208 leaves empty, as Windows and phones write them.
    pieces = {"①": b"\x1b$B-!\x1b(B", "㈱": b"\x1b$B-j\x1b(B"}
    octets = b""
    for character in text:
        octets += pieces.get(character) or character.encode("iso-2022-jp")
    return octets.replace(b"\x1b(B\x1b$B", b"")


def _quoted(text: str) -> str:
    return quopri.encodestring(text.encode()).decode().replace("\n", "\r\n")
