"""Pauses: mail that a person keeps in the queue, what is there and what comes, until it is resumed.

They are in `pauses.json` in the spool folder, which every process reads. Who writes it tells the
workers; a worker that was not told sees it within a second.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.mail.message import Recipient
from gateway.queue.selection import Selection
from gateway.spool.held_reason import PAUSED
from gateway.spool.queue_entry import Envelope
from gateway.spool.shard_file import SpoolError

LOOK_SECONDS = 1.0
"""How often it is seen at most whether the file has changed."""

HELD_BY_A_PAUSE = f"{PAUSED}*"
"""What mail that any pause holds is held for, as GLOB of SQLite."""

log = logging.getLogger("gateway.queue")


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause: its number, what it holds, why, and since when in seconds since the epoch."""

    id: int
    selection: Selection
    reason: str
    since: float

    @property
    def held(self) -> str:
        """What mail is held for."""
        return f"{mark(self.id)}{self.reason}".rstrip()


def mark(pause: int) -> str:
    """How the reason of mail that a pause holds begins, if a space is put behind it."""
    return f"{PAUSED}{pause} "


def pause_of(held: str) -> int | None:
    """The number of the pause that holds mail; None if no pause does."""
    word, _, rest = held.partition(" ")
    number = rest.partition(" ")[0]
    return int(number) if word == "paused:" and number.isascii() and number.isdigit() else None


class Pauses:
    """The pauses in force, for a worker that takes mail.

    Args:
        folder: the spool folder.
        clock: seconds since the epoch.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._pauses: tuple[Pause, ...] = ()
        self._version: tuple[int, ...] = ()
        # Not yet read: a file that was written while this process started is read in any case.
        self._from = self._until = 0.0

    def __bool__(self) -> bool:
        """Whether there is any."""
        if not self._from <= self._clock() < self._until:
            self._look()
        return bool(self._pauses)

    def reason_for(self, envelope: Envelope, lane: str, recipient: Recipient) -> str | None:
        """Why a recipient is to be held; None if no pause is about it. Ask `bool` first."""
        for pause in self._pauses:
            if pause.selection.matches(envelope, lane, recipient):
                return pause.held
        return None

    def reload(self) -> None:
        """Reads the file again, whatever its time says.

        Raises:
            SpoolError: it cannot be read.
        """
        version = _version(self._folder)
        _, self._pauses = _read(self._folder)
        self._version = version

    def _look(self) -> None:
        self._from = self._clock()
        self._until = self._from + LOOK_SECONDS
        try:
            if _version(self._folder) != self._version:
                self.reload()
        except SpoolError as error:
            # Those that are known stay in force.
            log.error("%s", error)


def read_pauses(folder: Path) -> tuple[Pause, ...]:
    """The pauses in force.

    Raises:
        SpoolError: the file cannot be read.
    """
    return _read(folder)[1]


def add_pause(folder: Path, selection: Selection, reason: str, now: float) -> Pause:
    """Puts a pause in force; one with the same selection gets the new reason, if there is one.

    Args:
        folder: the spool folder; made if it is not there.
        selection: what it is about; ids and states are not known when mail comes.
        reason: for people, on one line.
        now: seconds since the epoch.

    Raises:
        ValueError: there are ids or a state.
        SpoolError: the file cannot be read or written.
    """
    if selection.ids or selection.state is not None:
        raise ValueError("a pause is about mail that comes, too, and cannot ask for ids or states")
    with _writing(folder):
        following, pauses = _read(folder)
        known = next((pause for pause in pauses if pause.selection == selection), None)
        if known is None:
            pause = Pause(following, selection, reason, now)
            _write(folder, following + 1, [*pauses, pause])
            return pause
        pause = Pause(known.id, selection, reason or known.reason, known.since)
        if pause != known:
            _write(folder, following, [pause if one is known else one for one in pauses])
        return pause


def remove_pauses(folder: Path, ids: Iterable[int]) -> None:
    """Ends pauses.

    Raises:
        SpoolError: the file cannot be read or written.
    """
    ended = set(ids)
    with _writing(folder):
        following, pauses = _read(folder)
        left = [pause for pause in pauses if pause.id not in ended]
        if len(left) < len(pauses):
            _write(folder, following, left)


def _path(folder: Path) -> Path:
    return folder / "pauses.json"


def _version(folder: Path) -> tuple[int, ...]:
    try:
        stat = _path(folder).stat()
    except FileNotFoundError:
        return (0,)
    except OSError as error:
        raise SpoolError(f"{_path(folder)}: {error.strerror}") from error
    return stat.st_ctime_ns, stat.st_ino, stat.st_size


def _read(folder: Path) -> tuple[int, tuple[Pause, ...]]:
    """The number of the next pause, and the pauses."""
    path = _path(folder)
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        pauses = [
            Pause(one["id"], Selection(**one["selection"]), one["reason"], one["since"])
            for one in data["pauses"]
        ]
        return int(data["next"]), tuple(pauses)
    except FileNotFoundError:
        return 1, ()
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SpoolError(f"{path} is damaged: {error!r}") from error


def _write(folder: Path, following: int, pauses: Iterable[Pause]) -> None:
    data = {
        "next": following,
        "pauses": [
            {
                "id": pause.id,
                "selection": pause.selection.given,
                "reason": pause.reason,
                "since": pause.since,
            }
            for pause in pauses
        ],
    }
    temporary = _path(folder).with_suffix(".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600, exist_ok=False)
    with temporary.open("w") as file:
        json.dump(data, file, indent=2)
        file.flush()
        _give_away(file.fileno(), folder)
        os.fsync(file.fileno())
    temporary.replace(_path(folder))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Keeps other commands from writing the file at the same time."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(folder / "pauses.lock", flags, 0o600)
        try:
            _give_away(descriptor, folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SpoolError(f"{_path(folder)}: {error.strerror}") from error


def _give_away(descriptor: int, folder: Path) -> None:
    """Gives a file to the folder's owner: the workers may not be root, and have to read it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
