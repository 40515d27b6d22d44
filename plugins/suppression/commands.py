"""`gateway suppression`: the list, shown and changed, while the gateway runs or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice

import click

from gateway.hooks import Context
from plugins.suppression.address import (
    Target,
    normal_address,
    normal_domain,
    normal_entry,
)
from plugins.suppression.config import SuppressionConfig
from plugins.suppression.entry import (
    EVERYWHERE,
    REASONS,
    Entry,
    format_scope,
    format_time,
    parse_expiry,
    parse_note,
    sender_scope,
    stream_scope,
)
from plugins.suppression.exchange import described
from plugins.suppression.inventory import Count, Inventory
from plugins.suppression.listfile import ListFile
from plugins.suppression.names import Names
from plugins.suppression.options import (
    CheckFailure,
    Site,
    counted,
    explained,
    failing,
    json_option,
    parsed,
    pass_site,
    reason_option,
    scope_options,
)
from plugins.suppression.transfer import export, import_
from plugins.suppression.verdict import Match, decisive
from plugins.suppression.writer import Writer

SUPPRESSED = 1
"""The exit status of `check` for addresses that get no mail."""


def group(config: SuppressionConfig, context: Context) -> click.Group:
    """The commands for one entry of `gateway.yaml`."""
    return click.Group(
        context.name,
        commands=[add, remove, check, list_, stats, import_, export],
        help="Who gets no mail: the list, shown and changed.",
        context_settings={"obj": Site(config, context)},
    )


@click.command()
@click.argument(
    "entries", nargs=-1, required=True, callback=parsed(normal_entry), metavar="ADDRESS..."
)
@reason_option("Why.", "manual")
@scope_options
@click.option(
    "--expires", metavar="WHEN", help="When it ends: 2031-12-31 (its last day), or 90d from now."
)
@click.option("--note", default="", callback=parsed(parse_note), help="What is to be known.")
@json_option
@pass_site
def add(
    site: Site,
    entries: tuple[str, ...],
    reason: str,
    scope: str | None,
    expires: str | None,
    note: str,
    as_json: bool,
) -> None:
    """Suppress addresses, domains (@example.org) or patterns (info@*).

    @.example.org is the domain with all its subdomains. What is on the list already is never made
    weaker: of two ends the later one holds.
    """
    now = site.context.clock()
    with failing():
        end = parse_expiry(expires or "", now)
        if end is not None and end <= now:
            raise ValueError(f"{expires} is past")
        rows = [
            Entry(one, scope or EVERYWHERE, reason, end, int(now), "command", note)
            for one in entries
        ]
        with Writer(site.path) as writer:
            merged = writer.add(rows)
    if as_json:
        click.echo(json.dumps(asdict(merged)))
        return
    click.echo(explained(merged))


@click.command()
@click.argument("entries", nargs=-1, callback=parsed(normal_entry), metavar="[ADDRESS]...")
@reason_option("Only entries with this reason.")
@scope_options
@click.option("--ended", is_flag=True, help="All entries whose end has come.")
@json_option
@pass_site
def remove(
    site: Site,
    entries: tuple[str, ...],
    reason: str | None,
    scope: str | None,
    ended: bool,
    as_json: bool,
) -> None:
    """Take addresses, domains or patterns off the list.

    Only entries written like this are removed, not the domains and patterns that name an address
    too; `check` shows those.
    """
    if bool(entries) == ended:
        raise click.UsageError("name addresses, or say --ended")
    if ended and (reason is not None or scope is not None):
        raise click.UsageError("--ended takes all entries whose end has come")
    removed = 0
    with failing(), Writer(site.path) as writer:
        if ended:
            for removed in writer.remove_ended(site.context.clock()):  # noqa: B007
                pass
        else:
            removed = writer.remove(entries, scope, reason)
    click.echo(json.dumps({"removed": removed}) if as_json else f"{counted(removed)} removed")


@click.command()
@click.argument(
    "addresses",
    nargs=-1,
    required=True,
    callback=parsed(normal_address),
    metavar="ADDRESS...",
)
@click.option("--sender", metavar="ADDRESS", help="For mail from this sender; else from any.")
@click.option("--stream", metavar="NAME", help="For mail of this stream; else of any.")
@json_option
@pass_site
def check(
    site: Site, addresses: tuple[str, ...], sender: str | None, stream: str | None, as_json: bool
) -> None:
    """Say whether addresses are suppressed, and why.

    Exit status 0: none is; 1: at least one is; 2: that cannot be told.
    """
    suppressed = False
    with failing(CheckFailure):
        domain = None if sender is None else _domain_of(sender)
        fixed = _fixed(site)
        with Inventory(site.path) as inventory:
            for address in addresses:
                local, _, name = address.rpartition("@")
                target = site.spelling.target(local, name)
                found = [*_named(fixed, target), *inventory.naming(target, site.spelling)]
                states = [(entry, _state(site, entry, domain, stream)) for entry in found]
                applies = any(state == "" for _, state in states)
                suppressed = suppressed or applies
                _print_check(address, applies, states, as_json)
    sys.exit(SUPPRESSED if suppressed else 0)


def _domain_of(sender: str) -> str:
    return "" if sender in ("", "<>") else normal_domain(sender.rpartition("@")[2])


def _fixed(site: Site) -> list[tuple[str, Names]]:
    """What `gateway.yaml` and the file list, and where it is from."""
    config = site.config
    sources = [("gateway.yaml", {*config.addresses, *config.domains})]
    if config.file is not None:
        sources.append((config.file.name, ListFile(config.file).read()))
    return [(source, Names.of(entries, site.spelling)) for source, entries in sources]


def _named(fixed: list[tuple[str, Names]], target: Target) -> Iterator[Entry]:
    for source, names in fixed:
        name = names.find(target)
        if name is not None:
            yield Entry(name, EVERYWHERE, "manual", None, 0, source, "")


def _state(site: Site, entry: Entry, domain: str | None, stream: str | None) -> str:
    """Why an entry does not apply to such mail; '' if it does."""
    if entry.expires is not None and entry.expires <= site.context.clock():
        return "has ended"
    kind, _, _ = entry.scope.partition(":")
    asked = {"sender": domain, "stream": stream}.get(kind)
    if asked is not None and entry.scope not in (sender_scope(asked), stream_scope(asked)):
        return "other mail"
    match = Match(entry.address, entry.scope, entry.reason)
    if stream is not None and decisive([match], stream, site.config.exemptions) is None:
        return f"not for {stream}"
    return ""


def _print_check(
    address: str, applies: bool, states: list[tuple[Entry, str]], as_json: bool
) -> None:
    if as_json:
        entries = [
            {**described(entry), "applies": not state} | ({} if entry.added else {"added": None})
            for entry, state in states
        ]
        data = {"address": address, "suppressed": applies, "entries": entries}
        click.echo(json.dumps(data, ensure_ascii=False))
        return
    click.echo(f"{address}: {'suppressed' if applies else 'not suppressed'}")
    for entry, state in states:
        click.echo(f"  {_line(entry)}{f' ({state})' if state else ''}")


def _line(entry: Entry) -> str:
    text = f"{entry.address}  {entry.reason}  {format_scope(entry.scope)}"
    if entry.added:
        text += f"  since {format_time(entry.added)}"
    if entry.expires is not None:
        text += f"  until {format_time(entry.expires)}"
    return f"{text}  {entry.source}{f': {entry.note}' if entry.note else ''}"


@click.command("list")
@reason_option("Only entries with this reason.")
@scope_options
@click.option("--limit", type=click.IntRange(1), help="Show at most so many.")
@json_option
@pass_site
def list_(
    site: Site, reason: str | None, scope: str | None, limit: int | None, as_json: bool
) -> None:
    """Show the list in the order of its addresses.

    With --json, one object a line. What is in gateway.yaml and in its file is not shown.
    """
    count = 0
    with failing(), Inventory(site.path) as inventory:
        for entry in islice(inventory.entries(scope, reason), limit):
            count += 1
            click.echo(
                json.dumps(described(entry), ensure_ascii=False) if as_json else _line(entry)
            )
    if not as_json:
        click.echo(f"{counted(count)}." if count else "The list is empty.", err=True)


@click.command()
@json_option
@pass_site
def stats(site: Site, as_json: bool) -> None:
    """Show how many entries there are, by reason and scope."""
    with failing(), Inventory(site.path) as inventory:
        counts = inventory.counts(site.context.clock())
    table = {reason: _sums(counts, reason) for reason in (*REASONS, "total")}
    if as_json:
        click.echo(json.dumps(table, indent=2))
        return
    columns = list(table["total"])
    click.echo(f"{'':<12}" + "".join(f"{column:>15}" for column in columns))
    for reason, sums in table.items():
        click.echo(f"{reason:<12}" + "".join(f"{sums[column]:>15,}" for column in columns))


def _sums(counts: list[Count], reason: str) -> dict[str, int]:
    chosen = [count for count in counts if reason in (count.reason, "total")]
    kinds = {"everywhere": "", "sender domains": "sender", "streams": "stream"}
    return {
        **{
            column: sum(count.entries for count in chosen if count.kind == kind)
            for column, kind in kinds.items()
        },
        "ended": sum(count.ended for count in chosen),
    }
