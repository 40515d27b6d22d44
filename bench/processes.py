"""CPU time and memory of a tree of processes, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat: times in seconds.

    `reaped` is what its exited children used, and theirs, as far as they were waited for.
    `started` is when it began, in ticks since boot: with `pid`, it tells a process from a later
    one of the same number. `ended` is true of one that only waits for its parent to ask.
    """

    pid: int
    parent: int
    own: float
    reaped: float
    started: int
    ended: bool

    @classmethod
    def parse(cls, stat: str) -> Process:
        """Reads proc_pid_stat(5); the name in parentheses may hold spaces and parentheses."""
        pid, _, rest = stat.partition(" ")
        fields = rest[rest.rindex(")") + 2 :].split()
        utime, stime, cutime, cstime = (int(field) * _TICK for field in fields[11:15])
        return cls(
            pid=int(pid),
            parent=int(fields[1]),
            own=utime + stime,
            reaped=cutime + cstime,
            started=int(fields[19]),
            ended=fields[0] in "ZX",
        )


def running() -> Iterator[Process]:
    """Every process that can be seen."""
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                yield Process.parse((folder / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile


class Tree:
    """Some processes and everything that descends from them."""

    def __init__(self, roots: Sequence[int]) -> None:
        self.roots = tuple(roots)

    def members(self) -> list[Process]:
        """The processes of the tree that live now, parents before children."""
        by_pid: dict[int, Process] = {}
        children: dict[int, list[Process]] = {}
        for process in running():
            by_pid[process.pid] = process
            children.setdefault(process.parent, []).append(process)
        found = [by_pid[root] for root in self.roots if root in by_pid]
        for process in found:
            found.extend(children.get(process.pid, ()))
        return found

    def cpu(self) -> float:
        """Seconds of CPU time (user and system) that the tree has used, exited members included.

        A living process counts with the larger of its clock ticks and the run time of its
        threads: ticks are whole hundredths of a second, which loses up to two of them in each
        process, and the run time leaves out threads that have ended.
        """
        return sum(
            max(process.own, _run_time(process.pid)) + process.reaped for process in self.members()
        )

    def memory(self) -> int:
        """Bytes of memory in use: proportional set size, where shared pages count once."""
        return sum(_pss(process.pid) for process in self.members())

    def largest(self) -> int:
        """Bytes of memory of the process that uses most, as `memory` counts."""
        return max((_pss(process.pid) for process in self.members()), default=0)

    def settle(self, within: float, window: float = 0.25) -> None:
        """Waits until the tree uses less than a twentieth of a core, `within` seconds at most."""
        deadline = time.monotonic() + within
        before = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(window)
            now = self.cpu()
            if now - before < 0.05 * window:
                return
            before = now


class PeakMemory:
    """How much more memory the processes of a tree take at the most, from its making on.

    The kernel keeps the peak of each process, so nothing is missed between two looks. Each has its
    peak at a time of its own: the sum is never below that of the tree.
    """

    def __init__(self, tree: Tree) -> None:
        self._idle: dict[int, int] = {}
        for process in tree.members():
            (PROC / str(process.pid) / "clear_refs").write_text("5\n")
            self._idle[process.pid] = _memory(process.pid, "VmRSS")

    def above(self) -> int:
        """Bytes above what each of them had at the beginning."""
        return sum(max(0, _memory(pid, "VmHWM") - idle) for pid, idle in self._idle.items())


def _memory(pid: int, field: str) -> int:
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that is about to be reaped has no memory


def _run_time(pid: int) -> float:
    total = 0
    try:
        for thread in (PROC / str(pid) / "task").iterdir():
            total += int((thread / "schedstat").read_text().split(" ", 1)[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # ended meanwhile, or a kernel without scheduler statistics
    return total / 1e9


def _pss(pid: int) -> int:
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that is about to be reaped has no memory
