"""`gateway throttle`: what is in force and why, while the gateway runs or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import click

from gateway.hooks import Context, ResolutionError, Route, domain_name
from plugins.throttle.config import ThrottleConfig
from plugins.throttle.explanation import (
    SMARTHOST,
    UnreachableError,
    explained,
    route_through,
    route_to,
)
from plugins.throttle.ledger import FILE_NAME, Ledger, LedgerError, Use
from plugins.throttle.overview import Overview
from plugins.throttle.plan import Planner
from plugins.throttle.state import States
from plugins.throttle.window import end_text, zone_of


@dataclass(frozen=True, slots=True)
class Site:
    """The entry of `gateway.yaml` that a command works for."""

    config: ThrottleConfig
    context: Context


def group(config: ThrottleConfig, context: Context) -> click.Group:
    """The commands for one entry of `gateway.yaml`."""
    return click.Group(
        context.name,
        commands=[show, explain, resume],
        help="How fast mail goes out, and why.",
        context_settings={"obj": Site(config, context)},
    )


_pass_site = click.make_pass_decorator(Site)
_json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs."
)


@contextmanager
def _failing() -> Iterator[None]:
    """Ends the program with one line if what the processes share cannot be read."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has read enough
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror}") from error
    except (LedgerError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@_json_option
@_pass_site
def show(site: Site, as_json: bool) -> None:
    """Show limits in use, and what is slowed or paused.

    A scope is all mail that a limit counts together: a provider, a site (domains with the same
    servers) or a domain; `from` a source address, if each counts by itself.
    """
    context = site.context
    now = context.clock()
    with _failing():
        scopes = Overview(site.config.merged, context.limits, context.name).scopes(now)
        uses = _uses(site, now)
    if as_json:
        zone = zone_of(site.config.time_zone)
        quotas = [
            {
                "quota": use.quota,
                "subject": use.subject,
                "period": use.window.period,
                "until": end_text(use.window, zone),
                "messages": use.messages,
                "recipients": use.recipients,
            }
            for use in uses
        ]
        click.echo(json.dumps({"scopes": scopes, "quotas": quotas}, indent=2, ensure_ascii=False))
        return
    for scope in scopes:
        click.echo(scope["scope"])
        for line in _scope_lines(scope):
            click.echo(f"  {line}")
    for line in _quota_lines(site, uses):
        click.echo(line)
    if not scopes and not uses:
        click.echo("Nothing has been limited lately.", err=True)


def _uses(site: Site, now: float) -> list[Use]:
    path = site.context.data_folder() / FILE_NAME
    if not site.config.quotas or not path.exists():
        return []
    ledger = Ledger(path)
    try:
        return [use for use in ledger.used(now) if use.quota in site.config.quotas]
    finally:
        ledger.close()


def _scope_lines(scope: dict[str, Any]) -> Iterator[str]:
    for rate in scope["rates"]:
        free = (
            f"{rate['at_once']:,} at once" if rate["at_once"] else f"next in {_wait(rate['next'])}"
        )
        yield f"{rate['rate']} {rate['unit']}, {free}"
    if scope["connections"] is not None:
        limit = scope["connections"]["limit"]
        most = "" if limit is None else f" of {limit}"
        yield f"{scope['connections']['open']}{most} connections open"
    for state in scope["state"]:
        yield _state_line(state)


def _wait(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{max(0.1, seconds):.1f} s"


def _state_line(state: dict[str, Any]) -> str:
    what = {"slow": f"slowed to 1/{state.get('divisor')}", "pause": "paused", "bounce": "refused"}
    until = datetime.fromtimestamp(state["until"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{what[state['kind']]} until {until}: {state['why']}"


def _quota_lines(site: Site, uses: list[Use]) -> Iterator[str]:
    zone = zone_of(site.config.time_zone)
    for use in uses:
        quota = site.config.quotas[use.quota]
        parts = []
        for count, amounts, unit in (
            (use.messages, quota.messages, "messages"),
            (use.recipients, quota.recipients, "recipients"),
        ):
            limit = amounts.by_period.get(use.window.period) if amounts is not None else None
            if limit is not None:
                parts.append(f"{count:,} of {limit:,} {unit}")
        if parts:
            subject = f", {use.subject}" if use.subject else ""
            end = end_text(use.window, zone)
            yield f"quota {use.quota}{subject}: {', '.join(parts)} until {end}"


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The domain of an address, or a domain."""
    try:
        return domain_name(value.rpartition("@")[2])
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _source(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else str(ip_address(value))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _smarthost(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    try:
        return None if value is None else route_through(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command()
@click.argument("domain", callback=_address, metavar="ADDRESS")
@click.option("--source", callback=_source, metavar="IP", help="From this source address.")
@click.option(
    "--via",
    "smarthost",
    callback=_smarthost,
    metavar="HOST",
    help="Through this smarthost, not to the mail exchangers of the domain.",
)
@_json_option
@_pass_site
def explain(
    site: Site, domain: str, source: str | None, smarthost: Route | None, as_json: bool
) -> None:
    """Say which limits and rules apply to mail for an address or a domain.

    Each comes with the line of a file, or the key of gateway.yaml, that says it.
    """
    context = site.context
    try:
        route = smarthost or asyncio.run(_resolved(domain, context))
    except (UnreachableError, ResolutionError) as error:
        raise click.ClickException(str(error)) from None
    receivers = site.config.merged
    lane = domain if smarthost is None else SMARTHOST
    plan = Planner(receivers).plan(domain, route, source, lane)
    with _failing():
        states = States(context.limits, context.name)
        data = {"domain": domain, **explained(plan, route, receivers, states, context.clock())}
    if as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    for line in _explanation_lines(data):
        click.echo(line)


async def _resolved(domain: str, context: Context) -> Route:
    try:
        return await route_to(domain, context.resolver)
    finally:
        await context.resolver.close()


def _explanation_lines(data: dict[str, Any]) -> Iterator[str]:
    yield f"domain    {data['domain']}"
    yield f"site      {data['site']}"
    yield f"provider  {data['provider'] or 'none'}"
    yield "limits"
    rows = [
        *((f"{one['rate']} {one['unit']}", one) for one in data["rates"]),
        *((f"{one['connections']} connections", one) for one in data["connections"]),
    ]
    rows = [(f"{what}, {one['scope']}", one) for what, one in rows]
    for key in ("messages_per_connection", "recipients_per_message"):
        if data[key] is not None:
            rows.append((f"{data[key]['value']} {key.replace('_', ' ')}", data[key]))
    width = max((len(what) for what, _ in rows), default=0)
    for what, one in rows:
        yield f"  {what:<{width}}  ({one['from']})"
    if not rows:
        yield "  none"
    yield "rules"
    for rule in data["rules"]:
        lasting = f" for {rule['for']:g} s" if rule["for"] is not None else ""
        scope = f", {rule['scope']}" if rule["scope"] is not None else ""
        after = f", after {rule['after']}" if rule["after"] > 1 else ""
        action = "+".join(rule["action"]) + lasting
        yield f"  {rule['name']}: {action}{scope}{after}  ({rule['from']})"
        yield f"    {rule['when']}"
    for state in data["state"]:
        yield f"now       {state['scope']} is {_state_line(state)}"


@click.command()
@click.argument("scopes", nargs=-1, metavar="[SCOPE]...")
@click.option("--all", "everything", is_flag=True, help="All that is slowed or paused.")
@_json_option
@_pass_site
def resume(site: Site, scopes: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Let mail flow again: end pauses, refusals and slow-downs.

    SCOPE is as `show` prints it, or the name of a provider; without `from` it means all source
    addresses. Mail that is waiting notices it within five minutes.
    """
    if bool(scopes) == everything:
        raise click.UsageError("name scopes, or say --all")
    context = site.context
    now = context.clock()
    with _failing():
        states = States(context.limits, context.name)
        known = [listed.key for listed in states.listed(now)]
        lifted = [key for key in known if everything or any(_means(one, key) for one in scopes)]
        for key in lifted:
            states.lift(key, now)
    if as_json:
        click.echo(json.dumps({"resumed": lifted}, ensure_ascii=False))
    else:
        for key in lifted:
            click.echo(f"{key} resumed")
    idle = [one for one in scopes if not any(_means(one, key) for key in known)]
    if idle:
        raise click.ClickException(f"nothing is slowed or paused in {', '.join(idle)}")


def _means(text: str, key: str) -> bool:
    """Whether a scope is meant by what somebody has typed."""
    whole = key.partition(" from ")[0]
    return text in (key, whole, whole.removeprefix("provider:"))
