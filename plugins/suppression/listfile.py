"""A list in a file, read again when the file has changed."""

from __future__ import annotations

import os
from pathlib import Path

from plugins.suppression.names import parse

_CHECK_EVERY = 1.0


class ListFile:
    """A file of entries, and which version of it was read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked = float("-inf")
        self._version: tuple[int, int, int] | None = None

    def read(self) -> set[str]:
        """The entries that are in the file now.

        Raises:
            ValueError: the file cannot be read or a line is wrong; names the file and the line.
        """
        try:
            with self._path.open("rb") as file:
                self._version = _version(os.fstat(file.fileno()))
                content = file.read()
        except OSError as error:
            raise ValueError(f"{self._path}: cannot be read: {error.strerror}") from None
        try:
            # Only LF ends a line here; str.splitlines knows more line ends.
            return parse(content.decode("utf-8-sig").split("\n"))
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ValueError(f"{self._path}:{line}: is not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"{self._path}:{error}") from None

    def changes(self, now: float) -> set[str] | None:
        """The entries, if the file is not the one that was read last; else None.

        Looks at the file at most once a second, and at each version of it once.

        Args:
            now: seconds since the epoch.

        Raises:
            ValueError: as `read`.
        """
        # The wall clock may be set back.
        if abs(now - self._checked) < _CHECK_EVERY:
            return None
        self._checked = now
        known = self._version
        try:
            self._version = _version(self._path.stat())
        except OSError as error:
            self._version = None
            if known is None:
                return None
            raise ValueError(f"{self._path}: cannot be read: {error.strerror}") from None
        return None if self._version == known else self.read()


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino
