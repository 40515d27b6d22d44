"""Room on a disk."""

from __future__ import annotations

import os


def room_of(status: os.statvfs_result) -> int:
    """Octets that can be stored, as statvfs tells; 0 where no file can be made any more.

    Some file systems, such as btrfs, have no fixed number of files: they tell 0 of 0.
    """
    if status.f_files and not status.f_favail:
        return 0
    return status.f_bavail * status.f_frsize
