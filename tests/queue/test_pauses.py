"""Pauses: their file, and how a worker sees it."""

from __future__ import annotations

import json
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.mail.message import Client, Recipient
from gateway.queue.pauses import Pauses, add_pause, mark, pause_of, read_pauses, remove_pauses
from gateway.queue.selection import Selection
from gateway.spool.queue_entry import Envelope
from gateway.spool.shard_file import SpoolError

SPRING = Selection(campaign="spring")


def _envelope(campaign: str = "spring") -> Envelope:
    return Envelope(
        1, 1, 0.0, "a@example.com", "bulk", 9, Client("10.0.0.7"), {"campaign": campaign}
    )


def _reason(pauses: Pauses, campaign: str = "spring", lane: str = "example.net") -> str | None:
    recipient = Recipient("b@example.net")
    return pauses.reason_for(_envelope(campaign), lane, recipient) if pauses else None


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# The file.


def test_pauses_are_numbered_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    assert read_pauses(folder) == ()
    first = add_pause(folder, SPRING, "complaints", 5.0)
    second = add_pause(folder, Selection(lane="example.net"), "", 6.0)
    assert (first.id, first.held, first.since) == (1, "paused: 1 complaints", 5.0)
    assert (second.id, second.held) == (2, "paused: 2")
    assert read_pauses(folder) == (first, second)
    path = folder / "pauses.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {one.name for one in folder.iterdir()} == {"pauses.json", "pauses.lock"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    add_pause(tmp_path, SPRING, "", 5.0)
    for name in ("pauses.json", "pauses.lock"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid) == (12345, 12346)


def test_a_number_is_not_used_again(tmp_path: Path) -> None:
    """Mail may still be held by the pause that had it."""
    add_pause(tmp_path, SPRING, "", 5.0)
    remove_pauses(tmp_path, [1])
    assert read_pauses(tmp_path) == ()
    assert add_pause(tmp_path, SPRING, "", 6.0).id == 2
    remove_pauses(tmp_path, [7])
    assert [pause.id for pause in read_pauses(tmp_path)] == [2]


def test_the_same_selection_is_the_same_pause(tmp_path: Path) -> None:
    first = add_pause(tmp_path, Selection(sender="a@example.com"), "one", 5.0)
    assert add_pause(tmp_path, Selection(sender="A@EXAMPLE.com"), "", 6.0) == first
    again = add_pause(tmp_path, Selection(sender="A@EXAMPLE.com"), "two", 7.0)
    assert (again.id, again.reason, again.since) == (1, "two", 5.0)
    assert read_pauses(tmp_path) == (again,)


@pytest.mark.parametrize("selection", [Selection(ids=("0" * 13,)), Selection(state="held")])
def test_what_is_not_known_when_mail_comes_cannot_be_paused(
    tmp_path: Path, selection: Selection
) -> None:
    with pytest.raises(ValueError, match="mail that comes"):
        add_pause(tmp_path, selection, "", 5.0)


def test_commands_at_the_same_time(tmp_path: Path) -> None:
    def work(number: int) -> int:
        pause = add_pause(tmp_path, Selection(campaign=str(number)), "", 5.0)
        if number % 2:
            remove_pauses(tmp_path, [pause.id])
        return pause.id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(work, range(40)))
    assert sorted(ids) == list(range(1, 41))
    left = {pause.selection.campaign for pause in read_pauses(tmp_path)}
    assert left == {str(number) for number in range(0, 40, 2)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"next": 2, "pauses": [{}]}',
        '{"next": 2, "pauses": [{"id": 1, "selection": {"colour": "red"}}]}',
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pauses.json").write_text(text)
    for work in (
        lambda: read_pauses(tmp_path),
        lambda: add_pause(tmp_path, SPRING, "", 5.0),
        lambda: remove_pauses(tmp_path, [1]),
    ):
        with pytest.raises(SpoolError, match=r"pauses\.json is damaged"):
            work()
    assert (tmp_path / "pauses.json").read_text() == text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(SpoolError, match=r"pauses\.json: "):
        add_pause(tmp_path / "spool", SPRING, "", 5.0)


@pytest.mark.parametrize(
    ("held", "number"),
    [
        ("paused: 3", 3),
        ("paused: 3 complaints", 3),
        ("paused: 31 x", 31),
        ("paused: x", None),
        ("paused: ", None),
        ("paused:3", None),
        ("paused: ³ x", None),
        ("a plugin: paused: 3", None),
        ("held by hand", None),
    ],
)
def test_which_pause_holds(held: str, number: int | None) -> None:
    assert pause_of(held) == number
    assert number is None or f"{held} ".startswith(mark(number))


# What a worker sees.


def test_a_worker_reads_the_file_before_it_takes_mail(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path, Clock())
    # Written after the object was made, as by a command while the worker started.
    add_pause(tmp_path, SPRING, "complaints", 5.0)
    assert pauses
    assert _reason(pauses) == "paused: 1 complaints"
    assert _reason(pauses, "summer") is None


def test_a_worker_that_was_not_told_sees_a_change_within_a_second(tmp_path: Path) -> None:
    clock = Clock()
    pauses = Pauses(tmp_path, clock)
    assert not pauses
    add_pause(tmp_path, SPRING, "", 5.0)
    clock.now += 0.9
    assert not pauses, "the file is not looked at for each message"
    clock.now += 0.2
    assert _reason(pauses) == "paused: 1"
    remove_pauses(tmp_path, [1])
    clock.now += 1.1
    assert not pauses
    # Another pause, and a clock that was set back.
    add_pause(tmp_path, Selection(lane="EXAMPLE.net"), "", 6.0)
    clock.now -= 500
    assert _reason(pauses) == "paused: 2"


def test_a_worker_that_was_told_sees_it_at_once(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path, Clock())
    assert not pauses
    add_pause(tmp_path, SPRING, "", 5.0)
    pauses.reload()
    assert _reason(pauses) == "paused: 1"


def test_the_first_of_several_holds(tmp_path: Path) -> None:
    add_pause(tmp_path, Selection(client="10.0.0.0/8"), "network", 5.0)
    add_pause(tmp_path, SPRING, "campaign", 5.0)
    add_pause(tmp_path, Selection(), "all", 5.0)
    pauses = Pauses(tmp_path, Clock())
    assert _reason(pauses) == "paused: 1 network"
    remove_pauses(tmp_path, [1])
    pauses.reload()
    assert _reason(pauses) == "paused: 2 campaign"
    assert _reason(pauses, "summer") == "paused: 3 all"


def test_damage_ends_no_pause(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    pauses = Pauses(tmp_path, clock)
    add_pause(tmp_path, SPRING, "", 5.0)
    assert pauses
    good = (tmp_path / "pauses.json").read_text()
    (tmp_path / "pauses.json").write_text("{")
    with pytest.raises(SpoolError):
        pauses.reload()
    clock.now += 2
    with caplog.at_level(logging.ERROR):
        assert _reason(pauses) == "paused: 1"
    assert "pauses.json is damaged" in caplog.text
    data = json.loads(good)
    data["pauses"] = []
    (tmp_path / "pauses.json").write_text(json.dumps(data))
    clock.now += 2
    assert not pauses
