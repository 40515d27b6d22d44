"""The file of what is in hand, over the death of its owner, and when it is damaged."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.message import Client, Recipient
from gateway.spool.queue_entry import Entry, Envelope, Item
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from gateway.spool.suspects import DEATHS, PLACES, Key, Suspects, forget

HOOKS: Mapping[Hashable, str] = {"r": "route site", "a": "admit site"}
NAMES = 256 * 64


def _entry(id_: int, *numbers: int) -> Entry:
    envelope = Envelope(id_, id_, 1.0, "a@b.c", "default", 3, Client("::1"))
    items = [Item(number, Recipient(f"r{number}@b.c")) for number in numbers or (0,)]
    return Entry(cast(Shard, None), envelope, "lane", 1, items)


def _take(
    folder: Path, hooks: Mapping[Hashable, str] = HOOKS, gone: frozenset[Key] = frozenset()
) -> Suspects:
    return Suspects.take(folder / "0001.db", hooks, lambda key: key not in gone)


def _die(folder: Path, *entries: Entry, hook: str = "r") -> None:
    """An owner that ends while a hook has these in hand."""
    suspects = _take(folder)
    for entry in entries:
        suspects.octets[suspects.enter(entry)] = suspects.numbers[hook]


def test_what_was_in_hand_is_known_to_the_next_owner(tmp_path: Path) -> None:
    _die(tmp_path, _entry(7, 3, 4))
    suspects = _take(tmp_path)
    suspect = suspects.of(_entry(7, 2, 3))
    assert suspect is not None
    assert (suspect.deaths, suspect.hook, suspect.is_new) == (1, "route site", True)
    assert suspects.of(_entry(7, 2)) is None
    assert suspects.of(_entry(8, 3)) is None
    # Who only looks, and ends, adds nothing.
    suspect = _take(tmp_path).of(_entry(7, 3))
    assert suspect is not None
    assert (suspect.deaths, suspect.is_new) == (1, False)


def test_what_no_hook_has_is_not_suspected(tmp_path: Path) -> None:
    suspects = _take(tmp_path)
    asked, left = suspects.enter(_entry(1)), suspects.enter(_entry(2))
    suspects.octets[asked] = suspects.octets[left] = suspects.numbers["r"]
    suspects.octets[asked] = 0
    suspects.leave(left)
    assert _take(tmp_path).known == {}


def test_deaths_add_up_until_it_is_settled(tmp_path: Path) -> None:
    others = _entry(8), _entry(9)
    for death in range(1, DEATHS + 1):
        _die(tmp_path, _entry(7), *others)
        suspects = _take(tmp_path)
        assert suspects.known[7, 0].deaths == death
    suspects.settled(_entry(7))
    assert (7, 0) in suspects.known
    suspects.known[7, 0].ended = True
    suspects.settled(_entry(7))
    assert suspects.of(_entry(7)) is None
    assert _take(tmp_path).of(_entry(7)) is None
    assert _take(tmp_path).of(_entry(8)) is not None


def test_a_suspect_keeps_its_place_over_an_attempt(tmp_path: Path) -> None:
    _die(tmp_path, _entry(7))
    suspects = _take(tmp_path)
    suspects.leave(suspects.enter(_entry(7)))
    suspects.enter(_entry(8))
    suspect = _take(tmp_path).of(_entry(7))
    assert suspect is not None
    assert suspect.deaths == 1


def test_a_suspect_may_begin_with_another_recipient(tmp_path: Path) -> None:
    _die(tmp_path, _entry(7, 1, 2))
    suspects = _take(tmp_path)
    entry = _entry(7, 0, 1, 2)
    suspects.octets[suspects.enter(entry)] = suspects.numbers["r"]
    suspects = _take(tmp_path)
    assert suspects.known[7, 0].deaths == 2
    suspects.enter(_entry(7, 0, 2))
    suspects.enter(_entry(7, 5, 0))
    suspects.known[7, 0].ended = True
    suspects.settled(entry)
    assert suspects.known == _take(tmp_path).known == {}


def test_mail_that_has_left_the_queue_is_forgotten(tmp_path: Path) -> None:
    _die(tmp_path, _entry(7), _entry(8))
    assert list(_take(tmp_path, gone=frozenset({(7, 0)})).known) == [(8, 0)]
    assert list(_take(tmp_path).known) == [(8, 0)]


def test_one_more_that_a_hook_dies_over_alone_needs_one_death(tmp_path: Path) -> None:
    for _ in range(DEATHS):
        _die(tmp_path, _entry(7))
    _die(tmp_path, _entry(8))
    suspects = _take(tmp_path)
    suspect = suspects.of(_entry(8))
    assert suspect is not None
    assert suspect.deaths == DEATHS
    assert suspects.repeated == {"route site": 1}
    _die(tmp_path, _entry(12))
    assert _take(tmp_path).repeated == {"route site": 2}
    # Another hook has a name to lose, and so have two that were in hand together.
    _die(tmp_path, _entry(9), hook="a")
    _die(tmp_path, _entry(10), _entry(11))
    known = _take(tmp_path).known
    assert [known[number, 0].deaths for number in (9, 10, 11)] == [1, 1, 1]


def test_hooks_keep_their_names_when_the_configuration_changes(tmp_path: Path) -> None:
    _die(tmp_path, _entry(7), hook="a")
    suspects = _take(tmp_path, {"n": "reply new", "r": "route site"})
    suspect = suspects.of(_entry(7))
    assert suspect is not None
    assert suspect.hook == "admit site"
    suspects.octets[suspects.enter(_entry(8))] = suspects.numbers["n"]
    assert [_take(tmp_path).known[number, 0].hook for number in (7, 8)] == [
        "admit site",
        "reply new",
    ]


def test_more_hooks_than_there_are_numbers_share_one(tmp_path: Path) -> None:
    hooks: dict[Hashable, str] = {number: f"route p{number}" for number in range(300)}
    suspects = _take(tmp_path, hooks)
    suspects.octets[suspects.enter(_entry(7))] = suspects.numbers[299]
    suspects.octets[suspects.enter(_entry(8))] = suspects.numbers[250]
    known = _take(tmp_path, hooks).known
    assert (known[7, 0].hook, known[8, 0].hook) == ("?", "route p250")


def test_attempts_beyond_the_places_have_none(tmp_path: Path) -> None:
    suspects = _take(tmp_path)
    places = {suspects.enter(_entry(number)) for number in range(1, PLACES + 1)}
    assert len(places) == PLACES
    assert 0 not in places
    assert suspects.enter(_entry(PLACES + 1)) == 0
    suspects.leave(min(places))
    assert suspects.enter(_entry(PLACES + 1)) == min(places)


def test_who_got_the_mail_is_known(tmp_path: Path) -> None:
    suspects = _take(tmp_path)
    entry = _entry(7, 3, 4, 5, 1000)
    place = suspects.enter(entry)
    suspects.note_delivered(place, entry, [3, 5, 1000])
    suspects.octets[place] = suspects.numbers["r"]
    known = _take(tmp_path).known
    # The last one is too far away to be noted: it gets the mail again.
    assert known[7, 3].delivered == {3, 5}
    assert known[7, 5] is known[7, 3]
    # It stays known over the death of another, and over another attempt.
    _die(tmp_path, _entry(8))
    assert _take(tmp_path).known[7, 3].delivered == {3, 5}
    _die(tmp_path, entry)
    assert _take(tmp_path).known[7, 3].delivered == {3, 5}
    # But not for other mail in the same place.
    suspects = _take(tmp_path)
    suspects.known[7, 3].ended = True
    suspects.settled(entry)
    assert suspects.enter(_entry(9, 3)) == place
    suspects.octets[place] = suspects.numbers["r"]
    assert _take(tmp_path).known[9, 3].delivered == frozenset()


@given(damage=st.lists(st.tuples(st.integers(0, NAMES + 255), st.integers(1, 255)), min_size=1))
def test_damage_neither_stops_mail_nor_lets_it_disappear(damage: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entry = _entry(7, 1, 2)
        suspects = _take(folder)
        place = suspects.enter(entry)
        suspects.note_delivered(place, entry, [2])
        suspects.octets[place] = suspects.numbers["r"]
        path = folder / "0001.suspects"
        octets = bytearray(path.read_bytes())
        for at, change in damage:
            octets[at] ^= change
        path.write_bytes(octets)
        suspects = _take(folder)
        for suspect in suspects.known.values():
            assert suspect.delivered in (frozenset(), {2})
            assert suspect.hook.isprintable()
        place = suspects.enter(_entry(8))
        suspects.octets[place] = suspects.numbers["a"]
        assert (8, 0) in _take(folder).known


@pytest.mark.parametrize("octets", [b"", b"short", bytes(2 * NAMES), bytes(5 * NAMES)])
def test_a_file_of_another_kind_is_made_anew(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "0001.suspects").write_bytes(octets)
    _die(tmp_path, _entry(7))
    assert list(_take(tmp_path).known) == [(7, 0)]


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="No such file"):
        _take(tmp_path / "none")
    (tmp_path / "0001.suspects").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match="symbolic links"):
        _take(tmp_path)


def test_the_file_goes_with_a_stop_in_good_order(tmp_path: Path) -> None:
    _die(tmp_path, _entry(7))
    assert (tmp_path / "0001.suspects").stat().st_mode & 0o777 == 0o600
    forget(tmp_path / "0001.db")
    forget(tmp_path / "0001.db")
    assert list(tmp_path.iterdir()) == []
