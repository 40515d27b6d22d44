"""A shard that SQLite cannot read: the mail that is still in its file, and in its log.

Only what is as it was written counts as found: contents, envelopes and recipients have checksums.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.mail.large_content import LARGE, Content, DamagedContentError
from gateway.spool.database_page import (
    Cell,
    DamagedRecordError,
    Record,
    cell,
    cells,
    free_pages,
    is_lost,
    page_count,
)
from gateway.spool.queue_entry import Envelope, Item, envelope_of, has_checksum, item_of
from gateway.spool.shard_file import PAGE_SIZE
from gateway.spool.stored_content import StoredContent
from gateway.spool.write_ahead_log import ReadAt, committed_pages

LOCK_PAGE = (1 << 30) // PAGE_SIZE + 1
"""SQLite never uses the page at 1 GiB: locks are there."""

Key = tuple[int, int]
"""A recipient: queue id and number."""

_MESSAGE = re.compile(r"ni[ir]ttiitb")
_PART = re.compile(r"iib")
_DELIVERY = re.compile(r"iiitit[tn][irn][tn]it")
"""The columns of the tables, as `Record.shape` tells them."""

_DAMAGED = (DamagedRecordError, ValueError, TypeError, KeyError, AttributeError)

_Place = tuple[int, int, int]
"""Where a row is: the version of its page, the page, and which of its rows it is."""


@dataclass(frozen=True, slots=True)
class FoundDelivery:
    """A recipient that is as it was written."""

    item: Item
    lane: str
    priority: int
    held: str | None
    reply: str


@dataclass(slots=True)
class FoundMessage:
    """A copy of a message, and its recipients, as far as they are there.

    Attributes:
        copy: its number; id: the queue id.
        is_there: whether anything of the message itself was found.
        envelope: None if it is damaged, or not there.
        content: None if it is damaged, or not there.
        remains: what there is of a damaged content.
        deliveries: the recipients.
        damaged: recipients whose checksum does not fit, as far as they can be read.
    """

    copy: int
    id: int
    is_there: bool = False
    envelope: Envelope | None = None
    content: Content | None = None
    remains: Callable[[], Iterator[bytes]] = field(default=lambda: iter(()))
    deliveries: list[FoundDelivery] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


class DamagedShard:
    """The files of a shard that nobody holds. They are read, and left as they are.

    Args:
        path: the database; its log is beside it, with `-wal` at the end of the name.

    Attributes:
        pages: how many there are.
        lost_pages: how many of them are destroyed, missing, or cannot be read; known after `find`.
        lost_rows: how many places of rows there are with nothing that makes sense.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._files = contextlib.ExitStack()
        read, length = self._open(path)
        log: ReadAt
        try:
            log, log_length = self._open(path.with_name(f"{path.name}-wal"))
        except FileNotFoundError:
            log, log_length = (lambda at, size: b""), 0
        except BaseException:
            self._files.close()
            raise
        self._read = read
        self._log = log
        self._versions = committed_pages(log, log_length, PAGE_SIZE)
        self.pages = max(-(-length // PAGE_SIZE), *self._versions, 0)
        self.lost_pages = 0
        self.lost_rows = 0
        self._messages: dict[int, list[_Place]] = {}
        self._parts: dict[Key, list[_Place]] = {}
        self._deliveries: dict[int, dict[Key, list[_Place]]] = {}

    def _open(self, path: Path) -> tuple[ReadAt, int]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._files.callback(os.close, descriptor)
        return partial(_read_at, descriptor), os.fstat(descriptor).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    # Pages.

    def _page(self, number: int) -> bytes:
        """The newest version of a page; empty if there is none that can be read.

        Where the file ends in the middle of it, the rest is NUL.
        """
        place = self._versions.get(number)
        if place is not None:
            page = self._log(place, PAGE_SIZE)
        elif 0 < number <= self.pages:
            page = self._read((number - 1) * PAGE_SIZE, PAGE_SIZE)
        else:
            return b""
        return page.ljust(PAGE_SIZE, b"\0") if page else b""

    def _version(self, number: int) -> int:
        return self._versions.get(number, 0)

    def find(self, advance: Callable[[int], None] = lambda pages: None) -> None:
        """Looks for rows in all pages; `advance` is told how many were looked at since."""
        free = free_pages(self._page, self._version, self.pages)
        self.lost_pages += max(0, page_count(self._page(1)) - self.pages)
        for number in range(1, self.pages + 1):
            advance(1)
            if number in free or number == LOCK_PAGE:
                continue
            page = self._page(number)
            # The first page has the header of the file; its rows are those of the schema.
            if number == 1:
                self.lost_pages += page_count(page) == 0
                continue
            self.lost_pages += is_lost(page)
            for index, one in enumerate(cells(page, number)):
                if one is None or not self._note(one, (self._version(number), number, index)):
                    self.lost_rows += 1

    def _note(self, found: Cell, place: _Place) -> bool:
        """Keeps in mind where a row is; False if it is none."""
        try:
            record = Record(found, self._page)
            if _MESSAGE.fullmatch(record.shape):
                if found.rowid < 0:
                    return False
                self._messages.setdefault(found.rowid, []).append(place)
            elif _PART.fullmatch(record.shape):
                copy, number = _numbers(record, 0, 1)
                self._parts.setdefault((copy, number), []).append(place)
            elif _DELIVERY.fullmatch(record.shape):
                id_, number, copy = _numbers(record, 0, 1, 2)
                of_copy = self._deliveries.setdefault(copy, {})
                of_copy.setdefault((id_, number), []).append(place)
        except DamagedRecordError:
            return False
        return True

    def _records(self, places: list[_Place]) -> Iterator[Record]:
        """The versions of a row, the newest first."""
        for _, number, index in sorted(places, reverse=True):
            found = cell(self._page(number), number, index)
            if found is not None:
                with contextlib.suppress(DamagedRecordError):
                    yield Record(found, self._page)

    # Messages.

    @property
    def count(self) -> int:
        """How many copies of messages were found, or of messages whose recipients were, about."""
        return len(self._messages.keys() | self._deliveries.keys())

    def found_keys(self) -> Iterator[Key]:
        """The recipients that were found, sound or not."""
        for of_copy in self._deliveries.values():
            yield from of_copy

    def messages(self) -> Iterator[FoundMessage]:
        """What was found, in the order in which it came. Contents are read one by one."""
        for copy in sorted(self._messages.keys() | self._deliveries.keys()):
            yield from self._of_copy(copy)

    def _of_copy(self, copy: int) -> Iterator[FoundMessage]:
        deliveries = self._deliveries.get(copy, {})
        nothing = FoundMessage(copy, next((id_ for id_, _ in deliveries), copy))
        rows = [
            self._message(copy, record) for record in self._records(self._messages.get(copy, []))
        ]
        # The first of the best is the newest of them.
        best = max(
            rows,
            key=lambda row: (row.envelope is not None, row.content is not None),
            default=nothing,
        )
        for key in sorted(deliveries):
            self._read_delivery(best, key, deliveries[key])
        yield best
        for row in rows:
            # The number of a row has no checksum of its own: this may be another message.
            if row is not best and row.envelope is None and row.content not in (None, best.content):
                yield row

    def _message(self, copy: int, record: Record) -> FoundMessage:
        """What a row says; its envelope and its content are never those of different rows."""
        found = FoundMessage(copy, copy, is_there=True, envelope=_envelope(copy, record))
        with contextlib.suppress(DamagedRecordError):
            (found.id,) = _numbers(record, 1)
            size, checksum = _numbers(record, 5, 6)
            content = record.octets(8)
            if size > LARGE and not content:
                found.remains = partial(self._remains, copy)
                stored = StoredContent(partial(self._part, copy), size, checksum)
                found.content = stored if _is_whole(stored) else None
            elif zlib.crc32(content) == checksum:
                found.content = content
            else:
                found.remains = partial(iter, (content,))
        return found

    def _part(self, copy: int, number: int) -> bytes | None:
        for record in self._records(self._parts.get((copy, number), [])):
            with contextlib.suppress(DamagedRecordError):
                octets = record.value(2)
                assert isinstance(octets, bytes)
                return octets
        return None

    def _remains(self, copy: int) -> Iterator[bytes]:
        """The parts that are there, without those in between that are not."""
        for _, number in sorted(key for key in self._parts if key[0] == copy):
            yield self._part(copy, number) or b""

    def _read_delivery(self, found: FoundMessage, key: Key, places: list[_Place]) -> None:
        said = "?"
        for record in self._records(places):
            said = _readable(record.octets(5))
            if found.envelope is not None and found.envelope.id != key[0]:
                continue  # its message is another one's
            delivery = _delivery(key[1], record)
            if delivery is not None:
                found.deliveries.append(delivery)
                return
        found.damaged.append(said)


def _read_at(descriptor: int, at: int, size: int) -> bytes:
    """Octets of a file; none where the disk cannot read them."""
    try:
        return os.pread(descriptor, size, at)
    except OSError:
        return b""


def _numbers(record: Record, *columns: int) -> list[int]:
    """Columns that are integers, and not below 0.

    Raises:
        DamagedRecordError: they are not.
    """
    values: list[Any] = record.values(columns)
    if min(values) < 0:
        raise DamagedRecordError("a number is below 0")
    return values


def _envelope(copy: int, record: Record) -> Envelope | None:
    """The envelope of a message, if its checksum fits."""
    try:
        values: list[Any] = record.values((1, 2, 3, 4, 5, 7))
        return envelope_of(copy, *values) if has_checksum(values[-1]) else None
    except _DAMAGED:
        return None


def _delivery(number: int, record: Record) -> FoundDelivery | None:
    """A recipient, if its checksum fits."""
    try:
        values: list[Any] = record.values((3, 4, 5, 6, 9))
        lane, priority, recipient, parameters, attempts = values
        if parameters is None or not has_checksum(parameters):
            return None
        item = item_of(number, recipient, parameters, max(0, attempts))
        # These two are for people.
        held = None if record.shape[8] == "n" else _readable(record.octets(8))
        return FoundDelivery(item, lane, priority, held, _readable(record.octets(10)))
    except _DAMAGED:
        return None


def _readable(octets: bytes) -> str:
    return octets.decode(errors="backslashreplace")


def _is_whole(content: StoredContent) -> bool:
    try:
        for _ in content.blocks():
            pass
    except DamagedContentError:
        return False
    return True
