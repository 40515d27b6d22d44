"""Counts the clicks that observers are told of, for the bench to look at."""

from collections.abc import Sequence

from pydantic import BaseModel

from gateway.hooks import Context, Event, Plugin, hookimpl


class CountConfig(BaseModel):
    """Nothing to set."""


class Count(Plugin[CountConfig]):
    """Writes the number of clicks so far into a file."""

    observes = ("clicked",)
    count = 0

    @hookimpl
    def start(self, context: Context) -> None:
        """Names the file."""
        self._file = context.base / "clicks"

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        """Counts a batch."""
        self.count += len(events)
        self._file.write_text(str(self.count))
