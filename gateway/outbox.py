"""The outbox: events that workers wrote with the mail that they are about, for observers.

The service process reads the shards beside their owners and remembers, in one file, how far each
observer has come. The owner of a shard deletes what every observer has seen. An observer gets each
event at least once: after a crash some come again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import apsw

from gateway.events import Event
from gateway.hooks.chain import Chain, Step
from gateway.message import Client, Message, Recipient
from gateway.spool import shard_numbers

BATCH = 500
"""Events that an observer gets at a time."""

log = logging.getLogger("gateway.outbox")


class Outbox:
    """Gives the events in a folder of shards to the observers of a chain."""

    def __init__(self, folder: Path, chain: Chain) -> None:
        self._folder = folder
        self._chain = chain
        self._seen = _read_seen(folder)
        names = [step.plugin for step in chain.steps["observe"]]
        self._seen = {name: self._seen.get(name, {}) for name in names}

    async def pass_on(self) -> int:
        """Gives each observer what is new to it; returns how many events were given."""
        count = 0
        for number in shard_numbers(self._folder):
            for step in self._chain.steps["observe"]:
                count += await self._pass_on(number, step)
        return count

    async def _pass_on(self, number: int, step: Step) -> int:
        seen = self._seen[step.plugin]
        count = 0
        while True:
            rows = _read_events(self._folder, number, seen.get(str(number), 0))
            if not rows:
                return count
            events = [event for _, event in rows if _meets(step, event)]
            if events and not await self._chain.observe(step, events):
                return count
            seen[str(number)] = rows[-1][0]
            self._write_seen()
            count += len(rows)

    def _write_seen(self) -> None:
        path = self._folder / "observed.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self._seen))
        os.replace(temporary, path)


def observed(folder: Path) -> dict[int, int]:
    """Up to which event of each shard every observer has seen all."""
    observers = list(_read_seen(folder).values())
    numbers = {int(number) for seen in observers for number in seen}
    return {number: min(seen.get(str(number), 0) for seen in observers) for number in numbers}


def _read_seen(folder: Path) -> dict[str, dict[str, int]]:
    try:
        seen: dict[str, dict[str, int]] = json.loads((folder / "observed.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        log.error("observed.json is damaged: observers get events again")
        return {}
    return seen


def _read_events(folder: Path, number: int, after: int) -> Sequence[tuple[int, Event]]:
    try:
        db = apsw.Connection(
            os.fspath(folder / f"{number:04d}.db"), flags=apsw.SQLITE_OPEN_READONLY
        )
    except apsw.CantOpenError:
        return []  # removed since we looked
    with contextlib.closing(db):
        db.set_busy_timeout(5_000)
        sql = "SELECT number, event FROM events WHERE number>? ORDER BY number LIMIT ?"
        rows = []
        for position, text in db.execute(sql, (after, BATCH)):
            try:
                rows.append((position, Event.from_json(text)))
            except ValueError as error:
                log.error("shard %04d: event %d is damaged: %s", number, position, error)
        return rows


def _meets(step: Step, event: Event) -> bool:
    """Whether an event is about mail that the entry's condition means.

    A header is not known any more; a condition that asks for one lets every event pass.
    """
    condition = step.condition
    if condition is None or "header" in condition.needs:
        return True
    client = Client(address=event.client, user=event.user or None)
    message = Message(event.message_id, event.sender, client, event.stream)
    message.recipients = [Recipient(event.recipient)]
    return condition.matches(message)
