"""One run of a template: its variables, what it writes, and the bounds that it keeps to. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from plugins.personalization.localization import Localization


class TemplateError(ValueError):
    """A template that cannot be used, or not with these values.

    Attributes:
        offset: where, in characters from the beginning of the text.
    """

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(text)
        self.offset = offset


class Missing:
    """What a variable without a value gives: it is false, and anything else needs a decision.

    Attributes:
        path: its name, such as `("customer", "name")`.
        offset: where it is asked for.
    """

    __slots__ = ("offset", "path")

    def __init__(self, path: tuple[str, ...], offset: int) -> None:
        self.path = path
        self.offset = offset

    def __bool__(self) -> bool:
        return False


class Safe(str):
    """Text that is HTML already. Whatever is made of it is plain text again."""

    __slots__ = ()


def escape(text: str) -> Safe:
    """A text as HTML: it can stand between tags, and in quotes inside of one."""
    return text if isinstance(text, Safe) else Safe(html.escape(text))


class Loop:
    """What `loop` is inside of a loop over `items`."""

    __slots__ = ("index0", "items")

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.index0 = 0

    def get(self, name: str) -> Any:
        """An attribute by its name in templates, None if there is none."""
        index, length = self.index0, len(self.items)
        match name:
            case "index":
                return index + 1
            case "index0":
                return index
            case "first":
                return index == 0
            case "last":
                return index == length - 1
            case "length":
                return length
            case "revindex":
                return length - index
            case "previtem":
                return self.items[index - 1] if index else None
            case "nextitem":
                return self.items[index + 1] if index + 1 < length else None
        return None


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of values that are missing: refused, taken from `defaults`, or empty."""

    missing: Literal["reject", "default", "empty"] = "reject"
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, missing: Missing) -> Any:
        """What stands for a value that is missing.

        Raises:
            TemplateError: nothing may.
        """
        if self.missing == "empty":
            return ""
        value: Any = self.defaults
        for name in missing.path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            raise TemplateError(f'no value for "{".".join(missing.path)}"', missing.offset)
        return value


class Rendering:
    """One run of a template.

    Its methods raise ValueError where a value is not what is needed or a bound is passed; who
    calls them knows the place. Only a missing value names its own.

    Attributes:
        layers: the variables, the innermost first; only that one is written to.
        localization: how dates and numbers are written.
        autoescape: whether values are escaped for HTML.
        out: what was written since the last literal text.
        steps: how much work it may still make.
    """

    __slots__ = (
        "_policy",
        "_room",
        "_size",
        "autoescape",
        "layers",
        "localization",
        "out",
        "steps",
    )

    def __init__(
        self,
        values: dict[str, Any],
        localization: Localization,
        *,
        policy: Policy,
        autoescape: bool,
        steps: int,
        size: int,
    ) -> None:
        self.layers: tuple[dict[str, Any], ...] = ({}, values)
        self.localization = localization
        self.autoescape = autoescape
        self.out: list[str] = []
        self._policy = policy
        self._size = self._room = size
        self.steps = steps

    def spend(self, steps: int) -> None:
        """Counts work: a step is about one variable or one item of a list."""
        self.steps -= steps
        if self.steps < 0:
            raise ValueError("the template takes more steps than max_steps allows")

    def check_length(self, length: int) -> None:
        """Holds a text to the size that all output may have, and counts the work of making it."""
        if length > self._size:
            raise ValueError(f"a text gets longer than {self._size} characters")
        self.spend(length >> 6)

    def need(self, value: Any) -> Any:
        """The value, or what stands for it if it is missing."""
        return self._policy.resolve(value) if type(value) is Missing else value

    def write(self, value: Any) -> None:
        """Writes a value, escaped where that is needed."""
        text = value if isinstance(value, str) else self.text(value)
        if self.autoescape and not isinstance(text, Safe):
            text = html.escape(text)
        self.write_literal(text)

    def write_literal(self, text: str) -> None:
        """Writes text as it is."""
        self._room -= len(text) if text.isascii() else len(text.encode(errors="replace"))
        if self._room < 0:
            raise ValueError(f"the template writes more than {self._size} octets")
        self.out.append(text)

    def text(self, value: Any) -> str:
        """A value as a reader sees it."""
        value = self.need(value)
        if isinstance(value, str):
            return value
        if isinstance(value, float):
            value = Decimal(repr(value))
        if isinstance(value, Decimal):
            return format(value, "f")
        if isinstance(value, datetime):
            return value.isoformat(" ", "minutes")
        if isinstance(value, bool | int | date):
            return str(value)
        if isinstance(value, list):
            raise ValueError("a list cannot be written as text; write a loop, or use join")
        if isinstance(value, dict):
            raise ValueError("a mapping cannot be written as text; name one of its values")
        raise ValueError("there is nothing here that could be written")

    def items(self, value: Any) -> list[Any]:
        """What a loop or a filter goes through: the items of a list, the keys of a mapping."""
        value = self.need(value)
        if isinstance(value, list):
            return value
        if isinstance(value, dict):
            self.spend(len(value))
            return list(value)
        if value == "":
            return []
        raise ValueError("this is no list")
