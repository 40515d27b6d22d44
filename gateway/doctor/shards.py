"""The databases of the queue: sound or damaged, and held by somebody or not."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from gateway.doctor.finding import Finding, count, listed, note, ok, problem
from gateway.doctor.site import Site
from gateway.mail.large_content import LARGE
from gateway.spool import queue_id
from gateway.spool.shard_file import APPLICATION_ID, VERSION
from gateway.spool.spool import shard_numbers

SECONDS = 20.0
"""How long all shards may be read for: a large queue is read in part."""

ADOPTED = 30.0
"""Seconds within which a running gateway takes every shard that it can read."""

_SELECT_PART = "SELECT octets FROM parts WHERE copy=? AND number=?"
_IS_THERE = "SELECT EXISTS (SELECT 1 FROM messages WHERE copy=?)"

_STEP = 20
_OPCODES = 10_000
"""Steps of SQLite between two looks at the time."""

_FORMATS = (1, VERSION)
"""What a worker opens; the first one has no table of parts until then."""

_FOR_A_PERSON = (
    "the rest of the queue goes on; when no process holds the shard, gateway queue salvage {} "
    "saves what is whole in it, and --dry-run says what that is"
)


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of the shards."""
    folder = site.config.spool.path
    numbers = shard_numbers(folder) if folder.is_dir() else []
    if not numbers:
        yield ok("no shard is there: nothing was ever queued, or the folder is new")
        return
    deadline = time.monotonic() + SECONDS
    sound, parts = 0, 0
    for number in numbers:
        finding = _examined(folder / f"{number:04d}.db", deadline)
        if finding is None:
            sound += 1
        else:
            parts += finding.severity == "note"
            yield finding
    if sound:
        yield ok(f"{count(sound, 'shard')} without damage")
    if site.running and site.started - site.running.since > ADOPTED:
        free = [f"{number:04d}" for number in unowned(folder, numbers)]
        if free:
            yield problem(
                f"no process holds {'shard' if len(free) == 1 else 'shards'} {listed(free)}: "
                "the mail in it waits",
                'the log says why; search it for "is left for a person"',
            )


def _examined(path: Path, deadline: float) -> Finding | None:
    """What is wrong with one; None if nothing is."""
    name = f"shard {path.stem}"
    try:
        db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        return None if not path.exists() else _unreadable(path, error)
    with closing(db):
        try:
            db.set_busy_timeout(5_000)
            if db.pragma("application_id") != APPLICATION_ID:
                return problem(f"{name} is another program's database", f"move {path} away")
            version = db.pragma("user_version")
            if version not in _FORMATS:
                return problem(
                    f"{name} has format {version}, and this version reads format {VERSION}",
                    "run the version of the gateway that wrote it",
                )
            db.set_progress_handler(lambda: time.monotonic() > deadline, _OPCODES)
            said = db.execute("PRAGMA quick_check(1)").get
            if said != "ok":
                return problem(f"{name} is damaged: {said}", _FOR_A_PERSON.format(path.stem))
            damaged = [queue_id.to_text(id_) for id_ in _damaged(db, deadline)]
        except apsw.InterruptError:
            return note(f"{name} is large: it was read for some seconds, and not to its end")
        except apsw.Error as error:
            return _unreadable(path, error)
    if damaged:
        return problem(
            f"damaged in {name}, as the checksum does not fit: "
            f"{count(len(damaged), 'message')} ({listed(damaged)})",
            "they are held, and not sent: gateway queue show ID --content, then drop or release",
        )
    return None


def _unreadable(path: Path, error: apsw.Error) -> Finding:
    return problem(f"shard {path.stem} cannot be read: {error}", _FOR_A_PERSON.format(path.stem))


def _damaged(db: apsw.Connection, deadline: float) -> Iterator[int]:
    """The ids of messages whose content is not what was written.

    Raises:
        apsw.InterruptError: the time is over.
    """
    sql = (
        "SELECT copy, id, content, checksum, size FROM messages WHERE copy>? ORDER BY copy LIMIT ?"
    )
    last = -1
    while True:
        # A few at a time: a long read would keep the owner's log from being written back.
        rows: list[Any] = db.execute(sql, (last, _STEP)).fetchall()
        for copy, id_, content, checksum, size in rows:
            last = copy
            if size > LARGE and not content:
                if _parts_are_damaged(db, copy, checksum, deadline):
                    yield id_
            elif zlib.crc32(content) != checksum:
                yield id_
        if len(rows) < _STEP:
            return
        _look_at(deadline)


def _parts_are_damaged(db: apsw.Connection, copy: int, checksum: int, deadline: float) -> bool:
    found = number = 0
    while True:
        rows: list[Any] = db.execute(_SELECT_PART, (copy, number)).fetchall()
        if not rows:
            break
        found = zlib.crc32(rows[0][0], found)
        number += 1
        _look_at(deadline)
    # A message that has gone out meanwhile took its parts with it.
    return found != checksum and bool(db.execute(_IS_THERE, (copy,)).get)


def _look_at(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise apsw.InterruptError("the time is over")


def unowned(folder: Path, numbers: Sequence[int]) -> list[int]:
    """The shards whose lock nobody holds, as the kernel tells without taking one."""
    held = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields:
            # The number of the device is another one than stat's on some file systems.
            held.add(next((one.rpartition(":")[2] for one in fields if one.count(":") == 2), ""))
    free = []
    for number in numbers:
        try:
            inode = (folder / f"{number:04d}.lock").stat().st_ino
        except FileNotFoundError:
            if (folder / f"{number:04d}.db").exists():
                free.append(number)
            continue
        if str(inode) not in held:
            free.append(number)
    return free
