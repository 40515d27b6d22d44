from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from plugins.bounces import key_file, token
from plugins.bounces.key_file import LARGEST_ID
from plugins.bounces.keys import Keyring
from plugins.bounces.token import DAY, Token
from tests.plugins.bounces_site import NOW

LOG = logging.getLogger("test")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data/keys.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def signed(keyring: Keyring) -> Token:
    """A token as a message has it now."""
    signer = keyring.signer()
    head = f"ID1{signer.mark}{token.origin('a.example', 'default')}"
    found = token.read(token.write(head, signer.secret, "hanako=example.net"))
    assert found is not None
    return found


def test_the_first_start_makes_a_key_that_only_its_owner_can_read(path: Path, clock: Clock) -> None:
    keyring = Keyring(path, clock, LOG)
    assert keyring.verify(signed(keyring))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]
    assert signed(keyring).day == int(NOW // DAY)


def test_every_process_uses_the_same_key(path: Path, clock: Clock) -> None:
    one, other = Keyring(path, clock, LOG), Keyring(path, clock, LOG)
    assert other.verify(signed(one))


def test_of_many_that_begin_at_once_one_makes_the_key(path: Path) -> None:
    together = Barrier(8)

    def start(_: int) -> tuple[bool, bytes]:
        together.wait()
        return key_file.make(path, NOW), key_file.read(path)[1][0].secret

    with ThreadPoolExecutor(8) as pool:
        made, secrets = zip(*pool.map(start, range(8)), strict=True)
    assert sorted(made) == [False] * 7 + [True]
    assert len(set(secrets)) == 1


def test_another_key_signs_and_the_old_ones_are_valid(path: Path, clock: Clock) -> None:
    worker = Keyring(path, clock, LOG)
    old = signed(worker)
    key_file.rotate(path, clock.now)

    clock.now += 2
    new = signed(worker)

    assert (old.key, new.key) == (1, 2)
    assert worker.verify(old)
    assert worker.verify(new)


def test_a_key_that_another_process_saw_first_is_looked_for_at_once(
    path: Path, clock: Clock
) -> None:
    slow = Keyring(path, clock, LOG)
    key_file.rotate(path, clock.now)
    assert slow.verify(signed(Keyring(path, clock, LOG)))


def test_unknown_keys_do_not_make_it_look_at_the_file_each_time(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = Keyring(path, clock, LOG)
    forged = token.read(f"ID1{token.stamp(30, 5)}00000{'0' * 8}-a=b")
    assert forged is not None
    version, looked = key_file.version, 0

    def look(file: Path) -> key_file.Version:
        nonlocal looked
        looked += 1
        return version(file)

    monkeypatch.setattr(key_file, "version", look)
    assert not any(keyring.verify(forged) for _ in range(100))
    assert looked == 1


def test_a_file_that_cannot_be_read_leaves_the_keys_as_they_were(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = Keyring(path, clock, LOG)
    old = signed(keyring)
    for damage in (lambda: path.write_text("{}"), path.unlink):
        damage()
        clock.now += 2
        assert keyring.verify(old)
        assert keyring.verify(signed(keyring))
        assert "the keys of return paths stay as they were" in caplog.text
        caplog.clear()


def test_the_day_goes_on_and_the_clock_may_be_set_back(path: Path, clock: Clock) -> None:
    keyring = Keyring(path, clock, LOG)
    today = signed(keyring).day
    clock.now += DAY
    assert signed(keyring).day == today + 1
    clock.now -= 2 * DAY
    assert signed(keyring).day == today - 1


def test_the_oldest_key_goes_when_there_are_as_many_as_there_can_be(path: Path) -> None:
    for number in range(LARGEST_ID + 3):
        key = key_file.rotate(path, NOW + number)
    keys = key_file.read(path)[1]
    assert len(keys) == LARGEST_ID
    assert len({one.id for one in keys}) == LARGEST_ID
    assert keys[-1] == key
    assert keys[0].created == int(NOW) + 3


def test_the_newest_key_is_the_newest_whatever_the_clock_does(path: Path) -> None:
    key_file.rotate(path, NOW)
    key = key_file.rotate(path, NOW - 1000)
    assert key_file.read(path)[1][-1] == key


def test_rotation_keeps_mode_and_symbolic_links(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    real = tmp_path / "shared.json"
    path.symlink_to(real)
    assert key_file.make(path, NOW)
    real.chmod(0o640)
    key_file.rotate(path, NOW)
    assert path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert len(key_file.read(path)[1]) == 2


def test_secrets_are_not_shown(path: Path) -> None:
    key = key_file.rotate(path, NOW)
    assert key.secret.hex() in path.read_text()
    assert repr(key.secret) not in repr(key)


GOOD = {"id": 1, "created": "2026-11-21T10:00:00+00:00", "secret": "00" * 32}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": [1]}',
        json.dumps({"keys": [{**GOOD, "id": 0}]}),
        json.dumps({"keys": [{**GOOD, "id": 32}]}),
        json.dumps({"keys": [{**GOOD, "id": "1"}]}),
        json.dumps({"keys": [{**GOOD, "id": True}]}),
        json.dumps({"keys": [{**GOOD, "secret": "00"}]}),
        json.dumps({"keys": [{**GOOD, "secret": "x" * 64}]}),
        json.dumps({"keys": [{**GOOD, "created": "yesterday"}]}),
        json.dumps({"keys": [GOOD, GOOD]}),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_name(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="is no file of keys for return paths") as error:
        key_file.read(path)
    assert str(path) in str(error.value)
    assert "00000000" not in str(error.value)


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o620])
def test_a_file_that_others_can_read_or_change_is_refused(path: Path, mode: int) -> None:
    key_file.make(path, NOW)
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"mode {mode:04o} lets other users read or change"):
        key_file.read(path)


def test_what_is_no_file_is_refused(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is not a file"):
        key_file.read(path)


def test_where_nothing_can_be_written_the_text_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for change in (key_file.make, key_file.rotate):
        with pytest.raises(ValueError, match="file: cannot be made"):
            change(tmp_path / "file/keys.json", NOW)


def test_without_a_file_nothing_was_signed_here(path: Path, clock: Clock) -> None:
    other = Keyring(path.with_name("other.json"), clock, LOG)
    keyring = Keyring(path, clock, LOG, make=False)
    assert not keyring.verify(signed(other))
    assert not path.exists()
