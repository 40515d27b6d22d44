"""`gateway plugin`: what there is, what it does, and a beginning for one of your own."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from gateway.cli.options import DEFAULT_CONFIG, fail, fail_config, json_option
from gateway.cli.plugin_check import check
from gateway.cli.plugin_new import new
from gateway.configuration.config import Config, load_config
from gateway.configuration.entry import Rules, name_of
from gateway.configuration.keys import Key, example, keys, written
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.api import API_VERSION
from gateway.hooks.catalogue import Offer, offer, offers
from gateway.hooks.reference import PluginClasses, described

_WIDTH = 96


@click.group()
def plugin() -> None:
    """Plugins: those that are there, and new ones."""


@plugin.command("list")
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="The configuration whose plugins are marked.  [default: gateway.yaml, if it is there]",
)
@json_option
def list_plugins(path: Path | None, as_json: bool) -> None:
    """Show what is installed, and the site's own files.

    Those that cannot be used are shown with the reason.
    """
    config = _config(path)
    entries = config.plugins if config is not None else ()
    used = Counter(entry.reference for entry in entries)
    base = config.base if config is not None else Path()
    found = offers(base, used)
    if as_json:
        names = {
            one.reference: [entry.name for entry in entries if entry.reference == one.reference]
            for one in found
        }
        shown = [
            _facts(one) | {"used": names[one.reference] if config is not None else None}
            for one in found
        ]
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    width = max((len(one.reference) for one in found), default=0)
    for one in found:
        click.echo("\n".join(_listed(one, width, used[one.reference])))
    if not found:
        click.echo("no plugins are installed")


@plugin.command()
@click.argument("reference")
@json_option
def show(reference: str, as_json: bool) -> None:
    """Explain a plugin: what it does, its hooks, each key of its configuration.

    REFERENCE is the name of an installed plugin, or a file such as ./site/footer.py.
    """
    found = offer(PluginClasses(Path()), reference)
    if found.plugin_class is None or found.problem:
        fail(f"{reference}: {found.problem}")
    try:
        taken = keys(found.plugin_class.config_model())
    except Exception as error:
        # A model's own code for its JSON Schema, or for its defaults.
        fail(f"{reference}: its configuration cannot be described: {described(error)}")
    if as_json:
        facts = _facts(found) | {
            "description": found.description,
            "hooks": {name: found.hook_summary(name) for name in found.hooks},
            "keys": [_key_facts(key) for key in taken],
            "example": example(reference, taken),
        }
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(_shown(found, taken)))


plugin.add_command(check)
plugin.add_command(new)


def _config(path: Path | None) -> Config | None:
    """The configuration that was named, or the one that is there; None without one."""
    try:
        if path is not None or DEFAULT_CONFIG.exists():
            return load_config(path or DEFAULT_CONFIG)
    except ConfigError as error:
        if path is not None:
            fail_config(error.problems)
        reason = "it is not known which plugins it uses"
        click.echo(f"{DEFAULT_CONFIG} cannot be read, and {reason}: gateway check", err=True)
    return None


def _facts(found: Offer) -> dict[str, Any]:
    """What `list` and `show` have in common, as JSON."""
    plugin_class = found.plugin_class
    package = found.distribution
    facts: dict[str, Any] = {
        "reference": found.reference,
        "place": found.place,
        "distribution": package.name if package is not None else None,
        "version": package.version if package is not None else None,
        "home_page": (package.home_page or None) if package is not None else None,
        "summary": found.summary,
        "hooks": found.hooks,
        "problem": found.problem or None,
    }
    if plugin_class is not None:
        changes = plugin_class.changes
        facts |= {
            "api": plugin_class.api or None,
            "per_recipient": plugin_class.per_recipient,
            "blocking": plugin_class.blocking,
            "changes": sorted(changes) if changes is not None else None,
        }
    return facts


def _key_facts(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "type": key.type,
        "required": key.required,
        "default": key.default,
        "description": key.description,
        "keys": [_key_facts(inner) for inner in key.keys],
    }


def _listed(found: Offer, width: int, times: int) -> Iterator[str]:
    """The lines of a plugin in the list."""
    name = click.style(found.reference.ljust(width), bold=True, fg="green" if times else None)
    package = found.distribution
    origin = f"{package.name} {package.version}" if package is not None else "a file of the site"
    use = {0: "", 1: ", used"}.get(times, f", used {times} times")
    yield f"{name}  {origin}{use}"
    if found.summary:
        yield from _wrapped(found.summary, 4)
    if found.problem:
        yield from (click.style(line, fg="red") for line in _wrapped(found.problem, 4))
    if found.hooks:
        yield click.style(f"    hooks: {', '.join(found.hooks)}", dim=True)


def _shown(found: Offer, taken: Sequence[Key]) -> Iterator[str]:
    """The lines of `show`."""
    assert found.plugin_class is not None
    first, *others = found.description.split("\n\n") if found.description else [""]
    heading = " ".join(first.split())
    yield click.style(found.reference, bold=True) + (f": {heading}" if heading else "")
    for paragraph in others:
        yield ""
        yield from textwrap.indent(paragraph, "  ").split("\n")
    yield ""
    facts = list(_properties(found))
    width = max(len(label) for label, _ in facts)
    for label, text in facts:
        yield f"  {label:<{width}}  {text}"
    yield from _titled("Hooks, in the order in which a message meets them")
    width = max((len(name) for name in found.hooks), default=0)
    for name in found.hooks:
        yield f"  {click.style(name.ljust(width), bold=True)}  {found.hook_summary(name)}"
    yield from _titled("Configuration")
    for key in taken:
        yield from _explained(key, 2)
    if not taken:
        yield "  Nothing can be set."
    yield f"  Every entry also takes {', '.join(Rules.model_fields)}."
    yield from _titled("In gateway.yaml")
    yield from textwrap.indent(example(found.reference, taken), "  ").rstrip().split("\n")


def _properties(found: Offer) -> Iterator[tuple[str, str]]:
    plugin_class = found.plugin_class
    assert plugin_class is not None
    package = found.distribution
    name = name_of(found.reference)
    if package is not None:
        yield "package", f"{package.name} {package.version}"
        if package.home_page:
            yield "home page", package.home_page
    yield "class", found.place
    yield "plugin API", plugin_class.api or f"not said; taken as {API_VERSION}"
    changes = plugin_class.changes
    if changes is not None:
        yield "may change", ", ".join(sorted(changes)) or "nothing in a message"
    if plugin_class.blocking:
        yield "runs", f"in up to {plugin_class.threads} threads of its own in each process"
    if plugin_class.per_recipient:
        yield "message", "is seen once for each recipient"
    if "commands" in found.hooks:
        yield "commands", f"gateway {name} --help"
    if "http" in found.hooks:
        yield "pages", f"below /{name}/ of the HTTP service"


def _titled(title: str) -> Iterator[str]:
    yield ""
    yield click.style(title, underline=True)


def _explained(key: Key, indent: int) -> Iterator[str]:
    """A key of a configuration and the keys below it."""
    space = " " * indent
    name = click.style(key.name, bold=True)
    line = f"{space}{name}  {key.type}"
    if key.required:
        line += " " + click.style("(required)", fg="yellow")
    elif key.default not in (None, [], {}):
        line += f" (default: {textwrap.shorten(written(key.default), 60, placeholder=' …')})"
    yield line
    if key.description:
        yield from _wrapped(key.description, indent + 4)
    for inner in key.keys:
        yield from _explained(inner, indent + 4)


def _wrapped(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, _WIDTH, initial_indent=space, subsequent_indent=space)
