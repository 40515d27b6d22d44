"""`gateway event-database`: what is in the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click
from gateway.hooks import Duration
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from mail_gateway_event_database.store import Selection, Store, described

COLUMNS = ("type", "campaign", "recipient", "stream", "status", "login")
"""What events can be counted by."""

_SECONDS: TypeAdapter[float] = TypeAdapter(Duration)


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which events are meant."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
        click.option("--since", callback=_ago, metavar="TIME", help="Only the last 90m, 24h, 7d …"),
        click.option("--recipient", metavar="ADDRESS", help="Only about this recipient."),
        click.option("--campaign", metavar="NAME", help="Only of this campaign."),
        click.option("--type", "types", multiple=True, help="Only of this type; can be repeated."),
    ):
        command = option(command)
    return command


def _ago(context: click.Context, option: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    try:
        return timedelta(seconds=_SECONDS.validate_python(value))
    except (ValidationError, OverflowError):
        raise click.BadParameter("expected a duration such as 90m, 24h or 7d") from None


def event_database_command(
    open_store: Callable[[], Store], now: Callable[[], datetime]
) -> click.Group:
    """The commands for one entry of `gateway.yaml`.

    Args:
        open_store: opens the database. It raises ValueError where there is none.
        now: the time, as the table has it.
    """

    def select(since: timedelta | None, **chosen: Any) -> Selection:
        try:
            return Selection(since=None if since is None else now() - since, **chosen)
        except OverflowError:
            return Selection(**chosen)

    @contextmanager
    def store() -> Iterator[Store]:
        try:
            opened = open_store()
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        try:
            yield opened
        except SQLAlchemyError as error:
            raise click.ClickException(f"the database cannot be read: {described(error)}") from None
        finally:
            opened.close()

    @click.group(help="Show what is in the database of events.")
    def event_database() -> None:
        pass

    @event_database.command(help="Show the last events, the newest first.")
    @click.option("-n", "number", type=click.IntRange(1), default=20, show_default=True)
    @_selecting
    def last(number: int, since: timedelta | None, as_json: bool, **chosen: Any) -> None:
        with store() as opened:
            rows = opened.last(number, select(since, **chosen))
        for row in rows:
            if as_json:
                row["time"] = f"{row['time'].isoformat()}Z"
                row["notes"] = json.loads(row["notes"])
                click.echo(json.dumps(row, ensure_ascii=False))
            else:
                click.echo(_line(row))

    @event_database.command(help="Count events by type and by one thing more.")
    @click.option("--by", type=click.Choice(COLUMNS), default="type", show_default=True)
    @click.option("-n", "number", type=click.IntRange(1), default=50, show_default=True)
    @_selecting
    def count(by: str, number: int, since: timedelta | None, as_json: bool, **chosen: Any) -> None:
        with store() as opened:
            counts = opened.count(by, select(since, **chosen), number)
        if as_json:
            for value, kind, times in counts:
                click.echo(
                    json.dumps({by: value, "type": kind, "count": times}, ensure_ascii=False)
                )
            return
        width = max((len(f"{times:,}") for _, _, times in counts), default=0)
        for value, kind, times in counts:
            named = "" if by == "type" else f"  {_visible(value) or '-'}"
            click.echo(f"{times:>{width},}  {kind:<12}{named}".rstrip())

    return event_database


def _line(row: dict[str, Any]) -> str:
    words = [
        f"{row['time']:%Y-%m-%d %H:%M:%S}Z",
        f"{row['type']:<12}",
        row["message_id"] or "-",
        row["recipient"] or "-",
        row["campaign"] and f"campaign={row['campaign']}",
        row["reason"],
    ]
    return _visible("  ".join(word for word in words if word)).rstrip()


def _visible(text: str) -> str:
    """A text without what could play tricks on a terminal."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)
