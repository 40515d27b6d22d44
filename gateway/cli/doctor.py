"""`gateway doctor`: what is wrong with a site, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from gateway.cli.lines import say
from gateway.cli.options import config_option, json_option
from gateway.configuration.config import Config, load_config
from gateway.configuration.users import load_users
from gateway.configuration.yaml_document import ConfigError
from gateway.doctor.examination import AREAS, chosen, examine
from gateway.doctor.finding import Finding, Severity, count, problem
from gateway.doctor.plugin_checks import run_checks
from gateway.doctor.running import find
from gateway.doctor.site import Site
from gateway.hooks.lifecycle import context_of, resolver_of
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.limits import Limits
from gateway.log_line import escape
from gateway.mail.address import domain_name
from gateway.resolver import Resolver
from gateway.spool.emitter import emit_nothing

_COLOURS: dict[Severity, str] = {
    "ok": "green",
    "note": "cyan",
    "warning": "yellow",
    "problem": "red",
}


def _domains(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(map(domain_name, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _addresses(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ip_address(value)) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}; for example 192.0.2.25") from None


@click.command()
@config_option
@json_option
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(AREAS)),
    help="Examine this alone; may be given several times.",
)
@click.option("--dns/--no-dns", default=True, show_default=True, help="Ask the DNS, too.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    callback=_domains,
    help="A domain that senders have; without it, those in the queue and the log are taken.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    callback=_addresses,
    help="An address that mail leaves from, where this machine cannot know it.",
)
def doctor(
    path: Path,
    as_json: bool,
    only: tuple[str, ...],
    dns: bool,
    domains: tuple[str, ...],
    addresses: tuple[str, ...],
) -> None:
    """Examine the site, running or not, and say what to do.

    Each line is ok, a note, a warning or a problem. Nothing is changed. Exit status 1 means that
    there is a problem.
    """
    areas = chosen(only, dns=dns)
    if not areas:
        raise click.UsageError(f"{', '.join(only)} cannot be examined with --no-dns")
    try:
        config = load_config(path)
        plugins = load_plugins(config)
        for listen in config.listen:
            if listen.users is not None:
                load_users(listen.users)
    except ConfigError as error:
        remedy = "correct gateway.yaml; the rest is examined when it loads"
        found = {"configuration": [problem(str(one), remedy) for one in error.problems]}
    else:
        found = asyncio.run(_examined(config, plugins, areas, domains, addresses))
    if as_json:
        click.echo(json.dumps(_described(found), indent=2, ensure_ascii=False))
    else:
        _tell(found)
    if any(finding.severity == "problem" for one in found.values() for finding in one):
        sys.exit(1)


async def _examined(
    config: Config,
    plugins: Sequence[LoadedPlugin],
    areas: Sequence[str],
    domains: tuple[str, ...],
    addresses: tuple[str, ...],
) -> dict[str, list[Finding]]:
    wanted = {"plugins", "senders"} & set(areas)
    checking = _with_check(config, plugins) if wanted else []
    resolver, outside = resolver_of(config), _outside(config)
    with ExitStack() as stack:
        bar: Any = None
        if sys.stderr.isatty():
            length = len(areas) + len(checking)
            bar = stack.enter_context(
                click.progressbar(length=length, label="Examining", file=sys.stderr)
            )

        def advance(*_: object) -> None:
            if bar is not None:
                bar.update(1)

        try:
            site = Site(
                config,
                plugins,
                resolver,
                outside,
                await find(config),
                await run_checks(checking, config.path, advance),
                domains,
                addresses,
            )
            return await examine(site, areas, advance)
        finally:
            await resolver.close()
            await outside.close()


def _outside(config: Config) -> Resolver:
    """Sees the DNS as others do: without this machine's hosts file, and with every address."""
    nameservers = list(map(str, config.dns.nameservers))
    return Resolver(nameservers, config.dns.timeout, hosts=Path(os.devnull), loopback=True)


def _with_check(config: Config, plugins: Sequence[LoadedPlugin]) -> list[str]:
    """The entries whose plugin has a command `check` with `--json` that needs nothing else."""
    limits, resolver = Limits(config.spool.limits), resolver_of(config)
    names = []
    for plugin in plugins:
        hook = plugin.hooks.get("commands")
        if hook is None:
            continue
        name = plugin.entry.name
        try:
            command = hook(context_of(name, config, "command", resolver, limits, emit_nothing))
        except (Exception, SystemExit):  # noqa: S112 - `gateway NAME` says what is wrong
            continue
        check = command.commands.get("check") if isinstance(command, click.Group) else None
        if check is not None and _is_plain(check):
            names.append(name)
    return names


def _is_plain(command: click.Command) -> bool:
    has_json = any("--json" in parameter.opts for parameter in command.params)
    return has_json and not any(parameter.required for parameter in command.params)


def _tell(found: dict[str, list[Finding]]) -> None:
    for area, findings in found.items():
        say([click.style(area, bold=True)])
        for finding in findings:
            word = click.style(f"{finding.severity:<7}", fg=_COLOURS[finding.severity])
            say([f"  {word}  {escape(finding.text)}"])
            if finding.remedy:
                say([f"           → {escape(finding.remedy)}"])
    counts = Counter(finding.severity for findings in found.values() for finding in findings)
    said = ", ".join(_count(word, counts[word]) for word in _COLOURS if counts[word])
    say(["", said])


def _count(word: Severity, number: int) -> str:
    return f"{number} ok" if word == "ok" else count(number, word)


def _described(found: dict[str, list[Finding]]) -> dict[str, Any]:
    worst = [
        word
        for word in reversed(_COLOURS)
        if any(finding.severity == word for findings in found.values() for finding in findings)
    ]
    return {
        "status": worst[0] if worst else "ok",
        "findings": [
            {"area": area, **finding.to_dict()}
            for area, findings in found.items()
            for finding in findings
        ],
    }
