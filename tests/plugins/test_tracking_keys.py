from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from base64 import b64encode
from binascii import a2b_base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.tracking import key_file
from plugins.tracking.keys import LONGEST_TEXT, Keyring
from plugins.tracking.token import Kind, Token
from tests.plugins.tracking_mail import NOW, Clock

TOKEN = Token(
    Kind.CLICK, "0H3K5M7P9R1T3", "taro@example.net", day=20_000, url="https://www.example.com/a"
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.json"


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys") / "keys.json")


def secrets_of(path: Path) -> list[str]:
    return [entry["secret"] for entry in json.loads(path.read_text())["keys"]]


# Tokens as text.


def test_every_change_of_a_character_is_refused(keyring: Keyring) -> None:
    text = keyring.seal(TOKEN)

    for place, old in enumerate(text):
        for new in ALPHABET:
            if new != old:
                assert keyring.open(text[:place] + new + text[place + 1 :]) is None
    assert keyring.open(text) == TOKEN


@pytest.mark.parametrize("length", range(3))
def test_every_other_spelling_is_refused(keyring: Keyring, length: int) -> None:
    # Three lengths: what is left over in base64 is nothing, two bits or four.
    text = keyring.seal(replace(TOKEN, url=f"https://www.example.com/{'a' * length}"))

    padded = text + "=" * (-len(text) % 4)
    others = [
        text + "=",
        text + "==",
        text + "A",
        text + "\n",
        " " + text,
        text[:-1],
        text[1:],
        text[:20] + "\n" + text[20:],
        text[:20] + "=" + text[20:],
        "A" + text,
        text + text,
        text.swapcase(),
        text.replace("-", "+").replace("_", "/"),
        text[:5] + "é" + text[6:],
        text[:5] + "\0" + text[6:],
        text[:5] + "%41" + text[6:],
    ]
    for other in [*others, padded]:
        if other != text:
            assert keyring.open(other) is None
    last = ALPHABET.index(text[-1])
    for stray in range(1, 1 << {0: 0, 2: 4, 3: 2}[len(text) % 4]):
        assert keyring.open(text[:-1] + ALPHABET[last ^ stray]) is None
    assert keyring.open(text) is not None


def test_the_lengths_above_leave_all_there_is(keyring: Keyring) -> None:
    lengths = {
        len(keyring.seal(replace(TOKEN, url=f"https://www.example.com/{'a' * length}"))) % 4
        for length in range(3)
    }
    assert lengths == {0, 2, 3}


@given(st.text(max_size=300) | st.text(st.sampled_from(ALPHABET), max_size=300))
def test_no_other_text_is_opened_or_raises(keyring: Keyring, text: str) -> None:
    assert keyring.open(text) is None


def test_what_is_too_long_or_too_short_is_not_looked_at(keyring: Keyring) -> None:
    for text in ("", "A", "A" * 23, "A" * (LONGEST_TEXT + 1), "A" * 10_000_000, "\ud800" * 50):
        assert keyring.open(text) is None


def test_a_token_of_other_keys_is_refused(keyring: Keyring, path: Path) -> None:
    assert Keyring(path).open(keyring.seal(TOKEN)) is None


def test_the_id_of_the_key_is_authenticated(path: Path) -> None:
    """The same secret under another id: what one seals the other does not open."""
    Keyring(path)
    one = json.loads(path.read_text())["keys"][0]
    path.write_text(json.dumps({"keys": [one, one | {"id": 2, "created": "2001-01-01T00:00:00Z"}]}))
    keyring = Keyring(path)
    text = keyring.seal(TOKEN)

    assert keyring.open(text) == TOKEN
    # The first octet is in the first eight bits: 1 becomes 2.
    other = text[0] + ALPHABET[ALPHABET.index(text[1]) + 16] + text[2:]
    assert a2b_base64(other[:4].replace("-", "+").replace("_", "/"))[0] == 2
    assert keyring.open(other) is None


def test_old_tokens_are_refused_but_for_unsubscribing(path: Path) -> None:
    clock = Clock()
    keyring = Keyring(path, clock, lifetime=86_400.0 * 30)
    click = keyring.seal(replace(TOKEN, day=0))
    unsubscribe = keyring.seal(replace(TOKEN, day=0, kind=Kind.UNSUBSCRIBE, url=""))

    clock.now += 86_400 * 30
    assert keyring.open(click) is not None
    clock.now += 86_400
    assert keyring.open(click) is None
    assert keyring.open(unsubscribe) is not None
    assert Keyring(path, clock).open(click) is not None


# The file.


def test_the_file_is_made_once_for_its_owner_only(path: Path) -> None:
    first = Keyring(path)
    before = path.read_bytes()
    second = Keyring(path)

    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.read_bytes() == before
    assert second.open(first.seal(TOKEN)) == TOKEN
    assert [key.id for key in second.keys] == [1]
    assert list(path.parent.iterdir()) == [path]


def test_of_processes_that_start_at_once_one_makes_the_keys(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from plugins.tracking.keys import Keyring\n"
        "sys.stdin.read()\n"
        "print(Keyring(Path(sys.argv[1])).keys[0].secret.hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    found = {process.communicate(timeout=60)[0] for process in processes}

    assert len(found) == 1
    assert [bytes.fromhex(text.decode().strip()) for text in found] == [
        Keyring(path).keys[0].secret
    ]


def test_of_threads_that_start_at_once_one_makes_the_keys(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            path = tmp_path / f"{number}.json"
            made = list(pool.map(lambda _, path=path: key_file.make(path, NOW), range(8)))
            assert sorted(made) == [False] * 7 + [True]
    assert len(list(tmp_path.iterdir())) == 20


def test_keys_that_are_added_at_once_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: key_file.rotate(path, NOW), range(16)))

    kept = key_file.read(path)[1]
    assert {key.secret for key in added} == {key.secret for key in kept}
    assert sorted(key.id for key in kept) == list(range(1, 17))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o666, 0o777])
