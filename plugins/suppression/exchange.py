"""Lists in files: CSV, JSON lines, or an address on each line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import TextIOWrapper
from itertools import chain
from typing import BinaryIO, Protocol

from plugins.suppression.address import normal_entry
from plugins.suppression.entry import (
    Entry,
    format_scope,
    format_time,
    parse_expiry,
    parse_note,
    parse_reason,
    parse_scope,
    parse_time,
)

COLUMNS = Entry._fields

_COMMENT = re.compile(r"(?:^|\s)#.*")
_UNDECODED = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be an entry: the number of its first line, and what is wrong."""

    line: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for rows that do not say it themselves; `now` is in seconds since the epoch."""

    scope: str
    reason: str
    expires: int | None
    source: str
    note: str
    now: float


Report = Callable[[BadRow], None]


def read_list(file: BinaryIO, encoding: str, defaults: Defaults, report: Report) -> Iterator[Entry]:
    """Reads a list of whichever kind it is: a line without an `@` on top makes it CSV.

    Args:
        file: its octets.
        encoding: of its text, such as `utf-8` or `cp932`.
        defaults: what holds where rows do not say it.
        report: told of each row that is wrong, which is left out.

    Raises:
        LookupError: there is no such encoding.
        ValueError: the columns of a CSV file are wrong.
    """
    # Octets that are not in the encoding are marked, so that their row can be named. Only LF ends
    # a line here: others may be in a text.
    codec = "utf-8-sig" if encoding == "utf-8" else encoding
    lines = TextIOWrapper(file, codec, "surrogateescape", newline="\n")
    try:
        numbered = enumerate(lines, 1)
        head = next(((n, line) for n, line in numbered if _COMMENT.sub("", line).strip()), None)
        if head is None:
            return
        number, first = head
        rows = _Rows(defaults, encoding)
        if first.lstrip().startswith('{"'):
            yield from _read_json(number, chain((first,), lines), rows, report)
        elif "@" in first:
            yield from _read_plain(number, chain((first,), lines), rows, report)
        else:
            yield from _read_csv(number, first, lines, rows, report)
    finally:
        lines.detach()


def _read_plain(number: int, lines: Iterable[str], rows: _Rows, report: Report) -> Iterator[Entry]:
    for line_number, line in enumerate(lines, number):
        text = (_COMMENT.sub("", line) if "#" in line else line).strip()
        if not text:
            continue
        try:
            yield rows.entry({"address": text})
        except ValueError as error:
            report(BadRow(line_number, str(error)))


def _read_json(number: int, lines: Iterable[str], rows: _Rows, report: Report) -> Iterator[Entry]:
    for line_number, line in enumerate(lines, number):
        if not line.strip():
            continue
        try:
            yield rows.entry(_fields(line))
        except ValueError as error:
            report(BadRow(line_number, str(error)))


def _fields(line: str) -> dict[str, str]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError("is no JSON object")
    for name, value in fields.items():
        if name not in COLUMNS:
            raise ValueError(f"there is no key {name!r}; expected {', '.join(COLUMNS)}")
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is no text")
    return {name: value for name, value in fields.items() if value is not None}


def _read_csv(
    number: int, first: str, lines: Iterable[str], rows: _Rows, report: Report
) -> Iterator[Entry]:
    columns = [name.strip().lower() for name in next(csv.reader([first]), [])]
    expected = f"expected {', '.join(COLUMNS)}, of which address must be there"
    for name in columns:
        if name not in COLUMNS:
            raise ValueError(f"line {number}: there is no column {name!r}; {expected}")
    if len(set(columns)) < len(columns) or "address" not in columns:
        raise ValueError(f"line {number}: the columns are {', '.join(columns)}; {expected}")
    reader = csv.reader(lines, strict=True)
    while True:
        line_number = number + reader.line_num + 1
        try:
            row = next(reader)
            if not row:
                continue
            if len(row) != len(columns):
                raise ValueError(f"has {len(row)} fields where the first line has {len(columns)}")
            yield rows.entry(dict(zip(columns, row, strict=True)))
        except StopIteration:
            return
        except (ValueError, csv.Error) as error:
            report(BadRow(line_number, str(error)))


class _Rows:
    """Makes entries of fields; lists repeat what they say, so that is remembered."""

    def __init__(self, defaults: Defaults, encoding: str) -> None:
        self._defaults = defaults
        self._encoding = encoding
        self._reason = lru_cache(maxsize=64)(parse_reason)
        self._scope = lru_cache(maxsize=1024)(parse_scope)
        self._time = lru_cache(maxsize=1024)(parse_time)
        self._expiry = lru_cache(maxsize=1024)(lambda text: parse_expiry(text, defaults.now))

    def entry(self, fields: Mapping[str, str]) -> Entry:
        """The entry that fields, named as `COLUMNS`, describe.

        Raises:
            ValueError: they describe none.
        """
        for text in fields.values():
            if not text.isascii() and _UNDECODED.search(text):
                raise ValueError(f"is not {self._encoding}")
        get = fields.get
        defaults = self._defaults
        scope = get("scope", "").strip()
        reason = get("reason", "").strip()
        expires = get("expires", "").strip()
        added = get("added", "").strip()
        return Entry(
            normal_entry(get("address", "").strip()),
            self._scope(scope) if scope else defaults.scope,
            self._reason(reason) if reason else defaults.reason,
            self._expiry(expires) if expires else defaults.expires,
            self._time(added) if added else int(defaults.now),
            parse_note(get("source", "")) or defaults.source,
            parse_note(get("note", "")) or defaults.note,
        )


class TextFile(Protocol):
    """What text can be written into."""

    def write(self, text: str, /) -> object:
        """Writes a text."""


def write_csv(entries: Iterable[Entry], file: TextFile) -> int:
    """Writes entries as `read_list` reads them, and returns how many they were."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for entry in entries:
        writer.writerow([value or "" for value in described(entry).values()])
        count += 1
    return count


def write_json(entries: Iterable[Entry], file: TextFile) -> int:
    """Writes entries as JSON lines, and returns how many they were."""
    count = 0
    for entry in entries:
        file.write(json.dumps(described(entry), ensure_ascii=False) + "\n")
        count += 1
    return count


def described(entry: Entry) -> dict[str, str | None]:
    """An entry in words, by column; an end that never comes is None."""
    return {
        **entry._asdict(),
        "scope": format_scope(entry.scope),
        "expires": None if entry.expires is None else format_time(entry.expires),
        "added": format_time(entry.added),
    }
