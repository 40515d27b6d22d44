"""Lines for people, in colour where they are read on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable

import click


def say(lines: Iterable[str], *, err: bool = False) -> None:
    """Prints lines; without colour where there is no terminal, and where NO_COLOR is set."""
    # None leaves it to click, which knows whether it writes to a terminal.
    color = False if os.environ.get("NO_COLOR") else None
    for line in lines:
        click.echo(line, err=err, color=color)
