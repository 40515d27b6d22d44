"""`gateway queue` where nobody holds the shards."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.command import gateway
from tests.assembly import Assembly, configure, until
from tests.queue.served import Left, leave

NEEDS_AN_ANSWER = "gateway: this needs an answer, and here is no terminal to ask on: say --yes\n"


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
    _queue(tmp_path, "hold", "--recipient", "c@example.org", "--yes")
    return tmp_path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A queue of twelve lanes, with campaigns, clients and streams, and mail for later."""
    configure(tmp_path)
    lanes = [
        Left([f"b@{number}.example"], lane=f"{number}.example", envelope={"user": "shop"})
        for number in range(12)
    ]
    spring = {"notes": {"campaign": "spring"}, "address": "10.0.0.7"}
    more = [
        Left(["c@0.example", "d@0.example"], stream="bulk", lane="0.example", envelope=spring),
        Left(["later@0.example"], lane="0.example", columns={"due": time.time() + 3600}),
    ]
    leave(tmp_path / "spool", [*lanes, *more])
    return tmp_path


def _queue(folder: Path, *arguments: str, stdin: str = "", status: int = 0) -> Result:
    words = ["queue", *arguments, "-c", str(folder / "gateway.yaml")]
    result = CliRunner().invoke(gateway, words, input=stdin)
    assert result.exit_code == status, result.output
    return result


