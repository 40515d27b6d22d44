"""Whether the file of limits is in order: every valid record is the one that its key leads to."""

from __future__ import annotations

from pathlib import Path

from gateway.limits.layout import FREE, KEY, PLACES, RECORD, USED
from gateway.limits.limits_file import LimitsFile
from gateway.limits.table import Table, is_sound


def check(path: Path) -> int:
    """Raises AssertionError, or returns how many records are valid."""
    file = LimitsFile.open(path, PLACES)
    table = Table(file, path)
    valid = 0
    assert file.words[USED] <= file.header.places
    for number in range(file.words[USED]):
        offset = file.header.records + number * RECORD
        record = file.octets[offset : offset + RECORD]
        if record[0] != FREE:
            assert is_sound(record), record
            beginning = record[: KEY + record[1]]
            assert table.find(beginning, table.chain(beginning)) == offset, record
            valid += 1
    file.close()
    return valid
