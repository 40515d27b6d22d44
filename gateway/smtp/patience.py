"""How long a client may take."""

from __future__ import annotations

from gateway.configuration.config import Limits


class Patience:
    """How long a client may take: for a command, within a message, and for a message in all.

    Times are in seconds on any one clock.

    Args:
        limits: the times, and the rate.
        now: when the client connected.

    Attributes:
        deadline: until when the client must have gone on.
    """

    __slots__ = ("_end", "_limits", "_octets", "deadline")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._octets: int | None = None
        self.begin(now)
        self.deadline = now + limits.command_timeout

    def begin(self, now: float) -> None:
        """The time for a message begins: the client has connected, or the last message ended."""
        self._end = now + self._limits.message_timeout

    def work(self, now: float) -> None:
        """A command or a message has come. What we do with it is not on the client's time."""
        self._octets = None
        self.deadline = now + self._limits.command_timeout

    def await_command(self) -> None:
        """A command is due; so is, at some time, a message."""
        if self.deadline > self._end:
            self.deadline = self._end

    def await_content(self, now: float, octets: int, seconds: float) -> None:
        """More of a message is due: at once within `seconds`, later as its octets have earned.

        So a client that sends octet by octet is not kept longer than one that sends none.

        Args:
            now: the time.
            octets: how many the client has sent so far, in all.
            seconds: how long it may be silent.
        """
        deadline = now + seconds
        if self._octets is not None:
            earned = (octets - self._octets) / self._limits.data_rate
            deadline = min(deadline, self.deadline + earned)
        self._octets = octets
        self.deadline = min(deadline, self._end)
