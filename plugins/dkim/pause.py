"""Pauses of a thread that hashes a large body, for the event loop beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

LARGE = 1 << 20
"""Octets of a body that take so long to hash that it is done in a thread."""

_SECONDS = 0.0001


def pause(body: bytes | memoryview) -> Callable[[], None] | None:
    """How to let the event loop run between two blocks of a body; None if it is not large.

    Hashing gives up the interpreter's lock too, but for so short a time (20 µs a block) that it is
    taken again before the loop's thread is awake: measured, the loop stood still for up to half a
    second. With these pauses it was some milliseconds.
    """
    return partial(time.sleep, _SECONDS) if len(body) > LARGE else None
