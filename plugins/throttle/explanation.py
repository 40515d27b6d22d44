"""What applies to mail for an address, and where each of it is said."""

from __future__ import annotations

from typing import Any

from gateway.hooks import Hop, NoSuchDomainError, Resolver, Route
from plugins.throttle.plan import Plan, Slowing
from plugins.throttle.receivers import Receivers
from plugins.throttle.rule import CompiledRule
from plugins.throttle.state import States

SMARTHOST = "smarthost"


class UnreachableError(Exception):
    """There is no way to the domain; the text says why."""


async def route_to(domain: str, resolver: Resolver) -> Route:
    """The way to a domain's mail exchangers, as far as limits are concerned.

    Raises:
        UnreachableError: there is none.
        ResolutionError: the DNS cannot tell now.
    """
    try:
        exchangers = await resolver.mx(domain)
        if not exchangers:
            if not await resolver.addresses(domain):
                raise UnreachableError(f"{domain} has neither MX nor address")
            return Route((Hop(domain),), domain, is_mx=True)
    except NoSuchDomainError:
        raise UnreachableError(f"{domain} does not exist") from None
    named = [(preference, host) for preference, host in exchangers if host]
    if not named:
        raise UnreachableError(f"{domain} takes no mail (null MX)")
    best = min(preference for preference, _ in named)
    site = ",".join(sorted({host for preference, host in named if preference == best}))
    return Route(tuple(Hop(host) for _, host in named), site, is_mx=True)


def route_through(host: str) -> Route:
    """The way through a smarthost."""
    return Route((Hop.parse(host),), SMARTHOST)


def explained(plan: Plan, route: Route, receivers: Receivers, states: States, now: float) -> Any:
    """A plan as data for programs."""
    per_connection = plan.messages_per_connection
    return {
        "provider": plan.provider,
        "site": route.site,
        "hosts": [hop.host for hop in route.hops],
        "rates": [
            {
                "scope": limit.scope.key,
                "rate": str(limit.rate),
                "unit": limit.unit,
                "from": receivers.origin(limit.path),
            }
            for limit in plan.limits
        ],
        "connections": [
            {
                "scope": ceiling.scope.key,
                "connections": ceiling.count,
                "from": receivers.origin(ceiling.path),
            }
            for ceiling in plan.ceilings
        ],
        **{
            key: None
            if value is None
            else {"value": value, "from": receivers.origin((*plan.section, key))}
            for key, value in (
                ("messages_per_connection", per_connection),
                ("recipients_per_message", plan.recipients_per_message),
            )
        },
        "slow": {**_slowing(plan.slowing), "from": receivers.origin((*plan.section, "slow"))},
        "rules": [_rule(rule, plan, receivers) for rule in plan.rules],
        "state": [
            {"scope": scope.key, **described}
            for scope in dict.fromkeys(plan.scopes.values())
            for described in states.read(scope.key, now).described(now)
        ],
    }


def _slowing(slowing: Slowing) -> dict[str, Any]:
    return {
        "rate": str(slowing.rate),
        "halvings": slowing.halvings,
        "every": slowing.every,
        "recover": slowing.recover,
    }


def _rule(rule: CompiledRule, plan: Plan, receivers: Receivers) -> dict[str, Any]:
    stops = not rule.actions.isdisjoint(("pause", "bounce"))
    return {
        "name": rule.name,
        "when": rule.condition,
        "action": sorted(rule.actions),
        "for": rule.lasting if stops else None,
        "after": rule.after,
        "scope": plan.target(rule).key if rule.keeps_state else None,
        "from": receivers.origin(rule.path),
    }
