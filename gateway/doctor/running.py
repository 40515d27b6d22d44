"""The processes of a gateway, found by their sockets in the spool folder and in /proc."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.configuration.config import Config
from gateway.metrics.workers import Workers
from gateway.web.health import Report

TIMEOUT = 3.0
"""Seconds that a worker has to answer."""

_WORKER, _SERVICE = b"gateway.process.worker", b"gateway.process.service"
_SOCKET = re.compile(r"worker-\d+-(\d+)\.sock")


@dataclass(frozen=True, slots=True)
class Running:
    """What runs.

    Attributes:
        workers: process ids.
        supervisor: its process id; 0 if nothing runs.
        service: that of the service process; 0 if there is none.
        reports: what each worker says of itself, by its name; None: it does not answer.
        since: when the oldest of the workers began, in seconds since the epoch.
    """

    workers: tuple[int, ...] = ()
    supervisor: int = 0
    service: int = 0
    reports: Mapping[str, Report | None] = field(default_factory=dict)
    since: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.workers)

    @property
    def processes(self) -> dict[str, int]:
        """All of them, by what they are."""
        named = {"supervisor": self.supervisor, "service": self.service}
        named |= {f"worker {pid}": pid for pid in self.workers}
        return {name: pid for name, pid in named.items() if pid}


async def find(config: Config) -> Running:
    """Looks for the processes of a gateway and asks the workers how they are."""
    folder = config.spool.path
    sockets = dict(_sockets(folder))
    if not sockets:
        return Running()
    answers = await Workers(folder, config.worker_count).ask("health", TIMEOUT)
    reports: dict[str, Report | None] = {}
    for name, answer in answers.items():
        reports[name] = None
        with contextlib.suppress(KeyError, ValueError):
            if answer.said is not None:
                reports[name] = Report.from_json(answer.said["report"])
    parents = {parent_of(pid) for pid in sockets}
    supervisor = max(parents - {0, 1}, default=0)
    return Running(
        workers=tuple(sorted(sockets)),
        supervisor=supervisor,
        service=next(_children(supervisor, _SERVICE), 0),
        reports=reports,
        since=min(sockets.values()),
    )


def _sockets(folder: Path) -> Iterator[tuple[int, float]]:
    """Process ids of workers that live, and when they made their sockets.

    A dead one may have left its socket, and another program may have its number.
    """
    for path in folder.glob("worker-*.sock"):
        match = _SOCKET.fullmatch(path.name)
        if match is not None and _WORKER in words_of(int(match[1])):
            with contextlib.suppress(OSError):
                yield int(match[1]), path.stat().st_mtime


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _children(parent: int, word: bytes) -> Iterator[int]:
    """The children of a process that have a word in their command line."""
    for name in os.listdir("/proc") if parent else ():  # noqa: PTH208 - names of numbers are enough
        if not name.isdecimal():
            continue
        if word in words_of(int(name)) and parent_of(int(name)) == parent:
            yield int(name)


def words_of(pid: int) -> list[bytes]:
    """The command line of a process; empty for one that is gone, or dead and not yet buried."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
