from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from plugins.suppression.address import Spelling
from plugins.suppression.database import DatabaseError, open_to_read, open_to_write, transaction
from plugins.suppression.entry import Entry
from plugins.suppression.inventory import Count, Inventory
from plugins.suppression.lookup import Lookup
from plugins.suppression.writer import FIRST_BATCH, Merged, Writer
from tests.plugins.suppression_site import NOW, Site, entry

SENDER, STREAM = "sender:shop.example.com", "stream:bulk"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "suppression.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    with Writer(path) as writer:
        yield writer


@pytest.fixture
def lookup(path: Path, writer: Writer) -> Iterator[Lookup]:
    lookup = Lookup(path, Spelling(), lambda: NOW)
    yield lookup
    lookup.close()


def found(lookup: Lookup, address: str) -> list[tuple[str, str, str]]:
    local, _, domain = address.partition("@")
    return sorted(lookup.find(Spelling().target(local, domain), SENDER, STREAM))


def content(path: Path) -> list[Entry]:
    with Inventory(path) as inventory:
        return list(inventory.entries())


# Changes are seen at once.


def test_each_change_is_seen_by_the_next_look_up(writer: Writer, lookup: Lookup) -> None:
    assert found(lookup, "taro@example.com") == []

    writer.add([entry("taro@example.com"), entry("@example.com", SENDER, "bounce")])
    assert found(lookup, "taro@example.com") == [
        ("@example.com", SENDER, "bounce"),
        ("taro@example.com", "", "manual"),
    ]

    assert writer.remove(["taro@example.com"], None, None) == 1
    assert found(lookup, "taro@example.com") == [("@example.com", SENDER, "bounce")]


def test_patterns_are_read_again_when_one_has_changed(writer: Writer, lookup: Lookup) -> None:
    assert found(lookup, "info@example.com") == []

    writer.add([entry("info@*", expires=int(NOW) - 1)])
    assert found(lookup, "info@example.com") == []
    # Only its end changes.
    writer.add([entry("info@*", expires=int(NOW) + 1)])
    assert found(lookup, "info@example.com") == [("info@*", "", "manual")]

    writer.add([entry("in*@*", STREAM), entry("*@example.*", "stream:other")])
    assert found(lookup, "info@example.com") == [
        ("in*@*", STREAM, "manual"),
        ("info@*", "", "manual"),
    ]

    writer.remove(["info@*", "in*@*"], None, None)
    assert found(lookup, "info@example.com") == []


def test_a_list_without_patterns_keeps_none_in_memory(
    writer: Writer, lookup: Lookup, path: Path
) -> None:
    """The index that patterns are read by holds nothing else, however long the list is."""
    writer.add([entry(f"a{number}@example.com") for number in range(100)])
    db = open_to_read(path)
    plan = str(
        db.execute(
            "EXPLAIN QUERY PLAN SELECT address FROM entries WHERE instr(address, '*')"
        ).fetchall()
    )
    db.close()
    assert "USING INDEX patterns" in plan or "USING COVERING INDEX patterns" in plan


def test_streams_are_known_to_matter_once_there_is_an_entry_for_one(
    writer: Writer, lookup: Lookup
) -> None:
    writer.add([entry("taro@example.com", SENDER)])
    assert not lookup.has_stream_scopes()
    writer.add([entry("taro@example.com", STREAM)])
    assert lookup.has_stream_scopes()


# What is there is never made weaker.


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(None, None, None), (None, 5, None), (5, None, None), (5, 9, 9), (9, 5, 9), (5, 5, 5)],
)
@pytest.mark.parametrize("note", ["", "new"])
@pytest.mark.parametrize("way", ["add", "import", "one file"])
def test_the_later_end_holds(
    writer: Writer,
    path: Path,
    before: int | None,
    after: int | None,
    expected: int | None,
    way: str,
    note: str,
) -> None:
    old = entry("taro@example.com", expires=before, added=1, source="import", note="old")
    new = entry("taro@example.com", expires=after, added=2, source="command", note=note)
    if way == "one file":
        merged = merge(writer, [old, new])
        assert (merged.rows, merged.new) == (1, 1)
    else:
        writer.add([old])
        merged = writer.add([new]) if way == "add" else merge(writer, [new])
        assert merged == Merged(1, 0, int(before != expected or note != ""))
    assert content(path) == [old._replace(expires=expected, note=note or "old")]


def merge(writer: Writer, entries: list[Entry]) -> Merged:
    writer.stage(entries)
    merged = Merged()
    for merged in writer.merge():  # noqa: B007 - the last one counts
        pass
    return merged


def test_a_note_goes_only_for_another_one(writer: Writer, path: Path) -> None:
    writer.add([entry("taro@example.com", note="old")])
    assert writer.add([entry("taro@example.com")]) == Merged(1, 0, 0)
    assert writer.add([entry("taro@example.com", note="new")]) == Merged(1, 0, 1)
    assert [one.note for one in content(path)] == ["new"]


def test_each_scope_and_reason_is_an_entry_of_its_own(writer: Writer, path: Path) -> None:
    rows = [
        entry("taro@example.com", scope, reason)
        for scope in ("", SENDER, STREAM)
        for reason in ("bounce", "complaint")
    ]
    assert writer.add(rows) == Merged(6, 6, 0)
    assert content(path) == rows

    assert writer.remove(["taro@example.com"], SENDER, "bounce") == 1
    assert writer.remove(["taro@example.com"], SENDER, None) == 1
    assert writer.remove(["taro@example.com"], None, "bounce") == 2
    assert content(path) == [rows[1], rows[5]]


