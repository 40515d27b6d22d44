from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import KeyFile, SecretKey

NOW = 1_790_000_000.0
SECRET = b64encode(bytes(range(32))).decode()
GOOD = {"id": 1, "created": "2025-01-01T00:00:00Z", "secret": SECRET}


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "data" / "keys.json", purpose="receipt")


def keys_of(file: KeyFile) -> tuple[SecretKey, ...]:
    return file.read()[1]


def write(file: KeyFile, content: str) -> None:
    file.path.parent.mkdir(exist_ok=True)
    file.path.touch(mode=0o600)
    file.path.write_text(content)


# Making.


def test_the_file_is_made_once_for_its_owner_only(file: KeyFile) -> None:
    path = file.path
    assert file.make(NOW)
    before = path.read_bytes()
    assert not file.make(NOW + 5)

    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]
    (key,) = keys_of(file)
    assert (key.id, key.created, len(key.secret)) == (1, int(NOW), 32)


def test_each_file_has_a_key_of_its_own(file: KeyFile, tmp_path: Path) -> None:
    other = KeyFile(tmp_path / "other.json", purpose="receipt")
    assert file.make(NOW)
    assert other.make(NOW)
    assert keys_of(file)[0].secret != keys_of(other)[0].secret


def test_the_form_of_the_file_stays(file: KeyFile) -> None:
    write(file, json.dumps({"keys": [GOOD | {"id": 7}]}))
    assert keys_of(file) == (SecretKey(7, 1_735_689_600, bytes(range(32))),)

    added = file.rotate(NOW)
    assert json.loads(file.path.read_text()) == {
        "keys": [
            {"id": 7, "created": "2025-01-01T00:00:00+00:00", "secret": SECRET},
            {
                "id": 1,
                "created": "2026-09-21T14:13:20+00:00",
                "secret": b64encode(added.secret).decode(),
            },
        ]
    }


def test_of_processes_that_start_at_once_one_makes_the_keys(file: KeyFile) -> None:
    code = (
        "import sys; from pathlib import Path; from gateway.hooks import KeyFile\n"
        "file = KeyFile(Path(sys.argv[1]), purpose='receipt')\n"
        "print('ready', flush=True); sys.stdin.read()\n"
        f"print(file.make({NOW}), file.read()[1][0].secret.hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, file.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    found = [process.communicate(timeout=60)[0].split() for process in processes]

    assert sorted(made for made, _ in found) == ["False", "False", "False", "True"]
    assert {secret for _, secret in found} == {keys_of(file)[0].secret.hex()}


def test_of_threads_that_start_at_once_one_makes_the_keys(tmp_path: Path) -> None:
    together = Barrier(8)

    def start(file: KeyFile) -> tuple[bool, bytes]:
        together.wait()
        return file.make(NOW), keys_of(file)[0].secret

    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            file = KeyFile(tmp_path / f"{number}.json", purpose="receipt")
            made, secrets = zip(*pool.map(start, [file] * 8), strict=True)
            assert sorted(made) == [False] * 7 + [True]
            assert len(set(secrets)) == 1
    assert len(list(tmp_path.iterdir())) == 20


# Adding keys.


def test_rotating_makes_the_file_if_there_is_none(file: KeyFile) -> None:
    key = file.rotate(NOW)
    assert keys_of(file) == (key,)
    assert (key.id, key.created) == (1, int(NOW))


def test_the_newest_key_is_the_last(file: KeyFile) -> None:
    added = tuple(file.rotate(NOW + number) for number in range(3))
    assert keys_of(file) == added
    assert [key.id for key in added] == [1, 2, 3]
    assert len({key.secret for key in added}) == 3


def test_the_newest_key_is_so_whatever_the_clock_says(file: KeyFile) -> None:
    file.rotate(NOW)
    key = file.rotate(NOW - 86_400)
    assert keys_of(file)[-1] == key


def test_keys_that_are_added_at_once_are_all_kept(file: KeyFile) -> None:
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: file.rotate(NOW), range(16)))

    kept = keys_of(file)
    assert {key.secret for key in added} == {key.secret for key in kept}
    assert sorted(key.id for key in kept) == list(range(1, 17))
    assert list(file.path.parent.iterdir()) == [file.path]


def test_a_key_that_was_taken_out_leaves_room(file: KeyFile) -> None:
    for number in range(3):
        file.rotate(NOW + number)
    entries = json.loads(file.path.read_text())["keys"]
    file.path.write_text(json.dumps({"keys": [entries[0], entries[2]]}))
    assert file.rotate(NOW + 3).id == 2
    assert [key.id for key in keys_of(file)] == [1, 3, 2]


def test_a_full_file_is_left_as_it_is(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json", purpose="receipt", most=3)
    for _ in range(3):
        file.rotate(NOW)
    before = file.path.read_bytes()
    with pytest.raises(ValueError, match="holds 3 keys; take the oldest ones out first"):
        file.rotate(NOW)
    assert file.path.read_bytes() == before


@given(st.integers(1, 6), st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_where_the_oldest_goes_the_newest_are_kept(
    tmp_path_factory: pytest.TempPathFactory, most: int, times: list[int]
) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    file = KeyFile(path, purpose="receipt", most=most, forget_oldest=True)
    added = [file.rotate(NOW + moment) for moment in times]
    kept = keys_of(file)
    assert list(kept) == added[-most:]
    assert len({key.id for key in kept}) == len(kept)
    assert {key.id for key in kept} <= set(range(1, most + 1))


def test_the_version_changes_with_the_file(file: KeyFile) -> None:
    with pytest.raises(FileNotFoundError):
        file.version()
    versions = set()
    for number in range(5):
        file.rotate(NOW + number)
        versions.add(file.version())
        assert file.read()[0] == file.version()
    assert len(versions) == 5


# Who may read it.


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o666, 0o777])
def test_a_file_that_others_can_read_or_change_is_refused(file: KeyFile, mode: int) -> None:
    file.make(NOW)
    before = file.path.read_bytes()
    file.path.chmod(mode)
    for use in (file.read, lambda: file.rotate(NOW)):
        with pytest.raises(ValueError, match=f"mode {mode:04o} lets other users .*chmod 0600"):
            use()
    assert file.path.read_bytes() == before


