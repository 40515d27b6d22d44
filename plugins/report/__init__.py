"""Counts what became of mail, by campaign, variant and destination."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from gateway.hooks import Context, Event, Plugin, hookimpl
from plugins.report.config import ReportConfig
from plugins.report.counting import COUNTED, count
from plugins.report.database import open_to_write
from plugins.report.retention import Retention

if TYPE_CHECKING:
    import click

__all__ = ["Report", "ReportConfig"]


class Report(Plugin[ReportConfig]):
    """Writes events into a file of its own, which `gateway report` reads.

    Raises (at the start):
        ValueError: the file cannot be used.
    """

    api = "1.0"
    changes = ()
    observes = COUNTED

    def __init__(self, config: ReportConfig) -> None:
        super().__init__(config)
        self._db: apsw.Connection | None = None
        self._retention: Retention | None = None
        self._clock: Callable[[], float]
        self._log: logging.Logger

    @hookimpl
    def start(self, context: Context) -> None:
        """Opens the file, in the one process that gets events."""
        if context.role != "service":
            return
        self._clock = context.clock
        self._log = context.log
        context.data_folder()
        self._db = open_to_write(_file(context))
        self._retention = Retention(self._db, self.config.keep, self.config.timezone)

    @hookimpl
    def stop(self) -> None:
        """Closes the file."""
        if self._db is not None:
            self._db.close()

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        """Counts events; those that come again change nothing."""
        assert self._db is not None
        assert self._retention is not None
        # Before: what is counted now may come again at once.
        try:
            self._retention.enforce(self._clock())
        except apsw.Error as error:
            self._log.error("old rows stay for another hour: %s", error)
        count(self._db, events, self.config.campaigns_only)

    @hookimpl
    def commands(self, context: Context) -> click.Command:
        """`gateway report`."""
        from plugins.report.commands import report_command

        return report_command(_file(context), self.config, context.clock)


def _file(context: Context) -> Path:
    return context.folder / "report.db"
