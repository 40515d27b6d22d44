"""`gateway queue pause`, `pauses` and `resume`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.cli.options import config_option, fail, json_option, load
from gateway.cli.queue_selection import (
    NOTHING,
    Consent,
    carry_out,
    conditions,
    end,
    failing,
    local_time,
    question_options,
    recipients,
    report,
    selection_of,
    unreadable,
)
from gateway.log_line import escape
from gateway.queue import administration
from gateway.queue.change import Change
from gateway.queue.listing import Survey, count_held, survey
from gateway.queue.pauses import HELD_BY_A_PAUSE, pause_of, read_pauses
from gateway.queue.selection import Selection
from gateway.spool.shard_file import UnreadableShard


@click.command()
@conditions
@click.option("--all", "everything", is_flag=True, help="All mail.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who look at the queue.")
@question_options
@config_option
@json_option
def pause(
    path: Path,
    everything: bool,
    reason: str,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **selected: Any,
) -> None:
    """Hold mail, now and as it comes, until resumed.

    What is in the queue is held at once; what comes is accepted, and held.
    """
    selection = selection_of(selected)
    if everything == (selection != Selection()):
        raise click.UsageError("say which mail with options, or say --all")
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"--reason: {reason!r} is no valid UTF-8") from None
    reason = " ".join(reason.split())
    folder = load(path).spool.path
    skipped: list[UnreadableShard] = []
    with failing():
        found = survey(folder, selection, Change("hold", pause=1).narrow, skipped)
    consent = Consent(asks=True, yes=yes, dry_run=dry_run, as_json=as_json)
    consent.ask(found, "to be held, and all such mail that comes", "Pause them?", skipped)
    made, done = carry_out(
        "pause:",
        found.recipients,
        lambda advance: administration.pause(folder, selection, reason, advance, skipped),
    )
    if as_json:
        data = {"id": made.id, **asdict(done), **unreadable(skipped)}
        click.echo(json.dumps(data, ensure_ascii=False))
    else:
        click.echo(f"paused, until: gateway queue resume {made.id}")
        report(done, "held")
    end(skipped)


@click.command()
@config_option
@json_option
def pauses(path: Path, as_json: bool) -> None:
    """List the pauses in force, and what they hold."""
    folder = load(path).spool.path
    skipped: list[UnreadableShard] = []
    with failing():
        known = read_pauses(folder)
        held = _held(folder, skipped)
    if as_json:
        data = [
            {
                "id": one.id,
                "since": one.since,
                "held": held[one.id],
                "selection": one.selection.given,
                "reason": one.reason,
            }
            for one in known
        ]
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        end(skipped)
        return
    if known:
        click.echo(f"{'id':>4}  {'since':<19}  {'held':>9}  what")
    else:
        click.echo("No pause is in force.", err=True)
    for one in known:
        what = ", ".join(f"{name} {text}" for name, text in one.selection.given.items()) or "all"
        reason = f": {one.reason}" if one.reason else ""
        line = f"{one.id:>4}  {local_time(one.since)}  {held[one.id]:>9,}  {what}{reason}"
        click.echo(escape(line))
    ended = sorted(set(held) - {one.id for one in known})
    if ended:
        count = recipients(sum(held[one] for one in ended))
        numbers = " ".join(map(str, ended))
        click.echo(
            f"{count} still held by pauses that have ended: gateway queue resume {numbers}",
            err=True,
        )
    end(skipped)


@click.command()
@click.argument("ids", nargs=-1, type=click.IntRange(1), metavar="[PAUSE]...")
@conditions
@click.option("--all", "everything", is_flag=True, help="All pauses.")
@question_options
@config_option
@json_option
def resume(
    path: Path,
    ids: tuple[int, ...],
    everything: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **selected: Any,
) -> None:
    """End pauses, and let go what they hold.

    A pause is named by its number, or by the same options as it was made with. What another pause
    is about stays.
    """
    selection = selection_of(selected)
    if [bool(ids), selection != Selection(), everything].count(True) != 1:
        raise click.UsageError("name pauses by number, or by their options, or say --all")
    folder = load(path).spool.path
    skipped: list[UnreadableShard] = []
    with failing():
        known = read_pauses(folder)
        # A resume that broke off leaves mail behind that is held by a pause which has ended.
        there = {*_held(folder, skipped), *[one.id for one in known]}
        if ids:
            for one in ids:
                if one not in there:
                    fail(f"there is no pause {one}")
            chosen = sorted(set(ids))
        elif everything:
            chosen = sorted(there)
        else:
            chosen = [one.id for one in known if one.selection == selection]
        found = Survey()
        for one in chosen:
            part = survey(folder, Selection(), Change("release", pause=one).narrow, skipped)
            found.lanes += part.lanes
            found.messages += part.messages
    consent = Consent(asks=True, yes=yes, dry_run=dry_run, as_json=as_json)
    consent.ask(found, "to be released", "Resume them?", skipped)
    done = carry_out(
        "resume:",
        found.recipients,
        lambda advance: administration.resume(folder, chosen, advance, skipped),
    )
    if as_json:
        data = {"resumed": chosen, **asdict(done), **unreadable(skipped)}
        click.echo(json.dumps(data, ensure_ascii=False))
    elif not chosen:
        click.echo(NOTHING)
    else:
        click.echo(f"resumed: {' '.join(map(str, chosen))}")
        report(done, "released")
    end(skipped)


def _held(folder: Path, skipped: list[UnreadableShard]) -> Counter[int]:
    """How many recipients each pause holds."""
    held: Counter[int] = Counter()
    for text, count in count_held(folder, HELD_BY_A_PAUSE, skipped).items():
        number = pause_of(text)
        if number is not None:
            held[number] += count
    return held
