"""`gateway queue`: the mail that waits, shown and changed, while the gateway runs or not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.cli.options import config_option, fail, json_option, load
from gateway.cli.queue_change import drop, hold, release, reroute, retry
from gateway.cli.queue_pause import pause, pauses, resume
from gateway.cli.queue_salvage import salvage
from gateway.cli.queue_selection import (
    NOTHING,
    counted,
    end,
    failing,
    local_time,
    selection_of,
    selection_options,
    unreadable,
)
from gateway.log_line import escape
from gateway.mail.headers import Headers, split
from gateway.queue import administration, listing
from gateway.queue.listing import GROUPS, GroupStats, Row
from gateway.queue.pauses import read_pauses
from gateway.queue.selection import STATES, Selection
from gateway.spool.shard_file import UnreadableShard


@click.group()
def queue() -> None:
    """The mail that waits: shown, and changed."""


@queue.command("list")
@selection_options
@click.option("--limit", type=click.IntRange(1), help="Show at most so many recipients.")
@config_option
@json_option
def list_(path: Path, limit: int | None, as_json: bool, **selected: Any) -> None:
    """List the recipients that wait, all or those selected.

    With --json, one object a line. If a shard cannot be read, the last one says which.
    """
    selection = selection_of(selected)
    folder = load(path).spool.path
    count = 0
    skipped: list[UnreadableShard] = []
    with failing():
        for row in listing.read(folder, selection, limit, skipped):
            count += 1
            if as_json:
                click.echo(json.dumps(row.to_dict(), ensure_ascii=False))
            else:
                click.echo(_line(row))
    if as_json and skipped:
        click.echo(json.dumps(unreadable(skipped), ensure_ascii=False))
    elif count and not as_json:
        click.echo(f"{count:,} in the queue.", err=True)
    elif not as_json:
        click.echo("The queue is empty." if selection == Selection() else NOTHING, err=True)
    end(skipped)


def _line(row: Row) -> str:
    lines = [
        f"{row.id}  {local_time(row.received)}  {_size(row.size):>7}  {row.state:<9}"
        f"  <{row.sender}> → <{row.recipient}>"
    ]
    if row.state == "held":
        lines.append(row.held or "")
    elif row.state == "scheduled" and row.due is not None:
        lines.append(f"due at {local_time(row.due)}")
    elif row.state == "deferred" and row.due is not None:
        lines.append(f"again at {local_time(row.due)}, {row.attempts} so far: {row.reply}")
    elif row.reply:
        lines.append(row.reply)
    if row.via:
        lines.append(f"rerouted to {', '.join(row.via)}")
    if row.pool is not None:
        lines.append(f"from the pool {row.pool}")
    return "\n    ".join(map(escape, lines))


@queue.command()
@click.argument("id", metavar="ID")
@click.option("--content", is_flag=True, help="Print the message itself, as it will go out.")
@config_option
@json_option
def show(path: Path, id: str, content: bool, as_json: bool) -> None:  # noqa: A002
    """Show one message: its recipients, replies and header."""
    selection = selection_of({"ids": (id,)})
    folder = load(path).spool.path
    skipped: list[UnreadableShard] = []
    with failing():
        rows = [*listing.read(folder, selection, skipped=skipped)]
        if not rows:
            end(skipped)  # it may be there
            fail(f"{id} is not in the queue")
        message = listing.read_content(folder, rows[0])
    if message is None:
        fail(f"{id}: its message is not there: it has just left the queue, or is damaged")
    if content:
        sys.stdout.buffer.write(message)
        end(skipped)
        return
    header = [
        f"{field.name}: {' '.join(field.value.split())}" for field in Headers(split(message)[0])
    ]
    if as_json:
        data = {
            "id": rows[0].id,
            "recipients": [row.to_dict() for row in rows],
            "header": header,
            **unreadable(skipped),
        }
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        end(skipped)
        return
    first = rows[0]
    click.echo(f"{first.id}  from <{escape(first.sender)}>, {first.size} octets")
    campaign = "" if first.campaign is None else f", campaign {first.campaign}"
    user = "" if first.user is None else f", user {first.user}"
    click.echo(f"received {local_time(first.received)} from {escape(first.client + user)}")
    click.echo(f"stream {escape(first.stream + campaign)}")
    for row in rows:
        click.echo(_line(row))
    click.echo("")
    for line in header:
        click.echo(escape(line))
    end(skipped)


@queue.command()
@click.option(
    "--by",
    type=click.Choice(list(GROUPS)),
    default="lane",
    show_default=True,
    help="What to count by.",
)
@config_option
@json_option
def stats(path: Path, by: str, as_json: bool) -> None:
    """Count the queue, and the workers' work.

    By lane or otherwise; workers have counted since their start.
    """
    folder = load(path).spool.path
    skipped: list[UnreadableShard] = []
    with failing():
        groups = listing.read_stats(folder, by, skipped)
        paused = len(read_pauses(folder))
        workers = administration.worker_stats(folder)
    if as_json:
        data: dict[str, Any] = {f"{by}s": [_named(group, by) for group in groups]}
        data["workers"] = workers
        data = {**data, "pauses": paused, **unreadable(skipped)}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        end(skipped)
        return
    names = [escape(group.name) or "(none)" for group in groups]
    width = max(len(by), *map(len, names), 0)
    states = "".join(f"  {state:>9}" for state in STATES)
    click.echo(f"{by:<{width}}{states}  {'size':>8}  oldest")
    for name, group in zip(names, groups, strict=True):
        counts = (group.active, group.deferred, group.scheduled, group.held)
        numbers = "".join(f"  {count:>9}" for count in counts)
        size = f"{_size(group.octets):>8}"
        click.echo(f"{name:<{width}}{numbers}  {size}  {local_time(group.oldest)}")
    if paused:
        click.echo(f"\n{counted(paused, 'pause')} in force: see gateway queue pauses")
    _show_work(workers)
    end(skipped)


def _named(group: GroupStats, by: str) -> dict[str, Any]:
    """For JSON; the name goes by what it is."""
    data = asdict(group)
    return {by: data.pop("name"), **data}


def _show_work(workers: list[dict[str, Any]]) -> None:
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


def _size(octets: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"


for command in (retry, hold, release, drop, reroute, pause, pauses, resume, salvage):
    queue.add_command(command)
