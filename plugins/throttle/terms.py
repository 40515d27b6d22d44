"""What a plan comes to at a moment: with what is slowed, paused or bounced just now. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.hooks import Rate, Take
from plugins.throttle.plan import Limit, Plan, Scope

_FOREVER = math.inf


@dataclass(frozen=True, slots=True)
class Slow:
    """Mail goes slower.

    Attributes:
        halvings: how often rate and connections were halved.
        since: when last; recover: seconds until one halving is taken back, and so on.
        why: what the server said.
    """

    halvings: int
    since: float
    recover: float
    why: str

    def at(self, now: float) -> int:
        """How many halvings are in force."""
        return max(0, self.halvings - max(0, int((now - self.since) / self.recover)))

    def next_change(self, now: float) -> float:
        """When one of them is taken back."""
        done = max(0, int((now - self.since) / self.recover))
        return self.since + (done + 1) * self.recover

    @property
    def end(self) -> float:
        """When all is as before."""
        return self.since + self.halvings * self.recover


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing goes (`pause`), or everything comes back (`bounce`), until then."""

    kind: str
    until: float
    why: str


@dataclass(frozen=True, slots=True)
class State:
    """What is in force in a scope."""

    slow: Slow | None = None
    stop: Stop | None = None

    def described(self, now: float) -> Iterator[dict[str, Any]]:
        """Each part of it, as data for programs."""
        if self.slow is not None and self.slow.at(now):
            yield {
                "kind": "slow",
                "divisor": 2 ** self.slow.at(now),
                "until": self.slow.end,
                "why": self.slow.why,
            }
        if self.stop is not None and self.stop.until > now:
            yield {"kind": self.stop.kind, "until": self.stop.until, "why": self.stop.why}


@dataclass(frozen=True, slots=True)
class Terms:
    """What an attempt has to keep to.

    Attributes:
        takes: of each limit, for one message to one recipient.
        limits: the limits that they are of, slowed down where that is in force.
        ceilings: connections by key.
        stop: why there can be none, and in which scope.
        until: when these terms change by themselves.
    """

    takes: tuple[Take, ...]
    limits: tuple[Limit, ...]
    ceilings: Mapping[str, int]
    stop: tuple[Scope, Stop] | None
    until: float

    def takes_for(self, recipients: int) -> tuple[Take, ...]:
        """What one message to so many recipients takes."""
        if recipients == 1:
            return self.takes
        return tuple(
            replace(take, amount=float(recipients)) if limit.unit == "recipients" else take
            for take, limit in zip(self.takes, self.limits, strict=True)
        )

    def binding(self, wait: float, recipients: int) -> Limit:
        """The limit that makes a message wait so long, as far as can be told.

        Who waits for a limit waits no longer than from one to the next; of those that fit, the
        fastest is taken, so that nobody waits in vain.
        """
        fitting = [limit for limit in self.limits if limit.interval(recipients) >= wait - 1e-6]
        if fitting:
            return min(fitting, key=lambda limit: limit.rate.interval)
        return max(self.limits, key=lambda limit: limit.rate.interval)


def terms_of(plan: Plan, states: Mapping[Scope, State], prefix: str, now: float) -> Terms:
    """What a plan comes to.

    Args:
        plan: the plan.
        states: what is in force in its scopes.
        prefix: what the keys of this entry of gateway.yaml begin with.
        now: the time.
    """
    until = _FOREVER
    limits = list(plan.limits)
    ceilings: dict[Scope, int] = {ceiling.scope: ceiling.count for ceiling in plan.ceilings}
    stops: list[tuple[Scope, Stop]] = []
    for scope, state in states.items():
        if state.stop is not None and state.stop.until > now:
            stops.append((scope, state.stop))
            until = min(until, state.stop.until)
        halvings = state.slow.at(now) if state.slow is not None else 0
        if state.slow is not None and halvings:
            until = min(until, state.slow.next_change(now))
            factor = 0.5**halvings
            limits = list(_slowed(plan, limits, scope, factor))
            count = _own(ceilings, scope)
            if count is not None:
                ceilings[scope] = max(1, int(count * factor))
    return Terms(
        takes=tuple(Take(f"{prefix}/rate/{limit.key}", limit.rate) for limit in limits),
        limits=tuple(limits),
        ceilings={f"{prefix}/connections/{scope.key}": n for scope, n in ceilings.items()},
        # What comes back comes back, however long the rest is paused.
        stop=max(stops, key=lambda one: (one[1].kind == "bounce", one[1].until), default=None),
        until=until,
    )


def _own(ceilings: Mapping[Scope, int], scope: Scope) -> int | None:
    """The ceiling of a scope; where a source has none of its own, that of all sources."""
    if scope in ceilings:
        return ceilings[scope]
    whole = [one for one in ceilings if (one.kind, one.name, one.source) == _whole(scope)]
    return ceilings[whole[0]] if whole else None


def _whole(scope: Scope) -> tuple[str, str, None]:
    return scope.kind, scope.name, None


def _slowed(plan: Plan, limits: Iterable[Limit], scope: Scope, factor: float) -> Iterable[Limit]:
    own = False
    whole: list[Limit] = []
    for limit in limits:
        here = limit.scope.key == scope.key
        yield replace(limit, rate=_scaled(limit.rate, factor)) if here else limit
        own = own or (here and limit.unit == "messages")
        if (limit.scope.kind, limit.scope.name, limit.scope.source) == _whole(scope):
            whole.append(limit)
    if own:
        return
    base = [limit.rate for limit in whole if limit.unit == "messages"]
    path = (*plan.section, "slow", "rate")
    for rate in base or [plan.slowing.rate]:
        yield Limit(scope, "messages", _scaled(rate, factor), path)


def _scaled(rate: Rate, factor: float) -> Rate:
    return Rate(rate.count * factor, rate.seconds, max(1.0, rate.burst * factor))
