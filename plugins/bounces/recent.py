"""Which reports came lately: one that is sent again, because a reply was lost, counts once.

What is remembered has a fixed size, whatever comes: some thousand cells, each with the hashes of
the last reports that fell into it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from hashlib import blake2b

from gateway.hooks import Cell, Limits

_CELLS = 4096
_DIGITS = 12
# With a space between them they fill a cell, which holds 250 octets.
_PER_CELL = 19
_KEPT = 86_400.0


def digest(recipients: Sequence[str], content: bytes) -> str:
    """The same for a message that comes again, whatever our own trace field on top says.

    Args:
        recipients: its envelope recipients.
        content: header and body; lines end in CRLF.
    """
    trace, separator, rest = content.partition(b"\r\n\r\n")
    identity = [line for line in trace.split(b"\r\n") if line[:11].lower() == b"message-id:"]
    kept = b"\r\n".join([*identity, *sorted(one.lower().encode() for one in recipients)])
    return blake2b(kept + separator + (rest or trace), digest_size=8).hexdigest()


class Recent:
    """The reports that came lately, in all processes.

    Args:
        limits: where they are remembered.
        name: the entry's name, for the keys.
        clock: seconds since the epoch.
        log: where failures go; a report that may have come before is taken.
    """

    def __init__(
        self, limits: Limits, name: str, clock: Callable[[], float], log: logging.Logger
    ) -> None:
        self._limits = limits
        self._name = name
        self._clock = clock
        self._log = log

    def knows(self, report: str) -> bool:
        """Whether a report of that digest was added lately."""
        try:
            cell = self._limits.read(self._key(report), self._clock())
        except Exception:
            self._log.exception("cannot tell whether a report came before")
            return False
        return cell is not None and report[-_DIGITS:] in cell.text.split(" ")

    def add(self, report: str) -> None:
        """Remembers a report; not before its events are on disk."""
        now = self._clock()

        def change(cell: Cell | None) -> tuple[float, float, str]:
            known = [] if cell is None else cell.text.split(" ")
            return 0.0, now + _KEPT, " ".join([*known, report[-_DIGITS:]][-_PER_CELL:])

        try:
            self._limits.change(self._key(report), now, change)
        except Exception:
            self._log.exception("a report cannot be remembered")

    def _key(self, report: str) -> str:
        return f"{self._name}:report:{int(report[:4], 16) % _CELLS}"
