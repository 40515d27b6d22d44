"""The file of limits, mapped into memory, and the locks on it.

All processes wait for who holds the lock, so nothing is called under it that gives up the
interpreter's own lock: another thread, which may be a plugin's, would run for a while (for
milliseconds, if there are several) before this one goes on. `fcntl` and `os.pwrite` do give it up.
The exception is space on the disk, which is allocated for many keys at a time.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import mmap
import os
import secrets
import struct
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.limits.layout import PAGE, Header

log = logging.getLogger("gateway.limits")

_ATTEMPTS = 100

_TRIES = 20
"""How often who finds the lock held tries again at once: it is held for microseconds."""

_SHORTEST, _LONGEST = 0.00005, 0.001
"""Seconds between two tries from then on; each pause is twice as long as the one before."""


def _lock(kind: int, octet: int) -> bytes:
    """A `struct flock` about one octet; which one only says what the lock is about."""
    return struct.pack("@hhqqi0q", kind, os.SEEK_SET, octet, 1, 0)


_SETLK = fcntl.F_OFD_SETLK
LOCKED = _lock(fcntl.F_WRLCK, 0)
UNLOCKED = _lock(fcntl.F_UNLCK, 0)

_set_lock = ctypes.PyDLL(None).fcntl
_SYSTEM = ctypes.PyDLL(None, use_errno=True)
_pwrite = _SYSTEM.pwrite
_pwrite.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long)
_pwrite.restype = ctypes.c_ssize_t


def _try_lock(descriptor: int, lock: bytes) -> bool:
    """Takes a lock, unless somebody else has it.

    Raises:
        OSError: the file cannot be locked.
    """
    if not _SYSTEM.fcntl(descriptor, _SETLK, lock):
        return True
    if ctypes.get_errno() in (errno.EAGAIN, errno.EACCES):
        return False
    raise _problem()


def _problem() -> OSError:
    """Why the last call of the C library's failed."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class LimitsFile:
    """An open file.

    Its lock belongs to the open file, not to the process: several `LimitsFile` in one process shut
    each other out too. The kernel drops it with the process. Every use has the form

        try:
            if file.lock():
                file.wait()
            ...
        finally:
            file.unlock()

    and not that of a function or a context manager: the watchdog may raise HookTimeoutError
    wherever a function of Python's begins or one of C's ends, and in this form that cannot leave
    the lock held.

    Attributes:
        header: what never changes.
        descriptor: of the open file.
        octets, words, halves, floats: the whole file, by 1, 4, 2 and 8 octets.
        lock: takes the lock; not 0: it did not, as a rule because somebody else has it.
        unlock: gives it up; does no harm where it is not held.
    """

    def __init__(self, descriptor: int, header: Header) -> None:
        self.descriptor = descriptor
        self.lock: Callable[[], int] = partial(_set_lock, descriptor, _SETLK, LOCKED)
        self.unlock: Callable[[], int] = partial(_set_lock, descriptor, _SETLK, UNLOCKED)
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

    def wait(self) -> None:
        """Returns when the lock that somebody else had is this open file's.

        Raises:
            OSError: the file cannot be locked.
        """
        _wait(self.descriptor)

    def seize(self, octet: int) -> bool:
        """Locks an octet until the file is closed, if nobody else has. Octet 0 is `LOCKED`'s."""
        return _try_lock(self.descriptor, _lock(fcntl.F_WRLCK, octet))

    def is_seized(self, octet: int) -> bool:
        """Whether another open file has locked an octet."""
        answer = ctypes.create_string_buffer(_lock(fcntl.F_WRLCK, octet))
        if _SYSTEM.fcntl(self.descriptor, fcntl.F_OFD_GETLK, answer):
            raise _problem()
        (kind,) = struct.unpack_from("@h", answer)
        return bool(kind != fcntl.F_UNLCK)

    def write(self, octets: bytes, offset: int) -> None:
        """Writes a part of a record, in one call that a signal cannot divide.

        Raises:
            OSError: the disk does not take it.
        """
        if _pwrite(self.descriptor, octets, len(octets), offset) < 0:
            raise _problem()

    def close(self) -> None:
        """Gives back the memory, the descriptor and all locks. Whatever is forgotten does, too."""
        for view in (self.words, self.halves, self.floats, self._view):
            view.release()
        self.octets.close()
        self._close()


def _wait(descriptor: int) -> None:
    """Takes the lock.

    It asks again and again: who is woken by the kernel has the lock, and may have to wait for the
    interpreter's before it can do anything with it.

    Raises:
        OSError: the file cannot be locked.
    """
    tries, pause = 0, _SHORTEST
    while not _try_lock(descriptor, LOCKED):
        tries += 1
        if tries > _TRIES:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)


def _checked(descriptor: int, path: Path) -> Header | None:
    """The header. None: it was no good and has been removed, or another process did that."""
    try:
        _wait(descriptor)
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
        _set_lock(descriptor, _SETLK, UNLOCKED)


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
