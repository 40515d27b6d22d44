"""A footer in HTML."""

from __future__ import annotations

import re
from html import unescape

from mail_gateway_legal_footer.footer import NEAR_END, Footer, comparable

# Each of them matches up to the end where its own end is missing, so that nothing is read twice.
_COMMENT = r"<!--(?:-?>|.*?(?:--!?>|\Z))"
_RAW = r"<(script|style|title|textarea)\b.*?(?:</\1\b|\Z)"
_UNSEEN = re.compile(f"{_COMMENT}|{_RAW}", re.DOTALL | re.IGNORECASE)
_END = re.compile(
    rf"{_COMMENT}|{_RAW}|(?P<body></body\b)|(?P<html></html\b)", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"<[^<>]*+>")
_QUOTATION_END = re.compile(r"</blockquote\b", re.IGNORECASE)


def has_footer(html: str, footer: Footer) -> bool:
    """Whether all that the footer has to say is in the text, and not only in a quotation."""
    own = html[-NEAR_END:]
    quotations = [match.end() for match in _QUOTATION_END.finditer(own)]
    own = own[max(quotations, default=0) :]
    # Ours, behind a comment that does not end, is seen by nobody; another would not be either.
    if comparable(unescape(footer.html)) in comparable(unescape(own)):
        return True
    own = _UNSEEN.sub("", own)
    seen = comparable(unescape(_TAG.sub("", own)))
    # A web address may stand in a link alone.
    written = comparable(unescape(own))
    return all(essential in seen or essential in written for essential in footer.essentials)


def insertion(html: str, footer: Footer, charset: str) -> tuple[int, int, str]:
    """Where the footer goes, as `TextPart.replace` takes it: at the end of the body.

    What the charset does not have is written as references, so that it stays as it is.
    """
    ends = {match.lastgroup: match.start() for match in _END.finditer(html)}
    place = ends.get("body", ends.get("html", len(html)))
    text = footer.html
    try:
        text = text.encode(charset, "xmlcharrefreplace").decode(charset)
    except (LookupError, UnicodeError):
        pass  # a charset that Python does not know: the gateway finds one
    return place, place, text
