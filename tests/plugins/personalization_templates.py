"""What the tests of templates share: values, and a template filled with them."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import Any

import pytest

from plugins.personalization.localization import Localization
from plugins.personalization.places import applied
from plugins.personalization.rendering import Policy, Rendering, TemplateError
from plugins.personalization.syntax import Delimiters, Syntax
from plugins.personalization.template import Kind, Template, line_and_column

SYNTAX = Syntax(Delimiters())
ENGLISH = Localization("en", UTC, "USD")
ROWS: list[Any] = [
    {"name": "Pen", "price": Decimal("1.10"), "count": 3, "kind": "office"},
    {"name": "Bag", "price": Decimal("49.95"), "count": 1, "kind": "travel"},
    {"name": "Ink", "price": Decimal("7.05"), "count": 2, "kind": "office"},
]

VALUES: dict[str, Any] = {
    "name": "Taro",
    "vip": True,
    "blank": "",
    "zero": 0,
    "nothing": None,
    "empty": [],
    "map": {"a": 1, "b": 2},
    "order": {"number": "A-1", "items": ["x", "y", "z"]},
    "rows": ROWS,
}


def rendering(
    values: dict[str, Any],
    kind: Kind = "text",
    policy: Policy | None = None,
    steps: int = 250_000,
    size: int = 1 << 20,
) -> Rendering:
    return Rendering(
        values,
        ENGLISH,
        policy=policy or Policy(),
        autoescape=kind == "html",
        steps=steps,
        size=size,
    )


def filled(
    text: str,
    values: dict[str, Any] | None = None,
    kind: Kind = "text",
    *,
    allow_html: bool = False,
    policy: Policy | None = None,
    syntax: Syntax = SYNTAX,
) -> str:
    template = Template(text, kind, syntax, allow_html=allow_html)
    return applied(text, template.fill(rendering(values or {}, kind, policy)))


def refusal(text: str, values: dict[str, Any] | None = None, kind: Kind = "text") -> str:
    """Line, column and text of the error."""
    with pytest.raises(TemplateError) as refused:
        filled(text, values, kind)
    line, column = line_and_column(text, refused.value.offset)
    return f"{line}:{column} {refused.value}"
