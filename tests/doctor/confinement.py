"""Runs a program under the restrictions of a systemd unit, without systemd.

    python -m tests.doctor.confinement UNIT WRITABLE PROGRAM ARGUMENT...

What the unit says of system calls, address families, capabilities, new privileges, memory and the
file system holds for the program: as systemd would do it, by prctl, seccomp and a mount namespace.
It needs root, and x86-64.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")

_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 22, 24, 38, 65
_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_ALLOW, _ERRNO, _EPERM, _EAFNOSUPPORT = 0x7FFF0000, 0x00050000, 1, 97
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _FIRST_ARGUMENT_AT = 0, 16
_CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10}
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}


class Unit:
    """The section Service of a unit."""

    def __init__(self, text: str) -> None:
        self._lines = [
            line.partition("=")[::2] for line in text.splitlines() if re.match(r"\w+=", line)
        ]

    def values(self, key: str) -> list[str]:
        """What a key says, line by line."""
        return [value for name, value in self._lines if name == key]

    def says(self, key: str, value: str) -> bool:
        """Whether that is what a key says."""
        return self.values(key) == [value]

    def calls(self) -> set[str]:
        """The system calls that are allowed (systemd.exec(5))."""
        allowed: set[str] = set()
        for line in self.values("SystemCallFilter"):
            for word in line.removeprefix("~").split():
                calls = _members(word)
                allowed = allowed - calls if line.startswith("~") else allowed | calls
        # What systemd itself adds: without these no program begins or ends.
        return allowed | _members("@default")


def _members(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    words = ["systemd-analyze", "syscall-filter", word]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    members = {
        line.strip() for line in printed.splitlines()[1:] if not line.strip().startswith("#")
    }
    found: set[str] = set()
    for one in members - {""}:
        found |= _members(one)
    return found


def numbers() -> dict[str, int]:
    """The numbers of system calls by name."""
    return {
        name: int(number)
        for name, number in re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text())
    }


def program_of(calls: set[str], families: set[int]) -> bytes:
    """The filter: what is not allowed fails with EPERM, other sockets with EAFNOSUPPORT."""
    known = numbers()
    steps = [(_LOAD, 0, 0, _NUMBER_AT)]
    if families:
        steps.append((_EQUAL, 0, len(families) + 3, known["socket"]))
        steps.append((_LOAD, 0, 0, _FIRST_ARGUMENT_AT))
        for position, family in enumerate(sorted(families)):
            steps.append((_EQUAL, len(families) - position, 0, family))
        steps.append((_RETURN, 0, 0, _ERRNO | _EAFNOSUPPORT))
        steps.append((_RETURN, 0, 0, _ALLOW))
    for call in sorted(calls & set(known)):
        steps += [(_EQUAL, 0, 1, known[call]), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _ERRNO | _EPERM))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _libc(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}{arguments}: {os.strerror(error)}")


def _prctl(option: int, *values: int) -> None:
    longs = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    _libc("prctl", ctypes.c_int(option), *longs)


def _read_only_but(folder: bytes) -> None:
    _libc("unshare", _CLONE_NEWNS)
    _libc("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    _libc("mount", folder, folder, None, ctypes.c_ulong(_MS_BIND), None)
    flags = ctypes.c_ulong(_MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    _libc("mount", b"none", b"/", None, flags, None)


def _drop_capabilities(kept: set[int]) -> None:
    for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if number not in kept:
            _prctl(_PR_CAPBSET_DROP, number)


def confine(unit: Unit, writable: Path) -> None:
    """Puts the restrictions of a unit on this process, and on all that it starts.

    Raises:
        OSError: the kernel refuses one.
    """
    calls = unit.calls()
    families = {
        _FAMILIES[word] for line in unit.values("RestrictAddressFamilies") for word in line.split()
    }
    filter_ = program_of(calls, families)
    if unit.says("ProtectSystem", "strict"):
        _read_only_but(os.fsencode(writable))
    kept = {
        _CAPABILITIES[word]
        for line in unit.values("CapabilityBoundingSet")
        for word in line.split()
    }
    _drop_capabilities(kept)
    if unit.says("NoNewPrivileges", "true"):
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if unit.says("MemoryDenyWriteExecute", "true"):
        _prctl(_PR_SET_MDWE, 1)
    for mask in unit.values("UMask"):
        os.umask(int(mask, 8))
    buffer = ctypes.create_string_buffer(filter_, len(filter_))
    header = struct.pack("HxxxxxxP", len(filter_) // 8, ctypes.addressof(buffer))
    program = ctypes.create_string_buffer(header, len(header))
    _prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(program))


def main() -> None:
    """See above."""
    unit, writable, *program = sys.argv[1:]
    confine(Unit(Path(unit).read_text()), Path(writable))
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
