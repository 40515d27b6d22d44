"""How many files and sockets a process may have open."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from gateway.doctor.finding import Finding, note, ok, warning
from gateway.doctor.site import Site

OTHERS = 1000
"""Descriptors besides those of clients: databases, logs, connections to servers."""

_LINE = re.compile(r"^Max open files\s+(\S+)\s+(\S+)", re.MULTILINE)
_SHARE = 0.8


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of the bound on open files."""
    wanted = site.config.limits.connections + OTHERS
    remedy = f"LimitNOFILE={max(65536, wanted)} in the unit, or a lower limits.connections"
    if not site.running:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        yield note(f"here, a process may open {_text(hard)} files; the unit may say otherwise")
        return
    bounds = {pid: bound_of(pid) for pid in site.running.workers}
    known = [bound for bound in bounds.values() if bound]
    if not known:
        yield note("how many files the workers may open cannot be read as this user")
        return
    least = min(known)
    if least < wanted:
        yield warning(
            f"a worker may open {least:,} files, and limits.connections are "
            f"{site.config.limits.connections:,}: clients beyond that are not answered",
            remedy,
        )
    else:
        yield ok(f"a worker may open {least:,} files")
    for pid, bound in bounds.items():
        used = _open_files(pid)
        if bound and used > _SHARE * bound:
            yield warning(f"worker {pid} has {used:,} of {bound:,} files open", remedy)


def _text(bound: int) -> str:
    return "any number of" if bound == resource.RLIM_INFINITY else f"{bound:,}"


def bound_of(pid: int) -> int:
    """How many files a process may open now; 0 if that cannot be read."""
    try:
        match = _LINE.search(Path(f"/proc/{pid}/limits").read_text())
    except OSError:
        return 0
    if match is None:
        return 0
    return 1 << 30 if match[1] == "unlimited" else int(match[1])


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        return 0
