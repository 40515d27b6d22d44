"""A report plugin in a folder of its own, and mail whose fate it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from click.testing import CliRunner, Result

from gateway.hooks import Context, Event, Resolver
from gateway.limits import Limits
from plugins.report import Report, ReportConfig

NOW = 1_790_000_000.0
"""2026-09-21 14:13:20 UTC."""
HOUR = 3600.0
DAY = 24 * HOUR


class Site:
    """The folder of one entry in gateway.yaml.

    Attributes:
        now: what the clock shows.
    """

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.now = NOW
        self.config = ReportConfig.model_validate(config)
        self._started: Report | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "data" / "report.db"

    def context(self, role: Literal["worker", "service", "command"]) -> Context:
        """What a process of that role gives the plugin."""
        return Context(
            name="report",
            hostname="gw.example.com",
            role=role,
            folder=self.folder / "data",
            base=self.folder,
            clock=lambda: self.now,
            log=logging.getLogger("gateway.plugin.report"),
            resolver=Resolver(["127.0.0.1:1"], 0.1),
            limits=Limits(self.folder / "limits"),
            emit=_emit,
        )

    def observe(self, events: Iterable[Event]) -> None:
        """Gives the plugin, which is started if need be, one batch."""
        if self._started is None:
            self._started = Report(self.config)
            self._started.start(self.context("service"))
        self._started.observe(list(events))

    def stop(self) -> None:
        """Ends the service process."""
        if self._started is not None:
            self._started.stop()
            self._started = None

    def run(self, *arguments: str) -> Result:
        """`gateway report`."""
        command = Report(self.config).commands(self.context("command"))
        return CliRunner().invoke(command, arguments)

    def said(self, *arguments: str) -> str:
        """What `gateway report` says where all is well."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout


def _emit(event: Event) -> asyncio.Future[None]:
    raise AssertionError(f"it only listens: {event}")


def event(kind: str, number: int = 1, after: float = 0.0, **notes: str) -> Event:
    """An event of message `number` to the recipient of that number, some seconds after NOW."""
    return sent(kind, f"ID{number}", f"u{number}@example.net", after, **notes)


def sent(kind: str, message_id: str, recipient: str, after: float = 0.0, **notes: str) -> Event:
    """An event of any message; without another note its campaign is `spring`."""
    found = {"campaign": "spring", **notes}
    return Event(
        kind,
        NOW + after,
        message_id,
        "news@shop.example",
        recipient,
        "bulk",
        notes={name: note for name, note in found.items() if note},
    )
