"""Guesses at passwords: how many there were, over all workers, and how long the next one waits.

Failed logins are counted for the client's address and for the user name. From a number of them on
each one makes the next wait twice as long. The wait for a user name is short and does not hold for
addresses from which that user has logged in lately: these are counted for themselves. So nobody
can lock a user out by guessing at his password from somewhere else.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address

from gateway.limits import Limits, LimitsFullError

LONGEST_NAME_PAUSE = 60.0
"""Seconds that a user name waits at most: whoever guesses must not lock the user out for long."""

PLACES = 1 << 16
"""Addresses, names and pairs of them that the file has room for."""

_FORGOTTEN_AFTER = 3600.0
_KNOWN_FOR = 30 * 86400.0
_KNOWN_AGAIN_AFTER = 86400.0
_AT_A_TIME = 4
_HASHES_AT_A_TIME = 2

log = logging.getLogger("gateway.session")


class TooManyGuessesError(Exception):
    """There were too many failed logins; the text says for how long the next one has to wait."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """Under which names the counts for a client's address and a user name are kept.

    `known` tells that the user has logged in from there, `pair` counts his failures there.
    """

    address: str
    name: str
    pair: str
    known: str

    @classmethod
    def of(cls, address: str, name: str) -> _Keys:
        # Somebody may have typed a password where the name belongs.
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        network = _network(address)
        both = f"{network} {digest}"
        return cls(f"address {network}", f"name {digest}", f"pair {both}", f"known {both}")


@dataclass(slots=True)
class _Turn:
    """Logins of one address or user name under way in this process, and those that wait."""

    permits: asyncio.Semaphore
    count: int = 0


class Guesses:
    """Counts failed logins in a file that all workers share.

    Args:
        limits: the file; for nothing else, as guessers decide how much is in it.
        failures: how many there may be before the next login has to wait.
        longest_pause: seconds that the next login from an address waits at most.
        clock: seconds since the epoch.

    Attributes:
        hashing: to be held while a password is hashed, which takes a core and 64 MiB.
    """

    def __init__(
        self, limits: Limits, failures: int, longest_pause: float, clock: Callable[[], float]
    ) -> None:
        self.hashing = asyncio.Semaphore(_HASHES_AT_A_TIME)
        self._limits = limits
        self._failures = failures
        self._longest = longest_pause
        self._longest_for_name = min(longest_pause, LONGEST_NAME_PAUSE)
        self._memory = max(_FORGOTTEN_AFTER, 2 * longest_pause)
        self._clock = clock
        self._turns: dict[str, _Turn] = {}
        self._full_until = 0.0

    @asynccontextmanager
    async def turn(self, address: str, name: str) -> AsyncIterator[None]:
        """Waits for the turn of a login, and raises where there is a pause.

        A few at a time have it for each address and each name, so that those that come at once
        over many connections see the failures of those before them.

        Raises:
            TooManyGuessesError: there is a pause, or failures cannot be counted.
        """
        keys = _Keys.of(address, name)
        # Always in this order, so that no two wait for each other.
        async with self._permit(keys.address), self._permit(keys.name):
            try:
                wait = self._wait(keys)
            except OSError as error:
                log.error("failed logins cannot be counted: %s", error)
                raise TooManyGuessesError("Logins are not possible now, try again later") from None
            if wait > 0:
                raise TooManyGuessesError(
                    f"Too many failed logins, try again in {math.ceil(wait)} seconds"
                )
            yield

    @asynccontextmanager
    async def _permit(self, key: str) -> AsyncIterator[None]:
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = _Turn(asyncio.Semaphore(_AT_A_TIME))
        turn.count += 1
        try:
            async with turn.permits:
                yield
        finally:
            turn.count -= 1
            if not turn.count:
                del self._turns[key]

    def failed(self, address: str, name: str) -> None:
        """Counts a login that failed."""
        keys = _Keys.of(address, name)
        try:
            if self._limits.read(keys.known, self._clock()) is not None:
                self._count(keys.pair, f"{address} as {name!r}")
            else:
                self._count(keys.address, address)
                self._count(keys.name, repr(name))
        except (OSError, LimitsFullError) as error:
            log.error("failed logins cannot be counted: %s", error)
            self._full_until = self._clock() + LONGEST_NAME_PAUSE

    def succeeded(self, address: str, name: str) -> None:
        """Remembers that a user has logged in from an address."""
        keys, now = _Keys.of(address, name), self._clock()
        try:
            known = self._limits.read(keys.known, now)
            if known is None or known.expires < now + _KNOWN_FOR - _KNOWN_AGAIN_AFTER:
                self._limits.change(keys.known, now, lambda _: (1.0, now + _KNOWN_FOR, ""))
            if self._limits.read(keys.pair, now) is not None:
                self._limits.remove(keys.pair)
        except (OSError, LimitsFullError) as error:
            log.error("a login cannot be remembered: %s", error)

    def _wait(self, keys: _Keys) -> float:
        """Seconds until a login may be tried; 0.0 or less: now."""
        if self._limits.read(keys.known, self._clock()) is not None:
            return self._left(keys.pair, self._longest_for_name)
        return max(
            self._left(keys.address, self._longest),
            self._left(keys.name, self._longest_for_name),
            self._full_until - self._clock(),
        )

    def _left(self, key: str, longest: float) -> float:
        now = self._clock()
        cell = self._limits.read(key, now)
        if cell is None or cell.value < self._failures:
            return 0.0
        # 1, 2, 4 and so on.
        pause = min(longest, math.exp2(min(cell.value - self._failures, 32)))
        # A clock that has been set back must not make anybody wait for longer.
        return min(pause, cell.expires - self._memory + pause - now)

    def _count(self, key: str, who: str) -> None:
        now = self._clock()
        cell = self._limits.change(
            key, now, lambda before: ((before.value if before else 0) + 1, now + self._memory, "")
        )
        if cell.value == self._failures:
            log.warning("%s: %d logins failed, the next ones have to wait", who, cell.value)


def _network(address: str) -> str:
    """What one client has: an IPv4 address, or the upper half of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
