"""The entries of `plugins` in gateway.yaml."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.configuration.quantity import Time, parse_duration
from gateway.configuration.validation import check, kind
from gateway.configuration.yaml_document import ConfigError, KeyPath, Problem, YamlDocument
from gateway.hooks.condition import When

RESERVED = ("when", "timeout", "on_error")
"""The keys of a plugin entry that belong to the core and not to the plugin."""


class Rules(BaseModel):
    """What every plugin entry may say besides the plugin's own settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    when: When | None = Field(None, description="Which mail the plugin sees; all, if left out.")
    timeout: Time = Field(
        parse_duration("10s"),
        description="How long one hook may run before it counts as failed.",
        json_schema_extra={"default": "10s"},
    )
    on_error: Literal["tempfail", "skip", "quarantine"] = Field(
        "tempfail",
        description="What happens to mail when the plugin fails: the client keeps it (tempfail), "
        "it goes on without the plugin (skip), or it is held for a person (quarantine).",
    )


class PluginEntry(Rules):
    """One entry of `plugins`, its settings not yet checked by the plugin.

    `name` is unique in the file: the second `footer` is `footer#2`, and a file is named without
    folder and suffix. `reference` is what stands in the file. `line` is 0 without a file.
    """

    name: str
    reference: str
    settings: Mapping[str, Any] = Field(default_factory=dict, repr=False)
    line: int = 0
    path: tuple[Any, ...] = Field((), repr=False)


def name_of(reference: str) -> str:
    """The name of an entry that is the first of its reference: that of a file has no folder."""
    file = re.fullmatch(r"(.*\.py)(?::\w+)?", reference)
    return Path(file[1]).stem if file else reference


def read_entries(
    document: YamlDocument, plugins: Any, problems: list[Problem]
) -> list[PluginEntry]:
    """Reads the list `plugins`; what is wrong is added to `problems`, the rest is returned."""
    if plugins is None:
        return []
    if not isinstance(plugins, list):
        message = (
            f"expected a list of plugins, not {kind(plugins)}; "
            "write each one after a dash: `- dkim: {}`"
        )
        problems.append(document.problem(("plugins",), message))
        return []
    entries = []
    names: Counter[str] = Counter()
    for index, item in enumerate(plugins):
        try:
            entry = _entry(document, ("plugins", index), item)
        except ConfigError as error:
            problems += error.problems
            continue
        names[entry.name] += 1
        if names[entry.name] > 1:
            entry = entry.model_copy(update={"name": f"{entry.name}#{names[entry.name]}"})
        entries.append(entry)
    return entries


def _entry(document: YamlDocument, path: KeyPath, item: Any) -> PluginEntry:
    reference, settings, below = item, None, path
    if isinstance(item, dict) and item:
        reference, settings = next(iter(item.items()))
        below = (*path, reference)
        if len(item) > 1:
            message = f'an entry has one name; indent what belongs to "{reference}" further than it'
            raise ConfigError([document.problem((*path, list(item)[1]), message, key=True)])
    if not isinstance(reference, str) or not reference:
        message = "expected the name of a plugin, or its name and settings: `- dkim: {keys: [...]}`"
        raise ConfigError([document.problem(path, message)])
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        message = (
            f"expected the plugin's settings as a mapping, not {kind(settings)}; "
            "for example {key: value}"
        )
        raise ConfigError([document.problem(below, message)])
    problems = [
        document.problem((*below, key), "the name of a setting is text", key=True)
        for key in settings
        if not isinstance(key, str)
    ]
    if problems:
        raise ConfigError(problems)
    rules = check(Rules, document, {k: v for k, v in settings.items() if k in RESERVED}, below)
    return PluginEntry(
        name=name_of(reference),
        reference=reference,
        settings={key: value for key, value in settings.items() if key not in RESERVED},
        line=document.mark(below, key=True).line,
        path=below,
        **{key: getattr(rules, key) for key in rules.model_fields_set},
    )
