"""The file of the keys that return paths are signed with: made once, read by every process."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SECRET_OCTETS = 32
LARGEST_ID = 31
"""An id is one character of base 32."""
_LARGEST_FILE = 1 << 16

Version = tuple[int, int, int]
"""Time of change, size and inode: another file has another one."""


@dataclass(frozen=True, slots=True)
class Key:
    """A secret key.

    Attributes:
        id: its number, 1 to 31, which stands in each token that it signed.
        created: seconds since the epoch.
        secret: 32 octets.
    """

    id: int
    created: int
    secret: bytes = field(repr=False)


def version(path: Path) -> Version:
    """Which file there is now.

    Raises:
        OSError: none that can be reached.
    """
    return _version(path.stat())


def _version(status: os.stat_result) -> Version:
    return status.st_mtime_ns, status.st_size, status.st_ino


def read(path: Path) -> tuple[Version, tuple[Key, ...]]:
    """The keys in a file, the oldest first, and which version of it they are from.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, other users may read or change it, or it holds something
            else than keys. The text names the file and never what is in it.
    """
    try:
        # Not to wait for a pipe that somebody has put in its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
            status = os.fstat(descriptor)
            _check_mode(path, status.st_mode)
            content = file.read(_LARGEST_FILE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    keys: list[Key] = []
    with suppress(ValueError, KeyError, TypeError):
        keys = [_key(entry) for entry in json.loads(content)["keys"]]
    # Raised out here: an exception's context would show what is in the file.
    if not keys or len({key.id for key in keys}) != len(keys):
        raise ValueError(f"{path}: is no file of keys for return paths, or is damaged")
    return _version(status), tuple(sorted(keys, key=lambda key: key.created))


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: is not a file")
    bits = stat.S_IMODE(mode)
    if bits & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ValueError(
            f"{path}: mode {bits:04o} lets other users read or change the keys; "
            f"use 0600 or 0640 (chmod 0600 {path})"
        )


def _key(entry: dict[str, Any]) -> Key:
    created = datetime.fromisoformat(entry["created"])
    key = Key(entry["id"], int(created.timestamp()), bytes.fromhex(entry["secret"]))
    if type(key.id) is not int or not 0 < key.id <= LARGEST_ID:
        raise ValueError
    if len(key.secret) != SECRET_OCTETS:
        raise ValueError
    return key


def make(path: Path, now: float) -> bool:
    """Makes the file with a first key if there is none; False if there is one.

    Of several processes that do so at once one succeeds.

    Raises:
        ValueError: it cannot be written.
    """
    path = _real(path)
    if os.path.lexists(path):
        return False
    try:
        # Unlike a renaming, a link never replaces what another process has just put there.
        _write(path, (_new(1, now),), os.link)
    except FileExistsError:
        return False
    return True


def rotate(path: Path, now: float) -> Key:
    """Adds a key, which is the newest from now on; makes the file if there is none.

    Where there are as many keys as there can be, the oldest goes.

    Raises:
        ValueError: the file cannot be read or written.
    """
    path = _real(path)
    _make_folder(path.parent)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"{path.parent}: cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if make(path, now):
            return read(path)[1][-1]
        keys = read(path)[1][1 - LARGEST_ID :]
        free = set(range(1, LARGEST_ID + 1)).difference(key.id for key in keys)
        # The newest has to be so by its time too, whatever the clock does.
        key = _new(min(free), max(now, keys[-1].created + 1))
        _write(path, (*keys, key), os.replace)
        return key
    finally:
        os.close(folder)


def _real(path: Path) -> Path:
    """Where symbolic links lead: these are not to be replaced by a file."""
    return Path(os.path.realpath(path))


def _new(number: int, now: float) -> Key:
    return Key(number, int(now), secrets.token_bytes(SECRET_OCTETS))


def _write(path: Path, keys: Sequence[Key], place: Callable[[Path, Path], None]) -> None:
    """Writes a file beside `path` and lets `place` put it there.

    Raises:
        FileExistsError: `place` says so.
        ValueError: any other error of the file system.
    """
    _make_folder(path.parent)
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    entries = [
        {
            "id": key.id,
            "created": datetime.fromtimestamp(key.created, UTC).isoformat(),
            "secret": key.secret.hex(),
        }
        for key in keys
    ]
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - as above
                json.dump({"keys": entries}, file, indent=2)
                file.write("\n")
                file.flush()
                _inherit(descriptor, path)
                os.fsync(descriptor)
            place(new, path)
        finally:
            new.unlink(missing_ok=True)
        _sync(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be made: {error.strerror}") from None


def _inherit(descriptor: int, path: Path) -> None:
    """Gives a new file the mode and the owner of the old one.

    What root makes where there is none belongs to the owner of the folder: the gateway has to be
    able to read what a command made.
    """
    try:
        old = path.stat()
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
    except FileNotFoundError:
        if os.geteuid() != 0:
            return
        old = path.parent.stat()
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
