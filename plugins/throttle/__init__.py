"""Sends mail as fast as receivers want it, and takes as much of it as clients may send."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import ref

from gateway.hooks import (
    Attempt,
    Context,
    Delay,
    Delivery,
    Disposition,
    Message,
    Outcome,
    Plugin,
    Quarantine,
    Reject,
    Tempfail,
    hookimpl,
)
from plugins.throttle.charges import Charges
from plugins.throttle.config import ThrottleConfig
from plugins.throttle.counting import Counting
from plugins.throttle.ledger import FILE_NAME, Ledger
from plugins.throttle.lined_yaml import KeyPath
from plugins.throttle.pacing import Pacing
from plugins.throttle.plan import Scope
from plugins.throttle.rule import CompiledRule, first_match
from plugins.throttle.terms import Stop
from plugins.throttle.traffic import Flow, Traffic

__all__ = ["Throttle", "ThrottleConfig"]

_LONGEST_STOP = 300.0
"""Seconds after which mail that is paused asks again, so that it notices when that was lifted."""
_LONGEST_WAIT = 30.0
"""Seconds after which a lane asks again that waits for its turn; so long it stays in memory."""
_REASON = 160
"""Characters of a reply in reasons."""


class Throttle(Plugin[ThrottleConfig]):
    """Keeps to what receivers want, and clients to their quotas."""

    api = "1.0"
    changes = ()
    _context: Context
    _traffic: Traffic
    _counting: Counting | None = None

    def __init__(self, config: ThrottleConfig) -> None:
        super().__init__(config)
        self.unused = () if config.quotas else ("message",)
        self._pacing = Pacing()
        self._charges = Charges()
        self._met: tuple[ref[Delivery], set[KeyPath]] | None = None

    @hookimpl
    def start(self, context: Context) -> None:
        """Opens what all workers share."""
        self._context = context
        self._traffic = Traffic(self.config.merged, context.limits, context.name)
        if self.config.quotas and context.role == "worker":
            ledger = Ledger(context.data_folder() / FILE_NAME)
            self._counting = Counting(self.config, ledger, context.clock)

    @hookimpl
    def stop(self) -> None:
        """Closes it."""
        if self._counting is not None:
            self._counting.close()

    @hookimpl
    def message(self, message: Message) -> Reject | Tempfail | Quarantine | None:
        """Takes a message's part of the quotas."""
        assert self._counting is not None
        return self._counting.charge(message)

    @hookimpl
    def admit(self, delivery: Delivery) -> Delay | Reject | None:
        """Takes a delivery's part of all limits at once, or says when to ask again."""
        now = self._context.clock()
        flow = self._traffic.flow(delivery, now)
        terms = flow.terms
        if terms.stop is not None:
            return _stopped(*terms.stop, now)
        if terms.ceilings:
            delivery.ceilings.update(terms.ceilings)
        plan = flow.plan
        most = plan.messages_per_connection
        if most is not None:
            given = delivery.messages_per_connection
            delivery.messages_per_connection = most if given is None else min(given, most)
        most = plan.recipients_per_message
        if most is not None:
            given = delivery.recipients_per_message
            delivery.recipients_per_message = most if given is None else min(given, most)
        if not terms.takes:
            return None
        key = (delivery.message_id, delivery.recipients[0].address)
        if self._charges.holds(key, now):
            return None
        count = len(delivery.recipients)
        if count > 1 and delivery.recipients_per_message is not None:
            # The others go in a further transaction, and are asked about then.
            count = min(count, delivery.recipients_per_message)
        wait = self._context.limits.take(terms.takes_for(count), now)
        if wait <= 0:
            self._charges.add(key, now)
            return None
        return self._later(flow, wait, count, now)

    @hookimpl
    def reply(self, attempt: Attempt) -> Outcome | None:
        """Obeys what a server says, and may see its answer in another way than it does."""
        delivery = attempt.delivery
        self._charges.end((delivery.message_id, delivery.recipients[0].address))
        outcome = attempt.outcome
        if outcome.disposition is Disposition.DELIVERED or delivery.route is None:
            return None
        now = self._context.clock()
        flow = self._traffic.flow(delivery, now)
        rule = first_match(flow.plan.rules, outcome)
        if rule is None:
            return None
        if rule.keeps_state and not self._known(delivery, rule):
            self._obey(flow, rule, outcome, now)
        if "retry" in rule.actions and outcome.disposition is Disposition.FAILED:
            return replace(outcome, disposition=Disposition.DEFERRED)
        if "fail" in rule.actions and outcome.disposition is Disposition.DEFERRED:
            return replace(outcome, disposition=Disposition.FAILED)
        return None

    @hookimpl
    def commands(self, context: Context) -> Any:
        """`gateway throttle`: what is in force, and why."""
        from plugins.throttle.commands import group

        return group(self.config, context)

    def _later(self, flow: Flow, wait: float, count: int, now: float) -> Delay:
        limit = flow.terms.binding(wait, count)
        scope = limit.scope
        longest = _LONGEST_WAIT if scope.lane else _LONGEST_STOP
        interval = limit.interval(count)
        seconds = self._pacing.wait(limit.key, wait, interval, longest, now)
        return Delay(seconds, f"throttle: {scope.key}: {limit.rate} {limit.unit}", scope.lane)

    def _known(self, delivery: Delivery, rule: CompiledRule) -> bool:
        """Whether this attempt has met the rule already: each of its recipients asks."""
        if self._met is None or self._met[0]() is not delivery:
            self._met = ref(delivery), set()
        met = self._met[1]
        known = rule.path in met
        met.add(rule.path)
        return known

    def _obey(self, flow: Flow, rule: CompiledRule, outcome: Outcome, now: float) -> None:
        plan, states = flow.plan, self._traffic.states
        scope = plan.target(rule)
        if not states.reached(rule, scope, now):
            return
        why = f"{rule.name}: {_plain(outcome.reply)}"
        log = self._context.log
        if "slow" in rule.actions:
            slow = states.slow(scope, plan.slowing, why, now)
            if slow is not None:
                log.warning("%s goes at 1/%d: %s", scope.key, 2**slow.halvings, why)
        for kind, word in (("pause", "paused"), ("bounce", "refused")):
            if kind in rule.actions and states.stop(scope, kind, now + rule.lasting, why, now):
                log.warning("%s is %s for %g s: %s", scope.key, word, rule.lasting, why)


def _stopped(scope: Scope, stop: Stop, now: float) -> Delay | Reject:
    if stop.kind == "bounce":
        return Reject(f"No mail goes to {scope.key} for now: {stop.why}")
    seconds = min(max(0.0, stop.until - now), _LONGEST_STOP)
    return Delay(seconds, f"throttle: {scope.key} is paused: {stop.why}", scope.lane)


def _plain(text: str) -> str:
    """The beginning of a reply, on one line and without what is not printed."""
    return "".join(one if one.isprintable() else "?" for one in text[:_REASON])
