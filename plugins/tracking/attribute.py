"""The value of an HTML attribute: reading and writing its character references. Pure."""

from __future__ import annotations

import re
from html import unescape
from html.entities import html5

_REFERENCE = re.compile(r"&(?:#(?:[0-9]++|[xX][0-9A-Fa-f]++);?|([A-Za-z][A-Za-z0-9]*+)(;|(?!=)))")
_WRITTEN = str.maketrans(
    {"&": "&amp;", '"': "&quot;", "'": "&#39;", "<": "&lt;", ">": "&gt;", "`": "&#96;"}
)


def decode(raw: str) -> str:
    """What a browser reads in the characters between the quotes.

    A name without a semicolon counts only where neither a letter, nor a digit, nor `=` follows, so
    that `?a=1&copy=2` stays what its author meant (HTML 13.2.5.73).
    """
    if "&" not in raw:
        return raw
    value = raw.replace("&amp;", "&")
    # Nearly always the author has written all references as `&amp;`, or none.
    if value.count("&") == raw.count("&amp;") or not _REFERENCE.search(raw):
        return value
    return _REFERENCE.sub(_character, raw)


def _character(match: re.Match[str]) -> str:
    name = match[1]
    if name is None:
        return unescape(match[0])
    return html5.get(name + match[2], match[0])


def encode(value: str) -> str:
    """A value as it may stand in double quotes, single quotes and, if it has no space, in none."""
    return value.translate(_WRITTEN)
