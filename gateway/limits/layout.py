"""What is where in the file of limits.

    header | serials | heads of chains | records

The file is sparse and of fixed size. Space on the disk is allocated for what is used before it is:
a store through memory into a hole would be a SIGBUS when the disk is full. Numbers are in the
machine's own byte order. Keys are hashed to chains of records. All records have one size, so that
whatever expires makes room for anything.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

PLACES = 131072
"""Records in a new file: 64 MiB, of which the disk holds what was used."""

GROWTH = 128
"""Records for which space on the disk is allocated at a time."""

PAGE = 4096

# The header: what never changes, with its checksum; then what does.
_FIXED = struct.Struct("=8sIId16s")
_CHECKSUM = struct.Struct("=I")
_MAGIC = b"limits\r\n"
_VERSION = 1
USED = 64 // 4
"""Word: how many records have ever been used; they are the first ones."""
ALLOCATED = 76 // 4
"""Word: for how many records the disk has space."""
HAND = 68 // 4
"""Word: the record to be looked at next for a place."""
SLOTS = 72 // 4
"""Word: how many slots for processes have ever been used; they are the first ones."""
SEARCHED = 80 // 8
"""Float: when a place was last looked for in vain."""
BOOT = 88
"""Octets: which boot of the machine the file was last checked in."""
BOOT_SIZE = 36

SERIALS = PAGE // 4
"""Word: the first of the serials. A cell's is counted up before the cell changes."""
SERIAL_COUNT = PAGE // 4

HEADS = 2 * PAGE // 4
"""Word: the first of the heads of chains: numbers of records, from 1; 0 is none."""

# A record: kind, length of the key, key; then words; then a body that depends on the kind.
RECORD = 512
KEY_SIZE = 190
KEY = 2
NEXT = 192
CHAIN = 196
BODY = 200

FREE, RATE, CELL, LEASE = range(4)
"""Kinds of records."""

RATE_BODY = struct.Struct("=6d")
"""Theoretical arrival time, last change (both since `Header.base`), interval, burst, count,
seconds."""

CELL_BODY = struct.Struct("=ddB")
"""Value, expiry, length of the text, which follows."""
TEXT_SIZE = 250

SLOT_COUNT = (RECORD - BODY) // 2
"""Processes that may hold leases at a time. A lease's body is a count for each, in 16 bits."""
MOST_LEASES = 0xFFFF


@dataclass(frozen=True, slots=True)
class Header:
    """What never changes in a file.

    Attributes:
        places: how many records there are.
        base: seconds since the epoch that the times of rates count from. Near to it, floats tell
            nanoseconds apart; far from it, fast rates would drift.
        secret: of 16 octets, so that nobody outside can choose keys of one chain.
    """

    places: int
    base: float
    secret: bytes

    def pack(self) -> bytes:
        """The octets that a file begins with."""
        fixed = _FIXED.pack(_MAGIC, _VERSION, self.places, self.base, self.secret)
        return fixed + _CHECKSUM.pack(zlib.crc32(fixed))

    @classmethod
    def unpack(cls, octets: bytes) -> Header | None:
        """Reads them; None: it is no file of limits, of another version, or damaged."""
        if len(octets) < PAGE:
            return None
        magic, version, places, base, secret = _FIXED.unpack_from(octets)
        (checksum,) = _CHECKSUM.unpack_from(octets, _FIXED.size)
        sound = (magic, version, checksum) == (
            _MAGIC,
            _VERSION,
            zlib.crc32(octets[: _FIXED.size]),
        )
        return cls(places, base, secret) if sound and places > 0 else None

    @property
    def chains(self) -> int:
        """How many chains there are."""
        return max(PAGE // 4, self.places // 4)

    @property
    def records(self) -> int:
        """Where the first record begins."""
        end = HEADS * 4 + self.chains * 4
        return -(-end // PAGE) * PAGE

    @property
    def size(self) -> int:
        """Octets of the file."""
        return self.records + self.places * RECORD
