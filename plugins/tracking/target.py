"""The URL that a link leads to, as browsers resolve it (the URL Standard of the WHATWG). Pure."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple
from urllib.parse import quote

import idna

_HOST = r"(?:[A-Za-z0-9_-]++\.)*[A-Za-z0-9_-]++\.?"
_SAFE = r"[!$&'()*+,\-./0-9:;=?@A-Z_a-z~#]"
# Nearly all URLs. What a template's placeholder has in it is not among these characters.
_PLAIN = re.compile(
    rf"[hH][tT][tT][pP][sS]?://({_HOST})(?::[0-9]{{1,4}})?(?:[/?#]{_SAFE}*+"
    rf"(?:%(?!7[Bb]%7[Bb]|5[Bb]%5[Bb]|25%25)[0-9A-Fa-f]{{2}}{_SAFE}*+)*)?"
)
_PARTS = re.compile(r"(https?)://([^/?#\\]*+)([^?#]*+)(.*+)", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(_HOST)
_PORT = re.compile(r"(?::[0-9]{0,5})?")
_EDGES = "".join(map(chr, range(33)))
_LINE_ENDS = str.maketrans("", "", "\t\n\r")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
_LEFTOVER = re.compile(r"[{}]|\[\[|\*\||%%|<%|%7b%7b|%5b%5b|%25%25", re.IGNORECASE)
# What browsers leave as it is, besides letters and digits.
_KEPT = "!#$%&'()*+,-./:;=?@[\\]^_|~"


class Target(NamedTuple):
    """Where a link leads.

    Attributes:
        url: the URL, in ASCII.
        host: in lower case and A-labels; an IPv6 address without its brackets.
    """

    url: str
    host: str


def resolve(value: str, *, utf8: bool = True) -> Target | None:
    """Reads the value of an attribute; None for all that is not surely a plain web address.

    Those are other schemes, relative URLs, fragments, what is not valid, placeholders that a
    template has left, and URLs with a user name, which look like a forgery.

    Args:
        value: with its character references decoded.
        utf8: whether the document is in UTF-8 or ASCII. In others, browsers and mail programs do
            not agree on what characters outside of ASCII in a query mean.
    """
    match = _PLAIN.fullmatch(value)
    if match is not None:
        return Target(value, match[1].lower())
    value = value.strip(_EDGES).translate(_LINE_ENDS)
    parts = _PARTS.fullmatch(value)
    if parts is None or _CONTROL.search(value) or _LEFTOVER.search(value):
        return None
    scheme, authority, path, rest = parts.groups()
    # Browsers take a backslash in a path for a slash; few programs do.
    if "\\" in path or not (utf8 or rest.isascii()):
        return None
    host, port = _split(authority)
    if host is None or not _PORT.fullmatch(port) or int(port[1:] or 0) > 0xFFFF:
        return None
    url = f"{scheme.lower()}://{host}{port.removesuffix(':')}{quote(path + rest, _KEPT)}"
    return Target(url, host.strip("[]"))


def _split(authority: str) -> tuple[str | None, str]:
    """The host of an authority in ASCII, None if it is not valid, and the port with its colon."""
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        try:
            return (f"[{IPv6Address(host)}]" if bracket else None), port
        except AddressValueError:
            return None, ""
    host, colon, port = authority.partition(":")
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None, ""
    return (host.lower() if _NAME.fullmatch(host) else None), colon + port