def test_a_file_that_others_can_read_or_change_is_refused(path: Path, mode: int) -> None:
    Keyring(path)
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"mode {mode:04o} lets other users .*chmod 0600"):
        Keyring(path)


def test_a_file_that_a_group_can_read_is_taken_and_stays_so(path: Path) -> None:
    Keyring(path)
    path.chmod(0o640)
    key_file.rotate(path, NOW)
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(Keyring(path).keys) == 2


def damaged() -> list[str]:
    secret = b64encode(bytes(32)).decode()
    good = {"id": 1, "created": "2025-01-01T00:00:00Z", "secret": secret}
    entries: list[object] = [
        good | {"id": 0},
        good | {"id": 256},
        good | {"id": "1"},
        good | {"id": True},
        good | {"secret": secret[:-4]},
        good | {"secret": secret + "!"},
        good | {"secret": "é"},
        good | {"created": "yesterday"},
        good | {"created": 5},
        {"id": 1},
        1,
        None,
    ]
    texts = [json.dumps({"keys": [entry]}) for entry in entries]
    texts += [json.dumps({"keys": [good, good]}), json.dumps({"keys": []}), json.dumps({})]
    return [*texts, "", "[]", "null", '{"keys": 1}', "not JSON", json.dumps({"keys": [good]})[:-2]]


@pytest.mark.parametrize("text", damaged())
def test_a_damaged_file_is_refused_without_telling_its_content(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(ValueError, match="no file of tracking keys") as refusal:
        Keyring(path)
    assert refusal.value.__context__ is None
    assert str(refusal.value).startswith(str(path))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a file|cannot be read"):
        Keyring(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ValueError, match="is not a file"):
        Keyring(tmp_path / "pipe")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be"):
        Keyring(tmp_path / "file" / "keys.json")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ValueError, match="cannot be"):
        Keyring(tmp_path / "loop")


def test_a_symbolic_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    Keyring(path)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    key_file.rotate(link, NOW)
    assert link.is_symlink()
    assert len(Keyring(path).keys) == 2


