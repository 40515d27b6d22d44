"""The file of limits, mapped into memory, and the locks on it."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import secrets
import struct
import time
import weakref
from pathlib import Path

from gateway.limits.layout import PAGE, Header

log = logging.getLogger("gateway.limits")

_ATTEMPTS = 100


def _lock(kind: int, octet: int) -> bytes:
    """A `struct flock` about one octet; which one only says what the lock is about."""
    return struct.pack("@hhqqi0q", kind, os.SEEK_SET, octet, 1, 0)


LOCKED = _lock(fcntl.F_WRLCK, 0)
UNLOCKED = _lock(fcntl.F_UNLCK, 0)
"""For `fcntl(descriptor, F_OFD_SETLKW, LOCKED)`, `fcntl(descriptor, F_OFD_SETLK, UNLOCKED)`.

These locks belong to the open file, not to the process: several `LimitsFile` in one process shut
each other out too. The kernel drops them with the process. Every use has the form

    try:
        fcntl(file.descriptor, F_OFD_SETLKW, LOCKED)
        ...
    finally:
        fcntl(file.descriptor, F_OFD_SETLK, UNLOCKED)

and not that of a function or a context manager: the watchdog may raise HookTimeoutError wherever
a function of Python's begins or one of C's ends, and in this form that cannot leave the lock held.
"""


class LimitsFile:
    """An open file.

    Attributes:
        header: what never changes.
        descriptor: of the open file.
        octets, words, halves, floats: the whole file, by 1, 4, 2 and 8 octets.
    """

    def __init__(self, descriptor: int, header: Header) -> None:
        self.descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self.header = header
        self.octets = mmap.mmap(descriptor, header.size)
        self._view = memoryview(self.octets)
        self.words: memoryview[int] = self._view.cast("I")
        self.halves: memoryview[int] = self._view.cast("H")
        self.floats: memoryview[float] = self._view.cast("d")

    @classmethod
    def open(cls, path: Path, places: int) -> LimitsFile:
        """Opens the file; makes it, and its folder, if need be. `places` counts in a new file.

        A file that is damaged or of another version is replaced by a new one.

        Raises:
            OSError: it cannot be opened or made.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                _create(path, places)
                continue
            try:
                header = _checked(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            if header is not None:
                return cls(descriptor, header)
            os.close(descriptor)
        raise OSError(f"{path}: other processes remove it again and again")

    def seize(self, octet: int) -> bool:
        """Locks an octet until the file is closed, if nobody else has. Octet 0 is `LOCKED`'s."""
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, octet))
        except BlockingIOError:
            return False
        return True

    def is_seized(self, octet: int) -> bool:
        """Whether another open file has locked an octet."""
        answer = fcntl.fcntl(self.descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, octet))
        (kind,) = struct.unpack_from("@h", answer)
        return bool(kind != fcntl.F_UNLCK)

    def close(self) -> None:
        """Gives back the memory, the descriptor and all locks. Whatever is forgotten does, too."""
        for view in (self.words, self.halves, self.floats, self._view):
            view.release()
        self.octets.close()
        self._close()


def _checked(descriptor: int, path: Path) -> Header | None:
    """The header. None: it was no good and has been removed, or another process did that."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, LOCKED)
        status = os.fstat(descriptor)
        header = Header.unpack(os.pread(descriptor, PAGE, 0))
        if header is not None and status.st_size == header.size:
            return header
        try:
            current = path.stat()
        except FileNotFoundError:
            return None
        if (current.st_dev, current.st_ino) == (status.st_dev, status.st_ino):
            log.warning(
                "%s is damaged or of another version: made anew, so rates, counters and pauses"
                " begin from nothing",
                path,
            )
            path.unlink()
        return None
    finally:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, UNLOCKED)


def _create(path: Path, places: int) -> None:
    """Makes a file that is whole as soon as it has its name, unless another process has."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    header = Header(places, float(int(time.time())), secrets.token_bytes(16))
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, header.records)
        os.pwrite(descriptor, header.pack(), 0)
        os.ftruncate(descriptor, header.size)
        if os.geteuid() == 0:
            # A command of root's must not shut out the gateway, which may run as somebody else.
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        new.unlink()
