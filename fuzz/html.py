"""The HTML rewriter: only links change, and each leads where it did."""

from __future__ import annotations

import base64
import re

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fuzz import seeds
from fuzz.target import Target, law
from plugins.tracking import TrackingConfig
from plugins.tracking.edition import Edition
from plugins.tracking.keys import Sealer
from plugins.tracking.rewriter import Rewriter
from plugins.tracking.token import Kind, Token, decode, encode_common

_BASE = "https://t.example.com"
_SECRET = bytes(range(32))
_URL = re.compile(rf"{re.escape(_BASE)}/([cou])/([A-Za-z0-9_-]+)")
_TARGET = re.compile("https?://", re.IGNORECASE)
_LETTERS = {"c": Kind.CLICK, "o": Kind.OPEN, "u": Kind.UNSUBSCRIBE}


class Reader:
    """Rewrites texts, and opens the tokens that it finds in them."""

    def __init__(self) -> None:
        self._cipher = AESSIV(_SECRET)
        config = TrackingConfig.model_validate({"base_url": _BASE, "clicks": True, "opens": True})
        self._rewriter = Rewriter(config)

    def check(self, data: bytes) -> None:
        """Rewrites a text as HTML and as plain text.

        Raises:
            BrokenLawError: something else than links changed, or a link leads elsewhere.
        """
        text = data.decode("utf-8", "replace")
        common = encode_common("0H3K5M7P9R1T3", "taro@example.net", day=20_000)
        for kind in ("html", "html in another charset", "plain"):
            edition = Edition(_BASE, Sealer(1, self._cipher, common), {})
            if kind == "plain":
                spans = self._rewriter.plain(text, edition, delete_space=False)
            else:
                spans = self._rewriter.html(text, edition, utf8=kind == "html", opens=True)
            self._check(text, sorted(spans), html=kind != "plain")

    def _check(self, text: str, spans: list[tuple[int, int, str]], *, html: bool) -> None:
        place = 0
        for start, end, new in spans:
            law(place <= start <= end <= len(text), "changes lie over each other")
            place = end
            law(new.isascii() and new.isprintable(), "what is written is no plain ASCII")
            urls = _URL.findall(new)
            law(urls, f"something else than a link is written: {new[:60]}")
            for letter, sealed in urls:
                token = self._open(sealed)
                law(token is not None and token.kind is _LETTERS[letter], "the token is not valid")
                if token is not None and token.kind is Kind.CLICK:
                    law(_TARGET.match(token.url), "a target of another kind")
            rest = _URL.sub("", new)
            law(start != end or "<img" in new, "an addition that is no image")
            if start != end:
                markup = set(rest) & set("<>\"'` \r\n")
                law(not (html and markup), f"more than a URL: {rest[:60]}")

    def _open(self, sealed: str) -> Token | None:
        data = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        return decode(self._cipher.decrypt(data[1:], [data[:1]]))


def target() -> Target:
    """The rewriter of links."""
    found = [
        b'<html><body><a href="https://www.example.com/?a=1&amp;b=2">x</a></body></html>',
        b"<A HREF=http://example.com/x>y</A><area href='//example.org/'><img src=http://x.example>",
        b"<!-- <a href='http://a.example'> --><style>a{}</style><script>'<a href=http://b>'</script>",
        b'<a data-x="1" href = "https://\xe4\xbe\x8b.jp/" track=off>z</a>{{unsubscribe}}',
        b"See https://www.example.com/a_(b), <http://example.org/> and *https://x.example/*.",
        b"<base href='https://example.com/'><a href='/rel'>r</a><a href='mailto:a@b.c'>m</a>",
        *seeds.bodies(b"text/html"),
    ]
    tokens = [
        *(b"<a ", b"href=", b'"', b"'", b">", b"</a>", b"<!--", b"-->", b"<script>", b"</script>"),
        *(b"http://", b"https://", b"javascript:", b"&#106;", b"&amp;", b"&#x0a;", b"\t", b"\\"),
        *(
            b"<base href=",
            b"<![CDATA[",
            b"]]>",
            b"<!--[if mso]>",
            b"<![endif]-->",
            b"<style>",
            b"=`",
        ),
        *(
            b"</body>",
            b"<svg>",
            b"<title>",
            b"<textarea>",
            b"<plaintext>",
            b"https://t.example.com/c/",
        ),
        *(b"{{unsubscribe_url}}", b"%7b%7b", b"user@", b"[::1]", b":99999", b"/", b"?", b"#", b" "),
    ]
    return Target("html", Reader().check, found, tokens)
