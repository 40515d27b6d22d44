"""Where the values come from that templates are filled with.

For the hook class, in the order in which it calls:

- `build(config.sources)` makes the sources, `Sources(…)` holds them. Both only when the plugin is
  made; nothing is opened yet.
- `await sources.start(context)` and `await sources.stop()` in the hooks of these names.
- `await sources.values(message, recipient)` in the `message` hook: everything that is known of the
  recipient, `{}` if nobody knows it. Never change the mapping or what is in it: recipients share
  parts of it. Values are hostile: text may contain any character but halves of surrogate pairs.
- `sources.remove_from(message)` after that, for each copy, also for those without a template and
  those that an error leaves as they are: it takes out the header fields that carry the values of
  all recipients. A copy that goes out with one tells each recipient about all others.

A SourceError means that nothing can be said about this recipient: `temporary` is a Tempfail, the
rest a Reject, both with its `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.hooks import Context, Message, Recipient
from plugins.personalization.sources.config import (
    CsvConfig,
    HeaderConfig,
    HttpConfig,
    SourceConfig,
    SqlConfig,
)
from plugins.personalization.sources.csv_file import CsvSource, sweep
from plugins.personalization.sources.header import HeaderSource
from plugins.personalization.sources.source import Source, SourceError, Values
from plugins.personalization.sources.values import merge

__all__ = [
    "CsvConfig",
    "HeaderConfig",
    "HttpConfig",
    "Source",
    "SourceConfig",
    "SourceError",
    "Sources",
    "SqlConfig",
    "Values",
    "build",
]


def build(configs: Iterable[SourceConfig]) -> list[Source]:
    """Makes a source of each configuration. Opens nothing.

    Raises:
        ValueError: a library that a source needs is not installed.
    """
    return [_source(config) for config in configs]


def _source(config: SourceConfig) -> Source:
    settings = config.settings
    if isinstance(settings, HeaderConfig):
        return HeaderSource(settings)
    if isinstance(settings, CsvConfig):
        return CsvSource(settings)
    # These need libraries that not everyone installs.
    if isinstance(settings, SqlConfig):
        from plugins.personalization.sources.sql import sql_source

        return sql_source(settings)
    from plugins.personalization.sources.http import http_source

    return http_source(settings)


class Sources:
    """All sources of one entry in `gateway.yaml`, in their order."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._headers = tuple([source for source in sources if isinstance(source, HeaderSource)])
        self._started: list[Source] = []

    async def start(self, context: Context) -> None:
        """Starts all, in their order.

        Raises:
            ValueError, OSError: one cannot be used; those before it have been stopped.
        """
        files = [source for source in self._sources if isinstance(source, CsvSource)]
        sweep(context.folder, [source.index_name for source in files])
        for source in self._sources:
            try:
                await source.start(context)
            except BaseException:
                await self.stop()
                raise
            self._started.append(source)

    async def stop(self) -> None:
        """Stops what was started, the last first."""
        while self._started:
            await self._started.pop().stop()

    async def values(self, message: Message, recipient: Recipient) -> dict[str, Any]:
        """Everything that the sources know of a recipient; what comes later in the list counts.

        Raises:
            SourceError: a source cannot tell.
        """
        known: dict[str, Any] = {}
        for source in self._sources:
            values = await source.values(message, recipient)
            if values:
                known = merge(known, values)
        return known

    def remove_from(self, message: Message) -> None:
        """Takes out the header fields that carry values of recipients.

        Raises:
            MessageSealedError: the message is sealed.
        """
        for source in self._headers:
            for name in source.headers_to_remove:
                message.headers.delete(name)
