"""What stands for spool and dispatcher where nothing is written to disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.events import Event
from gateway.hooks.chain import Copy
from gateway.spool import queue_id
from gateway.spool.expectation import Expectation
from gateway.spool.shard_file import SpoolError


class MemoryQueue:
    """Takes mail as spool and dispatcher do, and keeps it for the test.

    Attributes:
        copies: what would be queued.
        events: what would be in the outbox.
        expected: what clients may bring soon; nothing waits for it here.
    """

    def __init__(self) -> None:
        self.copies: list[Copy] = []
        self.events: list[Event] = []
        self.expected = Expectation()
        self._last = 0

    @property
    def home(self) -> MemoryQueue:
        """The shard that new mail goes to."""
        return self

    def next_id(self, now: float) -> int:
        """The next queue id."""
        self._last = queue_id.make(now, 1, self._last)
        return self._last

    def refusal(self, _size: int) -> SpoolError | None:
        """There is always room."""
        return None

    def accept(
        self,
        copies: Sequence[Copy],
        _received: float,
        events: Sequence[Event],
        done: Callable[[SpoolError | None], None],
    ) -> None:
        """Takes a message."""
        self.copies += copies
        self.events += events
        done(None)

    def emit(self, event: Event) -> asyncio.Future[None]:
        """Takes an event of a plugin.

        Raises:
            TypeError: a note is no text.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name, note in event.notes.items():
            if not isinstance(note, str):
                raise TypeError(f"the note {name} is {type(note).__name__}; notes are text")
        self.events.append(event)
        future.set_result(None)
        return future

    def take(self) -> tuple[tuple[Copy, ...], tuple[Event, ...]]:
        """Mail and events since the last time."""
        taken = tuple(self.copies), tuple(self.events)
        self.copies.clear()
        self.events.clear()
        return taken
