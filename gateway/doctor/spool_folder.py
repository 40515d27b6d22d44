"""The folder of the queue: who may read it, how much room it has, and whether fsync is true."""

from __future__ import annotations

import os
import pwd
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.doctor.finding import Finding, count, listed, note, octets, ok, problem, warning
from gateway.doctor.mounts import LAYERED, NETWORK, VOLATILE, Mount, mount_of
from gateway.doctor.site import Site
from gateway.spool.room import room_of

SLOW = 0.05
"""Seconds for an fsync from which on clients wait for it."""

INCREDIBLE = 0.00002
"""Seconds for an fsync below which nothing can have reached a disk."""

FEW_INODES = 1000

_ROUNDS = 9


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of `spool.path`."""
    folder, reserve = site.config.spool.path, site.config.spool.reserve
    if not folder.is_dir():
        yield from _not_there(folder)
        return
    try:
        yield from _access(folder)
        yield from _room(folder, reserve)
    except OSError as error:
        yield problem(
            f"{folder} cannot be looked at: {error.strerror}",
            "run doctor as the gateway's user, or repair the disk",
        )
        return
    mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    mount = mount_of(str(folder.resolve()), mounts)
    if mount is not None:
        yield _file_system(folder, mount)
    yield _fsync(folder)


def _not_there(folder: Path) -> Iterator[Finding]:
    above = next(path for path in folder.absolute().parents if path.is_dir())
    if os.access(above, os.W_OK | os.X_OK):
        yield note(f"{folder} is not there yet; the first start makes it")
    else:
        yield problem(
            f"{folder} is not there, and this user may not make it in {above}",
            f"as root: install -d -m 700 -o {user_name(os.geteuid())} {folder}",
        )


def user_name(uid: int) -> str:
    """The name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _access(folder: Path) -> Iterator[Finding]:
    status = folder.stat()
    owner = user_name(status.st_uid)
    if status.st_uid != os.geteuid():
        yield warning(
            f"{folder} belongs to {owner}, and this is {user_name(os.geteuid())}: "
            "what this user may do says nothing of the gateway",
            f"run it as the gateway's user: sudo -u {owner} gateway doctor",
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            f"others than {owner} may enter {folder}, where all mail is "
            f"(mode {stat.S_IMODE(status.st_mode):o})",
            f"chmod 700 {folder}",
        )
    foreign = [path.name for path in sorted(folder.iterdir()) if _owner(path) != status.st_uid]
    if foreign:
        yield problem(
            f"files in {folder} do not belong to {owner}: {listed(foreign)}; "
            "a command that ran as another user made them",
            f"stop the gateway; as root: chown -R {owner}: {folder}",
        )
    elif status.st_uid == os.geteuid():
        yield ok(f"{folder} belongs to {owner}, with all files in it")


def _owner(path: Path) -> int:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # a shard that has run empty
        return path.parent.stat().st_uid


def _room(folder: Path, reserve: int) -> Iterator[Finding]:
    status = os.statvfs(folder)
    room = room_of(status)
    inodes = f", and {count(status.f_favail, 'inode')}" if status.f_files else ""
    told = f"{octets(status.f_bavail * status.f_frsize)} free on the disk of {folder}{inodes}"
    bound = f"spool.reserve is {octets(reserve)}"
    if room < reserve:
        yield problem(f"{told}; {bound}: clients are told to come again", "make room on that disk")
    elif room < 4 * reserve or (status.f_files and status.f_favail < FEW_INODES):
        yield warning(f"only {told}; {bound}", "make room on that disk, before mail is refused")
    else:
        yield ok(f"{told}; {bound}")


def _file_system(folder: Path, mount: Mount) -> Finding:
    where = f"{folder} is in a file system of the type {mount.kind}"
    if mount.kind in VOLATILE:
        return problem(f"{where}, in memory: all mail is lost at a power cut", "use a disk")
    if mount.kind in NETWORK:
        return warning(
            f"{where}: another machine keeps it, and a lock or an fsync is as good as that one",
            "use a disk of this machine, or replicated block storage",
        )
    if mount.kind in LAYERED:
        return warning(
            f"{where}: it ends with its container, and all mail in it",
            "mount a volume at spool.path",
        )
    if mount.without_barriers:
        return problem(
            f"{where}, mounted without barriers: what was fsynced is lost at a power cut",
            f"mount {mount.point} without nobarrier and barrier=0",
        )
    return ok(where)


def _fsync(folder: Path) -> Finding:
    if any("eatmydata" in os.environ.get(name, "") for name in ("LD_PRELOAD", "LD_LIBRARY_PATH")):
        return problem("libeatmydata takes fsync away", "start the gateway without LD_PRELOAD")
    try:
        seconds = fsync_seconds(folder)
    except PermissionError:
        return note("fsync was not tried: this user may not write there")
    except OSError as error:
        return problem(
            f"fsync does not work in {folder}: {error.strerror}: no mail can be accepted",
            "look at the disk: dmesg, smartctl",
        )
    told = f"an fsync takes {seconds * 1000:.2f} ms"
    if seconds > SLOW:
        return warning(
            f"{told}: each client waits that long for its 250", "use a quicker disk for spool.path"
        )
    if seconds < INCREDIBLE:
        return note(
            f"{told}: too quick for a disk",
            "make sure that the machine's own host does not ignore flushes (cache=unsafe)",
        )
    return ok(told)


def fsync_seconds(folder: Path) -> float:
    """How long an fsync of 4 KiB takes in a folder: the middle one of some.

    Raises:
        OSError: it cannot be done there.
    """
    seconds = []
    with tempfile.TemporaryFile(prefix=".doctor-", dir=folder) as file:
        for _ in range(_ROUNDS):
            file.write(os.urandom(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
