"""Finding URLs in plain text: only those of which it is certain where they end. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_URL = re.compile(
    r"(?<![A-Za-z0-9])https?://[!#$%&'()*+,\-./0-9:;=?@A-Z_a-z~\[\]]++", re.IGNORECASE
)
_SENTENCE = ".,;:!?'"
_EMPHASIS = "*_~"
_ENDS = frozenset('\t\n\r\f "<>')
_CLOSING = {")": "(", "]": "["}


class TextLink(NamedTuple):
    """A URL in a text: where it is, and the URL itself."""

    start: int
    end: int
    value: str


def find(text: str, *, delete_space: bool = False) -> Iterator[TextLink]:
    """Finds URLs that begin with http:// or https://.

    The punctuation of a sentence after a URL does not belong to it, nor do the brackets around it.
    A URL is not found where a character follows that may belong to it: a letter of another
    script, a placeholder of a template.

    Args:
        text: lines end in LF.
        delete_space: whether the space at the end of a line goes when lines are joined, as
            `format=flowed; delsp=yes` says (RFC 3676 4.2): a URL there may go on in the next line.
    """
    for match in _URL.finditer(text):
        start, end = match.span()
        if not _ends_at(text, end) or (delete_space and text.startswith(" \n", end)):
            continue
        before = text[start - 1 : start]
        url = _trim(match[0], before if before in _EMPHASIS else "")
        yield TextLink(start, start + len(url), url)


def _ends_at(text: str, place: int) -> bool:
    after = text[place : place + 1]
    if after.isascii():
        return not after or after in _ENDS
    # The full stop and the brackets of Japanese end a URL; its letters may be part of a path.
    return unicodedata.category(after)[0] in "PSZ"


def _trim(url: str, emphasis: str) -> str:
    """Takes off what stands after a URL in a sentence."""
    surplus = {close: url.count(close) - url.count(opening) for close, opening in _CLOSING.items()}
    end = len(url)
    while True:
        last = url[end - 1]
        if last in _CLOSING and surplus[last] > 0:
            surplus[last] -= 1
        elif last not in _SENTENCE and (not emphasis or last != emphasis):
            return url[:end]
        end -= 1
