"""Whether a commit waits for messages that are on their way. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_IN_VAIN = 8
"""After so many waits in vain, 2 to their power commits do not wait, and no more."""


@dataclass(slots=True)
class Expectation:
    """What may come soon, and whether what came before was worth waiting for.

    A client may take minutes over its message, and the mail of others must not wait for it with
    each commit: after a wait in vain some do not wait, and the more the more often it was in vain.

    Attributes:
        messages: those that clients have begun and not been answered.
    """

    messages: int = 0
    _in_vain: int = 0
    _passes: int = 0

    def is_met(self, here: int) -> bool:
        """Whether a commit of so many messages has nothing to wait for."""
        return here > 0 and (here >= self.messages or self._passes > 0)

    def learn(self, here: int, before: int | None) -> None:
        """A commit of `here` messages begins, of which `before` were there when it began to wait.

        `before` is None if it did not wait, and 0 if no client waited for it.
        """
        if here > max(1, before or 0):
            self._in_vain = self._passes = 0
        elif before:
            self._in_vain = min(self._in_vain + 1, MOST_IN_VAIN)
            self._passes = 1 << self._in_vain
        elif here and self._passes:
            self._passes -= 1
