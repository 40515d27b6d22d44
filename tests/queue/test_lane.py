"""Lanes: the bounded window and the turns of the priorities."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.message import Client, Recipient
from gateway.queue.lane import PRIORITIES, TURNS, Lane
from gateway.spool.queue_entry import Entry, Envelope, Item


def _entry(number: int, priority: int = 1, recipients: int = 1) -> Entry:
    envelope = Envelope(number, number, 0.0, "a@b.c", "default", 3, Client("::1"))
    items = [Item(n, Recipient("b@c.d")) for n in range(recipients)]
    return Entry(cast("Any", None), envelope, "lane", priority, items)


def _fill(lane: Lane, *entries: Entry) -> None:
    for entry in entries:
        assert lane.reserve(entry)
        lane.windows[entry.priority].waiting.append(entry)


def test_oldest_first() -> None:
    lane = Lane("lane", 10)
    entries = [_entry(number) for number in range(5)]
    _fill(lane, *entries)
    assert [lane.take() for _ in range(6)] == [*entries, None]


def test_every_priority_has_its_share() -> None:
    lane = Lane("lane", 1000)
    for priority in range(PRIORITIES):
        _fill(lane, *(_entry(priority * 1000 + n, priority) for n in range(80)))
    taken = Counter(entry.priority for _ in range(80) if (entry := lane.take()) is not None)
    assert taken == {2: 60, 1: 10, 0: 10}
    assert len(TURNS) == 8


@given(st.lists(st.integers(0, PRIORITIES - 1), max_size=40))
def test_each_entry_is_taken_once_whatever_the_turn(priorities: list[int]) -> None:
    lane = Lane("lane", 100)
    _fill(lane, *(_entry(number, priority) for number, priority in enumerate(priorities)))
    taken = []
    while (entry := lane.take()) is not None:
        taken.append(entry)
        lane.forget(entry)
    assert sorted(entry.envelope.id for entry in taken) == list(range(len(priorities)))
    assert lane.is_empty


def test_a_full_window_sends_mail_to_the_disk_until_it_is_refilled() -> None:
    lane = Lane("lane", 3)
    first = _entry(1, recipients=2)
    _fill(lane, first)
    assert not lane.reserve(_entry(2, recipients=2))
    assert lane.windows[1].backlog
    # Nothing overtakes what waits on disk, but for other priorities there is room.
    assert not lane.reserve(_entry(3))
    assert lane.reserve(_entry(4, priority=2))
    assert lane.take() is first
    lane.forget(first)
    assert not lane.is_empty
    assert not lane.reserve(_entry(5))
    lane.windows[1].backlog = False
    assert lane.reserve(_entry(6))


def test_rows_are_withdrawn_only_while_they_wait() -> None:
    lane = Lane("lane", 100)
    attempted, whole, part = _entry(1, recipients=2), _entry(2), _entry(3, recipients=3)
    _fill(lane, attempted, whole, part)
    assert lane.take() is attempted
    found, emptied = lane.withdraw({(1, 0), (2, 0), (3, 0), (3, 2), (9, 9)})
    assert found == {(2, 0), (3, 0), (3, 2)}
    assert emptied == [whole]
    assert [item.number for item in part.items] == [1]
    assert lane.windows[1].known == {(1, 0), (1, 1), (3, 1)}
    assert lane.waiting == 1
    assert lane.take() is part
    assert lane.take() is None
