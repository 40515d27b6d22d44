"""Pools of sources, and which source of a pool is taken. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from math import log

from gateway.hooks import Source
from plugins.ippool.config import IpPoolConfig
from plugins.ippool.warmup import WarmUp

V4 = 1
V6 = 2
ANY = V4 | V6
"""Address families, and sets of them."""

_REMEMBERED = 4_096
_BITS = 52
"""Of a hash: as many as a float between 0 and 1 can tell apart, so that none is rounded to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A source that pools have: its name, what it connects as, and its share of the mail."""

    name: str
    source: Source
    weight: int = 1
    warmup: WarmUp | None = None

    @property
    def family(self) -> int:
        """`V4` or `V6`."""
        return V6 if ":" in (self.source.address or "") else V4


class Pool:
    """Sources that serve for the same mail.

    Args:
        name: as in the configuration.
        members: at least one.
        sticky: whether mail of one sender's domain to one recipients' domain keeps its source.
        fallback: where mail goes that no source of this pool can take.

    Attributes:
        families: of all members, and of those of the pools that it falls back to.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        sticky: bool = False,
        fallback: Pool | None = None,
    ) -> None:
        self.name = name
        self.members = tuple(members)
        self.sticky = sticky
        self.fallback = fallback
        self.families = 0
        for member in (member for pool in self.chain for member in pool.members):
            self.families |= member.family
        self._bounds = tuple(accumulate(member.weight for member in self.members))
        self._orders: dict[tuple[str, str], tuple[Member, ...]] = {}

    @property
    def chain(self) -> Iterator[Pool]:
        """This pool, the one that it falls back to, and so on."""
        pool: Pool | None = self
        while pool is not None:
            yield pool
            pool = pool.fallback

    def one(self, chance: float) -> Member:
        """A member by weight, for a random number from 0 to below 1."""
        return self.members[bisect_right(self._bounds, chance * self._bounds[-1])]

    def drawn(self, candidates: Sequence[Member], chance: Callable[[], float]) -> Iterator[Member]:
        """The candidates in an order of chance: the first by weight, then of the others, …"""
        left = list(candidates)
        while len(left) > 1:
            bounds = list(accumulate(member.weight for member in left))
            yield left.pop(bisect_right(bounds, chance() * bounds[-1]))
        yield from left

    def order(self, sender_domain: str, domain: str) -> tuple[Member, ...]:
        """All members in the order in which mail between two domains prefers them.

        By weighted rendezvous hashing: a member more or less moves only its own share of the
        pairs, and all processes agree.
        """
        pair = (sender_domain, domain)
        found = self._orders.get(pair)
        if found is None:
            if len(self._orders) >= _REMEMBERED:
                self._orders.clear()
            found = tuple(sorted(self.members, key=lambda one: _score(one, pair), reverse=True))
            self._orders[pair] = found
        return found


def _score(member: Member, pair: tuple[str, str]) -> float:
    """The highest of these is first with a probability in proportion to the weights."""
    text = "\0".join((member.name, *pair)).encode()
    number = int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> (64 - _BITS)
    return -member.weight / log((number + 0.5) / (1 << _BITS))


def members_of(config: IpPoolConfig) -> dict[str, Member]:
    """The sources of a configuration, by name."""
    return {
        name: Member(
            name,
            Source(one.address, one.helo),
            one.weight,
            None
            if one.warmup is None
            else WarmUp(one.warmup.since, one.warmup.curve or config.curve),
        )
        for name, one in config.sources.items()
    }


def pools_of(config: IpPoolConfig, members: Mapping[str, Member]) -> dict[str, Pool]:
    """The pools of a configuration, by name."""
    pools: dict[str, Pool] = {}

    def make(name: str) -> Pool:
        if name not in pools:
            one = config.all_pools[name]
            fallback = None if one.fallback is None else make(one.fallback)
            sources = [members[source] for source in one.sources]
            pools[name] = Pool(name, sources, one.sticky, fallback)
        return pools[name]

    for name in config.all_pools:
        make(name)
    return pools
