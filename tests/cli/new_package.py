"""A new package on the disk, and the programs that are run on it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gateway.scaffold.files import Draft, package, write


def write_package(folder: Path, draft: Draft) -> None:
    """Writes what `gateway plugin new` would."""
    write(folder, package(draft))


def succeeds(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Runs a program that has to succeed, and returns what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
