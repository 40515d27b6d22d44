"""The file system that a folder is in, as /proc/self/mountinfo tells it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

VOLATILE = frozenset({"tmpfs", "ramfs", "devtmpfs"})
"""What is gone after a power cut."""

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs"})
"""What another machine keeps: locks and fsync are as good as that machine and the way to it."""

LAYERED = frozenset({"overlay", "aufs"})
"""What a container throws away at its end."""

_WITHOUT_BARRIERS = {"nobarrier", "barrier=0"}


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        point: where it is mounted.
        kind: `ext4`, `xfs`, `tmpfs`, and so on.
        options: of the mount and of the file system.
    """

    point: str
    kind: str
    options: frozenset[str]

    @property
    def without_barriers(self) -> bool:
        """Whether fsync does not wait for the cache of the disk itself."""
        return bool(self.options & _WITHOUT_BARRIERS)


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount that an absolute path is in (proc_pid_mountinfo(5)); None if nothing tells."""
    found: Mount | None = None
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 3:
            continue
        point = _unescaped(fields[4])
        # The last one on the same point hides those before it.
        below = f"{path}/".startswith(f"{point.rstrip('/')}/")
        if below and (found is None or len(point) >= len(found.point)):
            options = frozenset((*fields[5].split(","), *rest[2].split(",")))
            found = Mount(point, rest[0], options)
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
