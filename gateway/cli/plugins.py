"""Commands that the plugins of a site add."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.cli.options import DEFAULT_CONFIG
from gateway.config import load_config
from gateway.hooks.load import load_plugins
from gateway.yaml_document import ConfigError

log = logging.getLogger("gateway.plugins")


def add_plugin_commands(group: click.Group, arguments: Sequence[str]) -> None:
    """Adds what the `commands` hooks of the configured plugins give.

    Only where the first argument is no command of ours: loading plugins takes time, and a broken
    configuration must not break `gateway check`.
    """
    name = next((word for word in arguments if not word.startswith("-")), None)
    if name is None or name in group.commands:
        return
    try:
        plugins = load_plugins(load_config(_config_path(arguments)))
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


def _config_path(arguments: Sequence[str]) -> Path:
    for position, word in enumerate(arguments):
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
        if word in ("-c", "--config") and position + 1 < len(arguments):
            return Path(arguments[position + 1])
    return DEFAULT_CONFIG
