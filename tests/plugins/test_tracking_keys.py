from __future__ import annotations

import json
import logging
from binascii import a2b_base64
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.tracking.keys import LONGEST_TEXT, Keyring, key_file
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


def test_the_first_start_makes_a_key_and_the_second_reads_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Keyring(path)
    assert f"made new keys in {path}; all machines need the same ones" in caplog.text
    caplog.clear()
    second = Keyring(path)

    assert not caplog.records
    assert second.open(first.seal(TOKEN)) == TOKEN
    assert [key.id for key in second.keys] == [1]


def test_a_damaged_file_is_refused_by_name(path: Path) -> None:
    Keyring(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"keys\.json: is no file of tracking keys"):
        Keyring(path)


def test_each_of_255_keys_seals(path: Path) -> None:
    Keyring(path)
    (entry,) = json.loads(path.read_text())["keys"]
    day = "2025-01-01T00:00:00+00:00"
    entries = [entry | {"id": number, "created": day} for number in range(1, 255)]
    path.write_text(json.dumps({"keys": entries}))

    assert key_file(path).rotate(NOW).id == 255
    keyring = Keyring(path)
    assert keyring.open(keyring.seal(TOKEN)) == TOKEN
    with pytest.raises(ValueError, match="holds 255 keys; take the oldest ones out first"):
        key_file(path).rotate(NOW)


def test_secrets_are_never_shown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    keyring = Keyring(path, clock)
    key_file(path).rotate(clock.now)
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
    added = key_file(path).rotate(clock.now + 60)
    keyring = Keyring(path, clock)
    new = keyring.seal(TOKEN)

    assert [key.id for key in keyring.keys] == [1, 2]
    assert keyring.keys[-1] == added
    assert old != new
    assert keyring.open(old) == keyring.open(new) == TOKEN


def test_a_new_key_seals_within_a_second(path: Path) -> None:
    clock = Clock()
    keyring = Keyring(path, clock)
    before = keyring.seal(TOKEN)
    key_file(path).rotate(clock.now)

    clock.now += 0.9
    assert keyring.seal(TOKEN) == before
    clock.now += 0.2
    assert keyring.seal(TOKEN) != before
    assert keyring.open(before) == TOKEN


def test_a_token_of_a_key_not_yet_read_is_opened_at_once(path: Path) -> None:
    clock = Clock()
    web = Keyring(path, clock)
    key_file(path).rotate(clock.now)
    assert web.open(Keyring(path, clock).seal(TOKEN)) == TOKEN

    key_file(path).rotate(clock.now)
    another = Keyring(path, clock).seal(TOKEN)
    assert web.open(another) is None, "it looks at the file once a second at most"
    clock.now += 1
    assert web.open(another) == TOKEN


def test_a_clock_that_is_set_back_does_not_hide_new_keys(path: Path) -> None:
    clock = Clock()
    keyring = Keyring(path, clock)
    before = keyring.seal(TOKEN)
    key_file(path).rotate(clock.now)
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
    key_file(path).rotate(clock.now)
    clock.now += 2
    assert keyring.seal(TOKEN) != text
