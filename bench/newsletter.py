"""A message such as shops send: text and HTML, with links and places for values."""

from __future__ import annotations

import email
import email.message
import email.policy
import json
from base64 import b64encode, encodebytes
from dataclasses import dataclass
from quopri import encodestring

from bench.error import BenchError
from bench.signature import DOMAIN

SENDER = f"sender@{DOMAIN}"
TRACKER = f"https://t.{DOMAIN}"
VALUES = {
    "name": "山田 太郎",
    "title": "様",
    "number": "A-2026-11873",
    "total": "12,800",
    "points": "1,250",
    "store": "新宿店",
    "coupon": "AUTUMN-7F3K",
    "expires": "2026-12-24",
    "staff": "Hanako Sato",
    "rank": "ゴールド",
}
"""Ten values for templates."""

IN_TEXT = tuple(VALUES)[:4]
IN_HTML = tuple(VALUES)[4:]

_BOUNDARY = "=_newsletter"
_HEADER = f"""\
Date: Sat, 21 Nov 2026 10:00:00 +0900
From: "Example Shop" <{SENDER}>
To: recipient@example.net
Message-ID: <20261121100000.1@{DOMAIN}>
X-Campaign: autumn-sale
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="{_BOUNDARY}"
"""
_HEAD = """\
<!DOCTYPE html>
<html lang="ja"><head><meta charset="utf-8"><title>Autumn sale</title>
<style>body{margin:0;font-family:sans-serif} .p{padding:12px 16px} a{color:#0645ad}</style>
</head><body><table width="600" cellpadding="0" cellspacing="0" role="presentation">
"""
_TAIL = "</table></body></html>\n"
_ROW = """\
<tr><td class="p" style="border-top:1px solid #ddd;font-size:14px;line-height:1.6">
"""
_ROW_END = "</td></tr>\n"
_LINK = f"""\
<a href="https://www.shop.{DOMAIN}/items/%d?from=mail&amp;list=autumn">商品 %d</a>
"""
_FILLING = "<p>Made by hand, fired at 1,250 °C – お手入れはぬるま湯で。 12 × 8 cm, 320 g.</p>\n"


@dataclass(frozen=True, slots=True)
class Newsletter:
    """What the message is made of.

    `html` is how many bytes its HTML has at least, before it is encoded. `links` lead to the shop.
    With `values`, each of `VALUES` has a place in the text or in the HTML, and `name` one in the
    Subject too; the values themselves come with the message.
    """

    html: int
    links: int
    values: bool = False

    def message(self, encoding: str) -> bytes:
        """The whole message with CRLF, its texts in that Content-Transfer-Encoding."""
        header = _HEADER
        if self.values:
            subject = b64encode("{{ name }}様、秋のセール".encode()).decode()
            header += f"Subject: =?utf-8?B?{subject}?=\nX-Merge-Data: {json.dumps(VALUES)}\n"
        else:
            header += "Subject: Autumn sale\n"
        content = header.encode() + b"\n"
        for kind, text in (("text/plain", self._text()), ("text/html", self._html())):
            content += (
                f"--{_BOUNDARY}\nContent-Type: {kind}; charset=utf-8\n"
                f"Content-Transfer-Encoding: {encoding}\n\n".encode()
            )
            content += _encoded(text.encode(), encoding)
        return (content + f"--{_BOUNDARY}--\n".encode()).replace(b"\n", b"\r\n")

    def _text(self) -> str:
        fields = [f"{name}: {{{{ {name} }}}}\n" for name in IN_TEXT] if self.values else []
        return "Autumn sale\n\n" + "".join(fields) + "お手入れはぬるま湯で。\n"

    def _html(self) -> str:
        fields = IN_HTML if self.values else ()
        rows = []
        for number in range(max(self.links, len(fields))):
            row = [_ROW]
            if number < self.links:
                row.append(_LINK % (number, number))
            if number < len(fields):
                row.append(f"<p>{fields[number]}: {{{{ {fields[number]} }}}}</p>\n")
            rows.append(row)
        shortest = "".join([_HEAD, *["".join(row) + _ROW_END for row in rows], _TAIL])
        missing = self.html - len(shortest.encode())
        filling = len(_FILLING.encode())
        for number in range(-(-missing // filling)):
            rows[number % len(rows)].append(_FILLING)
        return "".join([_HEAD, *["".join(row) + _ROW_END for row in rows], _TAIL])


def _encoded(octets: bytes, encoding: str) -> bytes:
    if encoding == "quoted-printable":
        return encodestring(octets)
    return encodebytes(octets) if encoding == "base64" else octets


def check_links(message: bytes, links: int) -> None:
    """Raises BenchError unless so many links lead to the tracker."""
    found = _texts(message)["text/html"].count(f'href="{TRACKER}/c/')
    if found != links:
        raise BenchError(f"{found} of {links} links are rewritten")


def check_values(message: bytes) -> None:
    """Raises BenchError if a value is missing in a text, or the name in the Subject."""
    texts = _texts(message)
    places = (("text/plain", IN_TEXT), ("text/html", IN_HTML))
    missing = [name for kind, names in places for name in names if VALUES[name] not in texts[kind]]
    subject = str(_parsed(message)["Subject"])
    if missing or VALUES["name"] not in subject or "{{" in "".join([subject, *texts.values()]):
        raise BenchError("the templates are not filled in")


def check_unsubscribing(message: bytes) -> None:
    """Raises BenchError if recipients cannot unsubscribe with one click (RFC 8058)."""
    if "List-Unsubscribe-Post" not in _parsed(message):
        raise BenchError("there is no List-Unsubscribe-Post")


def _parsed(message: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(message, policy=email.policy.default)


def _texts(message: bytes) -> dict[str, str]:
    return {
        part.get_content_type(): part.get_content()
        for part in _parsed(message).walk()
        if part.get_content_maintype() == "text"
    }
