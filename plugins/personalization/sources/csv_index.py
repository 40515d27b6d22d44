"""A table in a file, made into an SQLite database that all workers look rows up in.

The program `python -m plugins.personalization.sources.csv_index` builds one, in a process of its
own: reading a million rows keeps an interpreter busy for seconds, and a thread would share it with
the mail that passes meanwhile.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from plugins.personalization.sources.address import folded
from plugins.personalization.sources.values import MAX_SIZE, MOST_ROWS, printable

FORMAT = 1
"""Goes up when what is in an index changes, so that older ones are built anew."""

_BLOCK = 500
_MOST_VALUES = 30_000
_MOST_COLUMNS = 1000
_MOST_NAMED = 20

# What people call Shift_JIS has ① and 髙, which only Microsoft's table knows.
_CODECS = {"shift_jis": "cp932"}

Version = tuple[int, int, int]


class TableError(ValueError):
    """The file is not a table that can be used; the text names it, the line and the reason."""


class IndexingError(OSError):
    """The index cannot be made now, whatever the file is like; the text names the file."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file, and how it is to be read.

    Attributes:
        path: the file.
        key: the column with the addresses.
        encoding, delimiter: as the file is written.
        skip: bad rows are left out; otherwise one of them makes the file useless.
    """

    path: str
    key: str
    encoding: str
    delimiter: str
    skip: bool

    @property
    def index_name(self) -> str:
        """The name of the index: another one for everything that changes what is in it."""
        text = json.dumps([FORMAT, asdict(self)])
        return f"csv-{hashlib.sha256(text.encode()).hexdigest()[:16]}.sqlite"

    def version(self) -> Version:
        """What changes when the file does.

        Raises:
            OSError: there is no such file, or it cannot be reached.
        """
        return _version(Path(self.path).stat())


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a file: how many rows there are, how many were left out, and the first."""

    rows: int
    bad: int = 0
    named: list[str] = field(default_factory=list)


