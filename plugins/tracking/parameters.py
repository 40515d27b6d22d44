"""Query parameters that are added to the URLs of links, such as utm_campaign. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote_plus

FIELDS = ("campaign", "stream", "variant", "link")
"""What may stand in braces in a value."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_SEPARATOR = re.compile(r"[&;]")

Pairs = Sequence[tuple[str, str]]
"""Names, and what stands in a query for each: `name=value`, encoded."""


def unknown_fields(template: str) -> list[str]:
    """What stands in braces in a template and is none of `FIELDS`."""
    return [name for name in _FIELD.findall(template) if name not in FIELDS]


class Parameters:
    """Templates of query parameters, by name."""

    def __init__(self, templates: Mapping[str, str]) -> None:
        self._templates = templates
        self.by_link = any("{link}" in template for template in templates.values())

    def __bool__(self) -> bool:
        return bool(self._templates)

    def fill(self, fields: Mapping[str, str]) -> Pairs:
        """The parameters with the values of fields; those that come out empty are left out."""
        pairs = []
        for name, template in self._templates.items():
            value = _FIELD.sub(lambda match: fields.get(match[1], ""), template)
            if value:
                pairs.append((name, f"{_quote(name)}={_quote(value)}"))
        return pairs


def add(url: str, pairs: Pairs) -> str:
    """Adds parameters that a URL does not have yet to its query."""
    rest, number_sign, fragment = url.partition("#")
    path, _, query = rest.partition("?")
    present = {unquote_plus(part.partition("=")[0]) for part in _SEPARATOR.split(query)}
    new = [pair for name, pair in pairs if name not in present]
    if not new:
        return url
    joint = "" if not query or query.endswith("&") else "&"
    return f"{path}?{query}{joint}{'&'.join(new)}{number_sign}{fragment}"


def _quote(text: str) -> str:
    return quote(text, safe="", errors="replace")