def test_adding_is_all_or_nothing(writer: Writer, path: Path) -> None:
    broken = entry("jiro@example.com", reason=None)  # type: ignore[arg-type]
    with pytest.raises(DatabaseError, match="cannot be written"):
        writer.add([entry("taro@example.com"), broken])
    assert content(path) == []


@pytest.mark.parametrize("count", [0, 1, FIRST_BATCH, FIRST_BATCH + 1, 3 * FIRST_BATCH + 7])
def test_many_entries_come_in_batches_and_none_is_lost(
    writer: Writer, path: Path, count: int
) -> None:
    rows = [entry(f"a{number}@example.com") for number in range(count)]
    writer.add(rows[::10])

    writer.stage(reversed(rows))
    assert writer.staged() == count
    steps = [(merged.rows, merged.new) for merged in writer.merge()]

    assert steps == sorted(steps)
    if count:
        assert steps[-1] == (count, count - len(rows[::10]))
        assert steps[0][0] <= FIRST_BATCH
    assert content(path) == sorted(rows)


def test_others_write_between_the_batches(writer: Writer, path: Path) -> None:
    writer.stage(entry(f"a{number}@example.com") for number in range(2 * FIRST_BATCH))
    batches = writer.merge()
    next(batches)
    with Writer(path) as other:
        other.add([entry("taro@example.com")])
        assert len(content(path)) == FIRST_BATCH + 1
    assert len([*batches]) >= 1
    assert len(content(path)) == 2 * FIRST_BATCH + 1


def test_entries_that_have_ended_can_be_removed(writer: Writer, path: Path) -> None:
    ended = [entry(f"a{number}@example.com", expires=10) for number in range(FIRST_BATCH + 5)]
    kept = [entry("b@example.com", expires=11), entry("c@example.com")]
    merge(writer, [*ended, *kept])

    assert [*writer.remove_ended(10.0)][-1] == FIRST_BATCH + 5
    assert content(path) == kept
    assert [*writer.remove_ended(10.0)] == []


def test_entries_are_counted_by_reason_and_scope(writer: Writer, path: Path) -> None:
    writer.add(
        [
            entry("a@example.com", "", "bounce"),
            entry("b@example.com", "", "bounce", expires=5),
            entry("a@example.com", SENDER, "bounce"),
            entry("a@example.com", STREAM, "complaint", expires=7),
        ]
    )
    with Inventory(path) as inventory:
        assert sorted(inventory.counts(5.0)) == [
            Count("bounce", "", 2, 1),
            Count("bounce", "sender", 1, 0),
            Count("complaint", "stream", 1, 0),
        ]
        assert [one.scope for one in inventory.entries(SENDER)] == [SENDER]
        assert [one.scope for one in inventory.entries(None, "complaint")] == [STREAM]
        assert (inventory.size(), inventory.size("", "bounce")) == (4, 2)


# The file.


OPEN = """
import pathlib, sys, time
from plugins.suppression.database import open_to_read, open_to_write
path, start = map(pathlib.Path, sys.argv[1:])
print("ready", flush=True)
while not start.exists():
    time.sleep(0)
for _ in range(10):
    open_to_write(path).close()
    open_to_read(path).close()
"""


def test_processes_that_start_at_once_make_one_database(path: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    command = [sys.executable, "-c", OPEN, str(path), str(start)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    start.touch()
    assert [process.communicate(timeout=60)[1] for process in processes] == [b""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert content(path) == []


def test_only_its_owner_may_read_it(path: Path, writer: Writer) -> None:
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_what_was_written_is_on_the_disk(path: Path, writer: Writer) -> None:
    db = open_to_write(path)
    assert db.pragma("journal_mode") == "wal"
    assert db.pragma("synchronous") == 2
    db.close()


def test_a_connection_that_reads_cannot_write(path: Path, writer: Writer) -> None:
    db = open_to_read(path)
    with pytest.raises(DatabaseError, match="cannot be written"), transaction(db):
        db.execute("DELETE FROM entries")
    db.close()


def test_a_newer_database_is_refused(path: Path) -> None:
    db = open_to_write(path)
    db.pragma("user_version", 7)
    db.close()
    for open_it in (open_to_write, open_to_read):
        with pytest.raises(DatabaseError, match=r"has format 7, and .* reads format 1"):
            open_it(path)


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    db = apsw.Connection(os.fspath(path))
    db.execute("CREATE TABLE other (value); INSERT INTO other VALUES (1)")
    db.close()
    for open_it in (open_to_write, open_to_read):
        with pytest.raises(DatabaseError, match=r"suppression\.db is no suppression list"):
            open_it(path)
    db = apsw.Connection(os.fspath(path))
    assert db.execute("SELECT value FROM other").get == 1
    db.close()


@pytest.mark.parametrize(
    "octets", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(8192)]
)
def test_a_damaged_database_is_a_clear_error_at_the_start(tmp_path: Path, octets: bytes) -> None:
    site = Site(tmp_path)
    site.path.parent.mkdir()
    site.path.write_bytes(octets)
    with pytest.raises(DatabaseError, match=r"suppression\.db (is damaged: .* move it away|is no)"):
        site.plugin()
    assert site.path.read_bytes() == octets


def test_a_database_that_breaks_later_fails_the_look_up(path: Path) -> None:
    with Writer(path) as writer:
        merge(writer, [entry(f"a{number}@example.com") for number in range(20_000)])
    lookup = Lookup(path, Spelling(), lambda: NOW)
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 20 * 4096))
    for _ in range(2):
        with pytest.raises(DatabaseError, match=r"suppression\.db cannot be read"):
            found(lookup, "a777@example.com")
    lookup.close()


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"missing/suppression\.db: No such file"):
        open_to_write(tmp_path / "missing" / "suppression.db")
