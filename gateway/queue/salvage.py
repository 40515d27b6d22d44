"""Mail from damaged shards, put back into the queue, or into files where that cannot be.

Whether it was delivered before nobody knows, so all of it is held until a person decides. Who gets
it is never guessed.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from gateway.mail.large_content import Content, Octets
from gateway.queue.lane import PRIORITIES
from gateway.queue.listing import survey
from gateway.queue.salvage_files import save, set_apart, sync
from gateway.queue.salvaged import SHARD, Salvage
from gateway.queue.selection import Selection
from gateway.queue.settle import event_of
from gateway.spool import queue_id
from gateway.spool.damaged_shard import DamagedShard, FoundDelivery, FoundMessage, Key
from gateway.spool.held_reason import SALVAGED
from gateway.spool.queue_entry import Entry, Envelope, Placed
from gateway.spool.room import room_of
from gateway.spool.shard import Shard
from gateway.spool.shard_file import ShardBusyError, SpoolError, UnreadableShard, examine, lock
from gateway.spool.spool import Spool, shard_numbers

BATCH = 200
"""Messages that are written at a time, at most."""
BATCH_OCTETS = 16 << 20

ASKED = 5000
"""Queue ids that are looked for in the queue at a time."""

_NORMAL = 1

Advance = Callable[[int], None]
"""Told how much was done since."""


class Salvages:
    """Damaged shards of a spool that nobody holds; nobody takes them until this is closed.

    Args:
        folder: the spool.

    Attributes:
        chosen: the shards.
        left: shards that nobody holds and that are not damaged, but cannot be taken: why.
    """

    def __init__(self, folder: Path) -> None:
        self.chosen: list[Salvage] = []
        self.left: list[str] = []
        self._folder = folder
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def choose_damaged(self) -> None:
        """Chooses every shard that a worker would leave for a person because it is damaged.

        Raises:
            SpoolError: a shard cannot be looked at.
        """
        for number in shard_numbers(self._folder):
            try:
                with ExitStack() as held:
                    held.callback(os.close, lock(self._folder / f"{number:04d}.lock", ""))
                    shard = examine(self._folder / f"{number:04d}.db")
                    if shard is not None:
                        self._add(shard, number)
                        self._files.push(held.pop_all())
            except ShardBusyError:
                continue  # its owner can read it
            except SpoolError as error:
                self.left.append(str(error))

    def choose(self, text: str) -> None:
        """Chooses a shard by its number, or a file; damaged or not.

        Raises:
            SpoolError: it is not there, or a process holds it.
        """
        path = self._folder / f"{int(text):04d}.db" if text.isdecimal() else Path(text)
        match = SHARD.fullmatch(path.name)
        is_ours = self._folder.is_dir() and path.parent.resolve() == self._folder.resolve()
        number = int(match[1]) if match is not None and is_ours else None
        if any(one.path.resolve() == path.resolve() for one in self.chosen):
            return
        if not path.is_file():
            raise SpoolError(f"{path}: there is no such file")
        if number is not None:
            try:
                self._files.callback(os.close, lock(path.with_suffix(".lock"), ""))
            except ShardBusyError:
                raise SpoolError(
                    f"{path}: a process holds it; stop the gateway, or leave it to it"
                ) from None
        self._add(UnreadableShard(path, ""), number)

    def _add(self, shard: UnreadableShard, number: int | None) -> None:
        try:
            found = self._files.enter_context(DamagedShard(shard.path))
        except OSError as error:
            raise SpoolError(f"{shard.path}: {error.strerror}") from error
        self.chosen.append(Salvage(shard.path, shard.reason, number, found))

    @property
    def pages(self) -> int:
        """How many pages there are to look at."""
        return sum(one.found.pages for one in self.chosen)

    @property
    def count(self) -> int:
        """How many messages were found, sound or not; known after `find`."""
        return sum(one.found.count for one in self.chosen)

    def find(self, advance: Advance) -> None:
        """Looks through all files; `advance` is told of pages."""
        for one in self.chosen:
            one.found.find(advance)
            one.lost_pages, one.lost_rows = one.found.lost_pages, one.found.lost_rows

    def judge(self, advance: Advance) -> None:
        """Finds out what can be put back; `advance` is told of messages.

        Raises:
            SpoolError: another shard cannot be read.
        """
        known = self._known()
        for one in self.chosen:
            for found in one.found.messages():
                one.judge(found, known)
                advance(1)

    async def put_back(self, into: Path, advance: Advance) -> None:
        """Puts back what can be, held, and writes the rest into a folder; then renames the files.

        Raises:
            SpoolError: something cannot be written. What was put back stays in the queue, and is
                not put back once more.
            OSError: the folder cannot be written.
        """
        known = self._known()
        spool = Spool(self._folder, "", 0)
        try:
            if any(one.messages for one in self.chosen):
                self._check_room()
                spool.open(new=True)
            for one in self.chosen:
                one.forget()
                await _Writing(one, spool, into, known).write(advance)
        finally:
            if spool.failure is None:
                await spool.drain()
            empty = [shard for shard in spool.shards if shard.failure is None and shard.is_empty()]
            for shard in empty:
                spool.shards.remove(shard)
                shard.close(remove=True)
            spool.close()
        for one in self.chosen:
            if not one.is_complete:
                text = json.dumps(one.to_dict(), ensure_ascii=False, indent=2)
                one.report = str(save(into, one.path.name, ".json", [text.encode()]))
                sync(into)
            if one.number is not None:
                one.renamed = list(map(str, set_apart(one.path)))

    def _known(self) -> set[Key]:
        """The recipients that are in the queue, of all that were found."""
        ids = sorted({id_ for one in self.chosen for id_, _ in one.found.found_keys()})
        numbers = {one.number for one in self.chosen}
        known: set[Key] = set()
        for place in range(0, len(ids), ASKED):
            texts = tuple([queue_id.to_text(id_) for id_ in ids[place : place + ASKED]])
            keys = survey(self._folder, Selection(ids=texts), skipped=[]).keys
            for number, some in keys.items():
                # What can be read of a damaged shard is not safe there.
                if number not in numbers:
                    known.update(_pairs(some))
        return known

    def _check_room(self) -> None:
        room = room_of(os.statvfs(self._folder))
        needed = sum(one.octets for one in self.chosen)
        if room < 2 * needed:
            raise SpoolError(
                f"{self._folder}: {room >> 20:,} MiB are free, and this takes"
                f" {2 * needed >> 20:,} MiB: make room",
                full=True,
            )


def _pairs(keys: array[int]) -> Iterator[Key]:
    return zip(keys[::2], keys[1::2], strict=True)


class _Writing:
    """Puts back the mail of one shard."""

    def __init__(self, one: Salvage, spool: Spool, into: Path, known: set[Key]) -> None:
        self._one = one
        self._spool = spool
        self._into = into
        self._known = known
        self._copies: set[int] = set()
        self._reason = f"{SALVAGED}{one.name}: may have been delivered before"
        self._writes: list[asyncio.Future[SpoolError | None]] = []
        self._octets = 0

    async def write(self, advance: Advance) -> None:
        """Writes all of it.

        Raises:
            SpoolError, OSError: it cannot be written.
        """
        count = len(self._writes)
        for found in self._one.found.messages():
            rows, apart = self._one.judge(found, self._known)
            if rows:
                assert found.envelope is not None
                assert found.content is not None
                self._put_back(found.envelope, found.content, rows)
            if apart is not None:
                self._one.apart[-1] = replace(apart, file=self._save(found))
            count += 1
            if count == BATCH or self._octets > BATCH_OCTETS:
                await self._wait()
                advance(count)
                count = 0
        await self._wait()
        advance(count)

    def _put_back(
        self, envelope: Envelope, content: Content, rows: Sequence[FoundDelivery]
    ) -> None:
        now = time.time()
        shard = self._spool.home
        if envelope.copy in self._copies:  # from a copy of the file
            envelope = replace(envelope, copy=shard.next_id(now))
        self._copies.add(envelope.copy)
        placed = [self._placed(shard, envelope, content, row) for row in rows]
        events = [
            event_of("held", now, envelope, row.item.recipient, reason=one.held or "")
            for row, one in zip(rows, placed, strict=True)
        ]
        shard.append(placed, events, self._expect())
        shard.submit(partial(_keep_history, envelope.id, rows), self._expect(), 0, ())
        self._octets += len(content)

    def _placed(
        self, shard: Shard, envelope: Envelope, content: Content, row: FoundDelivery
    ) -> Placed:
        held = self._reason if row.held is None else f"{self._reason}; it was held: {row.held}"
        priority = row.priority if row.priority in range(PRIORITIES) else _NORMAL
        return Placed(Entry(shard, envelope, row.lane, priority, [row.item], content), held=held)

    def _expect(self) -> Callable[[SpoolError | None], None]:
        write: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
        self._writes.append(write)
        return write.set_result

    async def _wait(self) -> None:
        for error in await asyncio.gather(*self._writes):
            if error is not None:
                raise error
        self._writes.clear()
        self._octets = 0

    def _save(self, found: FoundMessage) -> str | None:
        """Writes a content, or what is left of it, into a file; returns its name."""
        name = queue_id.to_text(found.id)
        if found.copy != found.id:
            name += f"-{queue_id.to_text(found.copy & (1 << 63) - 1)}"
        content = found.content
        if content is not None:
            pieces: Iterable[Octets] = [content] if isinstance(content, bytes) else content.blocks()
            return str(save(self._into, name, ".eml", pieces))
        remains = [piece for piece in found.remains() if piece]
        return str(save(self._into, name, ".damaged.eml", remains)) if remains else None


def _keep_history(id_: int, rows: Sequence[FoundDelivery], db: Any) -> None:
    """Writes what new mail does not have yet: attempts, and what was answered."""
    db.executemany(
        "UPDATE deliveries SET attempts=?, reply=? WHERE id=? AND number=?",
        [(row.item.attempts, row.reply, id_, row.item.number) for row in rows],
    )
