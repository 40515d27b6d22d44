"""`gateway run`, `check`, `chain`, `schema` and `user`, and where all commands come together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gateway import __version__
from gateway.cli.doctor import doctor
from gateway.cli.options import DEFAULT_CONFIG, config_option, fail, fail_config, json_option, load
from gateway.cli.plugin import plugin as plugin_group
from gateway.cli.queue import queue
from gateway.cli.try_message import try_message
from gateway.cli.why import why
from gateway.configuration.config import Config
from gateway.configuration.schema import schema as json_schema
from gateway.configuration.users import hash_password, load_users, save_user
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.load import LoadedPlugin, installed_models, load_plugins
from gateway.hooks.spec import STAGES
from gateway.log import setup as setup_log
from gateway.process.supervisor import Supervisor
from gateway.web.mount import mount_names


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    expose_value=False,
    help="For the commands that plugins add: the configuration that names the plugins.",
)
def gateway() -> None:
    """An SMTP relay: every message passes plugins, waits safe on disk, and is delivered."""


@gateway.command()
@config_option
def run(path: Path) -> None:
    """Run the gateway until SIGTERM or Ctrl-C.

    SIGHUP reloads the configuration: new processes take over, the old ones finish what they hold.
    SIGUSR1 opens the log file anew, after it was rotated.
    """
    config = load(path)
    handler = setup_log(config.log, config.hostname, "supervisor")
    sys.exit(Supervisor(path, reopen_log=handler.reopen).run())


@gateway.command()
@config_option
def check(path: Path) -> None:
    """Check the configuration and the plugins; nothing is started.

    Exit status 2 means that something is wrong; each problem is a line with file and line number.
    """
    config, plugins = _load_all(path)
    relay = ", ".join(map(str, config.relay.via)) or "the MX of each domain"
    click.echo(f"{path}: good: {_count(len(plugins), 'plugin')}, relay to {relay}")
    auth = any("auth" in plugin.hooks for plugin in plugins)
    if not auth and not any(listen.allow or listen.users for listen in config.listen):
        click.echo(f"{path}: note: nobody may relay: no `listen` has `allow` or `users`", err=True)
    for name in _unreachable(config, plugins):
        reason = "there is no `http` section"
        click.echo(f"{path}: note: nobody reaches the pages of {name}: {reason}", err=True)
    for plugin in plugins:
        name = plugin.entry.name
        if "commands" in plugin.hooks and name in _OWN:
            reason = f"`gateway {name}` is another command; the plugin needs another name"
            click.echo(f"{path}: note: nobody reaches the commands of {name}: {reason}", err=True)


@gateway.command()
@config_option
@json_option
def chain(path: Path, as_json: bool) -> None:
    """Show which plugins run at each stage, in order."""
    config, plugins = _load_all(path)
    stages = {
        name: [_describe(plugin, name) for plugin in plugins if name in plugin.hooks]
        for name in STAGES
    }
    if as_json:
        click.echo(json.dumps(stages, indent=2))
        return
    width = max(map(len, stages))
    for name, steps in stages.items():
        for position, step in enumerate(steps):
            label = name if position == 0 else ""
            rules = [f"timeout {step['timeout']:g} s", f"on_error {step['on_error']}"]
            if step["when"]:
                rules.append(f"when {json.dumps(step['when'], ensure_ascii=False)}")
            click.echo(f"{label:<{width}}  {step['plugin']}  ({', '.join(rules)})")
    if not plugins:
        click.echo(f"{config.path}: no plugins: mail passes as it is")


@gateway.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file.")
def schema(output: Path | None) -> None:
    """Print the JSON Schema of gateway.yaml, which editors complete from.

    With the Red Hat YAML extension, put this on top of gateway.yaml:

        # yaml-language-server: $schema=gateway.schema.json
    """
    text = json.dumps(json_schema(installed_models()), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


@gateway.group()
def user() -> None:
    """Users who may log in to relay mail."""


@user.command("add")
@click.argument("name")
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=Path("users.yaml"),
    show_default=True,
    help="The users file; made if it is not there.",
)
@click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, for scripts."
)
def user_add(name: str, path: Path, password_stdin: bool) -> None:
    """Add the user NAME, or change the password."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not password:
        fail("an empty password lets anybody in")
    try:
        changed = save_user(path, name, hash_password(password))
        load_users(path)
    except ConfigError as error:
        fail_config(error.problems)
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    click.echo(f"{path}: {name} {'changed' if changed else 'added'}")


def _unreachable(config: Config, plugins: list[LoadedPlugin]) -> list[str]:
    """The plugins with pages that nobody reaches; ends the program where two share a path."""
    served = [plugin.entry.name for plugin in plugins if "http" in plugin.hooks]
    if config.http is None:
        return served
    try:
        mount_names(served)
    except ValueError as error:
        fail_config([f"{config.path}: {error}"])
    return []


def _load_all(path: Path) -> tuple[Config, list[LoadedPlugin]]:
    config = load(path)
    try:
        plugins = load_plugins(config)
        for listen in config.listen:
            if listen.users is not None:
                load_users(listen.users)
    except ConfigError as error:
        fail_config(error.problems)
    return config, plugins


def _describe(plugin: LoadedPlugin, hook: str) -> dict[str, object]:
    entry = plugin.entry
    return {
        "plugin": entry.name,
        "async": plugin.is_async[hook],
        "timeout": entry.timeout,
        "on_error": entry.on_error,
        "when": entry.when.model_dump(mode="json", exclude_none=True) if entry.when else None,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


gateway.add_command(doctor)
gateway.add_command(plugin_group)
gateway.add_command(queue)
gateway.add_command(try_message)
gateway.add_command(why)

_OWN = frozenset(gateway.commands)
"""The commands that no plugin can add."""
