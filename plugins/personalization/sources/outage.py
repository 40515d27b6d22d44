"""What the log is told about lookups that fail: not one line for every message."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from plugins.personalization.sources.values import printable

_QUIET = 10.0
"""Seconds between two lines about the same source."""


class Outage:
    """Counts failures of one source, and writes of them at most every ten seconds."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._log = logging.getLogger(__name__)
        self._told = float("-inf")
        self._last = float("-inf")
        self._untold = 0
        self._failing = False

    def start(self, log: logging.Logger) -> None:
        """Takes the log that is written to."""
        self._log = log

    def failed(self, reason: str) -> None:
        """A lookup failed."""
        now = self._last = self._clock()
        self._failing = True
        if now - self._told < _QUIET:
            self._untold += 1
            return
        more = f" ({self._untold} more failures since the last such line)" if self._untold else ""
        self._log.error("source %s: %s%s", self._name, printable(reason), more)
        self._told, self._untold = now, 0

    def worked(self) -> None:
        """A lookup succeeded."""
        if self._failing and self._clock() - self._last >= _QUIET:
            self._failing, self._untold = False, 0
            self._log.info("source %s works again", self._name)
