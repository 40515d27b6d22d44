"""A docstring in its parts, and as Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass, field

_SECTION = re.compile(r"(Attributes|Args|Returns|Raises|Raises \(on setting\)):")
_ENTRY = re.compile(r"([\w, ()]+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Docstring:
    """What a docstring says.

    Attributes:
        paragraphs: its text, each paragraph on one line; lists are paragraphs that begin with "- ".
        sections: what stands below `Attributes:`, `Args:` and so on, by the names of the entries.
    """

    paragraphs: tuple[str, ...] = ()
    sections: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, documented: object) -> Docstring:
        """That of something."""
        return cls.parse(inspect.getdoc(documented) or "")

    @classmethod
    def parse(cls, text: str) -> Docstring:
        """Reads a docstring without its indentation."""
        paragraphs: list[str] = []
        sections: dict[str, dict[str, str]] = {}
        for paragraph in re.split(r"\n{2,}", text.strip("\n")):
            head, _, rest = paragraph.partition("\n")
            match = _SECTION.fullmatch(head)
            if match:
                sections[match[1]] = _entries(rest)
            elif head.endswith(":") and rest.startswith("    "):
                paragraphs.append(" ".join(head.split()))
                listed = _entries(rest).items()
                paragraphs.append("\n".join(f"- `{name}`: {said}" for name, said in listed))
            else:
                paragraphs.append(" ".join(paragraph.split()))
        return cls(tuple(filter(None, paragraphs)), sections)

    @property
    def line(self) -> str:
        """All paragraphs, and what is raised, on one line."""
        said = list(self.paragraphs)
        for title in ("Raises", "Raises (on setting)"):
            for name, reason in self.sections.get(title, {}).items():
                errors = ", ".join(f"`{one.strip()}`" for one in name.split(","))
                where = " on setting" if title != "Raises" else ""
                said.append(f"Raises {errors}{where}: {reason}")
        return " ".join(said)


def _entries(text: str) -> dict[str, str]:
    """`name: text` with lines that go on, all indented."""
    entries: dict[str, str] = {}
    for item in re.split(r"\n(?=\S)", textwrap.dedent(text)):
        match = _ENTRY.fullmatch(item)
        assert match is not None, item
        entries[match[1]] = " ".join(match[2].split())
    return entries
