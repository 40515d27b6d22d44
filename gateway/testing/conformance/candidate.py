"""The plugin that is checked: its class, its settings, and instances of it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.configuration.config import Config, load_config
from gateway.configuration.entry import PluginEntry
from gateway.configuration.yaml_document import ConfigError, Problem, YamlDocument, parse
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.plugin import Plugin
from gateway.hooks.reference import GROUP, PluginClasses, PluginError
from gateway.testing.conformance.request import Request
from gateway.testing.conformance.source import Source

HOSTNAME = "gw.example.com"
TIMEOUT = 3.0
"""Seconds that a hook has in a check before it counts as hanging."""

_SITE = f"hostname: {HOSTNAME}\nlisten: [{{address: '127.0.0.1:0', allow: [127.0.0.0/8]}}]\n"
_FILE = re.compile(r"(.+\.py)(:\w+)?")


class CandidateError(Exception):
    """A plugin cannot be checked. Each line of the text says why, and what would be right."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that can be loaded.

    Attributes:
        name: of its entry.
        plugin_class, model: its class and that of its configuration.
        distribution: the package that it is from, with its version; '' for a file.
        source: its files.
        config: a configuration with one entry, the plugin's.
    """

    name: str
    plugin_class: type[Plugin[Any]]
    model: type[BaseModel]
    distribution: str
    source: Source
    config: Config

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its entry says."""
        return self.config.plugins[0].settings

    def load(self, spool: Path, *, name: str = "") -> tuple[LoadedPlugin, Config]:
        """A new instance, and the configuration with its entry.

        Args:
            spool: the folder for the plugin's own files and the limits.
            name: of the entry; '' for the usual one.

        Raises:
            ConfigError: it cannot be made of its settings.
        """
        config = self.config
        entry = config.plugins[0].model_copy(
            update={
                "name": name or self.name,
                "timeout": TIMEOUT,
                "on_error": "tempfail",
                # Any mail may come to another site's entry.
                "when": None,
            }
        )
        config = config.model_copy(
            update={
                "plugins": (entry,),
                "spool": config.spool.model_copy(update={"path": spool}),
            }
        )
        (loaded,) = load_plugins(config)
        return loaded, config


def find(request: Request) -> Candidate:
    """The plugin that a request means, loaded once to see that it can be.

    Raises:
        CandidateError: there is none, it cannot be imported, or its settings are not right.
    """
    reference = _absolute(request.reference)
    try:
        config = (
            _site_config(request, reference) if request.site else _own_config(request, reference)
        )
        plugin_class = PluginClasses(config.base).find(config.plugins[0].reference)
        load_plugins(config)
    except PluginError as error:
        raise CandidateError(str(error)) from None
    except ConfigError as error:
        raise CandidateError("\n".join(map(_said, error.problems))) from None
    return Candidate(
        config.plugins[0].name,
        plugin_class,
        plugin_class.config_model(),
        distribution_of(request.reference),
        Source(plugin_class),
        config,
    )


def entry_name(reference: str) -> str:
    """What an entry is called: the installed name, or the file without folder and suffix."""
    file = _FILE.fullmatch(reference)
    return Path(file[1]).stem if file else reference


def distribution_of(reference: str) -> str:
    """The package that offers a plugin, with its version; '' for a file."""
    for point in importlib.metadata.entry_points(group=GROUP, name=reference):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return ""


def _absolute(reference: str) -> str:
    file = _FILE.fullmatch(reference)
    if file is None:
        return reference
    return f"{Path(file[1]).absolute()}{file[2] or ''}"


def _said(problem: Problem) -> str:
    place = f"{problem.file}:{problem.line}: " if problem.line else ""
    return f"{place}{problem.path}: {problem.message}" if problem.path else problem.message


def _own_config(request: Request, reference: str) -> Config:
    """A site with nothing but the plugin."""
    document = _settings(request)
    name = entry_name(request.reference)
    entry = PluginEntry(name=name, reference=reference, settings=document.data)
    config = load_config(document.file.absolute().parent / "gateway.yaml", _SITE)
    config = config.model_copy(update={"plugins": (entry,)})
    config._document = document
    return config


def _settings(request: Request) -> YamlDocument:
    """The settings that were given, or those that pyproject.toml has for the plugin."""
    if request.settings is not None:
        file = Path(request.settings_file or "--config")
        if not request.settings.strip():
            return YamlDocument(file, {})
        return parse(file, request.settings)
    file = Path("pyproject.toml")
    if not file.is_file():
        return YamlDocument(Path("--config"), {})
    try:
        table: Any = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise CandidateError(f"{file}: {error}") from None
    for key in ("tool", "mail-gateway", "check", entry_name(request.reference)):
        table = table.get(key, {}) if isinstance(table, dict) else {}
    # By way of YAML, so that dates and times are what they would be in gateway.yaml.
    return parse(file, json.dumps(table, default=str)) if table else YamlDocument(file, {})


def _site_config(request: Request, reference: str) -> Config:
    """A site's own configuration, with no other plugin."""
    config = load_config(Path(request.site))
    for entry in config.plugins:
        file = _FILE.fullmatch(entry.reference)
        found = f"{config.base / file[1]}{file[2] or ''}" if file else entry.reference
        if request.reference in (entry.name, entry.reference) or found == reference:
            only = config.model_copy(update={"plugins": (entry,)})
            only._document = config.document
            return only
    names = ", ".join(entry.name for entry in config.plugins) or "none"
    raise CandidateError(
        f"{request.site} has no entry for {request.reference}; its plugins are: {names}"
    )
