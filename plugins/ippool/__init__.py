"""Chooses the address that mail is sent from: pools, warm-up, and sources that are blocked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.hooks import (
    Attempt,
    Condition,
    Context,
    Delay,
    Delivery,
    Disposition,
    Outcome,
    Plugin,
    Recipient,
    Source,
    hookimpl,
)
from plugins.ippool.block import Blocks
from plugins.ippool.budget import Account, Budgets
from plugins.ippool.config import IpPoolConfig
from plugins.ippool.day import Day, day_at, zone_of
from plugins.ippool.identity import Bindings, Identities
from plugins.ippool.pool import ANY, Member, Pool, members_of, pools_of
from plugins.ippool.provider import Destination, Providers
from plugins.ippool.reach import Reach
from plugins.ippool.suspension import Suspension, Suspensions, told

if TYPE_CHECKING:
    import click

__all__ = ["IpPool", "IpPoolConfig"]

CHECK_AGAIN = 60.0
"""Seconds after which addresses are tried again, and those asked for that cannot be used."""

LONGEST_WAIT = 900.0
"""Seconds that mail waits at most for a source that is suspended, or not there."""

_ASK_AGAIN = 0.01
"""Seconds until another source is chosen, where others were quicker to use up a budget."""


_NO_CONNECTION = ("4.4.1", "4.4.2")
"""What is said of a site whose address did not answer, or hung up."""

_REASONS = 3
"""Sources of which mail that waits is told why they cannot be used."""


class IpPool(Plugin[IpPoolConfig]):
    """Chooses a source for each attempt, and learns from the replies which ones are blocked."""

    _context: Context
    _suspensions: Suspensions
    _budgets: Budgets
    _reach: Reach
    _bindings: Bindings
    _watching: asyncio.Task[None] | None = None

    def __init__(self, config: IpPoolConfig) -> None:
        super().__init__(config)
        self._members = members_of(config)
        self._by_address = {one.source.address: one for one in self._members.values()}
        self._pools = pools_of(config, self._members)
        self._default = self._pools[config.default_pool]
        self._rules = [(Condition(rule.when), self._pools[rule.pool]) for rule in config.rules]
        self._providers = Providers(config.all_providers)
        self._blocks = Blocks(config.rules_of_blocks)
        self._zone = zone_of(config.timezone)
        self._day = Day(day_at(0.0, self._zone).date, 0.0, 0.0)
        self._warming: dict[str, int] = {}
        self._strangers: set[str] = set()
        self._random = random.random
        if all(one.warmup is None for one in self._members.values()):
            self.unused = ("admit",)

    @hookimpl
    async def start(self, context: Context) -> None:
        """Tries whether the sources can be used; goes on without those that cannot."""
        self._context = context
        self._clock = context.clock
        self._suspensions = Suspensions(context.limits, context.name, self.config.suspension.policy)
        self._budgets = Budgets(context.limits, context.name)
        self._reach = Reach(context.resolver)
        # One process speaks for all of them.
        log = context.log if context.role == "service" else None
        self._bindings = Bindings(self.config.sources, log)
        self._bindings.check()
        # On a machine that starts, addresses may come late; later they are missing for longer.
        self._young_until = context.clock() + LONGEST_WAIT
        self._watching = asyncio.create_task(self._watch())

    @hookimpl
    async def stop(self) -> None:
        """Ends what runs beside the mail."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._reach.stop()

    @hookimpl
    def source(self, delivery: Delivery) -> Source | Delay:
        """Chooses a source that may send to this receiver now; a Delay where none may."""
        now = self._clock()
        if self._suspensions.refresh(now):
            self._tell_all(now)
        if now not in self._day:
            self._begin_day(now)
        pool = self._pool_of(delivery)
        one_family = pool.families != ANY
        if one_family and not (
            self._suspensions or self._bindings.unbound or self._warming or pool.sticky
        ):
            return pool.one(self._random()).source
        route = delivery.route
        destination = self._providers.destination(delivery.domain, route)
        families: tuple[int, ...] = (ANY,)
        if route is not None and not one_family:
            families = self._reach.families(route, now)
        member = self._choose(pool, delivery, destination, families, now)
        if member is not None:
            return member.source
        return self._wait(pool, destination, families, now)

    @hookimpl
    def admit(self, delivery: Delivery) -> Delay | None:
        """Takes what an attempt needs of the warm-up's budget."""
        source = delivery.source
        member = self._by_address.get(source.address) if source is not None else None
        if member is None:
            return None
        now = self._clock()
        recipients: Sequence[Recipient] = delivery.recipients
        most = delivery.recipients_per_message
        if most is not None and most < len(recipients):
            recipients = recipients[: max(1, most)]
        destination = self._providers.destination(delivery.domain, delivery.route)
        account = self._account(member, destination)
        if account is None:
            self._budgets.release(delivery.message_id, recipients, now)
            return None
        charged = self._budgets.charge(account, delivery.message_id, recipients, now)
        if charged < len(recipients):
            if not charged:
                return Delay(_ASK_AGAIN, f"{member.name} has just used up its budget for today")
            delivery.recipients_per_message = charged
        return None

    @hookimpl
    def reply(self, attempt: Attempt) -> Outcome | None:
        """Suspends a source that the receiver blocks; the mail then goes from another one."""
        outcome, delivery = attempt.outcome, attempt.delivery
        reached = bool(outcome.code) or outcome.stage != "connect"
        now = self._clock()
        if self._budgets:
            address = attempt.recipient.address
            self._budgets.settle(delivery.message_id, address, reached=reached, now=now)
        if outcome.disposition is Disposition.DELIVERED or attempt.source is None:
            return None
        member = self._by_address.get(attempt.source.address)
        if member is None:
            return None
        if not reached:
            self._learn(member, attempt, now)
            return None
        destination = self._providers.destination(delivery.domain, attempt.route)
        rule = self._blocks.find(outcome, destination.provider)
        if rule is None:
            return None
        name, judge, suspensions = member.name, destination.judge, self._suspensions
        if rule.after > 1 and not suspensions.until(name, judge, now):
            count = suspensions.refused(name, judge, delivery.message_id, now)
            if count < rule.after:
                return None
        suspension = suspensions.block(name, judge, now, outcome.reply, rule.seconds)
        if suspension is not None:
            self._tell(suspension, now, attempt)
        return replace(outcome, disposition=Disposition.DEFERRED)

    @hookimpl
    def commands(self, context: Context) -> click.Command:
        """`gateway ippool`: what the sources do, and what is wrong with them."""
        from plugins.ippool.commands import group

        return group(self.config, context)

    # Choosing.

    def _pool_of(self, delivery: Delivery) -> Pool:
        name = delivery.recipients[0].notes.get("pool") or delivery.notes.get("pool")
        if name:
            pool = self._pools.get(name)
            if pool is not None:
                return pool
            self._complain(name)
        for condition, pool in self._rules:
            if condition.matches(delivery):
                return pool
        return self._default

    def _choose(
        self,
        pool: Pool,
        delivery: Delivery,
        destination: Destination,
        families: tuple[int, ...],
        now: float,
    ) -> Member | None:
        until, judge = self._suspensions.until, destination.judge
        for one in pool.chain:
            members = one.members
            if one.sticky:
                sender_domain = delivery.sender.rpartition("@")[2].lower()
                members = one.order(sender_domain, delivery.domain)
            usable = [
                member
                for member in members
                if member.name not in self._bindings.unbound and not until(member.name, judge, now)
            ]
            for family in families:
                candidates = [member for member in usable if member.family & family]
                order = candidates if one.sticky else one.drawn(candidates, self._random)
                for member in order:
                    if self._may_send(member, delivery, destination, now):
                        return member
        return None

    def _may_send(
        self, member: Member, delivery: Delivery, destination: Destination, now: float
    ) -> bool:
        account = self._account(member, destination)
        return account is None or self._budgets.has_room(
            account, delivery.message_id, delivery.recipients[0].address, now
        )

    def _wait(
        self, pool: Pool, destination: Destination, families: tuple[int, ...], now: float
    ) -> Delay:
        """How long until one of the sources can be used, and why not now."""
        allowed = 0
        for family in families:
            allowed |= family
        waits = sorted(
            {
                self._wait_for(member, destination, now)
                for one in pool.chain
                for member in one.members
                if member.family & allowed
            }
        )
        reasons = "; ".join(reason for _, reason in waits[:_REASONS])
        if len(waits) > _REASONS:
            reasons += "; and so on"
        return Delay(waits[0][0], f"no source of pool {pool.name} can be used: {reasons}")

    def _wait_for(self, member: Member, destination: Destination, now: float) -> tuple[float, str]:
        if member.name in self._bindings.unbound:
            reason = f"{member.name} cannot be bound: {self._bindings.unbound[member.name]}"
            return CHECK_AGAIN if now < self._young_until else LONGEST_WAIT, reason
        until = self._suspensions.until(member.name, destination.judge, now)
        if until:
            reason = f"{member.name} is suspended for {destination.judge}"
            return min(until - now, LONGEST_WAIT), reason
        budget = self._warming.get(member.name, 0)
        reason = f"{member.name} may send no more than {budget} to {destination.provider} today"
        return self._day.end - now, reason

    def _account(self, member: Member, destination: Destination) -> Account | None:
        budget = self._warming.get(member.name)
        if budget is None:
            return None
        return self._budgets.account(member.name, destination.provider, budget, self._day)

    def _begin_day(self, now: float) -> None:
        self._day = day_at(now, self._zone)
        budgets = {
            name: member.warmup.budget(self._day.date)
            for name, member in self._members.items()
            if member.warmup is not None
        }
        self._warming = {name: one for name, one in budgets.items() if one is not None}

    def _complain(self, name: str) -> None:
        if name not in self._strangers and len(self._strangers) < 100:
            self._strangers.add(name)
            self._context.log.warning(
                'there is no pool "%s", which mail asks for; its pool is chosen as usual', name
            )

    # Learning and telling.

    def _learn(self, member: Member, attempt: Attempt, now: float) -> None:
        """No server was reached: perhaps not with this address family, or not from here."""
        self._bindings.check(member.name)
        status, route = attempt.outcome.status, attempt.route
        if member.name in self._bindings.unbound or route is None:
            return
        if status == "4.4.4":
            self._reach.missing(route.site, member.family)
        elif status in _NO_CONNECTION:
            self._reach.failed(route.site, member.family, now)

    async def _watch(self) -> None:
        """Looks after what no mail makes anybody look at."""
        context = self._context
        try:
            if context.role == "service":
                await self._warn_of_names()
            while True:
                await asyncio.sleep(CHECK_AGAIN)
                self._bindings.check()
                now = self._clock()
                if context.role == "worker" and self._suspensions.refresh(now):
                    self._tell_all(now)
        except Exception:
            context.log.exception("the sources are not looked after any more")

    async def _warn_of_names(self) -> None:
        identities = Identities(self._context.resolver)
        for name, source in self.config.sources.items():
            for problem in await identities.problems(source):
                self._context.log.warning("source %s: %s", name, problem)

    def _tell_all(self, now: float) -> None:
        for suspension in self._suspensions.tell(now):
            self._tell(suspension, now, None)

    def _tell(self, suspension: Suspension, now: float, attempt: Attempt | None) -> None:
        """Logs that a suspension began or ended, and puts it into an event."""
        context = self._context
        event = told(suspension, now, self._zone, attempt)
        context.log.warning("%s", event.reason)
        try:
            context.emit(event)
        except RuntimeError as error:
            context.log.debug("%s", error)
