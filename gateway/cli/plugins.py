"""Commands that the plugins of a site add."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.cli.options import DEFAULT_CONFIG, fail_config
from gateway.configuration.config import load_config
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.lifecycle import context_of, resolver_of
from gateway.hooks.load import load_plugins
from gateway.limits import Limits
from gateway.spool.emitter import emit_nothing

log = logging.getLogger("gateway.plugins")


def add_plugin_commands(group: click.Group, arguments: Sequence[str]) -> None:
    """Adds what the `commands` hooks of the configured plugins give.

    Only where the first argument is no command of ours, or for the list of all commands: loading
    plugins takes time, and a broken configuration must not break `gateway check`.
    """
    path, name = _parse(arguments)
    if name in group.commands or "--version" in arguments:
        return
    try:
        config = load_config(path)
        plugins = load_plugins(config)
    except ConfigError as error:
        if name is None:
            return
        click.echo(
            f'gateway: "{name}" is none of its own commands; for those of plugins:', err=True
        )
        fail_config(error.problems)
    limits = Limits(config.spool.limits)
    resolver = resolver_of(config)
    for plugin in plugins:
        hook = plugin.hooks.get("commands")
        if hook is None:
            continue
        try:
            context = context_of(
                plugin.entry.name, config, "command", resolver, limits, emit_nothing
            )
            command = hook(context)
            if command is None or plugin.entry.name in group.commands:
                continue
            if not isinstance(command, click.Command):
                raise TypeError(f"it answered {type(command).__name__}, and may a click.Command")
            group.add_command(command, plugin.entry.name)
        except (Exception, SystemExit):
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
