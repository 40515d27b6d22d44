"""`gateway queue retry`, `hold`, `release`, `drop` and `reroute`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.attempt import Hop
from gateway.cli.options import config_option, fail_config, json_option, load
from gateway.cli.queue_selection import (
    NOTHING,
    Consent,
    carry_out,
    end,
    failing,
    question_options,
    report,
    selection_of,
    selection_options,
    unreadable,
)
from gateway.queue.administration import perform
from gateway.queue.change import Change
from gateway.queue.listing import survey
from gateway.queue.selection import Selection
from gateway.spool.shard_file import UnreadableShard

_BEFORE = {
    "retry": ("to be tried now", "Try them now?"),
    "hold": ("to be held", "Hold them?"),
    "release": ("to be released", "Release them?"),
    "drop": ("to be deleted for good", "Delete them for good?"),
    "reroute": ("to be rerouted", "Reroute them?"),
}
_AFTER = {
    "retry": "to be tried now",
    "hold": "held",
    "release": "released",
    "drop": "dropped",
    "reroute": "rerouted",
}


def change_options(function: Callable[..., None]) -> Callable[..., None]:
    """What every command takes that changes mail in the queue."""
    everything = click.option("--all", "everything", is_flag=True, help="The whole queue.")
    for option in (json_option, config_option, question_options, everything, selection_options):
        function = option(function)
    return function


@click.command()
@change_options
def retry(**options: Any) -> None:
    """Try deferred mail again now.

    Mail that waits for its time is left alone, unless you say --state scheduled.
    """
    _run(Change("retry", scheduled=options["state"] == "scheduled"), **options)


@click.command()
@change_options
def hold(**options: Any) -> None:
    """Keep mail in the queue until it is released."""
    _run(Change("hold"), **options)


@click.command()
@change_options
def release(**options: Any) -> None:
    """Let held mail go, all but what a pause is about."""
    _run(Change("release"), **options)


@click.command()
@change_options
def drop(**options: Any) -> None:
    """Delete mail from the queue; nobody gets a report."""
    _run(Change("drop"), **options)


@click.command()
@click.option(
    "--via", metavar="HOST:PORT[,...]", help="Send it to these servers, tried in this order."
)
@click.option("--pool", metavar="NAME", help="Send it from this pool of addresses.")
@click.option("--default", is_flag=True, help="Send it as if it had never been rerouted.")
@change_options
def reroute(via: str | None, pool: str | None, default: bool, **options: Any) -> None:
    """Send mail another way.

    To other servers, or from another pool of addresses. Deferred mail is tried at once; held mail
    stays held.
    """
    if [via is not None, pool is not None, default].count(True) != 1:
        raise click.UsageError("say one of --via, --pool and --default")
    if pool == "":
        raise click.UsageError("--pool needs a name")
    _run(Change("reroute", via=_hops(via), pool=pool), **options)


def _hops(via: str | None) -> tuple[str, ...]:
    if via is None:
        return ()
    try:
        return tuple([str(Hop.parse(text.strip())) for text in via.split(",")])
    except ValueError as error:
        fail_config([f"gateway: {error}"])


def _run(
    change: Change,
    path: Path,
    everything: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **selected: Any,
) -> None:
    selection = selection_of(selected)
    if not everything and selection == Selection():
        raise click.UsageError("name queue ids, or select with an option, or say --all")
    folder = load(path).spool.path
    asks = change.name == "drop" or selection != Selection(ids=selection.ids) or everything
    consent = Consent(asks=asks, yes=yes, dry_run=dry_run, as_json=as_json)
    skipped: list[UnreadableShard] = []
    with failing():
        found = survey(folder, selection, change.narrow, skipped)
    consent.ask(found, *_BEFORE[change.name], skipped)
    done, _ = carry_out(
        f"{change.name}:",
        found.recipients,
        lambda advance: perform(folder, change, found.keys, advance),
    )
    if as_json:
        click.echo(json.dumps({**asdict(done), **unreadable(skipped)}, ensure_ascii=False))
    elif not found.recipients:
        click.echo(NOTHING)
    else:
        report(done, _AFTER[change.name])
    end(skipped)
