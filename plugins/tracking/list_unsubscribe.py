"""List-Unsubscribe: how mail programs unsubscribe for their users (RFC 2369, RFC 8058). Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

ONE_CLICK = b"List-Unsubscribe=One-Click"
"""The value of List-Unsubscribe-Post."""

_LONGEST_LINE = 998
_URI = re.compile(r"<([^<>]*)>")
_SPACE = re.compile(r"\s+")


def value(url: str, mailto: str | None, token: str) -> bytes | None:
    """The value of List-Unsubscribe; None if it is too long for a line (RFC 5322 2.1.1)."""
    lines = [f"<{url}>"]
    if mailto is not None:
        lines.append(f"<mailto:{quote(mailto, '@+')}?subject=unsubscribe%20{token}>")
    if max(map(len, lines)) + len("List-Unsubscribe: ,") > _LONGEST_LINE:
        return None
    return ",\r\n ".join(lines).encode("ascii")


def uris(field: str) -> frozenset[str]:
    """The URIs in a List-Unsubscribe field; white space in them does not count (RFC 2369 2)."""
    return frozenset(_SPACE.sub("", uri) for uri in _URI.findall(field))
