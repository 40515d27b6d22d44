"""A large message that is needed for one attempt only, in a file that has no name."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from gateway.mail.large_content import BLOCK, Content, LargeContent


class ScratchContent(LargeContent):
    """A large message in a file that is gone when nobody needs it any more.

    Args:
        content: the message.
        folder: where the file is.

    Raises:
        OSError: the disk does not take it.
    """

    def __init__(self, content: Content, folder: Path) -> None:
        super().__init__()
        self._size = len(content)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            for block in (content,) if isinstance(content, bytes) else content.blocks():
                left = memoryview(block)
                while left:
                    left = left[file.write(left) :]
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return self._size

    def blocks(self) -> Iterator[bytes]:
        """All octets in order."""
        for start in range(0, self._size, BLOCK):
            yield os.pread(self._descriptor, BLOCK, start)