def test_a_file_that_a_group_can_read_is_taken_and_stays_so(file: KeyFile) -> None:
    file.make(NOW)
    file.path.chmod(0o640)
    file.rotate(NOW)
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert len(keys_of(file)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(file: KeyFile) -> None:
    path = file.path
    path.parent.mkdir()
    os.chown(path.parent, 1234, 1235)
    file.make(NOW)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_the_file_stays_so(file: KeyFile) -> None:
    file.make(NOW)
    os.chown(file.path, 1234, 1235)
    file.rotate(NOW)
    assert (file.path.stat().st_uid, file.path.stat().st_gid) == (1234, 1235)


def test_secrets_are_not_shown(file: KeyFile) -> None:
    key = file.rotate(NOW)
    shown = f"{file!r} {key!r} {key} {file.read()}"
    for secret in (repr(key.secret), key.secret.hex(), b64encode(key.secret).decode()):
        assert secret not in shown
    assert b64encode(key.secret).decode() in file.path.read_text()


# What is no such file.


def damaged() -> list[str]:
    entries: list[object] = [
        GOOD | {"id": 0},
        GOOD | {"id": 256},
        GOOD | {"id": "1"},
        GOOD | {"id": True},
        GOOD | {"secret": SECRET[:-4]},
        GOOD | {"secret": SECRET + "!"},
        GOOD | {"secret": "é"},
        GOOD | {"secret": "00" * 32},
        GOOD | {"created": "yesterday"},
        GOOD | {"created": 5},
        {"id": 1},
        1,
        None,
    ]
    texts = [json.dumps({"keys": [entry]}) for entry in entries]
    texts += [json.dumps({"keys": [GOOD, GOOD]}), json.dumps({"keys": []}), json.dumps({})]
    texts += ["", "[]", "null", '{"keys": 1}', "not JSON", json.dumps({"keys": [GOOD]})[:-2]]
    return [*texts, "[" * 100_000]


@pytest.mark.parametrize("text", damaged(), ids=lambda text: text[:60])
def test_a_damaged_file_is_refused_without_telling_its_content(file: KeyFile, text: str) -> None:
    write(file, text)
    for use in (file.read, lambda: file.rotate(NOW)):
        with pytest.raises(
            ValueError, match="is no file of receipt keys, or is damaged"
        ) as refusal:
            use()
        assert str(refusal.value) == f"{file.path}: is no file of receipt keys, or is damaged"
        assert refusal.value.__context__ is None
    assert file.path.read_text() == text


def test_an_id_beyond_the_largest_is_refused(file: KeyFile) -> None:
    write(file, json.dumps({"keys": [GOOD | {"id": 32}]}))
    assert keys_of(file)[0].id == 32
    with pytest.raises(ValueError, match="is damaged"):
        KeyFile(file.path, purpose="receipt", most=31).read()


def test_a_file_that_is_not_there_is_told_from_one_that_is_refused(file: KeyFile) -> None:
    with pytest.raises(FileNotFoundError):
        file.read()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, text in {
        "": r"is not a file|cannot be read: Is a directory",
        "pipe": "is not a file",
        "file/keys.json": "cannot be read: Not a directory",
        "loop": "cannot be read: Too many levels of symbolic links",
    }.items():
        with pytest.raises(ValueError, match=text) as refusal:
            KeyFile(tmp_path / name, purpose="receipt").read()
        assert str(refusal.value).startswith(f"{tmp_path / name}: ")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = KeyFile(tmp_path / "file" / "keys.json", purpose="receipt")
    for change in (file.make, file.rotate):
        with pytest.raises(ValueError, match=r"/file: cannot be made: File exists"):
            change(NOW)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # A name that is short enough only without what its new version gets in addition.
    name = "k" * 250
    file = KeyFile(tmp_path / name, purpose="receipt")
    for change in (file.make, file.rotate):
        with pytest.raises(ValueError, match=rf"/{name}: cannot be written: File name too long"):
            change(NOW)
    assert list(tmp_path.iterdir()) == []


# Symbolic links.


def test_a_symbolic_link_to_the_file_stays_one(file: KeyFile, tmp_path: Path) -> None:
    file.make(NOW)
    link = KeyFile(tmp_path / "link.json", purpose="receipt")
    link.path.symlink_to(file.path)
    link.rotate(NOW)
    assert link.path.is_symlink()
    assert len(keys_of(file)) == 2
    assert link.read() == file.read()


def test_the_file_is_made_where_a_symbolic_link_says(file: KeyFile, tmp_path: Path) -> None:
    link = KeyFile(tmp_path / "link.json", purpose="receipt")
    link.path.symlink_to(file.path)
    assert link.make(NOW)
    assert link.path.is_symlink()
    assert not file.path.is_symlink()
    assert keys_of(link) == keys_of(file)
    assert not file.make(NOW)
