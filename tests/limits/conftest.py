"""Limits in a file of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.limits import Limits

Open = Callable[..., Limits]


@pytest.fixture
def open_limits(tmp_path: Path) -> Iterator[Open]:
    """Opens the same file once more, as another process would; `places` counts the first time."""
    opened = []

    def open_limits(places: int = 131072) -> Limits:
        opened.append(Limits(tmp_path / "limits", places=places))
        return opened[-1]

    yield open_limits
    for limits in opened:
        limits.close()


@pytest.fixture
def limits(open_limits: Open) -> Limits:
    return open_limits()
