"""A file of secret keys: made once, read by every process, replaced when a key is added."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SECRET_OCTETS = 32
_LARGEST_FILE = 1 << 20

Version = tuple[int, int, int]
"""Time of change, size and inode: another file has another one."""


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A secret key of a `KeyFile`.

    Attributes:
        id: its number in the file, from 1; what it signs or seals may name it.
        created: seconds since the epoch.
        secret: 32 random octets.
    """

    id: int
    created: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of secret keys, for its owner and perhaps a group to read.

    It is JSON: `{"keys": [{"id": 1, "created": "2026-11-21T10:00:00+00:00", "secret": BASE64}]}`.
    The texts of errors name the file, and never show what is in it. Where the path is a symbolic
    link, it stays one, and the file that it leads to is made or replaced.

    Attributes:
        path: where it is. It need not exist, nor its folder.
        purpose: what the keys are for, as it stands in errors: `tracking` for "tracking keys".
        most: the largest number of keys, and the largest id; 1 or more.
        forget_oldest: what happens if there is no room for another key: the oldest goes, or
            `rotate` fails.
    """

    path: Path
    purpose: str = field(kw_only=True)
    most: int = field(default=255, kw_only=True)
    forget_oldest: bool = field(default=False, kw_only=True)

    def version(self) -> Version:
        """Which file there is now; compared with an older one, whether to read it again.

        Raises:
            OSError: none that can be reached.
        """
        return _version(self.path.stat())

    def read(self) -> tuple[Version, tuple[SecretKey, ...]]:
        """Which version of the file it is, and the keys in it: at least one, the oldest first.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it cannot be read, other users may read or change it, or it holds something
                else than keys.
        """
        path = self.path
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
        keys: list[SecretKey] = []
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            keys = [_key(entry, self.most) for entry in json.loads(content)["keys"]]
        # Raised out here: an exception's context would show what is in the file.
        if not keys or len({key.id for key in keys}) != len(keys):
            raise ValueError(f"{path}: is no file of {self.purpose} keys, or is damaged")
        return _version(status), tuple(sorted(keys, key=lambda key: key.created))

    def make(self, now: float) -> bool:
        """Makes the file with a first key if there is none; False if there is one.

        Of several processes that do so at once one succeeds.

        Args:
            now: seconds since the epoch.

        Raises:
            ValueError: it cannot be written.
        """
        path = _real(self.path)
        if os.path.lexists(path):
            return False
        _make_folder(path.parent)
        try:
            # Unlike a renaming, a link never replaces what another process has just put there.
            _write(path, (_new(1, now),), os.link)
        except FileExistsError:
            return False
        return True

    def rotate(self, now: float) -> SecretKey:
        """Adds a key, which is the newest from now on; makes the file if there is none.

        Of several processes that do so at once each adds one.

        Args:
            now: seconds since the epoch.

        Raises:
            ValueError: the file cannot be read or written, or has no room for another key.
        """
        path = _real(self.path)
        real = replace(self, path=path)
        _make_folder(path.parent)
        with _locked(path.parent):
            if real.make(now):
                return real.read()[1][-1]
            keys = real.read()[1]
            # The newest has to be so by its time too, whatever the clock does.
            now = max(now, keys[-1].created + 1)
            if self.forget_oldest and len(keys) >= self.most:
                keys = keys[len(keys) - self.most + 1 :]
            free = set(range(1, self.most + 1)).difference(key.id for key in keys)
            if not free:
                raise ValueError(f"{path}: holds {self.most} keys; take the oldest ones out first")
            key = _new(min(free), now)
            _write(path, (*keys, key), os.replace)
            return key


def _version(status: os.stat_result) -> Version:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: is not a file")
    bits = stat.S_IMODE(mode)
    if bits & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ValueError(
            f"{path}: mode {bits:04o} lets other users read or change the keys; "
            f"use 0600 or 0640 (chmod 0600 {path})"
        )


def _key(entry: dict[str, Any], most: int) -> SecretKey:
    created = datetime.fromisoformat(entry["created"])
    secret = b64decode(entry["secret"], validate=True)
    key = SecretKey(entry["id"], int(created.timestamp()), secret)
    if type(key.id) is not int or not 0 < key.id <= most or len(secret) != SECRET_OCTETS:
        raise ValueError
    return key


def _real(path: Path) -> Path:
    """Where symbolic links lead: these are not to be replaced by a file."""
    return Path(os.path.realpath(path))


def _new(number: int, now: float) -> SecretKey:
    return SecretKey(number, int(now), secrets.token_bytes(SECRET_OCTETS))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be made: {error.strerror}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder. The file itself is replaced, so a lock of it would not do."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be locked: {error.strerror}") from None
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, keys: Sequence[SecretKey], place: Callable[[Path, Path], None]) -> None:
    """Writes a file beside `path` and lets `place` put it there.

    Raises:
        FileExistsError: `place` says so.
        ValueError: any other error of the file system.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    entries = [
        {
            "id": key.id,
            "created": datetime.fromtimestamp(key.created, UTC).isoformat(),
            "secret": b64encode(key.secret).decode("ascii"),
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
