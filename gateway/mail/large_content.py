"""A message that is too large to be held in memory as a whole: it is read block by block. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from gateway.mail.headers import split, split_beginning
from gateway.mail.line_end import bare_line_end

LARGE = 1 << 20
"""Octets of a message from which on it is never copied as a whole."""

BLOCK = 1 << 18
"""Octets of a large message that are worked on at a time, and stored in one part."""

Octets = bytes | memoryview


class LargeContent(ABC):
    """The octets of a large message; `bytes` gives all of them, which takes that much memory."""

    def __init__(self) -> None:
        self._is_ascii = True
        self._is_clean = True
        self._examined = False

    @abstractmethod
    def __len__(self) -> int:
        """How many octets there are."""

    @abstractmethod
    def blocks(self) -> Iterator[Octets]:
        """All octets in order, up to `BLOCK` at a time.

        Raises:
            DamagedContentError: they are not those that were stored; not all of them came before.
        """

    def __bytes__(self) -> bytes:
        return b"".join(self.blocks())

    def header(self) -> bytes:
        """The header, as `split` finds it."""
        beginning = b""
        for block in self.blocks():
            beginning += block
            found = split_beginning(beginning)
            if found is not None:
                return found[0]
        return split(beginning)[0]

    def examine(self) -> Iterator[None]:
        """Finds out, block by block, what `is_ascii` and `is_clean` say.

        Raises:
            DamagedContentError: as in `blocks`.
        """
        is_ascii = is_clean = True
        held = b""
        for block in self.blocks():
            octets = b"".join((held, block))
            held = b"\r" if octets.endswith(b"\r") else b""
            is_clean = is_clean and bare_line_end(octets[: len(octets) - len(held)]) is None
            is_ascii = is_ascii and octets.isascii()
            yield
        self._is_ascii, self._is_clean = is_ascii, is_clean and not held
        self._examined = True

    def _know(self) -> None:
        if not self._examined:
            for _ in self.examine():
                pass

    @property
    def is_ascii(self) -> bool:
        """Whether it has no octet above 127."""
        self._know()
        return self._is_ascii

    @property
    def is_clean(self) -> bool:
        """Whether each CR and each LF is one of a pair."""
        self._know()
        return self._is_clean


Content = bytes | LargeContent
"""A message, whatever its size."""


class DamagedContentError(Exception):
    """What was stored is gone, or is not what was stored."""


class Pieces(LargeContent):
    """A message in memory, in pieces that others may share."""

    def __init__(self, *pieces: Octets) -> None:
        super().__init__()
        self._pieces = tuple([piece for piece in pieces if len(piece)])

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def blocks(self) -> Iterator[Octets]:
        """All octets in order; nothing is copied."""
        for piece in self._pieces:
            view = memoryview(piece)
            for start in range(0, len(view), BLOCK):
                yield view[start : start + BLOCK]
