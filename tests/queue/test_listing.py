"""The queue as it is listed and counted, beside whoever writes it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.queue.listing import (
    GROUPS,
    STEP,
    GroupStats,
    count_held,
    read,
    read_content,
    read_stats,
    survey,
)
from gateway.queue.pauses import HELD_BY_A_PAUSE
from gateway.queue.selection import Selection
from gateway.spool.shard_file import SpoolError
from tests.queue.served import CONTENT, Left, leave, shard_database

LATER = time.time() + 3600

STATES: dict[str, tuple[dict[str, Any], str]] = {
    "due": ({"due": 1.0}, "active"),
    "in memory": ({"due": None}, "active"),
    "retried": ({"due": LATER, "attempts": 1, "reply": "450 Later"}, "deferred"),
    "delayed before it was tried": ({"due": LATER, "reply": "throttle: later"}, "deferred"),
    "its time has not come": ({"due": LATER}, "scheduled"),
    "kept": ({"due": None, "held": "suspicious"}, "held"),
}


@pytest.mark.parametrize("name", STATES)
def test_the_state_of_a_row(tmp_path: Path, name: str) -> None:
    columns, state = STATES[name]
    leave(tmp_path, [Left(columns=columns)])
    (row,) = read(tmp_path, Selection())
    assert row.state == state
    for one in ("active", "deferred", "scheduled", "held"):
        assert len(list(read(tmp_path, Selection(state=one)))) == (one == state)
    (stats,) = read_stats(tmp_path)
    assert getattr(stats, state) == stats.recipients == 1


def test_what_a_row_tells(tmp_path: Path) -> None:
    envelope = {"user": "shop", "notes": {"campaign": "spring"}}
    parameters = '{"via": ["10.0.0.5:25"], "notes": {"pool": "b"}}'
    message = Left(["b@example.net", "c@example.net"], "s@example.com", "bulk", "lane", envelope)
    (id_,) = leave(tmp_path, [message])
    with shard_database(tmp_path) as db:
        db.execute("UPDATE deliveries SET parameters=? WHERE number=1", (parameters,))
    first, second = read(tmp_path, Selection())
    assert (first.id, first.number, first.recipient) == (id_, 0, "b@example.net")
    assert (first.campaign, first.client, first.user) == ("spring", "127.0.0.1", "shop")
    assert (first.via, first.pool, first.size) == ((), None, len(CONTENT))
    assert (second.via, second.pool) == (("10.0.0.5:25",), "b")
    data = second.to_dict()
    assert (data["lane"], data["via"], data["state"]) == ("lane", ("10.0.0.5:25",), "active")
    assert read_content(tmp_path, first) == CONTENT


def test_more_than_one_step(tmp_path: Path) -> None:
    """What lies on both sides of the end of a step is found once, in order."""
    many = [f"{number}@example.net" for number in range(STEP + 500)]
    ids = leave(
        tmp_path,
        [
            Left(many, lane="one", envelope={"notes": {"campaign": "big"}}),
            *[Left([f"{number}@example.org"], lane="two") for number in range(STEP)],
        ],
    )
    rows = list(read(tmp_path, Selection()))
    assert [row.recipient for row in rows[: len(many)]] == many
    assert [row.id for row in rows[len(many) :]] == ids[1:]
    assert len(list(read(tmp_path, Selection(), limit=STEP + 1))) == STEP + 1
    found = survey(tmp_path, Selection())
    assert (found.recipients, found.messages) == (len(many) + STEP, 1 + STEP)
    assert found.lanes == {"one": len(many), "two": STEP}
    assert len(found.keys[1]) == 2 * found.recipients
    one = survey(tmp_path, Selection(campaign="big"))
    assert (one.recipients, one.messages, one.lanes) == (len(many), 1, {"one": len(many)})
    assert [(group.name, group.active) for group in read_stats(tmp_path)] == [
        ("one", len(many)),
        ("two", STEP),
    ]
    assert list(read(tmp_path, Selection(ids=(ids[1], ids[3])))) == [
        rows[len(many)],
        rows[-STEP + 2],
    ]


def test_limit_counts_over_all_shards(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        leave(tmp_path, [Left(["b@example.net", "c@example.net"])], number)
    assert [row.shard for row in read(tmp_path, Selection(), limit=3)] == [1, 1, 2]
    assert [row.shard for row in read(tmp_path, Selection(), limit=4)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("lane", {"lane-a": 2, "lane-b": 1}),
        ("campaign", {"spring": 1, "": 2}),
        ("stream", {"bulk": 2, "default": 1}),
        ("client", {"shop": 1, "127.0.0.1": 1, "10.0.0.9": 1}),
        ("sender_domain", {"xn--bcher-kva.example": 2, "": 1}),
    ],
)
def test_stats_by(tmp_path: Path, by: str, names: dict[str, int]) -> None:
    leave(
        tmp_path,
        [
            Left(
                sender="a@Bücher.example", stream="bulk", lane="lane-a", envelope={"user": "shop"}
            ),
            Left(
                sender="b@xn--bcher-kva.example",
                stream="bulk",
                lane="lane-a",
                envelope={"notes": {"campaign": "spring"}},
            ),
        ],
    )
    leave(tmp_path, [Left(sender="", lane="lane-b", envelope={"address": "10.0.0.9"})], 2)
    stats = read_stats(tmp_path, by)
    assert {group.name: group.recipients for group in stats} == names
    assert [group.recipients for group in stats] == sorted(names.values(), reverse=True)
    assert all(group.octets == len(CONTENT) * group.recipients for group in stats)
    assert set(GROUPS) == {"lane", "campaign", "stream", "client", "sender_domain"}


def test_stats_sum_up_shards(tmp_path: Path) -> None:
    leave(tmp_path, [Left(columns={"held": "x", "due": None})])
    first = time.time()
    leave(tmp_path, [Left(), Left(columns={"due": LATER})], 2)
    (stats,) = read_stats(tmp_path)
    octets = 3 * len(CONTENT)
    assert stats == GroupStats("example.net", 1, 0, 1, 1, octets, stats.oldest)
    assert stats.oldest <= first


def test_a_slow_reader_does_not_keep_the_log_from_being_written_back(tmp_path: Path) -> None:
    leave(tmp_path, [Left([f"{number}@example.net" for number in range(STEP * 2)])])
    with shard_database(tmp_path) as db:
        rows = read(tmp_path, Selection())
        next(rows)
        db.execute("UPDATE deliveries SET due=5 WHERE number=0")
        pages, written = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        assert pages == written == 0
        assert sum(1 for _ in rows) == STEP * 2 - 1


def test_a_shard_that_goes_away_meanwhile(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        leave(tmp_path, [Left()], number)
    rows = read(tmp_path, Selection())
    assert next(rows).shard == 1
    (tmp_path / "0002.db").unlink()
    (third,) = rows
    assert third.shard == 3
    shutil.rmtree(tmp_path)
    assert read_content(tmp_path, third) is None
    assert list(read(tmp_path, Selection())) == []


def test_damage_is_shown_and_in_nobodys_way(tmp_path: Path) -> None:
    lost, torn, odd, whole = leave(tmp_path, [Left(envelope={"user": "shop"})] * 4)
    with shard_database(tmp_path) as db:
        db.execute("DELETE FROM messages WHERE id=(SELECT min(id) FROM messages)")
        db.execute("UPDATE messages SET envelope='{' WHERE id=(SELECT min(id) FROM messages)")
        db.execute("UPDATE deliveries SET parameters='[' WHERE id=(SELECT max(id) FROM deliveries)")
        db.execute(
            "UPDATE messages SET envelope='[]' WHERE id=(SELECT id FROM messages LIMIT 1 OFFSET 1)"
        )
    rows = {row.id: row for row in read(tmp_path, Selection())}
    assert set(rows) == {lost, torn, odd, whole}
    assert (rows[lost].sender, rows[lost].size) == ("", 0)
    assert [row.id for row in read(tmp_path, Selection(client="shop"))] == [whole]
    assert list(read(tmp_path, Selection(campaign="x"))) == []
    assert list(read(tmp_path, Selection(client="::/0"))) == []
    for by in GROUPS:
        assert sum(group.recipients for group in read_stats(tmp_path, by)) == 4
    assert survey(tmp_path, Selection()).recipients == 4


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "0007.db").write_bytes(b"no database " * 1000)
    with pytest.raises(SpoolError, match=r"0007\.db cannot be read"):
        list(read(tmp_path, Selection()))
    with pytest.raises(SpoolError, match=r"0007\.db cannot be read"):
        read_stats(tmp_path)


def test_who_is_held_for_what(tmp_path: Path) -> None:
    reasons = ["paused: 1 x", "paused: 1 x", "paused: 12", "held by hand", "pausedx"]
    for number, reason in enumerate(reasons, 1):
        leave(tmp_path, [Left(columns={"held": reason, "due": None})], number)
    assert count_held(tmp_path, HELD_BY_A_PAUSE) == {"paused: 1 x": 2, "paused: 12": 1}
    assert count_held(tmp_path / "none", HELD_BY_A_PAUSE) == {}
