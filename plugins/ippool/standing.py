"""How the sources stand: what they have sent today, and what keeps them from sending."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from gateway.hooks import Context
from plugins.ippool.budget import Budgets
from plugins.ippool.config import IpPoolConfig
from plugins.ippool.day import day_at, format_time, zone_of
from plugins.ippool.identity import Bindings
from plugins.ippool.pool import Member, members_of
from plugins.ippool.provider import Providers
from plugins.ippool.suspension import Suspension, Suspensions


@dataclass(frozen=True, slots=True)
class WarmUpStanding:
    """Where a warm-up is: its day of how many, and the recipients of a provider on a day.

    `today` and `tomorrow` are None where the source is warm; `used` is by provider.
    """

    since: str
    day: int
    days: int
    today: int | None
    tomorrow: int | None
    used: dict[str, int]


@dataclass(frozen=True, slots=True)
class SuspensionStanding:
    """Where a source is not used, until when (None: until it is resumed), and why."""

    provider: str
    until: str | None
    times: int
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a source stands. `unbound` is why its address cannot be used here; None: it can."""

    source: str
    address: str
    helo: str
    weight: int
    pools: list[str]
    warmup: WarmUpStanding | None
    suspensions: list[SuspensionStanding]
    unbound: str | None


def standings(config: IpPoolConfig, context: Context) -> Iterator[Standing]:
    """How each source stands now.

    Raises:
        OSError: the file with the counters cannot be opened.
    """
    now = context.clock()
    bindings = Bindings(config.sources, None)
    bindings.check()
    suspensions = Suspensions(context.limits, context.name, config.suspension.policy)
    suspensions.refresh(now)
    for name, member in members_of(config).items():
        yield Standing(
            name,
            config.sources[name].address,
            member.source.helo,
            member.weight,
            [pool for pool, one in config.all_pools.items() if name in one.sources],
            _warmup(member, config, context, now),
            [
                suspended(one, config)
                for one in suspensions
                if one.source == name and one.until > now
            ],
            bindings.unbound.get(name),
        )


def suspended(suspension: Suspension, config: IpPoolConfig) -> SuspensionStanding:
    """A suspension as it is shown."""
    until = suspension.until
    end = None if until == inf else format_time(until, zone_of(config.timezone))
    return SuspensionStanding(suspension.judge, end, suspension.times, suspension.reason)


def _warmup(
    member: Member, config: IpPoolConfig, context: Context, now: float
) -> WarmUpStanding | None:
    warmup = member.warmup
    if warmup is None:
        return None
    zone = zone_of(config.timezone)
    today = day_at(now, zone)
    tomorrow = day_at(today.end, zone)
    budgets = Budgets(context.limits, context.name)
    used = {}
    for provider in Providers(config.all_providers).names:
        count = budgets.used(budgets.account(member.name, provider, 0, today), now)
        if count:
            used[provider] = count
    return WarmUpStanding(
        warmup.since.isoformat(),
        warmup.day(today.date),
        len(warmup.curve),
        warmup.budget(today.date),
        warmup.budget(tomorrow.date),
        used,
    )
