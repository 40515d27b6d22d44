"""Values in a file with a row for each recipient, which changes now and then."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import apsw

from gateway.hooks import Context, Message, Recipient
from plugins.personalization.sources import csv_index
from plugins.personalization.sources.address import exact
from plugins.personalization.sources.config import CsvConfig
from plugins.personalization.sources.csv_index import (
    Index,
    IndexingError,
    Table,
    TableError,
    Version,
    open_index,
)
from plugins.personalization.sources.outage import Outage
from plugins.personalization.sources.source import SourceError, Values
from plugins.personalization.sources.values import MOST_ROWS

LOOK_EVERY = 1.0
"""Seconds between two looks at the file."""
TRY_AGAIN = 30.0
"""Seconds after which an index is tried again that could not be made, as on a full disk."""
_LOOK_FOR_ANOTHER = 0.05


def sweep(folder: Path, keep: Iterable[str]) -> None:
    """Removes the indexes of files that are no longer configured so."""
    kept = {*keep}
    for path in folder.glob("csv-*"):
        name = path.name.partition(".")[0]
        if f"{name}.sqlite" not in kept:
            path.unlink(missing_ok=True)


class CsvSource:
    """Looks recipients up in an index of the file that all workers share.

    Whoever first sees that the file is another one builds the index. The old one is used
    meanwhile, and for as long as the new file is wrong.
    """

    def __init__(self, config: CsvConfig) -> None:
        self._table = Table(
            str(config.file),
            config.key,
            config.encoding,
            config.delimiter,
            skip=config.bad_rows == "skip",
        )
        self._rows = config.rows
        self._outage = Outage(f"csv {config.file}")
        self._log = logging.getLogger(__name__)
        self._index: Index | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def index_name(self) -> str:
        """The file name of the index in the plugin's folder."""
        return self._table.index_name

    async def start(self, context: Context) -> None:
        """Makes sure that there is an index of the file as it is now, and watches the file.

        Raises:
            TableError: the file cannot be used; names it and the line.
            OSError: the index cannot be made.
        """
        self._log = context.log
        self._outage.start(context.log)
        target = context.data_folder() / self.index_name
        while True:
            if await self._renew(target, await self._version()):
                break
            await asyncio.sleep(_LOOK_FOR_ANOTHER)
        self._watch = asyncio.create_task(self._keep_up(target))

    async def stop(self) -> None:
        """Stops watching and closes the index."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None
        if self._index is not None:
            self._index.connection.close()
            self._index = None

    async def values(self, message: Message, recipient: Recipient) -> Values | None:
        """The row of a recipient, or its rows.

        Raises:
            SourceError: the index cannot be read, or there are too many rows; temporary.
        """
        assert self._index is not None, "not started"
        address = recipient.address
        try:
            rows = self._index.rows(address)
        except apsw.Error as error:
            self._outage.failed(f"the index cannot be read: {error}")
            raise SourceError("The recipient's data cannot be read", temporary=True) from None
        if not rows:
            return None
        if len(rows) > 1:
            wanted = exact(address)
            rows = [row for row in rows if exact(row[self._table.key]) == wanted] or rows
        if self._rows is None:
            return rows[0]
        if len(rows) > MOST_ROWS:
            self._outage.failed(f"there are more than {MOST_ROWS} rows for {address!r}")
            raise SourceError("There is too much data about the recipient", temporary=True)
        rows.reverse()
        return {self._rows: rows}

    async def _version(self) -> Version:
        try:
            # Not in the loop: a file server may be slow to answer, or never do it.
            return await asyncio.to_thread(self._table.version)
        except OSError as error:
            raise IndexingError(f"{self._table.path}: cannot be read: {error.strerror}") from None

    async def _keep_up(self, target: Path) -> None:
        seen: Version | None = None
        refused: Version | None = None
        complaint = ""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            version = None
            problem = ""
            try:
                version = await self._version()
                assert self._index is not None
                if version in (self._index.version, refused):
                    continue
                # One that is being written is left alone until it has not changed for a while.
                settled, seen = version == seen, version
                if settled and await self._renew(target, version):
                    self._log.info("%s was read again", self._table.path)
                    complaint = ""
            except TableError as error:
                refused, problem = version, str(error)
            except OSError as error:
                problem = str(error)
            if problem and problem != complaint:
                self._log.error("%s; the values stay as they were", problem)
                complaint = problem
            if problem and version is not None and version != refused:
                await asyncio.sleep(TRY_AGAIN)

    async def _renew(self, target: Path, version: Version) -> bool:
        """Takes over an index of this version of the file, which is built if need be.

        False if another process is building it, or the file is another one now.

        Raises:
            TableError: the file cannot be used.
            OSError: the index cannot be made now.
        """
        if self._take(target, version):
            return True
        with _lock(target.with_suffix(".lock")) as ours:
            if not ours:
                return False
            if not self._take(target, version):
                for left in target.parent.glob(f"{target.stem}.*.part"):
                    left.unlink(missing_ok=True)
                await self._build(target)
        return self._take(target, version)

    def _take(self, target: Path, version: Version) -> bool:
        if self._index is not None and self._index.version == version:
            return True
        index = open_index(target)
        if index is None:
            return False
        if index.version != version:
            index.connection.close()
            return False
        if self._index is not None:
            self._index.connection.close()
        self._index = index
        return True

    async def _build(self, target: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", csv_index.__name__),
            *(json.dumps(asdict(self._table)), str(target)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            answer = json.loads(output)
        except ValueError:
            last = errors.decode(errors="replace").strip().rpartition("\n")[2]
            reason = last or f"exit status {process.returncode}"
            raise IndexingError(f"{self._table.path}: cannot be indexed: {reason}") from None
        if "refused" in answer:
            raise TableError(answer["refused"])
        if "failed" in answer:
            raise IndexingError(answer["failed"])
        for bad in answer["named"]:
            self._log.warning("row left out: %s", bad)
        if answer["bad"]:
            self._log.warning(
                "%s: %d rows left out, %d used", self._table.path, answer["bad"], answer["rows"]
            )


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether this process may build. The kernel lets the lock go when the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except BlockingIOError:
            ours = False
        yield ours
    finally:
        os.close(descriptor)
