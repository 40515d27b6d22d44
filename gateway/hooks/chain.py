"""The compiled chain: for each stage the hooks in YAML order, with their conditions, timeouts and
failure rules.

Failing never means passing: a hook that raises, runs late or answers what its stage may not is a
fault, and `on_error` of its entry says what happens then. pluggy declares and checks the hooks;
the loop here runs them, because pluggy would run all plain functions before any coroutine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from gateway.attempt import Attempt, Delivery, Outcome, Route, Source
from gateway.events import NOTHING, Event, Interest
from gateway.hooks.actions import Accept, Delay, Discard, Quarantine, Reject, Tempfail
from gateway.hooks.division import Copy, Filtered, parts_for, rejoined
from gateway.hooks.invocation import call, run, run_apart, wait_apart
from gateway.hooks.load import LoadedPlugin
from gateway.hooks.plugin import Login
from gateway.hooks.policy import FAULT_DELAY, TEMPFAIL, postponed, without_seal
from gateway.hooks.spec import STAGES
from gateway.hooks.step import Fault, Step, Unasked
from gateway.hooks.thread_pool import ThreadPool
from gateway.hooks.trace import Trace
from gateway.hooks.trace import state as state_of
from gateway.hooks.watchdog import Watchdog
from gateway.mail.guard import Guard
from gateway.mail.message import Client, Message, Recipient
from gateway.smtp.esmtp import original_recipient

__all__ = ["FAULT_DELAY", "TEMPFAIL", "Chain", "Copy", "Filtered"]

SEAL_THREADS = 8
"""How many large bodies are sealed at a time."""


class Chain:
    """Fires every stage.

    Attributes:
        steps: the hooks of each stage, in order.
        interest: which events observers want.
    """

    def __init__(self, plugins: Sequence[LoadedPlugin], watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._sealing = ThreadPool("seal", SEAL_THREADS)
        self.steps: dict[str, tuple[Step, ...]] = {
            name: tuple(
                Step(
                    plugin=plugin.entry.name,
                    hook=name,
                    call=plugin.hooks[name],
                    is_async=plugin.is_async[name],
                    answers=stage.answers,
                    condition=plugin.condition,
                    timeout=plugin.entry.timeout,
                    on_error=plugin.entry.on_error,
                    per_recipient=plugin.instance.per_recipient,
                    interest=_interest(plugin),
                    pool=plugin.pool,
                )
                for plugin in plugins
                if name in plugin.hooks
            )
            for name, stage in STAGES.items()
        }
        self.interest = NOTHING
        for step in self.steps["observe"]:
            self.interest |= step.interest
        self._receivers = {step.plugin: step for step in self.steps["receive"]}
        self._seals_block = any(step.pool is not None for step in self.steps["seal"])
        self._parting_seals = tuple(
            step
            for step in self.steps["seal"]
            if step.condition is not None and step.condition.by_recipient
        )

    # The SMTP stages.

    async def connect(self, client: Client) -> Accept | Reject | Tempfail | None:
        """Asks the `connect` hooks."""
        answer: Accept | Reject | Tempfail | None
        answer = await self._ask(self.steps["connect"], client)
        return answer

    async def helo(self, client: Client) -> Accept | Reject | Tempfail | None:
        """Asks the `helo` hooks."""
        answer: Accept | Reject | Tempfail | None
        answer = await self._ask(self.steps["helo"], client)
        return answer

    async def auth(self, login: Login) -> Accept | Reject | Tempfail | None:
        """Asks the `auth` hooks."""
        for step in self.steps["auth"]:
            answer: Accept | Reject | Tempfail | None
            answer = await self._ask((step,), login, conditions_of=login.client)
            if answer is not None:
                return answer
            login.forget()
        return None

    async def mail(
        self, message: Message, trace: Trace | None = None
    ) -> Accept | Reject | Tempfail | Discard | Quarantine | None:
        """Asks the `mail` hooks; `trace` is what they are noted in."""
        answer: Accept | Reject | Tempfail | Discard | Quarantine | None
        answer = await self._ask(self.steps["mail"], message, hold_on_fault=True, trace=trace)
        return answer

    async def rcpt(
        self, recipient: Recipient, trace: Trace | None = None
    ) -> Accept | Reject | Tempfail | Discard | Quarantine | None:
        """Asks the `rcpt` hooks. Quarantine comes from a fault only, and means the message."""
        answer: Accept | Reject | Tempfail | Discard | Quarantine | None
        address = recipient.address
        answer = await self._ask(self.steps["rcpt"], recipient, hold_on_fault=True, trace=trace)
        if recipient.address is not address:
            _keep_original(recipient, address)
        return answer

    async def _ask(
        self,
        steps: tuple[Step, ...],
        subject: Any,
        conditions_of: Any = None,
        hold_on_fault: bool = False,
        trace: Trace | None = None,
    ) -> Any:
        guard: Guard = getattr(subject, "guard", None) or Guard()  # a client has none
        for step in steps:
            if step.condition is not None and not step.condition.matches(conditions_of or subject):
                continue
            before = None if step.on_error == "tempfail" else subject.checkpoint()
            started = monotonic()
            guard.open(step.plugin, STAGES[step.hook].rights, subject)
            try:
                answer = await run(step, subject, self._watchdog)
            except Fault as fault:
                if before is not None:
                    subject.restore(before)
                if trace is not None:
                    trace.failed(step, monotonic() - started, fault)
                if step.on_error == "skip":
                    continue
                if step.on_error == "quarantine" and hold_on_fault:
                    return Quarantine(str(fault))
                return TEMPFAIL
            finally:
                guard.close()
            if trace is not None:
                trace.asked(step, monotonic() - started, answer)
            if answer is not None:
                return answer
        return None

    # Mail for the gateway itself.

    def claim(self, recipient: Recipient) -> str | Reject | Tempfail | None:
        """Asks the `claim` hooks. A name is that of the plugin that mail to this address is for."""
        guard = recipient.guard or Guard()
        for step in self.steps["claim"]:
            if step.condition is not None and not step.condition.matches(recipient):
                continue
            before = recipient.checkpoint()
            guard.open(step.plugin, STAGES["claim"].rights, recipient)
            try:
                answer = call(step, recipient, self._watchdog)
                if isinstance(answer, Accept) and step.plugin not in self._receivers:
                    raise step.fault(Fault("claimed an address, and has no hook receive"))
            except Fault:
                recipient.restore(before)
                answer = None if step.on_error == "skip" else TEMPFAIL
            finally:
                guard.close()
            if isinstance(answer, Accept):
                return step.plugin
            if answer is not None:
                refusal: Reject | Tempfail = answer
                return refusal
        return None

    async def receive(self, plugin: str, message: Message) -> Reject | Tempfail | Quarantine | None:
        """Gives a message to the plugin that has claimed its recipients.

        A condition of its entry has been asked by `claim`. Nobody else would take the message, so
        it is held where the hook fails with `on_error: skip`.
        """
        step = self._receivers[plugin]
        try:
            answer: Reject | Tempfail | Quarantine | None = await run(step, message, self._watchdog)
        except Fault as fault:
            return TEMPFAIL if step.on_error == "tempfail" else Quarantine(str(fault))
        return answer

    # The message and its seal.

    async def message(
        self, message: Message, trace: Trace | None = None
    ) -> Filtered | Reject | Tempfail:
        """Runs the `message` hooks and then the `seal` hooks; `trace` is what they are noted in.

        Quarantine and Delay do not end the stage: a message that is released later has passed the
        whole chain too.
        """
        trace = Trace() if trace is None else trace
        filtered = Filtered([Copy(message, trace=trace)])
        for step in self.steps["message"]:
            copies: list[Copy] = []
            for copy in filtered.copies:
                first = len(copies)
                for part, applies in parts_for(step, copy):
                    answer = await self._filter(step, part.message, trace) if applies else None
                    if answer is None:
                        pass  # as a rule, and then there is nothing else to ask
                    elif isinstance(answer, Reject | Tempfail):
                        return answer
                    elif isinstance(answer, Discard):
                        filtered.discarded += [(r, answer.reason) for r in part.message.recipients]
                        continue
                    elif isinstance(answer, Quarantine):
                        part.held = part.held or answer.reason
                    elif isinstance(answer, Delay):
                        part.delay = max(part.delay, answer.seconds)
                    if part.message.recipients:
                        copies.append(part)
                if step.per_recipient and len(copies) - first > 1:
                    copies[first:] = rejoined(copy, copies[first:])
            filtered.copies = copies
        for step in self._parting_seals:
            filtered.copies = [
                part for copy in filtered.copies for part, _ in parts_for(step, copy)
            ]
        for copy in filtered.copies:
            large = self.steps["seal"] and copy.message.is_large
            apart = large or self._seals_block
            refusal = await self._seal_apart(copy) if apart else self.seal(copy)
            if refusal is not None:
                return refusal
        return filtered

    async def _filter(self, step: Step, message: Message, trace: Trace) -> Any:
        checkpoint = None if step.on_error == "tempfail" else message.checkpoint()
        before = state_of(message)
        started = monotonic()
        message.guard.open(step.plugin, STAGES["message"].rights)
        try:
            answer = await run(step, message, self._watchdog)
        except Fault as fault:
            trace.failed(step, monotonic() - started, fault)
            if checkpoint is None:
                return TEMPFAIL
            message.restore(checkpoint)
            return None if step.on_error == "skip" else Quarantine(str(fault))
        finally:
            message.guard.close()
        trace.ran(step, monotonic() - started, message, before, answer)
        for recipient, address, _ in before[-1]:
            if recipient.address is not address:
                _keep_original(recipient, address)
        return answer

    def seal(self, copy: Copy) -> Reject | Tempfail | None:
        """Runs the `seal` hooks on one copy, which cannot change afterwards.

        Everything waits for those of blocking plugins: it is for who cannot await, as for reports.
        """
        message = copy.message
        message.guard.finish()
        if not self.steps["seal"]:
            return None
        headers = message.headers
        unsealed = len(headers.raw)
        for step in self.steps["seal"]:
            if step.condition is not None and not step.condition.matches(message):
                continue
            state = headers.state()
            started = monotonic()
            message.guard.open(step.plugin, STAGES["seal"].rights)
            try:
                if step.pool is None:
                    answer = call(step, message, self._watchdog)
                else:
                    answer = wait_apart(step, message, step.pool)
                copy.trace.sealed(step, monotonic() - started, message, state, answer)
            except Fault as fault:
                copy.trace.failed(step, monotonic() - started, fault)
                headers.restore(state)
                answer = without_seal(step, fault)
            refusal = _take_seal(copy, answer)
            if refusal is not None:
                return refusal
        message.guard.finish()
        copy.seal = len(headers.raw) - unsealed
        return None

    async def _seal_apart(self, copy: Copy) -> Reject | Tempfail | None:
        """As `seal`, in threads: a large body takes long to hash, and other mail must not wait."""
        message = copy.message
        headers = message.headers
        unsealed = len(headers.raw)
        pool = self._sealing if message.is_large else None
        for step in self.steps["seal"]:
            if step.condition is not None and not step.condition.matches(message):
                continue
            state = headers.state()
            started = monotonic()
            message.guard.open(step.plugin, STAGES["seal"].rights)
            try:
                threads = step.pool or pool
                if threads is None:
                    answer = call(step, message, self._watchdog)
                else:
                    answer = await run_apart(step, message, threads)
                copy.trace.sealed(step, monotonic() - started, message, state, answer)
            except Fault as fault:
                copy.trace.failed(step, monotonic() - started, fault)
                headers.restore(state)
                answer = without_seal(step, fault)
            refusal = _take_seal(copy, answer)
            if refusal is not None:
                return refusal
        message.guard.finish()
        copy.seal = len(headers.raw) - unsealed
        return None

    # Before and after an attempt.

    async def route(self, delivery: Delivery) -> Route | Delay | Reject | Quarantine | None:
        """Asks the `route` hooks. Quarantine comes from a fault only."""
        for step in self.steps["route"]:
            if step.condition is not None and not step.condition.matches(delivery):
                continue
            delivery.guard.open(step.plugin, STAGES["route"].rights)
            try:
                answer: Route | Delay | Reject | None = await run(step, delivery, self._watchdog)
            except Fault as fault:
                if step.on_error == "skip":
                    continue
                return postponed(step, fault)
            finally:
                delivery.guard.close()
            if answer is not None:
                return answer
        return None

    def admit(self, delivery: Delivery) -> Delay | Quarantine | Reject | None:
        """Asks the `admit` hooks."""
        answer: Delay | Quarantine | Reject | None = self._decide("admit", delivery)
        return answer

    def source(self, delivery: Delivery) -> Source | Delay | Quarantine | None:
        """Asks the `source` hooks. Quarantine comes from a fault only."""
        answer: Source | Delay | Quarantine | None = self._decide("source", delivery)
        return answer

    def _decide(self, hook: str, delivery: Delivery) -> Any:
        for step in self.steps[hook]:
            if step.condition is not None and not step.condition.matches(delivery):
                continue
            before = delivery.checkpoint()
            delivery.guard.open(step.plugin, STAGES[hook].rights)
            try:
                answer = call(step, delivery, self._watchdog)
            except Fault as fault:
                delivery.restore(before)
                if step.on_error == "skip":
                    continue
                return postponed(step, fault)
            finally:
                delivery.guard.close()
            if isinstance(answer, Delay) and answer.lane and step.condition is not None:
                # Other mail of the lane may not meet the condition.
                return replace(answer, lane=False)
            if answer is not None:
                return answer
        return None

    def reply(self, attempt: Attempt) -> Outcome | Quarantine:
        """Asks the `reply` hooks what the next hop's answer means; each sees what those before it
        made of it.

        What was delivered stays delivered. Quarantine comes from a fault only.
        """
        guard, recipient = attempt.delivery.guard, attempt.recipient
        delivered = attempt.outcome.disposition.value == "delivered"
        for step in self.steps["reply"]:
            condition = step.condition
            if condition is not None and not condition.matches_recipient(
                attempt.delivery, recipient
            ):
                continue
            before = recipient.checkpoint()
            guard.open(step.plugin, STAGES["reply"].rights, recipient)
            try:
                answer: Outcome | None = call(step, attempt, self._watchdog)
                problem = None if answer is None else answer.problem(delivered=delivered)
                if problem is not None:
                    raise step.fault(Fault(problem))
            except Fault as fault:
                recipient.restore(before)
                if step.on_error == "quarantine" and not delivered:
                    return Quarantine(str(fault))
                continue
            finally:
                guard.close()
            if answer is not None:
                attempt = replace(attempt, outcome=answer)
        return attempt.outcome

    # The service process.

    async def observe(self, step: Step, events: Sequence[Event]) -> bool:
        """Gives events to one observer; False if they have to come again."""
        try:
            await run(step, events, self._watchdog)
        except Unasked:
            return False  # nobody waits for events; they need not be lost
        except Fault:
            return step.on_error == "skip"
        return True


def _interest(plugin: LoadedPlugin) -> Interest:
    types = plugin.instance.observes
    return Interest(None if types is None else frozenset(types))


def _keep_original(recipient: Recipient, address: str) -> None:
    """Keeps an address that a hook has changed, for reports: the sender knows no other."""
    if recipient.address != address and recipient.orcpt is None:
        recipient.keep_original(original_recipient(address))


def _take_seal(copy: Copy, answer: Any) -> Reject | Tempfail | None:
    """Takes the answer of a `seal` hook; returns it if it is a refusal."""
    if isinstance(answer, Quarantine):
        copy.held = copy.held or answer.reason
        return None
    refusal: Reject | Tempfail | None = answer
    return refusal
