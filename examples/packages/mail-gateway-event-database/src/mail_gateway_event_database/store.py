"""The database: writing events, forgetting and reading them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy
from gateway.hooks import Event
from sqlalchemy import ColumnElement, delete, func, insert, inspect, select
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from mail_gateway_event_database.table import EVENTS, METADATA, row_of

PORTION = 500
"""Rows in one statement: Oracle takes 1,000 values in a list."""

_CONNECT_SECONDS = 5
"""How long a server may take to let us in, or another program to let go of a SQLite file."""
_READ_SECONDS = 30
"""How long a server may be silent."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are meant: all that are as every one of these says; None says nothing."""

    types: Sequence[str] = ()
    campaign: str | None = None
    recipient: str | None = None
    since: datetime | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """The same for a query."""
        if self.types:
            yield EVENTS.c.type.in_(self.types)
        if self.campaign is not None:
            yield EVENTS.c.campaign == self.campaign
        if self.recipient is not None:
            yield EVENTS.c.recipient == self.recipient
        if self.since is not None:
            yield EVENTS.c.time >= self.since


class Store:
    """A database with the table of events. Every method waits for it.

    Args:
        url: where it is, as SQLAlchemy reads it.
        base: the folder that the path of a SQLite file starts from.

    Raises:
        ValueError: the URL cannot be used; the text has no password in it.
    """

    def __init__(self, url: str, base: Path) -> None:
        try:
            parsed = sqlalchemy.make_url(url)
            if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, ":memory:"):
                parsed = parsed.set(database=str(base / str(parsed.database)))
            self._engine = sqlalchemy.create_engine(
                parsed,
                hide_parameters=True,
                pool_pre_ping=True,
                connect_args=_patience(parsed),
            )
        except (ArgumentError, NoSuchModuleError, ValueError):
            raise ValueError("database: SQLAlchemy cannot read this URL") from None
        except ModuleNotFoundError as error:
            raise ValueError(
                f"database: {error.name} is not installed; "
                "pip install 'mail-gateway-event-database[postgresql]' or [mariadb], "
                "or the driver that the URL names"
            ) from None

    def prepare(self) -> None:
        """Makes the table if there is none.

        Raises:
            ValueError: there is one, with other columns.
            SQLAlchemyError: the database cannot be used.
        """
        METADATA.create_all(self._engine)
        there = {column["name"] for column in inspect(self._engine).get_columns(EVENTS.name)}
        missing = [column.name for column in EVENTS.columns if column.name not in there]
        if missing:
            raise ValueError(
                f"the table {EVENTS.name} has no column {missing[0]}: it is of another version; "
                "rename it, and a new one is made"
            )

    def write(self, events: Sequence[Event]) -> int:
        """Writes events that are not there yet, all of them or none; returns how many.

        Raises:
            SQLAlchemyError: the database cannot be used. Nothing was written.
        """
        rows = {row["fingerprint"]: row for row in map(row_of, events)}
        written = 0
        with self._engine.begin() as connection:
            for portion in _portions(list(rows)):
                query = select(EVENTS.c.fingerprint).where(EVENTS.c.fingerprint.in_(portion))
                known = set(connection.scalars(query))
                new = [rows[one] for one in portion if one not in known]
                if new:
                    connection.execute(insert(EVENTS), new)
                written += len(new)
        return written

    def forget(self, before: datetime) -> int:
        """Deletes up to `PORTION` events that are older; returns how many.

        Raises:
            SQLAlchemyError: the database cannot be used.
        """
        with self._engine.begin() as connection:
            old = select(EVENTS.c.id).where(EVENTS.c.time < before).limit(PORTION)
            numbers = list(connection.scalars(old))
            if numbers:
                connection.execute(delete(EVENTS).where(EVENTS.c.id.in_(numbers)))
            return len(numbers)

    def last(self, number: int, selection: Selection) -> list[dict[str, Any]]:
        """The newest events, the newest first, each as its columns.

        Raises:
            SQLAlchemyError: the database cannot be used.
        """
        query = (
            select(*(column for column in EVENTS.columns if column.name != "fingerprint"))
            .where(*selection.conditions())
            .order_by(EVENTS.c.time.desc(), EVENTS.c.id.desc())
            .limit(number)
        )
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def count(self, by: str, selection: Selection, most: int) -> list[tuple[str, str, int]]:
        """How many events there are of each type, by the values of a column, the most first.

        Raises:
            SQLAlchemyError: the database cannot be used.
        """
        column, number = EVENTS.c[by], func.count()
        query = (
            select(column, EVENTS.c.type, number)
            .where(*selection.conditions())
            .group_by(*dict.fromkeys((column, EVENTS.c.type)))
            .order_by(number.desc(), column, EVENTS.c.type)
            .limit(most)
        )
        with self._engine.connect() as connection:
            return [(value, kind, count) for value, kind, count in connection.execute(query)]

    def hours(self, end: datetime, number: int) -> list[tuple[datetime, dict[str, int]]]:
        """How many events of each type there were in each of the hours up to `end`.

        An hour is told by its beginning; the last one is not over yet.

        Raises:
            SQLAlchemyError: the database cannot be used.
        """
        hour = end.replace(minute=0, second=0, microsecond=0)
        found = []
        with self._engine.connect() as connection:
            for back in reversed(range(number)):
                first = hour - timedelta(hours=back)
                query = (
                    select(EVENTS.c.type, func.count())
                    .where(EVENTS.c.time >= first, EVENTS.c.time < first + timedelta(hours=1))
                    .group_by(EVENTS.c.type)
                    .order_by(EVENTS.c.type)
                )
                counts = {row[0]: row[1] for row in connection.execute(query)}
                found.append((first, counts))
        return found

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


def described(error: Exception) -> str:
    """What a database said, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _portions(values: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(values)
    while portion := list(islice(rest, PORTION)):
        yield portion


def _patience(url: sqlalchemy.URL) -> dict[str, Any]:
    """What makes drivers give up in time, where the URL does not say it."""
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        arguments = {"timeout": _CONNECT_SECONDS}
    elif url.get_driver_name() == "psycopg":
        arguments = {
            "connect_timeout": _CONNECT_SECONDS,
            "tcp_user_timeout": _READ_SECONDS * 1000,
        }
    elif url.get_driver_name() == "pymysql":
        arguments = dict.fromkeys(("read_timeout", "write_timeout"), _READ_SECONDS)
        arguments["connect_timeout"] = _CONNECT_SECONDS
    return {name: value for name, value in arguments.items() if name not in url.query}
