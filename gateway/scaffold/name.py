"""The name of a new plugin, and every other name that follows from it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

PREFIX = "mail-gateway-"
"""What the names of packages with plugins begin with."""

_LONGEST = 27
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*", re.ASCII)
_EXPECTED = "expected small letters, digits and hyphens, such as legal-footer"


@dataclass(frozen=True, slots=True)
class PluginName:
    """The name that stands in gateway.yaml, such as `legal-footer`.

    Raises:
        ValueError: it is no such name; the text says what would be right.
    """

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(_EXPECTED)
        if self.name.startswith(PREFIX) and len(self.name) > len(PREFIX):
            short = self.name.removeprefix(PREFIX)
            raise ValueError(f'the package gets {PREFIX} before it by itself; write "{short}"')
        if len(self.name) > _LONGEST:
            raise ValueError(f"{len(self.name)} characters are too many; at most {_LONGEST}")
        if not _NAME.fullmatch(self.name):
            better = _similar(self.name)
            raise ValueError(f'{_EXPECTED}; did you mean "{better}"?' if better else _EXPECTED)

    @property
    def distribution(self) -> str:
        """The package on PyPI: `mail-gateway-legal-footer`."""
        return PREFIX + self.name

    @property
    def module(self) -> str:
        """The module that is imported: `mail_gateway_legal_footer`."""
        return self.distribution.replace("-", "_")

    @property
    def file(self) -> str:
        """The file of a plugin without a package: `legal_footer.py`."""
        return f"{self.name.replace('-', '_')}.py"

    @property
    def header(self) -> str:
        """The name as a part of header fields: `Legal-Footer`."""
        return "-".join(part.capitalize() for part in self.name.split("-"))

    def class_name(self, taken: Collection[str]) -> str:
        """The plugin's class: `LegalFooter`, with `Plugin` behind it if that is taken."""
        name = self.header.replace("-", "")
        return f"{name}Plugin" if name in taken else name


def _similar(text: str) -> str:
    """The nearest name that could be taken; '' if there is none."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", text)
    words = re.sub(r"[\s_.-]+", "-", words).strip("-").lower()
    return words if _NAME.fullmatch(words) else ""
