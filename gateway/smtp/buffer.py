"""Memory for one large message, which goes back to the system when nobody looks at it any more."""

from __future__ import annotations

import gc
import mmap
import weakref

from gateway.smtp.allowance import Allowance

LEAST = 4 << 20
"""Octets that a message gets at first whose size nobody knows."""


class Buffer:
    """Takes the octets of one message, within an allowance.

    It is memory of its own, outside of the interpreter's: that grows without being copied, and is
    given back whole. It counts as long as there is a view of it, whoever holds that.

    Args:
        allowance: what it counts in.
        most: octets that it takes at the most.
    """

    def __init__(self, allowance: Allowance, most: int) -> None:
        self._allowance = allowance
        self._most = most
        self._share = allowance.share()
        self._memory: mmap.mmap | None = None
        self._room = 0
        self._size = 0

    def reserve(self, octets: int) -> bool:
        """Makes room for so many octets in all; False if there is none."""
        if octets <= self._room:
            return True
        if not self._allowance.change(self._share, octets):
            return False
        try:
            if self._memory is None:
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
                self._memory = mmap.mmap(-1, octets, flags=flags)
                ended = weakref.finalize(self._memory, self._allowance.give_back, self._share)
                ended.atexit = False
            else:
                self._memory.resize(octets)
        except OSError:
            if self._memory is None:
                self._allowance.give_back(self._share)
            else:
                self._allowance.change(self._share, self._room)
            return False
        self._room = octets
        return True

    def append(self, block: bytes) -> bool:
        """Adds octets at the end; False if there is no room for them."""
        end = self._size + len(block)
        if end > self._room:
            wanted = min(max(2 * self._room, LEAST), self._most)
            if not self.reserve(max(wanted, end)):
                return False
        assert self._memory is not None
        self._memory[self._size : end] = block
        self._size = end
        return True

    def end(self) -> memoryview:
        """All that was added; nothing can be added any more."""
        assert self._memory is not None
        if self._size < self._room:
            self._memory.resize(self._size)
            self._allowance.change(self._share, self._size)
            self._room = self._size
        return memoryview(self._memory).toreadonly()

    def close(self) -> None:
        """Gives the memory back, or, if somebody looks at it yet, has it given back after that."""
        memory, self._memory = self._memory, None
        self._room = self._size = 0
        if memory is None:
            return
        try:
            memory.close()
        except BufferError:
            # Copies of a message and their recipients know each other: if a hook refuses them,
            # they may stay until somebody looks for such circles.
            gc.collect()
            return
        self._allowance.give_back(self._share)
