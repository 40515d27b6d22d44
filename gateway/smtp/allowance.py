"""How much large content may be in memory at a time in one process. Pure."""

from __future__ import annotations


class Allowance:
    """Counts what large content takes.

    Args:
        octets: how many there may be.
    """

    def __init__(self, octets: int) -> None:
        self.octets = octets
        # Memory may be given back in any thread, by whoever was the last to look at it: each of
        # these steps is one for the interpreter.
        self._shares: dict[int, int] = {}
        self._last = 0

    @property
    def taken(self) -> int:
        """How many octets are in use."""
        return sum(list(self._shares.values()))

    def has_room(self, octets: int) -> bool:
        """Whether so many more may be used."""
        return self.taken + octets <= self.octets

    def share(self) -> int:
        """A number for a new share, of nothing yet."""
        self._last += 1
        return self._last

    def change(self, share: int, octets: int) -> bool:
        """Makes a share larger or smaller; False, and it stays as it is, if there is no room."""
        more = octets - self._shares.get(share, 0)
        if more > 0 and not self.has_room(more):
            return False
        self._shares[share] = octets
        return True

    def give_back(self, share: int) -> None:
        """Ends a share; for one that has ended, nothing happens."""
        self._shares.pop(share, None)
