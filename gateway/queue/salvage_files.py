"""The files that a salvage leaves: contents for people, and damaged shards out of the way."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path

from gateway.mail.large_content import DamagedContentError, Octets
from gateway.spool.shard_file import SpoolError


def save(folder: Path, stem: str, suffix: str, pieces: Iterable[Octets]) -> Path:
    """Writes a file that is on the disk, as a whole, when this returns.

    What is there already stays: if it is another content, the new file gets a number.

    Raises:
        OSError, SpoolError: it cannot be written, or its content cannot be read.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = folder / f".{stem}{suffix}.new"
    try:
        # Nobody else reads it: it is mail.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
    except DamagedContentError as error:
        raise SpoolError(f"{stem}: {error}: the disk fails while it is read") from error
    number, path = 1, folder / f"{stem}{suffix}"
    while path.exists() and not filecmp.cmp(temporary, path, shallow=False):
        number += 1
        path = folder / f"{stem}.{number}{suffix}"
    temporary.replace(path)
    return path


def set_apart(path: Path) -> list[Path]:
    """Renames the files of a shard: `0003.db` to `0003.db.damaged`; returns their new names.

    Raises:
        OSError: they cannot be renamed.
    """
    number, name = 1, f"{path.name}.damaged"
    while any(path.with_name(f"{name}{suffix}").exists() for suffix in ("", "-wal", "-shm")):
        number += 1
        name = f"{path.name}.damaged.{number}"
    renamed = []
    # First the log: another database of this number must not meet it.
    for suffix in ("-wal", "-shm", ""):
        file = path.with_name(f"{path.name}{suffix}")
        if file.exists():
            renamed.append(file.rename(path.with_name(f"{name}{suffix}")))
    sync(path.parent)
    return sorted(renamed)


def sync(folder: Path) -> None:
    """Makes the names in a folder last, if it is there."""
    if folder.is_dir():
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
