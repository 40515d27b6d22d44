"""The recipes of the document, and a gateway that runs one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.hooks.load import LoadedPlugin
from gateway.testing import NextHop
from tests.assembly import Assembly, below_trace

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/plugins/recipes.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in _BLOCK.finditer(DOCUMENT.read_text())]
FILES = {
    text.splitlines()[0].removeprefix("# "): text
    for language, text in BLOCKS
    if language == "python"
}


def entry_of(name: str) -> dict[str, Any]:
    """The entry that the document shows for a file."""
    found = []
    for language, text in BLOCKS:
        if language == "yaml":
            (entry,) = yaml.safe_load(text)["plugins"]
            ((reference, settings),) = entry.items()
            if reference == f"./site/{name}.py":
                found.append(settings)
    (settings,) = found
    return dict(settings)


@dataclass
class Recipe:
    """A running gateway with one recipe, and what is behind it."""

    gateway: Assembly
    hop: NextHop

    @property
    def plugin(self) -> LoadedPlugin:
        """The recipe's own."""
        return self.gateway.plugins[-1]

    @property
    def instance(self) -> Any:
        """Its object."""
        return self.plugin.instance

    async def delivered(self, number: int = 1) -> bytes:
        """The message that arrived as that number, as the client sent it or a plugin made it."""
        messages = await self.hop.wait(number)
        return below_trace(messages[number - 1].content)


Cook = Callable[..., AbstractAsyncContextManager[Recipe]]
