"""The outbox: events that workers wrote with the mail that they are about, for observers.

The service process reads the shards beside their owners and remembers, in one file, how far each
observer has come. The owner of a shard deletes what every observer has seen. An observer gets each
event at least once: after a crash some come again, but not for ever those that it crashes over.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import apsw

from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.step import Fault, Step
from gateway.mail.message import Client, Message, Recipient
from gateway.spool.observation import Observation
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError, is_missing
from gateway.spool.spool import shard_numbers
from gateway.spool.suspects import DEATHS

BATCH = 500
"""Events that an observer gets at a time."""

EVERY_EVENT = 2**63 - 1

log = logging.getLogger("gateway.outbox")


class Outbox:
    """Gives the events in a folder of shards to the observers of a chain.

    During a reload there are two service processes; a lock lets one at a time pass events on.
    """

    def __init__(self, folder: Path, chain: Chain) -> None:
        self._folder = folder
        self._chain = chain
        self._seen: dict[str, dict[str, int]] = {}
        self._observation = Observation(folder)
        self._lock = -1
        self._unreadable: set[int] = set()

    async def pass_on(self) -> int:
        """Gives each observer up to `BATCH` new events of each shard.

        Returns how many events observers have taken; 0 if there is nothing to do for now.
        """
        steps = self._chain.steps["observe"]
        if not steps or not self._is_ours():
            return 0
        count = 0
        for number in shard_numbers(self._folder):
            for step in steps:
                count += await self._pass_on(number, step)
        return count

    def _is_ours(self) -> bool:
        if self._lock < 0:
            path = self._folder / "observed.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
            seen = _read_seen(self._folder)
            names = [step.plugin for step in self._chain.steps["observe"]]
            self._seen = {name: seen.get(name, {}) for name in names}
            self._look_back()
        return True

    def _look_back(self) -> None:
        """Finds out whether the process before this one has ended over events."""
        left = self._observation.look_back()
        if left is None:
            return
        plugin, number, first, last = left
        for step in self._chain.steps["observe"]:
            if step.plugin == plugin:
                one = f"event {first}" if first == last else f"events {first} to {last}"
                step.fault(Fault(f"its process ended while it had {one} of shard {number:04d}"))

    async def _pass_on(self, number: int, step: Step) -> int:
        seen = self._seen[step.plugin]
        rows = self._read(number, seen.get(str(number), 0))
        if not rows:
            return 0
        alone = [self._observation.comes_alone(step.plugin, number, row[0]) for row in rows]
        if any(alone):
            rows = rows[: 1 if alone[0] else alone.index(True)]
        events = [event for _, event in rows if event is not None and _meets(step, event)]
        if events and not await self._give(step, number, rows, events):
            return 0
        seen[str(number)] = rows[-1][0]
        self._write_seen()
        return len(rows)

    def _read(self, number: int, after: int) -> Sequence[tuple[int, Event | None]]:
        """What a shard has; nothing if it is damaged, as the events of others must not wait."""
        try:
            rows = _read_events(self._folder, number, after)
        except apsw.Error as error:
            if is_missing(self._folder / f"{number:04d}.db"):
                return []
            if number not in self._unreadable:
                log.error("shard %04d: its events cannot be read: %s", number, error)
                self._unreadable.add(number)
            return []
        self._unreadable.discard(number)
        return rows

    async def _give(
        self,
        step: Step,
        number: int,
        rows: Sequence[tuple[int, Event | None]],
        events: Sequence[Event],
    ) -> bool:
        """Gives events to an observer; False if they have to come again."""
        observation = self._observation
        first, last = rows[0][0], rows[-1][0]
        taken = observation.is_passed_over(step.plugin, number, first)
        if taken:
            about = events[0]
            step.fault(
                Fault(
                    f"its process ended {DEATHS} times while it had event {first} of shard"
                    f" {number:04d} ({about.type}, {about.message_id or 'of no message'}):"
                    " it is passed over"
                )
            )
        else:
            observation.begin(step.plugin, number, first, last)
            taken = await self._chain.observe(step, events)
        observation.end(step.plugin, number, last, taken)
        return taken

    def close(self) -> None:
        """Lets another process pass events on."""
        if self._lock >= 0:
            self._observation.clear()
            os.close(self._lock)
            self._lock = -1

    def _write_seen(self) -> None:
        path = self._folder / "observed.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self._seen))
        temporary.replace(path)


def observed(folder: Path, observers: Sequence[str]) -> dict[int, int]:
    """Up to which event of each shard all of these observers have seen everything."""
    every = _read_seen(folder)
    seen = [every.get(name, {}) for name in observers]
    numbers = {int(number) for one in seen for number in one}
    return {number: min(one.get(str(number), 0) for one in seen) for number in numbers}


def count_waiting(
    folder: Path, observers: Sequence[str], unreadable: set[int] | None = None
) -> dict[str, int]:
    """How many events each of these observers has not seen.

    Args:
        folder: the spool.
        observers: their names.
        unreadable: numbers of shards that are left out; those that cannot be read are added.
            None: the first that cannot be read is an error.

    Raises:
        SpoolError: a shard cannot be read.
    """
    every = _read_seen(folder)
    waiting = dict.fromkeys(observers, 0)
    for number in shard_numbers(folder) if observers else ():
        db = None if unreadable and number in unreadable else _open(folder, number)
        if db is None:
            continue
        with contextlib.closing(db):
            for name in observers:
                seen = every.get(name, {}).get(str(number), 0)
                try:
                    count = db.execute("SELECT count(*) FROM events WHERE number>?", (seen,)).get
                except apsw.Error as error:
                    if is_missing(folder / f"{number:04d}.db"):
                        break
                    if unreadable is None:
                        raise SpoolError(f"shard {number:04d} cannot be read: {error}") from error
                    unreadable.add(number)
                    break
                waiting[name] += count
    return waiting


def forget_events(folder: Path, observers: Sequence[str], shards: Iterable[Shard]) -> None:
    """Deletes the events in shards of this process that all of these observers have seen."""
    seen = observed(folder, observers)
    for shard in shards:
        until = seen.get(shard.number, 0) if observers else EVERY_EVENT
        if shard.has_events(until):
            shard.change(functools.partial(_delete_events, until), lambda error: None)


def _delete_events(until: int, db: apsw.Connection) -> None:
    db.execute("DELETE FROM events WHERE number<=?", (until,))


def _read_seen(folder: Path) -> dict[str, dict[str, int]]:
    try:
        seen: dict[str, dict[str, int]] = json.loads((folder / "observed.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        log.error("observed.json is damaged: observers get events again")
        return {}
    return seen


def _read_events(folder: Path, number: int, after: int) -> Sequence[tuple[int, Event | None]]:
    """Positions and events; None for one that is damaged."""
    db = _open(folder, number)
    if db is None:
        return []
    with contextlib.closing(db):
        sql = "SELECT number, event FROM events WHERE number>? ORDER BY number LIMIT ?"
        rows: list[tuple[int, Event | None]] = []
        for position, text in db.execute(sql, (after, BATCH)):
            try:
                rows.append((position, Event.from_json(text)))
            except ValueError as error:
                log.error("shard %04d: event %d is damaged: %s", number, position, error)
                rows.append((position, None))
        return rows


def _open(folder: Path, number: int) -> apsw.Connection | None:
    """A shard to be read beside its owner; None if it was removed since we looked."""
    try:
        db = apsw.Connection(
            os.fspath(folder / f"{number:04d}.db"), flags=apsw.SQLITE_OPEN_READONLY
        )
    except apsw.CantOpenError:
        return None
    db.set_busy_timeout(5_000)
    return db


def _meets(step: Step, event: Event) -> bool:
    """Whether an observer wants an event, and it is about mail that the entry's condition means.

    A header is not known any more; a condition that asks for one lets every event pass.
    """
    if event.type not in step.interest:
        return False
    condition = step.condition
    if condition is None or "header" in condition.needs:
        return True
    client = Client(address=event.client, user=event.user or None)
    message = Message(event.message_id, event.sender, client, event.stream)
    message.recipients = [Recipient(event.recipient)]
    return condition.matches(message)
