"""A large message in a shard, read part by part."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from gateway.mail.large_content import DamagedContentError, LargeContent


class StoredContent(LargeContent):
    """A large message on disk. Between two blocks nothing of the database is in use.

    Args:
        part: reads a part by its number; None if it is not there.
        size: octets of all parts.
        checksum: CRC-32 of all parts.
    """

    def __init__(self, part: Callable[[int], bytes | None], size: int, checksum: int) -> None:
        super().__init__()
        self._part = part
        self._size = size
        self._checksum = checksum

    def __len__(self) -> int:
        return self._size

    def blocks(self) -> Iterator[bytes]:
        """The parts in order. The last one comes only if all of them are as they were written.

        Raises:
            DamagedContentError: they are not.
        """
        checksum = number = 0
        left = self._size
        while left:
            part = self._part(number)
            if part is None:
                raise DamagedContentError("a part of it is missing")
            checksum = zlib.crc32(part, checksum)
            left -= len(part)
            if left < 0 or not (left or checksum == self._checksum):
                raise DamagedContentError("its checksum does not fit")
            yield part
            number += 1
