"""A copy of what plugins have on disk, so that a trial changes nothing of the site's."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

import apsw

from gateway.configuration.config import Config

MOST = 2 << 30
"""Octets of a plugin's files that are copied; of one with more, none are."""

_SQLITE = b"SQLite format 3\0"
_BESIDE = ("-wal", "-shm", "-journal")
"""Files beside a database, which are copied with it."""

_COPY = 1 << 20


class ScratchError(Exception):
    """Something of the site cannot be copied. The text says what, and why."""


def in_scratch(config: Config, folder: Path, names: Iterable[str]) -> tuple[Config, list[str]]:
    """The configuration with its spool in another folder, where plugins find what they have.

    Args:
        config: the site's.
        folder: the new spool folder.
        names: the plugins whose files are copied.

    Returns it, and what could not be copied because it is too large, in sentences.

    Raises:
        ScratchError: something cannot be read or written.
    """
    notes = []
    spool = config.spool.path
    try:
        if config.spool.limits.is_file():
            _copy_sparse(config.spool.limits, folder / config.spool.limits.name)
        for name in names:
            inside = Path("plugins") / name.replace("/", "_")
            if not (spool / inside).is_dir():
                continue
            size = _size(spool / inside)
            if size > MOST:
                notes.append(
                    f"{name} has {size / (1 << 30):.1f} GiB of files, which are not copied: it "
                    "begins with none"
                )
                continue
            _copy_folder(spool / inside, folder / inside)
    except (OSError, apsw.Error) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        raise ScratchError(
            f"what plugins have on disk cannot be copied: {reason}; run this as the gateway's user"
        ) from error
    # The room on the disk of temporary files says nothing about that of the queue.
    section = config.spool.model_copy(update={"path": folder, "reserve": 0})
    return config.model_copy(update={"spool": section}), notes


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy_folder(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, parents=True)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            copy.mkdir(mode=0o700, exist_ok=True)
        elif stat.S_ISREG(mode) and not _is_beside(path):
            if _is_database(path):
                _copy_database(path, copy)
            else:
                shutil.copy2(path, copy)


def _is_beside(path: Path) -> bool:
    return any(
        path.name.endswith(end) and path.with_name(path.name.removesuffix(end)).exists()
        for end in _BESIDE
    )


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _copy_database(source: Path, target: Path) -> None:
    """Copies a database as it is at one moment, whoever writes it meanwhile."""
    log, shared = (source.with_name(source.name + end) for end in _BESIDE[:2])
    if not (log.exists() and shared.exists()):
        # Nobody has it open. To open it, only to read, would make files, and maybe for root.
        shutil.copy2(source, target)
        if log.exists():
            shutil.copy2(log, target.with_name(target.name + _BESIDE[0]))
        return
    old = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    new = apsw.Connection(str(target))
    try:
        old.set_busy_timeout(10_000)
        with new.backup("main", old, "main") as backup:
            while not backup.done:
                backup.step(1000)
        if old.pragma("journal_mode") == "wal":
            new.pragma("journal_mode", "wal")
    finally:
        new.close()
        old.close()


def _copy_sparse(source: Path, target: Path) -> None:
    """Copies a file that is mostly holes."""
    with source.open("rb") as old, target.open("wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        place = 0
        while place < size:
            try:
                place = os.lseek(old.fileno(), place, os.SEEK_DATA)
                end = os.lseek(old.fileno(), place, os.SEEK_HOLE)
            except OSError:
                break  # nothing but a hole is left
            while place < end:
                octets = os.pread(old.fileno(), min(_COPY, end - place), place)
                os.pwrite(new.fileno(), octets, place)
                place += len(octets) or end - place
