"""Where the log goes, and whether it can."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from gateway.doctor.finding import Finding, note, octets, ok, problem, warning
from gateway.doctor.site import Site

LARGE = 1 << 30


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of the log."""
    path = site.config.log.file
    if path is None:
        yield ok("the log goes to standard error: to the journal, under systemd")
        return
    if not path.exists():
        if os.access(path.parent, os.W_OK | os.X_OK):
            yield ok(f"{path} is not there yet, and can be made")
        else:
            yield problem(
                f"{path} cannot be made: this user may not write in {path.parent}",
                f"as root: install -d -o mail-gateway {path.parent}",
            )
        return
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        yield note(f"{path} is no regular file")
    elif not os.access(path, os.W_OK):
        yield problem(
            f"{path} cannot be written by this user", f"as root: chown mail-gateway {path}"
        )
    elif status.st_size > LARGE:
        yield warning(
            f"{path} has {octets(status.st_size)}: nobody rotates it", "logrotate, copytruncate"
        )
    else:
        yield ok(f"{path} can be written")
    if status.st_mode & stat.S_IRWXO:
        yield warning(f"everybody may read {path}, and all addresses in it", f"chmod o= {path}")
    free = os.statvfs(path.parent)
    if free.f_bavail * free.f_frsize < site.config.spool.reserve:
        yield warning(f"the disk of {path} is nearly full", "make room; rotate the log")