def build(table: Table, target: Path) -> Built:
    """Makes an index beside `target` and then puts it there, in one step.

    Raises:
        TableError: the file cannot be used.
        IndexingError: the index cannot be written, or the file not be read.
    """
    part = target.with_suffix(f".{os.getpid()}.part")
    try:
        built = _write(table, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
    except OSError as error:
        raise IndexingError(f"{table.path}: cannot be indexed: {error.strerror}") from None
    except apsw.Error as error:
        raise IndexingError(f"{table.path}: cannot be indexed: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return built


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is open, its columns, and the version of the file that it was made of."""

    connection: apsw.Connection
    columns: list[str]
    version: Version

    def rows(self, address: str) -> list[dict[str, Any]]:
        """The rows of an address in any case, the last one first, and one more than is allowed."""
        found = self.connection.execute(
            "SELECT * FROM rows WHERE address = ? ORDER BY rowid DESC LIMIT ?",
            (folded(address), MOST_ROWS + 1),
        )
        columns = self.columns
        return [dict(zip(columns, row[1:], strict=True)) for row in found]


def open_index(path: Path) -> Index | None:
    """Opens an index to read from; None if there is none that can be read."""
    try:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        # An index never changes: a new one takes its place.
        connection = apsw.Connection(f"file:{quote(str(path))}?immutable=1", flags=flags)
        ((text,),) = connection.execute("SELECT description FROM description").fetchall()
        description = json.loads(str(text))
        mtime, size, inode = description["version"]
        return Index(connection, description["columns"], (mtime, size, inode))
    except (apsw.Error, ValueError, LookupError):
        return None


def _version(status: os.stat_result) -> Version:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _write(table: Table, path: Path) -> Built:
    codec = _CODECS.get(table.encoding, table.encoding)
    with (
        closing(apsw.Connection(str(path))) as connection,
        Path(table.path).open(encoding=codec, errors="surrogateescape", newline="") as file,
    ):
        version = _version(os.fstat(file.fileno()))
        reader = csv.reader(file, delimiter=table.delimiter, strict=True)
        columns = _columns(table, reader)
        names = ", ".join(f"c{number}" for number in range(len(columns)))
        connection.execute(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
            f"BEGIN; CREATE TABLE rows (address, {names}); CREATE TABLE description (description)"
        ).fetchall()
        source = _Rows(table, reader, columns)
        rows = iter(source)
        many = max(1, min(_BLOCK, _MOST_VALUES // (len(columns) + 1)))
        while block := list(islice(rows, many)):
            connection.execute(
                _insertion(len(block), len(columns) + 1), list(chain.from_iterable(block))
            )
        if _version(os.fstat(file.fileno())) != version:
            raise TableError(f"{table.path}: changed while it was read")
        description = json.dumps({"columns": columns, "version": version})
        connection.execute("CREATE INDEX by_address ON rows (address)")
        connection.execute("INSERT INTO description VALUES (?)", (description,))
        connection.execute("COMMIT")
    return source.built


@lru_cache(maxsize=1)
def _insertion(rows: int, columns: int) -> str:
    marks = f"({', '.join('?' * columns)})"
    return f"INSERT INTO rows VALUES {', '.join([marks] * rows)}"  # noqa: S608 - marks only


def _columns(table: Table, reader: Any) -> list[str]:
    try:
        columns = [name.strip() for name in next(reader, [])]
        "".join(columns).encode()
    except csv.Error as error:
        raise TableError(f"{table.path}:1: {error}") from None
    except UnicodeEncodeError:
        raise TableError(f"{table.path}:1: is not {table.encoding}") from None
    if not columns:
        raise TableError(f"{table.path}:1: is empty; expected a row with the names of the columns")
    if table.key not in columns:
        names = printable(", ".join(columns)[:200])
        raise TableError(f"{table.path}:1: has no column {table.key!r}; its columns are: {names}")
    for number, name in enumerate(columns, 1):
        if not name:
            raise TableError(f"{table.path}:1: column {number} has no name")
        if columns.count(name) > 1:
            raise TableError(f"{table.path}:1: two columns have the name {name!r}")
    if len(columns) > _MOST_COLUMNS:
        raise TableError(f"{table.path}:1: has more than {_MOST_COLUMNS} columns")
    return columns


class _Rows:
    """The good rows, each with its address as it compares in front."""

    def __init__(self, table: Table, reader: Any, columns: list[str]) -> None:
        self._table = table
        self._reader = reader
        self._width = len(columns)
        self._key = columns.index(table.key)
        self._rows = 0
        self._bad = 0
        self._first = 0
        self._named: list[str] = []

    @property
    def built(self) -> Built:
        return Built(self._rows, self._bad, self._named)

    @property
    def _line(self) -> int:
        line: int = self._reader.line_num
        return line

    def __iter__(self) -> Iterator[list[str]]:
        width, key, reader = self._width, self._key, self._reader
        while True:
            self._first = self._line + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._refuse(str(error))
                continue
            if not row:
                continue
            flaw = None
            if len(row) != width:
                flaw = f"has {len(row)} values for {width} columns"
            else:
                text = "".join(row)
                if not text.isascii():
                    flaw = self._flaw_of_text(text)
                if flaw is None and ("\0" in text or len(text) > MAX_SIZE):
                    flaw = "has a NUL character" if "\0" in text else "is too long"
                address = row[key].strip()
                if flaw is None and not address.strip("@").count("@"):
                    flaw = f"has no address in the column {self._table.key}"
            if flaw is not None:
                self._refuse(flaw)
                continue
            self._rows += 1
            row[key] = address
            yield [folded(address), *row]

    def _flaw_of_text(self, text: str) -> str | None:
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"is not {self._table.encoding}"
        return None

    def _refuse(self, flaw: str) -> None:
        place = f"{self._table.path}:{self._first}"
        if self._line > self._first:
            place += f"-{self._line}"
        text = f"{place}: {flaw}"
        if not self._table.skip:
            raise TableError(text)
        self._bad += 1
        if len(self._named) < _MOST_NAMED:
            self._named.append(text)


def main(table: str, target: str) -> int:
    """Builds an index and writes what became of it to standard output, as JSON."""
    try:
        answer = asdict(build(Table(**json.loads(table)), Path(target)))
        status = 0
    except TableError as error:
        answer = {"refused": str(error)}
        status = 1
    except IndexingError as error:
        answer = {"failed": str(error)}
        status = 1
    os.write(1, json.dumps(answer).encode())
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
