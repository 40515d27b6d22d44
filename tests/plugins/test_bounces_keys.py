from __future__ import annotations

import logging
from base64 import b64encode
from pathlib import Path

import pytest

from gateway.hooks import KeyFile
from plugins.bounces import token
from plugins.bounces.keys import Keyring, key_file
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


def test_another_key_signs_and_the_old_ones_are_valid(path: Path, clock: Clock) -> None:
    worker = Keyring(path, clock, LOG)
    old = signed(worker)
    key_file(path).rotate(clock.now)

    clock.now += 2
    new = signed(worker)

    assert (old.key, new.key) == (1, 2)
    assert worker.verify(old)
    assert worker.verify(new)


def test_a_key_that_another_process_saw_first_is_looked_for_at_once(
    path: Path, clock: Clock
) -> None:
    slow = Keyring(path, clock, LOG)
    key_file(path).rotate(clock.now)
    assert slow.verify(signed(Keyring(path, clock, LOG)))


def test_unknown_keys_do_not_make_it_look_at_the_file_each_time(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = Keyring(path, clock, LOG)
    forged = token.read(f"ID1{token.stamp(30, 5)}00000{'0' * 8}-a=b")
    assert forged is not None
    version, looked = KeyFile.version, 0

    def look(file: KeyFile) -> tuple[int, int, int]:
        nonlocal looked
        looked += 1
        return version(file)

    monkeypatch.setattr(KeyFile, "version", look)
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


def test_without_a_file_nothing_was_signed_here(path: Path, clock: Clock) -> None:
    other = Keyring(path.with_name("other.json"), clock, LOG)
    keyring = Keyring(path, clock, LOG, make=False)
    assert not keyring.verify(signed(other))
    assert not path.exists()


def test_there_are_31_keys_and_each_signs(path: Path, clock: Clock) -> None:
    tokens = []
    for _ in range(34):
        key_file(path).rotate(clock.now)
        tokens.append(signed(Keyring(path, clock, LOG)))
    keyring = Keyring(path, clock, LOG)
    assert [keyring.verify(one) for one in tokens] == [False] * 3 + [True] * 31
    assert {one.key for one in tokens} == set(range(1, 32))


def test_a_file_of_something_else_is_refused_by_name(path: Path, clock: Clock) -> None:
    key_file(path).make(clock.now)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"keys\.json: is no file of return path keys"):
        Keyring(path, clock, LOG)


def test_secrets_are_not_shown(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keyring = Keyring(path, clock, LOG)
    key = key_file(path).rotate(clock.now)
    clock.now += 2
    keyring.signer()

    shown = f"{keyring!r} {key!r} {caplog.text}"
    assert "were read again" in shown
    for secret in (repr(key.secret), key.secret.hex(), b64encode(key.secret).decode()):
        assert secret not in shown
    assert b64encode(key.secret).decode() in path.read_text()
