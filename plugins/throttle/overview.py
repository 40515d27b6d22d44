"""What is used of all limits, and what is slowed or paused."""

from __future__ import annotations

from typing import Any

from gateway.hooks import Hop, Limits, Route
from plugins.throttle.explanation import SMARTHOST
from plugins.throttle.plan import Planner
from plugins.throttle.receivers import Receivers
from plugins.throttle.state import States

_SOURCE = " from "


class Overview:
    """Looks at what all processes share.

    Args:
        receivers: what is known of receivers.
        limits: what all processes share.
        prefix: what the keys of this entry of gateway.yaml begin with.
    """

    def __init__(self, receivers: Receivers, limits: Limits, prefix: str) -> None:
        self._receivers = receivers
        self._planner = Planner(receivers)
        self._limits = limits
        self._prefix = prefix
        self._states = States(limits, prefix)

    def scopes(self, now: float) -> list[dict[str, Any]]:
        """Each scope that is known of, as data for programs."""
        found: dict[str, dict[str, Any]] = {}

        def scope(key: str) -> dict[str, Any]:
            if key not in found:
                found[key] = {"scope": key, "rates": [], "connections": None, "state": []}
            return found[key]

        rates = f"{self._prefix}/rate/"
        for allowance in self._limits.rates(rates, now):
            key, _, counted = allowance.key.removeprefix(rates).rpartition(" ")
            one = {
                "unit": counted.partition("/")[0],
                "rate": str(allowance.rate),
                "at_once": max(0, int(allowance.available)),
                "next": max(0.0, round((1 - allowance.available) * allowance.rate.interval, 3)),
            }
            scope(key)["rates"].append(one)
        connections = f"{self._prefix}/connections/"
        for name, count in self._limits.leases(connections).items():
            key = name.removeprefix(connections)
            scope(key)["connections"] = {"open": count, "limit": self._ceiling(key)}
        for listed in self._states.listed(now):
            scope(listed.key)["state"] = list(listed.state.described(now))
        return [found[key] for key in sorted(found)]

    def _ceiling(self, key: str) -> int | None:
        """How many connections a scope may have, as configured."""
        kind, _, rest = key.partition(":")
        name, _, source = rest.partition(_SOURCE)
        if kind == "provider":
            provider = self._receivers.providers.get(name)
            bounds = provider if provider is None or not source else provider.per_source
            return None if bounds is None else bounds.connections
        hops = tuple(Hop(host) for host in name.split(","))
        domain = name if kind == "domain" else ""
        route = Route(hops, name, is_mx=name != SMARTHOST)
        plan = self._planner.plan(domain, route, source or None, "")
        for ceiling in plan.ceilings:
            if ceiling.scope.key == key:
                return ceiling.count
        return None
