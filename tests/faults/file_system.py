"""File systems that tests fill, copy and throw away; only root may mount them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(*arguments: str) -> Iterator[Path]:
    """A folder where something is mounted; `arguments` are those of mount, without the folder.

    The test is skipped where mounting is not allowed.
    """
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    try:
        if os.getuid() != 0:
            pytest.skip("only root may mount a file system")
        command = ["mount", *arguments, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        try:
            yield folder
        finally:
            # Lazily: what a test that failed has left behind may still hold it for a moment.
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Takes all room on a disk; returns the file that took it."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            block = bytes(size)
            try:
                while True:
                    file.write(block)
            except OSError:
                continue
    return path


def take_inodes(folder: Path) -> list[Path]:
    """Makes files until no more can be made; returns them."""
    made: list[Path] = []
    try:
        while True:
            path = folder / f"file-{len(made)}"
            path.touch()
            made.append(path)
    except OSError:
        return made
