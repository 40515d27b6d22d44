"""`gateway queue`: the mail that waits, shown and changed, while the gateway runs or not."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.cli.options import config_option, fail, json_option, load
from gateway.log_line import escape
from gateway.mail.headers import Headers, split
from gateway.process.control import ControlError
from gateway.queue import administration, listing
from gateway.queue.administration import Change
from gateway.queue.listing import Row, Selection
from gateway.spool.shard_file import SpoolError


def _selection_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.argument("ids", nargs=-1, metavar="[ID]..."),
            click.option("--sender", metavar="ADDRESS", help="Only mail from this sender."),
            click.option("--recipient", metavar="ADDRESS", help="Only mail to this recipient."),
            click.option("--domain", metavar="NAME", help="Only mail to this domain."),
            click.option("--stream", metavar="NAME", help="Only mail of this stream."),
            click.option("--lane", metavar="NAME", help="Only mail in this lane."),
            click.option(
                "--state",
                type=click.Choice(["active", "deferred", "held"]),
                help="Only mail in this state.",
            ),
        )
    ):
        function = option(function)
    return function


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except (SpoolError, ControlError, ValueError) as error:
        fail(error)


@click.group()
def queue() -> None:
    """The mail that waits: list, show, retry, hold, release, drop, stats."""


@queue.command("list")
@_selection_options
@click.option("--limit", type=click.IntRange(1), help="Show at most so many recipients.")
@config_option
@json_option
def list_(path: Path, limit: int | None, as_json: bool, **selected: Any) -> None:
    """List the recipients that wait, all or those selected.

    With --json, one object a line.
    """
    folder = load(path).spool.path
    count = 0
    with _failing():
        for row in listing.read(folder, Selection(**selected), limit):
            count += 1
            if as_json:
                click.echo(json.dumps(row.to_dict(), ensure_ascii=False))
            else:
                click.echo(_line(row))
    if not as_json:
        click.echo("The queue is empty." if not count else f"{count} in the queue.", err=True)


def _line(row: Row) -> str:
    text = (
        f"{row.id}  {_time(row.received)}  {_size(row.size):>7}  {row.state:<8}"
        f"  <{escape(row.sender)}> → <{escape(row.recipient)}>"
    )
    detail = row.held if row.state == "held" else row.reply
    if row.state == "deferred" and row.due is not None:
        detail = f"again at {_time(row.due)}, {row.attempts} so far: {detail}"
    return f"{text}\n    {escape(detail)}" if detail else text


@queue.command()
@click.argument("id", metavar="ID")
@click.option("--content", is_flag=True, help="Print the message itself, as it will go out.")
@config_option
@json_option
def show(path: Path, id: str, content: bool, as_json: bool) -> None:  # noqa: A002
    """Show one message: its recipients, replies and header."""
    folder = load(path).spool.path
    with _failing():
        rows = [*listing.read(folder, Selection(ids=(id,)))]
        if not rows:
            fail(f"{id} is not in the queue")
        message = listing.read_content(folder, rows[0])
    if message is None:
        fail(f"{id} has just left the queue")
    if content:
        sys.stdout.buffer.write(message)
        return
    header = [
        f"{field.name}: {' '.join(field.value.split())}" for field in Headers(split(message)[0])
    ]
    if as_json:
        recipients = [row.to_dict() for row in rows]
        data = {"id": rows[0].id, "recipients": recipients, "header": header}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    first = rows[0]
    click.echo(f"{first.id}  from <{escape(first.sender)}>, {first.size} octets")
    click.echo(f"received {_time(first.received)}, stream {first.stream}")
    for row in rows:
        click.echo(_line(row))
    click.echo("")
    for line in header:
        click.echo(escape(line))


def _add_change(name: Change, help_text: str) -> None:
    @queue.command(name, help=help_text)
    @_selection_options
    @click.option("--all", "everything", is_flag=True, help="The whole queue.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @config_option
    @json_option
    def command(path: Path, everything: bool, yes: bool, as_json: bool, **selected: Any) -> None:
        selection = Selection(**selected)
        if not everything and selection == Selection():
            raise click.UsageError("name queue ids, or select with an option, or say --all")
        folder = load(path).spool.path
        with _failing():
            if name == "drop" and not yes:
                count = sum(1 for _ in listing.read(folder, selection))
                click.confirm(f"Delete {_recipients(count)} for good?", abort=True, err=True)
            done = asyncio.run(administration.change(folder, name, selection))
        if as_json:
            click.echo(json.dumps(asdict(done)))
            return
        click.echo(f"{_recipients(done.changed)} {_PAST[name]}")
        if done.busy:
            click.echo(f"{_recipients(done.busy)} left alone: being delivered now")


_PAST = {
    "retry": "to be tried now",
    "hold": "held",
    "release": "released",
    "drop": "dropped",
}

_add_change("retry", "Try deferred mail again now.")
_add_change("hold", "Keep mail in the queue until it is released.")
_add_change("release", "Let held mail go.")
_add_change("drop", "Delete mail from the queue; nobody gets a report.")


@queue.command()
@config_option
@json_option
def stats(path: Path, as_json: bool) -> None:
    """Show the queue by lane, and what running workers have done since their start."""
    folder = load(path).spool.path
    with _failing():
        lanes = listing.read_stats(folder)
        workers = administration.worker_stats(folder)
    if as_json:
        data = {"lanes": [asdict(lane) for lane in lanes], "workers": workers}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    width = max([4, *(len(lane.lane) for lane in lanes)])
    click.echo(
        f"{'lane':<{width}}  {'active':>8}  {'deferred':>8}  {'held':>8}  {'size':>8}  oldest"
    )
    for lane in lanes:
        click.echo(
            f"{lane.lane:<{width}}  {lane.active:>8}  {lane.deferred:>8}  {lane.held:>8}"
            f"  {_size(lane.octets):>8}  {_time(lane.oldest)}"
        )
    if not workers:
        click.echo("\nThe gateway is not running.")
        return
    total = {
        key: sum(worker[key] for worker in workers)
        for key in ("connections", "accepted", "delivered", "deferred", "failed")
    }
    numbers = ", ".join(f"{value} {key}" for key, value in total.items())
    who = "1 worker since its start" if len(workers) == 1 else f"{len(workers)} workers since start"
    click.echo(f"\n{who}: {numbers}")
    for worker in workers:
        if worker["storage"]:
            click.echo(f"NOT SAFE: the disk does not take mail: {worker['storage']}")


def _recipients(count: int) -> str:
    return "1 recipient" if count == 1 else f"{count} recipients"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _size(octets: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"
