"""`gateway queue` beside a damaged shard, and `gateway queue salvage`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.command import gateway
from gateway.spool.spool import shard_numbers
from tests.assembly import configure
from tests.faults.queue_file import write_queue
from tests.spool.damage import hurt, no_header

MANY = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A queue with three messages in one shard, and a damaged one with more."""
    configure(tmp_path)
    write_queue(tmp_path / "spool", 1, range(MANY), lambda number: None)
    write_queue(tmp_path / "spool", 2, range(1000, 1003), lambda number: 5.0)
    hurt(tmp_path / "spool" / "0001.db", no_header)
    return tmp_path


def _queue(folder: Path, *arguments: str, status: int = 0, stdin: str = "") -> Result:
    words = ["queue", *arguments, "-c", str(folder / "gateway.yaml")]
    result = CliRunner().invoke(gateway, words, input=stdin)
    assert result.exit_code == status, result.output
    return result


def _named(data: Any, folder: Path) -> None:
    """The field that says which shard cannot be read."""
    path = str(folder / "spool" / "0001.db")
    error = "file is not a database"
    assert data == [{"shard": 1, "file": path, "error": error}]


def test_the_queue_is_listed_without_it(folder: Path) -> None:
    result = _queue(folder, "list", status=3)
    assert result.stdout.count("→") == 3
    assert result.stderr == (
        "3 in the queue.\n"
        f"gateway: {folder / 'spool' / '0001.db'} cannot be read: file is not a database;"
        " its mail is missing here, and can be saved: gateway queue salvage\n"
    )
    *rows, last = map(json.loads, _queue(folder, "list", "--json", status=3).stdout.splitlines())
    assert len(rows) == 3
    _named(last["unreadable"], folder)
    # A list that ends before it comes to that shard knows nothing of it.
    listed = _queue(folder, "show", rows[0]["id"], status=3)
    assert "Subject: number 1000" in listed.stdout
    _named(
        json.loads(_queue(folder, "show", rows[0]["id"], "--json", status=3).stdout)["unreadable"],
        folder,
    )
    assert "cannot be read" in _queue(folder, "show", "0000000000000", status=3).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats"],
        ["hold", "--all", "--yes"],
        ["hold", "--all", "--dry-run"],
        ["retry", "--domain", "example.com"],
        ["release", "--all"],
        ["drop", "--all", "--yes"],
        ["reroute", "--all", "--yes", "--pool", "x"],
        ["pause", "--all", "--yes"],
        ["resume", "--all", "--yes"],
    ],
)
def test_all_commands_work_without_it(folder: Path, arguments: list[str]) -> None:
    assert "0001.db cannot be read" in _queue(folder, *arguments, status=3).stderr
    data = json.loads(_queue(folder, *arguments, "--json", status=3).stdout)
    _named(data["unreadable"], folder)


def test_changes_reach_the_others(folder: Path) -> None:
    assert _queue(folder, "hold", "--all", "--yes", status=3).stdout == "3 recipients held\n"
    listed = _queue(folder, "list", "--state", "held", "--json", status=3).stdout
    assert len(listed.splitlines()) == 3 + 1
    stats = json.loads(_queue(folder, "stats", "--json", status=3).stdout)
    assert stats["lanes"][0]["held"] == 3
    _queue(folder, "pause", "--all", "--yes", status=3)
    said = _queue(folder, "pauses", status=3)
    assert said.stdout.splitlines()[1].endswith("all")
    assert "0001.db cannot be read" in said.stderr
    assert isinstance(json.loads(_queue(folder, "pauses", "--json", status=3).stdout), list)


def test_salvage(folder: Path) -> None:
    said = _queue(folder, "salvage", "--dry-run", status=3).stdout
    assert f"  {MANY} messages to {MANY} recipients can be put back\n" in said
    assert shard_numbers(folder / "spool") == [1, 2]
    refused = _queue(folder, "salvage", status=1).stderr
    assert refused.startswith("shard 0001: file is not a database\n")
    assert refused.endswith("here is no terminal to ask on: say --yes\n")
    assert shard_numbers(folder / "spool") == [1, 2]
    said = _queue(folder, "salvage", "--yes", status=3).stdout
    spool = folder / "spool"
    assert said == (
        "shard 0001: file is not a database\n"
        f"  {MANY} messages to {MANY} recipients put back, held\n"
        "  1 page destroyed, of 11\n"
        f"  all that is missing: {spool / 'salvaged' / '0001.db.json'}\n"
        f"  renamed: {spool / '0001.db.damaged'}\n"
    )
    assert "43 in the queue." in _queue(folder, "list").stderr
    assert _queue(folder, "salvage").stdout == "No shard is damaged that nobody holds.\n"
    released = _queue(folder, "release", "--state", "held", "--yes").stdout
    assert released == f"{MANY} recipients released\n"


def test_salvage_for_programs(folder: Path) -> None:
    # A page of recipients is gone, too.
    path = folder / "spool" / "0001.db"
    octets = bytearray(path.read_bytes())
    at = octets.index(b"r0000005@example.net{")
    octets[at] ^= 1
    path.write_bytes(octets)
    into = folder / "into"
    result = _queue(folder, "salvage", "--yes", "--json", "--into", str(into), status=3)
    assert result.stderr == ""
    data = json.loads(result.stdout)
    (shard,) = data["shards"]
    assert (shard["shard"], shard["messages"], shard["recipients"]) == (1, MANY - 1, MANY - 1)
    (apart,) = shard["apart"]
    assert apart["problem"] == "some recipients are damaged"
    assert apart["damaged"] == ["s0000005@example.net"]
    assert Path(apart["file"]).read_bytes().startswith(b"Subject: number 5\r\n")
    assert shard["report"] == str(into / "0001.db.json")
    assert data["left"] == []
    assert json.loads(_queue(folder, "salvage", "--json").stdout) == {"shards": [], "left": []}


def test_a_shard_by_name(folder: Path) -> None:
    said = _queue(folder, "salvage", "2", "--yes").stdout
    assert said.splitlines()[1] == "  3 messages to 3 recipients put back, held"
    assert "there is no such file" in _queue(folder, "salvage", "7", status=1).stderr


def test_a_shard_of_a_newer_version_is_left_alone(folder: Path) -> None:
    _queue(folder, "salvage", "--yes", status=3)
    path = folder / "spool" / "0002.db"
    octets = bytearray(path.read_bytes())
    octets[60:64] = (99).to_bytes(4)
    path.write_bytes(octets)
    for name in ("0002.db-wal", "0002.db-shm"):
        (folder / "spool" / name).unlink(missing_ok=True)
    said = _queue(folder, "salvage")
    assert "left alone: " in said.stderr
    assert "has format 99" in said.stderr


def test_without_a_spool(tmp_path: Path) -> None:
    configure(tmp_path)
    assert _queue(tmp_path, "salvage").stdout == "No shard is damaged that nobody holds.\n"
    assert not os.path.lexists(tmp_path / "spool")
