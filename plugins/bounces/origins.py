"""What messages belong to: sender's domains and streams, by the hashes in return paths.

A token has no room for them, and there are few: each is written down once a day by each process,
where all processes find it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.hooks import Cell, Limits
from plugins.bounces import token
from plugins.bounces.token import DAY

KEPT = 400 * DAY
"""Seconds for which an origin is known after its last message. Complaints come late."""
_MOST_REMEMBERED = 10_000


class Origins:
    """The origins that this gateway knows.

    Args:
        limits: where they are written down.
        name: the entry's name, for the keys.
        clock: seconds since the epoch.
        log: where failures go; mail does not wait for them to end.
    """

    def __init__(
        self, limits: Limits, name: str, clock: Callable[[], float], log: logging.Logger
    ) -> None:
        self._limits = limits
        self._key = f"{name}:origin:"
        self._clock = clock
        self._log = log
        self._day = -1
        self._marks: dict[tuple[str, str], str] = {}

    def mark(self, sender_domain: str, stream: str) -> str:
        """The hash of an origin, which is known from now on."""
        now = self._clock()
        day = int(now // DAY)
        if day != self._day or len(self._marks) > _MOST_REMEMBERED:
            self._day = day
            self._marks.clear()
        mark = self._marks.get((sender_domain, stream))
        if mark is None:
            mark = token.origin(sender_domain, stream)
            self._write(mark, f"{sender_domain} {stream}", now)
            self._marks[sender_domain, stream] = mark
        return mark

    def find(self, mark: str) -> tuple[str, str]:
        """The sender's domain and the stream of a hash; '' where they are not known any more.

        Raises:
            OSError: the file cannot be read now.
        """
        cell = self._limits.read(self._key + mark, self._clock())
        if cell is None:
            return "", ""
        domain, _, stream = cell.text.partition(" ")
        return domain, stream

    def _write(self, mark: str, text: str, now: float) -> None:
        def change(known: Cell | None) -> tuple[float, float, str]:
            # Should two have the same hash, the first keeps it.
            return 0.0, now + KEPT, text if known is None else known.text

        try:
            self._limits.change(self._key + mark, now, change)
        except Exception:
            # Without it a complaint may be taken for another sender's; that must not stop mail.
            self._log.exception("the origin of a message cannot be written")
