"""Commands that the plugins of a site add."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.cli.options import DEFAULT_CONFIG
from gateway.configuration.config import load_config
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.load import load_plugins

log = logging.getLogger("gateway.plugins")


def add_plugin_commands(group: click.Group, arguments: Sequence[str]) -> None:
    """Adds what the `commands` hooks of the configured plugins give.

    Only where the first argument is no command of ours: loading plugins takes time, and a broken
    configuration must not break `gateway check`.
    """
    path, name = _parse(arguments)
    if name is None or name in group.commands:
        return
    try:
        plugins = load_plugins(load_config(path))
    except ConfigError:
        return  # click says that there is no such command
    for plugin in plugins:
        hook = plugin.hooks.get("commands")
        if hook is None:
            continue
        try:
            command = hook()
            if command is not None:
                group.add_command(command, plugin.entry.name)
        except Exception:
            log.exception("plugin %s failed in commands", plugin.entry.name)


def _parse(arguments: Sequence[str]) -> tuple[Path, str | None]:
    """The configuration named before the command, and the command."""
    path = DEFAULT_CONFIG
    words = iter(arguments)
    for word in words:
        if word in ("-c", "--config"):
            path = Path(next(words, path))
        elif word.startswith("--config="):
            path = Path(word.partition("=")[2])
        elif not word.startswith("-"):
            return path, word
    return path, None
