"""Writes what happened to mail into a database, for reports, alarms and support."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gateway.hooks import Context, Event, Plugin, hookimpl

from mail_gateway_event_database.config import EventDatabaseConfig, PageConfig

if TYPE_CHECKING:
    import click

    from mail_gateway_event_database.store import Store

__all__ = ["EventDatabase", "EventDatabaseConfig", "PageConfig"]

FILE = "events.db"
FORGET_SECONDS = 3600.0
"""How often it is looked for events that are too old, once there are none."""


class EventDatabase(Plugin[EventDatabaseConfig]):
    """Writes events into a table, each once, and shows them in a command and on a page."""

    api = "1.0"
    # Database drivers wait for their servers. In threads of the plugin's own, the other observers
    # and the pages of the service process go on meanwhile. One is enough: batches come in order.
    blocking = True
    threads = 1
    changes = ()

    def __init__(self, config: EventDatabaseConfig) -> None:
        super().__init__(config)
        self.observes = config.types
        self.unused = () if config.page is not None else ("http",)
        self._store: Store | None = None
        self._ready = False
        self._forget_at = 0.0
        self._clock: Callable[[], float]
        self._log: logging.Logger

    @hookimpl
    def start(self, context: Context) -> None:
        """Opens the database, in the one process that gets events.

        A server that cannot be reached keeps nothing from starting: events wait in the outbox.
        """
        if context.role != "service":
            return
        from sqlalchemy.exc import SQLAlchemyError

        self._clock = context.clock
        self._log = context.log
        context.data_folder()
        self._store = self._open(context)
        try:
            self._prepare()
        except SQLAlchemyError as error:
            self._failed_to("be used", error)
        except ValueError:
            self._store.close()
            raise

    @hookimpl
    def stop(self) -> None:
        """Closes the database."""
        if self._store is not None:
            self._store.close()

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        """Writes a batch in one transaction. If that fails, the same batch comes again."""
        assert self._store is not None
        self._prepare()
        self._store.write(events)
        self._forget()

    @hookimpl
    def http(self) -> Any:
        """The page with the counts of the last hours."""
        from mail_gateway_event_database.page import Page

        page = self.config.page
        assert page is not None
        return Page(
            lambda: self._store if self._ready else None,
            page.token.get_secret_value(),
            page.hours,
            lambda: _moment(self._clock()),
            lambda text: self._log.error("the database cannot be read: %s", text),
        )

    @hookimpl
    def commands(self, context: Context) -> click.Command:
        """`gateway event-database`."""
        from mail_gateway_event_database.commands import event_database_command

        def open_store() -> Store:
            if self.config.database is None and not (context.folder / FILE).exists():
                raise ValueError("there is no database yet; it is made when the gateway runs")
            return self._open(context)

        return event_database_command(open_store, lambda: _moment(context.clock()))

    def _open(self, context: Context) -> Store:
        # Workers never get here, and need not load SQLAlchemy.
        from mail_gateway_event_database.store import Store

        if self.config.database is None:
            return Store(f"sqlite:///{FILE}", context.folder)
        return Store(self.config.database.get_secret_value(), context.base)

    def _prepare(self) -> None:
        if not self._ready:
            assert self._store is not None
            self._store.prepare()
            self._ready = True

    def _forget(self) -> None:
        """Deletes a portion of what is too old, from time to time."""
        from sqlalchemy.exc import SQLAlchemyError

        now = self._clock()
        if self.config.keep is None or now < self._forget_at:
            return
        assert self._store is not None
        try:
            if self._store.forget(_moment(now - self.config.keep)) == 0:
                self._forget_at = now + FORGET_SECONDS
        except SQLAlchemyError as error:
            # The events are written; what is old may stay for another hour.
            self._forget_at = now + FORGET_SECONDS
            self._failed_to("be cleared of old events", error)

    def _failed_to(self, what: str, error: Exception) -> None:
        from mail_gateway_event_database.store import described

        self._log.error("the database cannot %s for now: %s", what, described(error))


def _moment(seconds: float) -> datetime:
    from mail_gateway_event_database.table import moment

    return moment(seconds)