def _on_a_terminal(folder: Path, answer: str, *arguments: str, status: int = 0) -> str:
    """What a command prints that is run on a terminal, where somebody types an answer."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "gateway", "queue", *arguments]
    process = subprocess.Popen(
        [*words, "-c", str(folder / "gateway.yaml")], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    printed = b""
    try:
        while block := os.read(ours, 65536):
            printed += block
    except OSError:
        pass  # all have closed it
    finally:
        os.close(ours)
    assert process.wait(60) == status, printed
    return printed.decode().replace("\r\n", "\n")


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
    assert "deferred   <a@example.com> → <b@example.net>" in result.stdout
    assert "1 so far: " in result.stdout
    assert "held       <a@example.com> → <c@example.org>\n    held by hand" in result.stdout
    assert result.stderr == "3 in the queue.\n"
    identifier = result.stdout.split()[0]
    shown = _queue(folder, "show", identifier.lower()).output
    assert shown.startswith(f"{identifier}  from <a@example.com>, ")
    assert "\nSubject: test\n" in shown
    content = _queue(folder, "show", identifier, "--content").output
    assert content.endswith("Subject: test\n\nHello\n")


def test_changes(folder: Path) -> None:
    said = _queue(folder, "release", "--state", "held", "--yes")
    assert said.stdout == "1 recipient released\n"
    assert _listed(folder, "--state", "active") == ["c@example.org"]
    assert "2 recipients to be tried now" in _queue(folder, "retry", "--all", "--yes").stdout
    assert "3 recipients held" in _queue(folder, "hold", "--all", "--yes").stdout
    assert _queue(folder, "retry", "--all").output == "Nothing matches.\n"
    done = _queue(folder, "drop", "--domain", "example.net", "--yes").stdout
    assert done == "1 recipient dropped\n"
    assert json.loads(_queue(folder, "drop", "--all", "--yes", "--json").stdout) == {
        "changed": 2,
        "busy": 0,
        "paused": 0,
    }
    assert _queue(folder, "list").stderr == "The queue is empty.\n"
    assert _queue(folder, "list", "--lane", "x").stderr == "Nothing matches.\n"


# Asking.


@pytest.mark.parametrize("name", ["retry", "hold", "release", "drop", "reroute"])
def test_what_is_selected_is_asked_about(mixed: Path, name: str) -> None:
    more = ["--pool", "b"] if name == "reroute" else []
    deferred = {"due": time.time() + 3600, "attempts": 1}
    leave(mixed / "spool", [Left(columns={"held": "x", "due": None}), Left(columns=deferred)])
    before = _queue(mixed, "list", "--json").stdout
    result = _queue(mixed, name, "--all", *more, status=1)
    assert result.stderr.endswith(NEEDS_AN_ANSWER)
    assert _queue(mixed, "list", "--json").stdout == before
    assert _queue(mixed, name, "--all", "--yes", *more).exit_code == 0
    assert _queue(mixed, "list", "--json").stdout != before


def test_ids_are_not_asked_about_but_before_they_are_dropped(folder: Path) -> None:
    first, last = (
        json.loads(line)["id"] for line in _queue(folder, "list", "--json").stdout.splitlines()[1:]
    )
    assert _queue(folder, "hold", first, last).output == "2 recipients held\n"
    assert _queue(folder, "release", first, last).output == "3 recipients released\n"
    assert _queue(folder, "reroute", last, "--pool", "b").output == "1 recipient rerouted\n"
    assert _queue(folder, "drop", last, status=1).stderr.endswith(NEEDS_AN_ANSWER)
    # With a condition they are a selection.
    limited = _queue(folder, "hold", first, "--domain", "example.net", status=1)
    assert limited.stderr.endswith(NEEDS_AN_ANSWER)
    assert len(_listed(folder)) == 3


def test_what_would_be_done_is_said_first(mixed: Path) -> None:
    summary = "14 recipients of 13 messages to be held:\n  3  0.example\n" + "".join(
        f"  1  {number}.example\n" for number in range(1, 10)
    )
    result = _queue(mixed, "hold", "--state", "active", "--yes")
    assert result.stderr == f"{summary}  2  in 2 other lanes\n"
    assert result.stdout == "14 recipients held\n"


def test_a_dry_run_changes_nothing(mixed: Path) -> None:
    before = _queue(mixed, "list", "--json").stdout
    dry = ["--all", "--dry-run"]
    for arguments in (["hold"], ["drop"], ["reroute", "--pool", "b"]):
        assert _queue(mixed, *arguments, *dry).stdout.startswith("15 recipients of 14 messages to")
    data = json.loads(_queue(mixed, "drop", "--domain", "0.example", "--dry-run", "--json").stdout)
    assert data == {"recipients": 4, "messages": 3, "lanes": {"0.example": 4}}
    assert _queue(mixed, "drop", "--lane", "x", "--dry-run").output == "Nothing matches.\n"
    assert _queue(mixed, "pause", *dry).stdout.startswith("15 recipients of 14 messages to be held")
    assert _queue(mixed, "pauses").stderr == "No pause is in force.\n"
    assert _queue(mixed, "list", "--json").stdout == before


def test_a_person_answers_on_a_terminal(mixed: Path) -> None:
    said = _on_a_terminal(mixed, "n\n", "drop", "--domain", "0.example", status=1)
    assert "4 recipients of 3 messages to be deleted for good:\n  4  0.example\n" in said
    assert "Delete them for good? [y/N]: " in said
    assert said.endswith("Aborted!\n")
    assert len(_listed(mixed)) == 15
    said = _on_a_terminal(mixed, "y\n", "drop", "--domain", "0.example")
    assert said.endswith("4 recipients dropped\n")
    assert len(_listed(mixed)) == 11


def test_a_large_change_shows_how_far_it_has_come(tmp_path: Path) -> None:
    configure(tmp_path)
    leave(tmp_path / "spool", [Left([f"{number}@example.net" for number in range(1500)])])
    said = _on_a_terminal(tmp_path, "", "hold", "--all", "--yes")
    assert "100%" in said
    assert said.endswith("1,500 recipients held\n")
    assert "%" not in _queue(tmp_path, "release", "--all", "--yes").output


# Pauses.


def test_pause_and_resume(mixed: Path) -> None:
    arguments = ["--campaign", "spring", "--reason", " too\n many complaints ", "--yes"]
    said = _queue(mixed, "pause", *arguments)
    assert said.stderr.startswith("2 recipients of 1 message to be held, and all such mail")
    assert said.stdout == "paused, until: gateway queue resume 1\n2 recipients held\n"
    listed = _queue(mixed, "list", "--campaign", "spring").stdout
    assert listed.count("\n    paused: 1 too many complaints\n") == 2

    paused = json.loads(_queue(mixed, "pause", "--domain", "0.example", "--yes", "--json").stdout)
    assert paused == {"id": 2, "changed": 2, "busy": 0, "paused": 0}
    lines = _queue(mixed, "pauses").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "1", "2"]
    assert lines[1].endswith("2  campaign spring: too many complaints")
    assert lines[2].endswith("2  domain 0.example")
    first, _ = json.loads(_queue(mixed, "pauses", "--json").stdout)
    assert first["selection"] == {"campaign": "spring"}
    assert (first["id"], first["held"], first["reason"]) == (1, 2, "too many complaints")
    assert "2 pauses in force" in _queue(mixed, "stats").stdout

    kept = _queue(mixed, "resume", "1", "--yes").stdout.splitlines()
    assert kept[:2] == ["resumed: 1", "0 recipients released"]
    assert kept[2].startswith("2 recipients kept: a pause is in force")
    said = _queue(mixed, "resume", "--domain", "0.EXAMPLE", "--yes")
    assert said.stderr.startswith("4 recipients of 3 messages to be released:\n")
    assert said.stdout == "resumed: 2\n4 recipients released\n"
    assert _queue(mixed, "pauses").output == "No pause is in force.\n"
    assert _listed(mixed, "--state", "scheduled") == []


def test_a_pause_of_what_is_not_there_is_not_asked_about(mixed: Path) -> None:
    said = _queue(mixed, "pause", "--client", "192.0.2.0/24")
    assert said.output == "paused, until: gateway queue resume 1\n0 recipients held\n"
    again = json.loads(_queue(mixed, "pause", "--client", "192.0.2.0/24", "--json").stdout)
    assert again["id"] == 1
    assert _queue(mixed, "pause", "--all", status=1).stderr.endswith(NEEDS_AN_ANSWER)
    assert len(json.loads(_queue(mixed, "pauses", "--json").stdout)) == 1
    assert json.loads(_queue(mixed, "resume", "--all", "--json").stdout) == {
        "resumed": [1],
        "changed": 0,
        "busy": 0,
        "paused": 0,
    }


def test_what_an_ended_pause_left_can_be_resumed(mixed: Path) -> None:
    leave(mixed / "spool", [Left(columns={"held": "paused: 9", "due": None})])
    said = _queue(mixed, "pauses").stderr
    assert said == (
        "No pause is in force.\n"
        "1 recipient still held by pauses that have ended: gateway queue resume 9\n"
    )
    assert _queue(mixed, "resume", "9", status=1).stderr.endswith(NEEDS_AN_ANSWER)
    assert "1 recipient released" in _queue(mixed, "resume", "9", "--yes").stdout
    assert "there is no pause 9" in _queue(mixed, "resume", "9", "--yes", status=1).stderr
    assert _queue(mixed, "resume", "--lane", "x").output == "Nothing matches.\n"


# Rerouting.


def test_reroute(mixed: Path) -> None:
    via = ["--via", "10.0.0.5:2525, mx.example", "--campaign", "spring", "--yes"]
    assert _queue(mixed, "reroute", *via).stdout == "2 recipients rerouted\n"
    listed = _queue(mixed, "list", "--campaign", "spring").stdout
    assert listed.count("\n    rerouted to 10.0.0.5:2525, mx.example:25\n") == 2
    assert "2 rec" in _queue(mixed, "reroute", "--pool", "b", "--stream", "bulk", "--yes").stdout
    assert _queue(mixed, "list", "--stream", "bulk").stdout.count("\n    from the pool b\n") == 2
    _queue(mixed, "reroute", "--default", "--all", "--yes")
    assert "rerouted" not in (text := _queue(mixed, "list").stdout)
    assert "pool" not in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["drop"], "name queue ids"),
        (["drop", "nonsense", "--yes"], "is no queue id"),
        (["show", "nonsense"], "is no queue id"),
        (["list", "nonsense"], "is no queue id"),
        (["hold", "--client", "10.0.0.0/40"], "is no IP network"),
        (["pause", "--client", "10.0.0.256"], "is no IP network"),
        (["list", "--sender", "\udcff"], "no valid UTF-8"),
        (["pause", "--all", "--reason", "\udcff"], "no valid UTF-8"),
        (["pause"], "say which mail with options, or say --all"),
        (["pause", "--all", "--lane", "x"], "say which mail with options, or say --all"),
        (["resume"], "name pauses by number"),
        (["resume", "x"], "not a valid integer"),
        (["resume", "1", "--all"], "name pauses by number"),
        (["reroute", "--all"], "say one of --via, --pool and --default"),
        (["reroute", "--all", "--pool", "x", "--default"], "say one of"),
        (["reroute", "--all", "--pool", ""], "--pool needs a name"),
        (["reroute", "--all", "--via", ""], "expected host:port"),
        (["reroute", "--all", "--via", "mx.example:0"], "the port must be a number"),
        (["reroute", "--all", "--via", "mx.example:25,,"], "expected host:port"),
        (["stats", "--by", "colour"], "'colour' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused(mixed: Path, arguments: list[str], text: str) -> None:
    before = _listed(mixed)
    result = _queue(mixed, *arguments, status=2)
    assert text in result.stderr
    assert "Traceback" not in result.output
    assert _listed(mixed) == before
    assert not (mixed / "spool" / "pauses.json").exists()


def test_a_message_that_is_not_there(mixed: Path) -> None:
    assert "is not in the queue" in _queue(mixed, "show", "0000000000000", status=1).output


def test_scheduled_mail_is_shown_as_such_and_not_sent_early(mixed: Path) -> None:
    assert _listed(mixed, "--state", "scheduled") == ["later@0.example"]
    assert _queue(mixed, "retry", "--all").output == "Nothing matches.\n"
    (line, due) = _queue(mixed, "list", "--state", "scheduled").stdout.splitlines()
    assert "scheduled  <a@example.com> → <later@0.example>" in line
    assert due.startswith("    due at 2")
    assert due in _queue(mixed, "show", line.split()[0]).stdout
    early = _queue(mixed, "retry", "--state", "scheduled", "--yes").stdout
    assert early == "1 recipient to be tried now\n"
    assert _listed(mixed, "--state", "scheduled") == []


def test_a_damaged_file_of_pauses_is_named(mixed: Path) -> None:
    (mixed / "spool" / "pauses.json").write_text("{")
    for arguments in (["pauses"], ["pause", "--all", "--yes"], ["resume", "1"], ["stats"]):
        assert "pauses.json is damaged" in _queue(mixed, *arguments, status=1).stderr
    assert _listed(mixed, "--state", "held") == []


def test_stats(folder: Path) -> None:
    data = json.loads(_queue(folder, "stats", "--json").output)
    (lane,) = data["lanes"]
    assert lane["lane"] == "smarthost"
    assert (lane["active"], lane["deferred"], lane["scheduled"], lane["held"]) == (0, 2, 0, 1)
    assert data["workers"] == []
    text = _queue(folder, "stats").output
    head = ["lane", "active", "deferred", "scheduled", "held", "size", "oldest"]
    assert text.splitlines()[0].split() == head
    assert text.endswith("The gateway is not running.\n")


def test_stats_by(mixed: Path) -> None:
    campaigns = json.loads(_queue(mixed, "stats", "--by", "campaign", "--json").stdout)["campaigns"]
    assert [(one["campaign"], one["active"], one["scheduled"]) for one in campaigns] == [
        ("", 12, 1),
        ("spring", 2, 0),
    ]
    text = _queue(mixed, "stats", "--by", "client").stdout
    assert [line.split()[:2] for line in text.splitlines()[:4]] == [
        ["client", "active"],
        ["shop", "12"],
        ["10.0.0.7", "2"],
        ["127.0.0.1", "0"],
    ]
    assert "\n(none)" in _queue(mixed, "stats", "--by", "campaign").stdout


def test_a_damaged_shard_is_named(folder: Path) -> None:
    (folder / "spool" / "0001.db").write_bytes(b"no database " * 1000)
    for name in ("0001.db-wal", "0001.db-shm"):
        (folder / "spool" / name).unlink(missing_ok=True)
    said = _queue(folder, "list", status=3).output
    assert "0001.db cannot be read" in said
    assert "0001.db" in _queue(folder, "hold", "--all", "--yes", status=3).output


def test_no_spool_is_an_empty_queue(tmp_path: Path) -> None:
    configure(tmp_path)
    assert _queue(tmp_path, "list").stderr == "The queue is empty.\n"
    assert not (tmp_path / "spool").exists()
