"""Which events an observer has in hand, kept on disk in case that it ends its process.

The service process meets the same events again after its death. Those that were in hand then come
one by one, so that it is known over which of them it ends; one that has ended `DEATHS` processes
is passed over.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.spool.suspects import DEATHS

log = logging.getLogger("gateway.outbox")

Place = tuple[str, int]
"""An observer and a shard."""


@dataclass(slots=True)
class Doubt:
    """What is known of events of one shard that an observer had in hand when its process ended.

    Attributes:
        until: the number of the last event that was in hand with others.
        event: the number of the one that was in hand alone.
        deaths: how many processes have ended over that one.
    """

    until: int = 0
    event: int = 0
    deaths: int = 0

    def end(self, first: int, last: int) -> None:
        """A process has ended while these events were in hand."""
        if first != last:
            self.until, self.event, self.deaths = max(self.until, last), 0, 0
        elif first == self.event:
            self.deaths += 1
        else:
            # It was among those that were in hand together before.
            self.event, self.deaths = first, 2 if first <= self.until else 1


class Observation:
    """The file `observing.json` of a spool, written by the process that passes events on.

    Args:
        folder: of the spool.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "observing.json"
        self._doubts: dict[Place, Doubt] = {}
        self._complained = False

    def look_back(self) -> tuple[str, int, int, int] | None:
        """Reads what the process before has left.

        Returns the observer, the shard, and the first and last number of the events that it had in
        hand at its end; None if there was no such thing.
        """
        try:
            data = json.loads(self._path.read_text())
            self._doubts = {
                (plugin, shard): Doubt(**doubt) for plugin, shard, doubt in data["doubts"]
            }
            if data["in_hand"] is None:
                return None
            plugin, shard, first, last = data["in_hand"]
            place = str(plugin), int(shard)
            self._doubts.setdefault(place, Doubt()).end(int(first), int(last))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            log.warning("%s is damaged, and is written anew", self._path)
            self._doubts = {}
            return None
        self._write(None)
        return (*place, int(first), int(last))

    def comes_alone(self, plugin: str, shard: int, event: int) -> bool:
        """Whether an observer gets this event without others."""
        doubt = self._doubts.get((plugin, shard))
        return doubt is not None and (event <= doubt.until or event == doubt.event)

    def deaths(self, plugin: str, shard: int, event: int) -> int:
        """How many processes have ended over this event, if it was in hand alone."""
        doubt = self._doubts.get((plugin, shard))
        return doubt.deaths if doubt is not None and doubt.event == event else 0

    def is_passed_over(self, plugin: str, shard: int, event: int) -> bool:
        """Whether an observer does not get this event any more."""
        return self.deaths(plugin, shard, event) >= DEATHS

    def begin(self, plugin: str, shard: int, first: int, last: int) -> None:
        """An observer is about to get these events."""
        self._write([plugin, shard, first, last])

    def end(self, plugin: str, shard: int, last: int, taken: bool) -> None:
        """It has answered; `taken`: the events up to this number do not come again."""
        doubt = self._doubts.get((plugin, shard))
        if taken and doubt is not None and last >= max(doubt.until, doubt.event):
            del self._doubts[plugin, shard]
        self._write(None)

    def clear(self) -> None:
        """The process stops in good order."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, in_hand: list[Any] | None) -> None:
        doubts = [[*place, asdict(doubt)] for place, doubt in self._doubts.items()]
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps({"in_hand": in_hand, "doubts": doubts}))
            temporary.replace(self._path)
        except OSError as error:
            # Events go on without it.
            if not self._complained:
                log.error("%s cannot be written: %s", self._path, error.strerror)
            self._complained = True
        else:
            self._complained = False
