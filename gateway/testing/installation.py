"""A configuration for a test: gateway.yaml as text, and plugins as they come."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from gateway.configuration.config import Config, load_config
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.plugin import Plugin

Reference: TypeAlias = Plugin[Any] | type[Plugin[Any]] | str
"""A plugin: an instance, a class, or what stands in gateway.yaml (a name, or a path of a file)."""

Given: TypeAlias = Reference | tuple[Reference, BaseModel | Mapping[str, Any]]
"""A plugin, or a plugin and its settings.

Settings are a mapping as in gateway.yaml, `when`, `timeout` and `on_error` among them. A class may
come with its configuration instead, and an instance with nothing but those three.
"""


_DEFAULTS: Mapping[str, Any] = {
    "hostname": "gw.example.com",
    "listen": [{"address": "127.0.0.1:0", "allow": ["0.0.0.0/0", "::/0"]}],
    "retry": {"jitter": 0},
}


class _Settings(BaseModel):
    """The settings of an instance, which has its configuration already."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def install(
    folder: Path,
    plugins: Sequence[Given],
    text: str,
    base: Path | None = None,
    sections: Mapping[str, Any] | None = None,
) -> tuple[Config, list[LoadedPlugin]]:
    """The configuration and its plugins, checked as `gateway run` checks them.

    Args:
        folder: for the spool, and all else that is written.
        plugins: what the list `plugins` of gateway.yaml would hold.
        text: the rest of gateway.yaml. What it does not say of `hostname`, `spool`, `listen` and
            `retry.jitter` suits a test.
        base: where relative paths start from; None: `folder`.
        sections: further ones for what the text does not say.

    Raises:
        ConfigError: something is wrong; its text says where.
        ValueError: plugins are given twice over.
    """
    __tracebackhide__ = True
    if plugins and _says("plugins", text):
        raise ValueError("plugins are given as arguments or in the text, not both")
    with _module() as module:
        entries = [_entry(folder, module, given, index) for index, given in enumerate(plugins)]
        defaults = {**_DEFAULTS, "spool": {"path": str(folder / "spool"), "reserve": 1}}
        defaults.update(sections or {})
        # Below the text, so that its lines keep their numbers in what is said about them.
        lines = [
            text,
            *(f"{k}: {json.dumps(v)}" for k, v in defaults.items() if not _says(k, text)),
        ]
        if entries:
            lines.append(f"plugins: {json.dumps(entries, default=str)}")
        try:
            config = load_config((base or folder) / "gateway.yaml", "\n".join(lines) + "\n")
            return config, load_plugins(config)
        except ConfigError as error:
            # Raised here, where a test's report says no more than what is wrong.
            raise ConfigError(error.problems) from None
        finally:
            _forget_modules(folder)


def _says(section: str, text: str) -> bool:
    return re.search(rf"^{section}:", text, re.MULTILINE) is not None


@contextmanager
def _module() -> Iterator[ModuleType]:
    """A module that files of the folder can import from as long as plugins are loaded."""
    module = ModuleType(f"_gateway_testing_{uuid4().hex}")
    sys.modules[module.__name__] = module
    try:
        yield module
    finally:
        del sys.modules[module.__name__]


def _entry(folder: Path, module: ModuleType, given: Given, index: int) -> dict[str, Any]:
    """An entry of gateway.yaml that stands for a plugin."""
    reference, settings = given if isinstance(given, tuple) else (given, {})
    if isinstance(reference, type) and isinstance(settings, BaseModel):
        reference, settings = reference(settings), {}
    if isinstance(settings, BaseModel):
        raise TypeError(
            f"{reference!r} comes with a configuration; give a class and its configuration, "
            "or a mapping as in gateway.yaml"
        )
    if isinstance(reference, str):
        return {reference: dict(settings)}
    plugin_class = reference if isinstance(reference, type) else _class_of(reference)
    setattr(module, plugin_class.__name__, plugin_class)
    # Of its own for each: the entry is named like the file.
    path = folder / "given" / str(index) / f"{plugin_class.__name__.lower()}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"from {module.__name__} import {plugin_class.__name__}\n")
    return {f"{path}:{plugin_class.__name__}": dict(settings)}


def _class_of(instance: Plugin[Any]) -> type[Plugin[Any]]:
    """A class that is as the instance's, and whose only instance is this one."""
    own = type(instance)
    namespace = {
        "__doc__": own.__doc__,
        "__module__": own.__module__,
        "__new__": lambda _cls, _config: instance,
        "config_model": classmethod(lambda _cls: _Settings),
    }
    return type(own.__name__, (own,), namespace)


def _forget_modules(folder: Path) -> None:
    """Forgets what was imported from the files that stand for plugins."""
    given = str(folder / "given")
    for name, module in list(sys.modules.items()):
        if name.startswith("_gateway_site_") and str(module.__file__).startswith(given):
            del sys.modules[name]


def with_clock(plugins: Sequence[LoadedPlugin], clock: Callable[[], float]) -> list[LoadedPlugin]:
    """The plugins, whose `start` hooks and commands get this clock."""
    return [replace(plugin, hooks=_clocked(plugin.hooks, clock)) for plugin in plugins]


def _clocked(
    hooks: Mapping[str, Callable[..., Any]], clock: Callable[[], float]
) -> dict[str, Callable[..., Any]]:
    def clocked(hook: Callable[..., Any]) -> Callable[..., Any]:
        return lambda context: hook(replace(context, clock=clock))

    return {
        name: clocked(hook) if name in ("start", "commands") else hook
        for name, hook in hooks.items()
    }
