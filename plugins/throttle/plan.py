"""Which limits and rules apply to mail for a domain, over a route, from a source. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.hooks import Rate, Route
from gateway.hooks.condition import glob
from plugins.throttle.destination import Backoff, Bounds, Destination, Share
from plugins.throttle.lined_yaml import KeyPath
from plugins.throttle.receivers import Receivers
from plugins.throttle.rule import CompiledRule, compiled

_LONGEST_NAME = 100
_AHEAD = 0.1
"""The part of a longer period's amount that may go ahead of its pace."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is limited together.

    Attributes:
        kind: `provider`, `site` or `domain`; name: which one.
        source: the source address, if each counts by itself.
        lane: whether all mail of the lane is in it, so that all of it waits for the same.
    """

    kind: str
    name: str
    source: str | None
    lane: bool

    @property
    def key(self) -> str:
        """Its name among all scopes: `provider:gmail from 192.0.2.1`."""
        return f"{self.kind}:{self.name}" + (f" from {self.source}" if self.source else "")


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate in a scope. `unit` is `messages` or `recipients`; `path` is where it was said."""

    scope: Scope
    unit: str
    rate: Rate
    path: KeyPath

    @property
    def key(self) -> str:
        """What it is counted under."""
        return f"{self.scope.key} {self.unit}/{self.rate.seconds:g}"

    def interval(self, recipients: int) -> float:
        """Seconds from one message to so many recipients to the next."""
        return self.rate.interval * (recipients if self.unit == "recipients" else 1)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Connections in a scope. `path` is where it was said."""

    scope: Scope
    count: int
    path: KeyPath


@dataclass(frozen=True, slots=True)
class Slowing:
    """How mail is slowed down: see `Backoff`."""

    rate: Rate = field(default_factory=lambda: Rate.parse("10/s"))
    halvings: int = 6
    every: float = 60.0
    recover: float = 900.0

    @classmethod
    def of(cls, said: Backoff | None) -> Slowing:
        """What was said, over the defaults."""
        chosen = (
            {} if said is None else {name: getattr(said, name) for name in said.model_fields_set}
        )
        return cls(**{name: value for name, value in chosen.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Plan:
    """What applies to mail for one domain over one route from one source.

    Attributes:
        provider: its name, if the receiver is known; direct: the route leads to its own servers.
        section: where the limits were said.
        limits, ceilings: how much may go at a time.
        messages_per_connection, recipients_per_message: None without a limit.
        rules: on what servers say; the first that matches is taken.
        slowing: how mail is slowed down.
        scopes: by (kind, whether for the source alone) what rules can slow, pause or bounce.
    """

    provider: str | None
    direct: bool
    section: KeyPath
    limits: tuple[Limit, ...]
    ceilings: tuple[Ceiling, ...]
    messages_per_connection: int | None
    recipients_per_message: int | None
    rules: tuple[CompiledRule, ...]
    slowing: Slowing
    scopes: Mapping[tuple[str, bool], Scope]

    def target(self, rule: CompiledRule) -> Scope:
        """What a rule slows, pauses or bounces."""
        return self.scopes[rule.scope, rule.per_source]


class Planner:
    """Makes plans.

    Args:
        receivers: what is known of receivers.
    """

    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers
        self._domains = [
            (name, glob(one.domains)) for name, one in receivers.providers.items() if one.domains
        ]
        self._hosts = [(name, glob(one.mx)) for name, one in receivers.providers.items() if one.mx]
        self._rules: dict[KeyPath, tuple[CompiledRule, ...]] = {
            ("providers", name): compiled(one.rules, ("providers", name, "rules"))
            for name, one in receivers.providers.items()
        }
        self._rules["default",] = compiled(receivers.default.rules, ("default", "rules"))
        self._rules["smarthosts",] = compiled(receivers.smarthosts.rules, ("smarthosts", "rules"))
        self._common = compiled(receivers.rules, ("rules",))

    def plan(self, domain: str, route: Route, source: str | None, lane: str) -> Plan:
        """The plan for such mail.

        Args:
            domain: of the recipients, in lower case and A-labels.
            route: the way there.
            source: the source address; None: the system chooses.
            lane: the queue that the mail waits in.
        """
        by_host = _first(self._hosts, preferred_hosts(route))
        provider = _first(self._domains, (domain,)) or by_host
        # A domain without MX has itself as its site.
        direct = route.is_mx or route.site == domain or by_host is not None
        usual = direct and lane == domain
        section: Destination
        path: KeyPath
        if provider is not None and direct:
            section, path = self._receivers.providers[provider], ("providers", provider)
        elif direct:
            section, path = self._receivers.default, ("default",)
        else:
            section, path = self._receivers.smarthosts, ("smarthosts",)
        names = {"site": short(route.site), "domain": short(domain)}
        lanes = {"site": usual or route.site == lane, "domain": usual}
        if provider is not None:
            names["provider"], lanes["provider"] = provider, usual
        limits: list[Limit] = []
        ceilings: list[Ceiling] = []

        def add(kind: str, share: Share | None, where: KeyPath, connects: bool = True) -> None:
            for bounds, each, place in _parts(share, where):
                # Without a source to tell apart, the lane waits for this too.
                alone = each and source is not None
                address = (source or "any") if each else None
                scope = Scope(kind, names[kind], address, lanes[kind] and not alone)
                limits.extend(_limits(bounds, scope, place))
                if connects and bounds.connections is not None:
                    ceilings.append(Ceiling(scope, bounds.connections, (*place, "connections")))

        known = self._receivers.providers[provider] if provider is not None else None
        if known is not None and (direct or known.via_smarthosts):
            where = ("providers", names["provider"])
            # What goes over one connection to a smarthost is for many receivers.
            add("provider", known, where, connects=direct)
            if not direct:
                add("domain", known.domain, (*where, "domain"), connects=False)
        add("site", section.site, (*path, "site"))
        add("domain", section.domain, (*path, "domain"))
        return Plan(
            provider=provider,
            direct=direct,
            section=path,
            limits=tuple(_strictest(limits)),
            ceilings=tuple(ceilings),
            messages_per_connection=section.messages_per_connection,
            recipients_per_message=section.recipients_per_message,
            rules=self._rules[path] + self._common,
            slowing=Slowing.of(section.slow),
            scopes=_scopes(names, lanes, source, direct),
        )


def _scopes(
    names: Mapping[str, str], lanes: Mapping[str, bool], source: str | None, direct: bool
) -> dict[tuple[str, bool], Scope]:
    scopes = {}
    for kind in ("provider", "site", "domain"):
        # What a smarthost says of itself is not the provider's word.
        actual = "site" if kind == "provider" and (kind not in names or not direct) else kind
        for each in (False, True):
            alone = each and source is not None
            address = source if each else None
            scopes[kind, each] = Scope(actual, names[actual], address, lanes[actual] and not alone)
    return scopes


def preferred_hosts(route: Route) -> tuple[str, ...]:
    """The servers of a route that are tried first."""
    hosts = [hop.host.lower() for hop in route.hops]
    site = route.site.split(",")
    return tuple(host for host in hosts if host in site) or tuple(hosts[:1])


def short(name: str) -> str:
    """A name that is not too long for a key, and still unique."""
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    return f"{name[: _LONGEST_NAME - 13]}#{digest}"


def _first(
    patterns: Iterable[tuple[str, Callable[[str], bool]]], names: tuple[str, ...]
) -> str | None:
    """The first provider whose pattern fits one of the names."""
    return next((name for name, fits in patterns if any(map(fits, names))), None)


def _parts(share: Share | None, path: KeyPath) -> Iterable[tuple[Bounds, bool, KeyPath]]:
    if share is None:
        return
    yield share, False, path
    if share.per_source is not None:
        yield share.per_source, True, (*path, "per_source")


def _strictest(limits: Iterable[Limit]) -> Iterable[Limit]:
    """Of limits on the same thing only the strictest, so that nothing counts twice."""
    kept: dict[str, Limit] = {}
    for limit in limits:
        other = kept.get(limit.key)
        if other is None or limit.rate.interval > other.rate.interval:
            kept[limit.key] = limit
    return kept.values()


def _limits(bounds: Bounds, scope: Scope, path: KeyPath) -> Iterable[Limit]:
    for unit, key, rates in (
        ("messages", "rate", bounds.rate),
        ("recipients", "recipient_rate", bounds.recipient_rate),
    ):
        for number, rate in enumerate(rates or ()):
            # The shortest period paces mail; of longer ones a part may go ahead.
            ahead = max(rate.burst, rate.count * _AHEAD) if number else rate.burst
            yield Limit(scope, unit, Rate(rate.count, rate.seconds, ahead), (*path, key))
