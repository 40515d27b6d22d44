"""Finds the lines of the log that name a message, in files of any size."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

BLOCK = 4 << 20
"""Octets that are read and looked through at a time."""

LONGEST_LINE = 1 << 20

_ROTATED = re.compile(r"[.-]\d+(?:[.-]\d+)*(?:\.log)?(?:\.gz)?")


class LogSearchError(Exception):
    """A log cannot be read. The text says which one, and why."""


def rotated(path: Path, since: float) -> list[Path]:
    """A log file and what it was rotated into (`.1`, `.2.gz`, `-20260415`), the newest first.

    Files that were written for the last time before `since`, in seconds since the epoch, are left
    out.
    """
    found: list[tuple[float, Path]] = []
    try:
        for other in path.parent.iterdir():
            suffix = other.name.removeprefix(path.name)
            if suffix != other.name and _ROTATED.fullmatch(suffix) and other.is_file():
                found.append((other.stat().st_mtime, other))
    except OSError:
        return [path]  # to read it fails, too, and says why
    older = [other for written, other in sorted(found, reverse=True) if written >= since]
    return [path, *older]


def size_of(paths: Sequence[Path]) -> int:
    """How many octets are to be read from disk."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def lines_in(path: Path, word: str, advance: Callable[[int], None]) -> Iterator[str]:
    """The lines of a file, packed by gzip or not, that have a word in them.

    `advance` is told the octets that were read from disk.

    Raises:
        LogSearchError: the file cannot be read.
    """
    try:
        with path.open("rb") as raw:
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                with gzip.open(raw) as unpacked:
                    yield from _lines(unpacked, word, _place_of(raw, advance))
            else:
                raw.seek(0)
                yield from _lines(raw, word, _place_of(raw, advance))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LogSearchError(f"{path}: {reason}") from error


def lines_of(stream: BinaryIO, word: str) -> Iterator[str]:
    """The lines of an open stream, such as standard input, that have a word in them."""
    return _lines(stream, word, lambda: None)


def _place_of(raw: BinaryIO, advance: Callable[[int], None]) -> Callable[[], None]:
    """Tells how much further the file was read, whatever reads it."""
    place = 0

    def tell() -> None:
        nonlocal place
        now = raw.tell()
        advance(now - place)
        place = now

    return tell


def _lines(stream: BinaryIO | gzip.GzipFile, word: str, read: Callable[[], None]) -> Iterator[str]:
    needle = word.encode()
    rest = b""
    while block := stream.read(BLOCK):
        read()
        text = rest + block if rest else block
        # A line that is cut in two is looked through with the next block.
        end = text.rfind(b"\n") + 1
        rest = text[end:] if len(text) - end <= LONGEST_LINE else b""
        yield from _found(text, end, needle)
    yield from _found(rest, len(rest), needle)


def _found(text: bytes, end: int, needle: bytes) -> Iterator[str]:
    place = text.find(needle, 0, end)
    while place >= 0:
        start = text.rfind(b"\n", 0, place) + 1
        stop = text.find(b"\n", place, end)
        stop = end if stop < 0 else stop
        yield text[start:stop].decode("utf-8", "replace").rstrip("\r")
        place = text.find(needle, stop, end)
