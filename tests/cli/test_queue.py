"""`gateway queue` where nobody holds the shards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.command import gateway
from tests.assembly import Assembly, configure, until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A queue with three recipients: two deferred, of two messages, and one held."""

    async def fill() -> None:
        config = configure(tmp_path, "relay: {via: ['127.0.0.1:1']}")
        async with Assembly(config) as assembly:
            await assembly.submit("b@example.net", "c@example.org")
            await assembly.submit("d@a_b.example", sender="s@example.com")
            await until(lambda: len(assembly.rows(state="deferred")) == 3, "the deferrals")

    asyncio.run(fill())
    _queue(tmp_path, "hold", "--recipient", "c@example.org")
    return tmp_path


def _queue(folder: Path, *arguments: str, stdin: str = "", status: int = 0) -> Result:
    words = ["queue", *arguments, "-c", str(folder / "gateway.yaml")]
    result = CliRunner().invoke(gateway, words, input=stdin)
    assert result.exit_code == status, result.output
    return result


def _listed(folder: Path, *arguments: str) -> list[str]:
    output = _queue(folder, "list", "--json", *arguments).stdout
    return [json.loads(line)["recipient"] for line in output.splitlines()]


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        ([], ["b@example.net", "c@example.org", "d@a_b.example"]),
        (["--limit", "1"], ["b@example.net"]),
        (["--sender", "S@example.com"], ["d@a_b.example"]),
        (["--recipient", "B@EXAMPLE.NET"], ["b@example.net"]),
        (["--recipient", "b@%"], []),
        (["--domain", "Example.ORG"], ["c@example.org"]),
        (["--domain", "a_b.example"], ["d@a_b.example"]),
        (["--domain", "ab.example"], []),
        (["--domain", "%"], []),
        (["--domain", "org"], []),
        (["--stream", "default"], ["b@example.net", "c@example.org", "d@a_b.example"]),
        (["--stream", "bulk"], []),
        (["--state", "held"], ["c@example.org"]),
        (["--state", "deferred", "--domain", "example.net"], ["b@example.net"]),
        (["--state", "active"], []),
    ],
)
def test_list_selects(folder: Path, selection: list[str], found: list[str]) -> None:
    assert _listed(folder, *selection) == found


def test_list_and_show_for_people(folder: Path) -> None:
    result = _queue(folder, "list")
    assert "deferred  <a@example.com> → <b@example.net>" in result.stdout
    assert "1 so far: " in result.stdout
    assert "held      <a@example.com> → <c@example.org>\n    held by hand" in result.stdout
    assert result.stderr == "3 in the queue.\n"
    identifier = result.stdout.split()[0]
    shown = _queue(folder, "show", identifier.lower()).output
    assert shown.startswith(f"{identifier}  from <a@example.com>, ")
    assert "\nSubject: test\n" in shown
    content = _queue(folder, "show", identifier, "--content").output
    assert content.endswith("Subject: test\n\nHello\n")


def test_changes(folder: Path) -> None:
    assert "1 recipient released" in _queue(folder, "release", "--state", "held").output
    assert _listed(folder, "--state", "active") == ["c@example.org"]
    assert "2 recipients to be tried now" in _queue(folder, "retry", "--all").output
    assert "3 recipients held" in _queue(folder, "hold", "--all").output
    assert "0 recipients to be tried now" in _queue(folder, "retry", "--all").output
    refused = _queue(folder, "drop", "--domain", "example.net", stdin="n\n", status=1)
    assert "Delete 1 recipient for good?" in refused.output
    assert len(_listed(folder)) == 3
    assert (
        "1 recipient dropped"
        in _queue(folder, "drop", "--domain", "example.net", stdin="y\n").output
    )
    assert json.loads(_queue(folder, "drop", "--all", "--yes", "--json").output) == {
        "changed": 2,
        "busy": 0,
    }
    assert _queue(folder, "list").stderr == "The queue is empty.\n"


def test_stats(folder: Path) -> None:
    data = json.loads(_queue(folder, "stats", "--json").output)
    (lane,) = data["lanes"]
    assert (lane["active"], lane["deferred"], lane["held"]) == (0, 2, 1)
    assert data["workers"] == []
    text = _queue(folder, "stats").output
    assert text.splitlines()[0].split() == ["lane", "active", "deferred", "held", "size", "oldest"]
    assert text.endswith("The gateway is not running.\n")


def test_what_makes_no_sense_is_refused(folder: Path) -> None:
    assert "name queue ids" in _queue(folder, "drop", status=2).output
    assert "is no queue id" in _queue(folder, "drop", "nonsense", "--yes", status=1).output
    assert "is no queue id" in _queue(folder, "show", "nonsense", status=1).output
    assert "is not in the queue" in _queue(folder, "show", "0000000000000", status=1).output
    assert len(_listed(folder)) == 3


def test_a_damaged_shard_is_named(folder: Path) -> None:
    (folder / "spool" / "0001.db").write_bytes(b"no database " * 1000)
    for name in ("0001.db-wal", "0001.db-shm"):
        (folder / "spool" / name).unlink(missing_ok=True)
    said = _queue(folder, "list", status=1).output
    assert "0001.db cannot be read" in said
    assert "0001.db" in _queue(folder, "hold", "--all", status=1).output


def test_no_spool_is_an_empty_queue(tmp_path: Path) -> None:
    configure(tmp_path)
    assert _queue(tmp_path, "list").stderr == "The queue is empty.\n"
    assert not (tmp_path / "spool").exists()
