"""The documents, and the fenced blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "docs/plugins"
TUTORIAL = PLUGINS / "tutorial.md"
PACKAGES = ROOT / "examples/packages"
DOCUMENTS = sorted(
    path
    for pattern in (
        *("*.md", "docs/**/*.md", "plugins/*/README.md", "bench/*.md", "examples/demo/**/*.md"),
        "examples/packages/*/README.md",
    )
    for path in ROOT.glob(pattern)
)

_FENCE = re.compile(r"\s*(`{3,})(.*)")
_NOT_TESTED = re.compile(r"\*Not tested here: \S.*\*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        line: where its fence is, from 1; end: where it ends.
        language: what stands behind the fence.
        before: the last line of text above it.
    """

    document: Path
    line: int
    end: int
    language: str
    text: str
    before: str

    @property
    def excused(self) -> bool:
        """Whether the line above says that nothing tests it."""
        return _NOT_TESTED.fullmatch(self.before) is not None

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of a document, in order."""
    lines = document.read_text().splitlines()
    fence = language = before = ""
    start = 0
    for number, line in enumerate(lines, 1):
        match = _FENCE.fullmatch(line)
        if not start:
            if match:
                start, fence, language = number, match[1], match[2]
            elif line.strip():
                before = line
        elif match and not match[2] and len(match[1]) >= len(fence):
            indent = len(lines[start - 1]) - len(lines[start - 1].lstrip())
            text = "".join(f"{inner[indent:]}\n" for inner in lines[start : number - 1])
            yield Block(document, start, number, language, text, before)
            start, before = 0, ""
    assert not start, f"{document}: a block does not end"


def prose(document: Path) -> str:
    """The text of a document without its blocks."""
    lines = document.read_text().splitlines()
    for block in reversed(list(blocks(document))):
        del lines[block.line - 1 : block.end]
    return "\n".join(lines)