def test_the_file_is_made_where_a_symbolic_link_says(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(path)
    assert Keyring(link).keys == Keyring(path).keys
    assert link.is_symlink()
    assert not path.is_symlink()


def test_secrets_are_never_shown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    keyring = Keyring(path, clock)
    key_file.rotate(path, clock.now)
    clock.now += 2
    keyring.seal(TOKEN)

    (one, two) = keyring.keys
    shown = f"{keyring!r} {one!r} {two} {keyring.keys} {caplog.text}"
    for secret in (*secrets_of(path), one.secret.hex(), two.secret.hex(), repr(one.secret)):
        assert secret not in shown
    assert str(path) in shown


# New keys.


def test_the_newest_key_seals_and_all_open(path: Path) -> None:
    clock = Clock()
    old = Keyring(path, clock).seal(TOKEN)
    added = key_file.rotate(path, clock.now + 60)
    keyring = Keyring(path, clock)
    new = keyring.seal(TOKEN)

    assert [key.id for key in keyring.keys] == [1, 2]
    assert keyring.keys[-1] == added
    assert old != new
    assert keyring.open(old) == keyring.open(new) == TOKEN


def test_the_newest_key_is_so_whatever_the_clock_says(path: Path) -> None:
    Keyring(path, Clock(NOW))
    added = key_file.rotate(path, NOW - 86_400)
    assert Keyring(path).keys[-1] == added


def test_a_new_key_seals_within_a_second(path: Path) -> None:
    clock = Clock()
    keyring = Keyring(path, clock)
    before = keyring.seal(TOKEN)
    key_file.rotate(path, clock.now)

    clock.now += 0.9
    assert keyring.seal(TOKEN) == before
    clock.now += 0.2
    assert keyring.seal(TOKEN) != before
    assert keyring.open(before) == TOKEN


def test_a_token_of_a_key_not_yet_read_is_opened_at_once(path: Path) -> None:
    clock = Clock()
    web = Keyring(path, clock)
    key_file.rotate(path, clock.now)
    assert web.open(Keyring(path, clock).seal(TOKEN)) == TOKEN

    key_file.rotate(path, clock.now)
    another = Keyring(path, clock).seal(TOKEN)
    assert web.open(another) is None, "it looks at the file once a second at most"
    clock.now += 1
    assert web.open(another) == TOKEN


def test_a_clock_that_is_set_back_does_not_hide_new_keys(path: Path) -> None:
    clock = Clock()
    keyring = Keyring(path, clock)
    before = keyring.seal(TOKEN)
    key_file.rotate(path, clock.now)
    clock.now -= 86_400
    assert keyring.seal(TOKEN) != before


def test_a_new_version_that_cannot_be_read_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    keyring = Keyring(path, clock)
    text = keyring.seal(TOKEN)
    good = path.read_text()

    for break_it in (lambda: path.write_text("{"), path.unlink):
        caplog.clear()
        break_it()
        for _ in range(3):
            clock.now += 2
            assert keyring.open(text) == TOKEN
            assert keyring.seal(TOKEN) == text
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "the tracking keys stay as they were" in caplog.text
    path.touch(mode=0o600)
    path.write_text(good)
    key_file.rotate(path, clock.now)
    clock.now += 2
    assert keyring.seal(TOKEN) != text


def test_there_is_room_for_255_keys(path: Path) -> None:
    Keyring(path)
    (entry,) = json.loads(path.read_text())["keys"]
    day = "2025-01-01T00:00:00+00:00"
    entries = [entry | {"id": number, "created": day} for number in range(1, 255)]
    path.write_text(json.dumps({"keys": entries}))

    assert key_file.rotate(path, NOW).id == 255
    with pytest.raises(ValueError, match="holds 255 keys; take the oldest ones out first"):
        key_file.rotate(path, NOW)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be opened: (Not a directory|File exists)"):
        key_file.rotate(tmp_path / "file" / "keys.json", NOW)
