"""The placeholder that becomes the URL to unsubscribe at. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from plugins.tracking import attribute


class Placeholder:
    """A text, and what editors make of it: in percent-encoding, escaped, with `http://` before it.

    Args:
        text: None for a placeholder that is nowhere.
    """

    def __init__(self, text: str | None) -> None:
        forms = [] if text is None else [text, quote(text, safe=""), attribute.encode(text)]
        self._forms = tuple(dict.fromkeys(forms))
        self._pattern = re.compile("|".join(map(re.escape, self._forms)))

    def find(self, text: str) -> list[tuple[int, int]]:
        """Where it stands in a text."""
        for form in self._forms:
            # Most texts have none, and this is the fastest way to say so.
            if form in text:
                return [_with_scheme(text, *match.span()) for match in self._pattern.finditer(text)]
        return []


def _with_scheme(text: str, start: int, end: int) -> tuple[int, int]:
    before = text[max(start - 8, 0) : start].lower()
    for scheme in ("https://", "http://"):
        if before.endswith(scheme):
            return start - len(scheme), end
    return start, end
