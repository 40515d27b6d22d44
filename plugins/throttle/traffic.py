"""Finds the terms for a delivery: made once for each kind, and anew when something has changed."""

from __future__ import annotations

from gateway.hooks import Delivery, Limits
from plugins.throttle.plan import Plan, Planner, Scope
from plugins.throttle.receivers import Receivers
from plugins.throttle.state import States
from plugins.throttle.terms import State, Terms, terms_of

_REMEMBERED = 10_000


class Flow:
    """Deliveries to one domain, over one route, from one source; what applies to them.

    Attributes:
        plan: limits and rules.
        terms: what the plan came to when it was last looked at.
        version: of the states then.
        watched: the scopes in which rules can change something.
    """

    __slots__ = ("plan", "terms", "version", "watched")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.watched: tuple[Scope, ...] = tuple(
            dict.fromkeys(plan.target(rule) for rule in plan.rules if rule.keeps_state)
        )
        self.version = -1.0
        self.terms = Terms((), (), {}, None, 0.0)


class Traffic:
    """All flows.

    Args:
        receivers: what is known of receivers.
        limits: what all processes share.
        prefix: what the keys of this entry of gateway.yaml begin with.
    """

    def __init__(self, receivers: Receivers, limits: Limits, prefix: str) -> None:
        self.states = States(limits, prefix)
        self._planner = Planner(receivers)
        self._prefix = prefix
        self._flows: dict[tuple[str, str, str | None, str], Flow] = {}

    def flow(self, delivery: Delivery, now: float) -> Flow:
        """What applies to a delivery whose route is known, as things are now."""
        route, source = delivery.route, delivery.source
        assert route is not None
        domain = delivery.domain
        address = None if source is None else source.address
        key = (domain, route.site, address, delivery.lane)
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= _REMEMBERED:
                # The oldest come first.
                del self._flows[next(iter(self._flows))]
            flow = Flow(self._planner.plan(domain, route, address, delivery.lane))
            self._flows[key] = flow
        version = self.states.version(now)
        if flow.version != version or now >= flow.terms.until:
            self._renew(flow, version, now)
        return flow

    def _renew(self, flow: Flow, version: float, now: float) -> None:
        states: dict[Scope, State] = {
            scope: self.states.read(scope.key, now) for scope in flow.watched
        }
        flow.terms = terms_of(flow.plan, states, self._prefix, now)
        flow.version = version
