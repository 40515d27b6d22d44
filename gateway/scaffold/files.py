"""The files of a new plugin."""

from __future__ import annotations

import ast
import json
import keyword
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gateway import __version__, hooks
from gateway.configuration.keys import keys, written
from gateway.hooks.api import API_VERSION
from gateway.scaffold import template
from gateway.scaffold.cut import cut
from gateway.scaffold.name import PluginName
from gateway.scaffold.template.plugin import NewPluginConfig

DESCRIPTION = "A plugin for mail-gateway."
"""What a plugin says about itself that was given no description."""

_WIDEST = 88
_TABLE = "| key | default | meaning |\n| --- | --- | --- |\n"
_NEEDS = {"claim": "receive", "receive": "claim"}
"""Hooks that are nothing without another one."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a plugin that is not written yet.

    Attributes:
        name: its name.
        hooks: the hooks that it begins with.
        description: what it does for its users, in one line.
        author: name and address of the author; '' for what is not known.
    """

    name: PluginName
    hooks: Collection[str] = ("message",)
    description: str = DESCRIPTION
    author: tuple[str, str] = ("", "")

    @property
    def class_name(self) -> str:
        """The plugin's class: neither a word of Python nor a name that plugins import."""
        imported = {
            alias.name
            for file in ("plugin.py", "tests/test_plugin.py")
            for node in ast.walk(ast.parse(_text(file)))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        return self.name.class_name({*hooks.__all__, *imported, *keyword.kwlist})


def one_line(description: str) -> str:
    """A description as it can stand anywhere, with a full stop at its end.

    Raises:
        ValueError: it cannot; the text says what would be right.
    """
    text = description.strip()
    if not text or not text.isprintable() or '"' in text or "\\" in text:
        raise ValueError('expected one line of text, without " and \\')
    if text[-1] not in ".!?。！？":
        text += "." if text[-1].isascii() else "。"
    if sum(1 + (unicodedata.east_asian_width(one) in "WF") for one in text) > _WIDEST:
        raise ValueError(f"at most {_WIDEST} characters; the README has room for more")
    return text


def package(draft: Draft) -> dict[str, str]:
    """The files of an installable package, by their paths in its folder."""
    name, module = draft.name, draft.name.module
    source = _source(draft)
    return {
        ".github/workflows/test.yaml": _named(_text("workflow.yaml"), draft),
        ".gitignore": _text("gitignore"),
        "CHANGELOG.md": _text("CHANGELOG.md"),
        "README.md": _readme(draft, source),
        "pyproject.toml": _project(draft),
        f"src/{module}/__init__.py": source,
        f"src/{module}/py.typed": "",
        f"tests/test_{name.file}": _tests(draft),
    }


def site_file(draft: Draft) -> dict[str, str]:
    """The only file of a plugin that a site has for itself, by its name."""
    return {draft.name.file: _source(draft)}


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes files into a folder, which is made if need be.

    Raises:
        FileExistsError: one of them is there; nothing was written.
        OSError: they cannot be written.
    """
    for path in texts:
        if (folder / path).exists() or (folder / path).is_symlink():
            raise FileExistsError(f"{folder / path} is there already")
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("x", encoding="utf-8") as file:
            file.write(text)


def with_needed(chosen: Iterable[str]) -> list[str]:
    """The hooks, with those that they are nothing without."""
    return list(dict.fromkeys(name for hook in chosen for name in (hook, _NEEDS.get(hook, hook))))


def _text(file: str) -> str:
    return files(template).joinpath(file).read_text(encoding="utf-8")


def _named(text: str, draft: Draft) -> str:
    """A text of the template with the names of the new plugin."""
    name = draft.name
    names = {
        DESCRIPTION: draft.description,
        "NewPlugin": draft.class_name,
        "New-Plugin": name.header,
        "new-plugin": name.name,
        "new_plugin": name.file.removesuffix(".py"),
    }
    return re.sub("|".join(map(re.escape, names)), lambda match: names[match[0]], text)


def _source(draft: Draft) -> str:
    text = _named(_text("plugin.py"), draft)
    return cut(text.replace('api = "1.0"', f'api = "{API_VERSION}"'), draft.hooks, {})


def _tests(draft: Draft) -> str:
    modules = {"gateway.scaffold.template.plugin": draft.name.module}
    text = _named(_text("tests/test_plugin.py"), draft)
    return cut(text, draft.hooks, modules, [draft.name.module])


def _project(draft: Draft) -> str:
    name, address = draft.author
    parts = [("name", name), ("email", address)]
    inner = ", ".join(
        f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in parts if text
    )
    authors = f"authors = [{{ {inner} }}]\n" if inner else ""
    text = _named(_text("project.toml"), draft)
    return text.replace("authors = []\n", authors).replace(
        "mail-gateway>=0", f"mail-gateway>={__version__}"
    )


def _readme(draft: Draft, source: str) -> str:
    rows = "".join(
        f"| `{key.name}` | `{written(key.default)}` | {key.description} |\n"
        for key in keys(NewPluginConfig)
        if f"\n    {key.name}: " in source
    )
    text = _text("README.md")
    return _named(text.replace(_TABLE, _TABLE + rows if rows else "Nothing can be set.\n"), draft)
