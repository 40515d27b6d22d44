"""Templates: whatever they are, they end, reach nothing, and let no value break out."""

from __future__ import annotations

import re
from datetime import UTC
from decimal import Decimal
from typing import Any

from fuzz import seeds
from fuzz.target import Target, law
from plugins.personalization.localization import Localization
from plugins.personalization.places import applied
from plugins.personalization.rendering import Policy, Rendering, TemplateError
from plugins.personalization.syntax import Delimiters, Syntax
from plugins.personalization.template import Kind, Template

_STEPS = 20_000
_SIZE = 1 << 16
_EVIL = "\"'><zap onload=1>\r\nX-Evil: 1\0\x1b\u2028&"
_VALUES: dict[str, Any] = {
    "name": "Taro",
    "evil": _EVIL,
    "n": 3,
    "price": Decimal("1.10"),
    "rows": [{"a": 1, "b": _EVIL}, {"a": Decimal("2.5"), "b": "x"}],
    "map": {"k": "v"},
    "nothing": None,
}
_KINDS: tuple[Kind, ...] = ("header", "text", "html")
_LOCAL = Localization("ja", UTC, "JPY")
_SYNTAX = Syntax(Delimiters())


def check(data: bytes) -> None:
    """Fills a template in each kind of place.

    Raises:
        BrokenLawError: a value brought in what it must not, or the text grew beyond its bound.
    """
    text = data.decode("utf-8", "replace")
    for kind in _KINDS:
        rendering = Rendering(
            _VALUES,
            _LOCAL,
            policy=Policy(),
            autoescape=kind == "html",
            steps=_STEPS,
            size=_SIZE,
        )
        try:
            spans = Template(text, kind, _SYNTAX).fill(rendering)
        except TemplateError as error:
            law(0 <= error.offset <= len(text), "an error that lies outside of the text")
            continue
        place = 0
        for start, end, new in spans:
            law(place <= start <= end <= len(text), "gaps lie over each other")
            place = end
            allowed = "" if kind == "header" else "\t\n\r"
            law(not re.search(r"[\x00-\x1f\x7f]", new.translate(_without(allowed))), "a control")
            law("\r" not in new.replace("\r\n", "") or kind != "header", "a bare CR")
            if kind == "html" and "<zap" in new:
                law("<zap" in text, "a value brought in a tag")
        law(len(applied(text, spans)) <= len(text) + 8 * _SIZE, "the text grew beyond its bound")


def _without(characters: str) -> dict[int, None]:
    return {ord(one): None for one in characters}


def target() -> Target:
    """Templates."""
    found = [
        b"Dear {{ name }}, {{ evil }}!",
        b"{% for row in rows %}{{ loop.index }} {{ row.a | round(1) }} {{ row.b }}{% endfor %}",
        b"{% if n > 2 and name %}A{% elif nothing %}B{% else %}C{% endif %}{# note #}",
        b"{{ rows | map(attribute='b') | join(', ') | upper | truncate(9) | urlencode }}",
        b"{% set x = n * 7 // 2 %}{{ x }}{{ price | currency('JPY') }}{{ n ** 9 }}{{ -n % 2 }}",
        b"{% raw %}{{ name }}{% endraw %}{{ map.k }}{{ map['k'] }}{{ rows[-1:].0.a }}{{ [1, n] }}",
        b"{{ name is defined }}{{ nobody | default('x') }}{{ 'a' in map }}{{ range(3) | list }}",
        b"{%- for k, v in map.items() -%}{{ k ~ v }}{%- else -%}none{%- endfor -%}",
        *(content for content in seeds.messages() if b"{{" in content or b"{%" in content),
    ]
    tokens = [
        *(b"{{ ", b" }}", b"{% ", b" %}", b"{#", b"#}", b"{%- ", b" -%}", b"| ", b"evil", b"rows"),
        *(b"for x in rows", b"endfor", b"if ", b"else", b"endif", b"set x = ", b"range(10000)"),
        *(b"safe", b"default(", b"join", b"sort(attribute='a')", b"groupby('b')", b"map('upper')"),
        *(b"batch(2)", b"__class__", b".items()", b"[::-1]", b"**", b"//", b"~", b"'", b'"', b"(("),
        *(b"date('%Y')", b"ljust(99999)", b"replace('', evil)", b"loop.cycle(", b"1e9", b"&quot;"),
        *(
            b"center(60000)",
            b"round(50)",
            b"format",
            b"{% raw %}",
            b"{% endraw %}",
            b"tojson",
            b"e",
        ),
    ]
    return Target("template", check, found, tokens)
