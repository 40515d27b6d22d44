"""`gateway queue salvage`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from gateway.cli.options import config_option, fail, json_option, load
from gateway.cli.queue_selection import (
    INCOMPLETE,
    Consent,
    counted,
    failing,
    question_options,
    recipients,
)
from gateway.log_line import escape
from gateway.queue.salvage import Salvages
from gateway.spool.shard_file import SpoolError

LISTED = 20
"""Messages that are named each; with --json all are."""


@click.command()
@click.argument("shards", nargs=-1, metavar="[SHARD]...")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where contents go that cannot be put back; `salvaged` in the spool if you say nothing.",
)
@question_options
@config_option
@json_option
def salvage(
    path: Path, shards: tuple[str, ...], into: Path | None, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Save the mail in damaged shards.

    Without an argument, in those that SQLite cannot read. A SHARD is a number, or a file; nobody
    may hold it. What is whole is put back into the queue, held: it may have been delivered before.
    Contents without recipients become files. Then the damaged files are renamed.

    Exit status 3 means that something is missing, or could not be put back.
    """
    folder = load(path).spool.path
    into = into or folder / "salvaged"
    with failing(), Salvages(folder) as salvages:
        if shards:
            for text in shards:
                salvages.choose(text)
        elif folder.is_dir():
            salvages.choose_damaged()
        for line in salvages.left:
            click.echo(f"gateway: left alone: {line}", err=True)
        chosen = salvages.chosen
        if chosen:
            _with_bar("reading", salvages.pages, salvages.find)
            _with_bar("checking", salvages.count, salvages.judge)
            if dry_run:
                _report(salvages, as_json, "can be put back")
            if not yes:
                for line in _table(salvages, "can be put back"):
                    click.echo(line, err=True)
            consent = Consent(asks=True, yes=yes, dry_run=dry_run, as_json=as_json)
            consent.agree("Put it back, and rename the damaged files?")
            _carry_out(salvages, into)
        _report(salvages, as_json, "put back, held")


def _carry_out(salvages: Salvages, into: Path) -> None:
    def work(advance: Callable[[int], None]) -> None:
        asyncio.run(salvages.put_back(into, advance))

    try:
        _with_bar("putting back", salvages.count, work)
    except (SpoolError, OSError, KeyboardInterrupt) as error:
        done = recipients(sum(one.recipients for one in salvages.chosen))
        why = "stopped" if isinstance(error, KeyboardInterrupt) else error
        fail(f"{why} (up to {done} put back before; ask again, and it goes on)")


def _with_bar(label: str, length: int, work: Callable[[Callable[[int], None]], None]) -> None:
    """Works, and shows on a terminal how far it has come."""
    bar: Any = nullcontext()
    if sys.stderr.isatty():
        bar = click.progressbar(length=length, label=f"{label}:", file=sys.stderr)
    with bar as shown:
        work(lambda count: None if shown is None else shown.update(count))


def _report(salvages: Salvages, as_json: bool, what: str) -> None:
    """Says what was found, and ends the program: with status 3 unless it was everything."""
    if as_json:
        data = {"shards": [one.to_dict() for one in salvages.chosen], "left": salvages.left}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    elif salvages.chosen:
        for line in _table(salvages, what):
            click.echo(line)
    else:
        click.echo("No shard is damaged that nobody holds.")
    sys.exit(0 if all(one.is_complete for one in salvages.chosen) else INCOMPLETE)


def _table(salvages: Salvages, what: str) -> Iterator[str]:
    for one in salvages.chosen:
        yield f"{one.name}: {one.reason or one.path}"
        yield f"  {counted(one.messages, 'message')} to {recipients(one.recipients)} {what}"
        if one.known:
            yield f"  {recipients(one.known)} in the queue already"
        for problem, count in Counter(apart.problem for apart in one.apart).most_common():
            yield f"  {counted(count, 'message')} not put back: {problem}"
        if one.lost_pages:
            yield f"  {counted(one.lost_pages, 'page')} destroyed, of {one.found.pages:,}"
        if one.lost_rows:
            yield f"  {counted(one.lost_rows, 'row')} destroyed"
        for apart in one.apart[:LISTED]:
            yield "  " + escape(
                f"{apart.id}  {apart.problem}  <{'?' if apart.sender is None else apart.sender}> → "
                f"{', '.join(f'<{to}>' for to in (*apart.recipients, *apart.damaged)) or '?'}"
                f"{'' if apart.file is None else f'  {apart.file}'}"
            )
        if len(one.apart) > LISTED:
            yield f"  … and {len(one.apart) - LISTED:,} more: --json names all"
        if one.report:
            yield f"  all that is missing: {one.report}"
        for name in one.renamed:
            yield f"  renamed: {name}"
