"""One attempt at delivery: route → source → admit → deliver, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from gateway.attempt import Delivery, Disposition, Outcome, Route, Source, Times
from gateway.delivery.connections import Busy, Connections
from gateway.delivery.route import Router
from gateway.hooks.actions import Delay, Quarantine, Reject, Tempfail
from gateway.hooks.chain import Chain, Copy
from gateway.mail.large_content import LARGE, Content, DamagedContentError, LargeContent
from gateway.mail.message import Message
from gateway.mail.seven_bit import seven_bit
from gateway.queue.custody import ATTEMPT, Hand, reason_of
from gateway.queue.placement import claimant_of
from gateway.queue.settle import Settler
from gateway.spool.queue_entry import Entry, Envelope, Item, Settlement
from gateway.spool.scratch_content import ScratchContent
from gateway.spool.suspects import DEATHS, Suspect

_Answer = Route | Source | Delay | Quarantine | Reject | Outcome | None

RECEIVE_DELAY = 300.0
"""Seconds until a plugin is asked again to take a message of its own that it could not take."""

DELIVERED_BEFORE = Outcome(
    Disposition.DELIVERED, 250, "2.0.0", "delivered before its process ended", stage="dot"
)


@dataclass(frozen=True, slots=True)
class Settled:
    """The attempt was made, or there will be none: this is to be written."""

    settlement: Settlement
    reports: Sequence[Copy] = ()


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing was tried, and may be in some seconds; `lane`: nor for any other of the lane."""

    seconds: float
    reason: str
    lane: bool


class Courier:
    """Takes entries to their next hops.

    Args:
        chain, router, connections, settler: what an attempt passes.
        hostname: the EHLO name where no plugin chooses one.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        chain: Chain,
        router: Router,
        connections: Connections,
        settler: Settler,
        hostname: str,
        clock: Callable[[], float],
    ) -> None:
        self._chain = chain
        self._router = router
        self._connections = connections
        self._settler = settler
        self._source = Source(None, hostname)
        self._clock = clock
        self._one_large = asyncio.Lock()
        self._has_hooks = any(chain.steps[hook] for hook in ATTEMPT)
        self._custody = settler.custody

    async def attempt(
        self, entry: Entry, content: Content, give_back: Callable[[Entry], None]
    ) -> Settled | Later | Busy:
        """Tries to deliver an entry.

        Args:
            entry: the recipients; those that go in a further transaction are taken out of it.
            content: the message.
            give_back: gets an entry with the recipients that were taken out.
        """
        suspect = self._custody.suspect(entry)
        if suspect is not None:
            return await self._try_suspect(suspect, entry, content, give_back)
        return await self._attempt(entry, content, give_back)

    async def _try_suspect(
        self,
        suspect: Suspect,
        entry: Entry,
        content: Content,
        give_back: Callable[[Entry], None],
    ) -> Settled | Later | Busy:
        """As `attempt`, for mail over which a process has ended."""
        done = [item for item in entry.items if item.number in suspect.delivered]
        if done:
            # A hook that ended its process must not be the reason that mail goes out twice.
            rest = [item for item in entry.items if item not in done]
            if rest:
                give_back(_part_of(entry, rest))
            suspect.ended = not rest
            entry.items = done
            outcomes = [DELIVERED_BEFORE] * len(done)
            now = self._clock()
            times = Times(active=now, done=now)
            delivery = self._delivery(entry, content)
            delivery.close()
            return Settled(*self._settler.conclude(entry, delivery, outcomes, times, ask=False))
        if suspect.deaths >= DEATHS:
            suspect.ended = True
            return Settled(self._settler.hold(entry, reason_of(suspect)))
        result = await self._attempt(entry, content, give_back, suspect)
        suspect.ended = isinstance(result, Settled)
        return result

    async def _attempt(
        self,
        entry: Entry,
        content: Content,
        give_back: Callable[[Entry], None],
        suspect: Suspect | None = None,
    ) -> Settled | Later | Busy:
        claimant = claimant_of(entry.lane)
        if claimant is not None:
            async with contextlib.nullcontext() if suspect is None else self._custody.alone:
                with self._custody.holding(entry, ("receive", claimant)):
                    return Settled(await self._receive(entry, content, claimant))
        times = Times(active=self._clock())
        delivery = self._delivery(entry, content)
        hand: Hand | None = None
        if self._has_hooks:
            hand = self._custody.hand(entry)
            if hand is not None:
                delivery.guard = hand
            delivery.close()
        try:
            if suspect is None:
                stage, answer = await self._ask(entry, delivery)
            else:
                # One by one: when the process ends, it is known over which.
                async with self._custody.alone:
                    stage, answer = await self._ask(entry, delivery)
            return await self._carry_out(entry, delivery, stage, answer, give_back, times)
        finally:
            if hand is not None:
                hand.leave()

    async def _ask(self, entry: Entry, delivery: Delivery) -> tuple[str, _Answer]:
        """Asks what is asked before an attempt; returns the last answer and the stage it is of."""
        chain = self._chain
        answer: _Answer = await self._route(entry, delivery)
        if not isinstance(answer, Route):
            return "route", answer
        delivery.proceed(route=answer)
        answer = chain.source(delivery) if chain.steps["source"] else None
        if answer is not None and not isinstance(answer, Source):
            return "source", answer
        delivery.proceed(source=answer or self._source)
        return "admit", chain.admit(delivery) if chain.steps["admit"] else None

    async def _carry_out(
        self,
        entry: Entry,
        delivery: Delivery,
        stage: str,
        answer: _Answer,
        give_back: Callable[[Entry], None],
        times: Times,
    ) -> Settled | Later | Busy:
        """Does what the hooks have said; without an answer, it is delivered."""
        if isinstance(answer, Delay):
            reason = answer.reason or f"{stage}: later"
            if self._settler.has_time(entry):
                return Later(answer.seconds, reason, answer.lane)
            answer = Outcome(Disposition.DEFERRED, 0, "4.4.7", reason, stage=stage)
        if isinstance(answer, Quarantine):
            return Settled(self._settler.hold(entry, answer.reason))
        outcomes: list[Outcome] | Busy
        if isinstance(answer, Reject):
            answer = Outcome(
                Disposition.FAILED, answer.code, answer.status, answer.text, stage=stage
            )
        if isinstance(answer, Outcome):
            outcomes = [answer] * len(entry.items)
        else:
            _take_apart(entry, delivery, give_back)
            assert delivery.route is not None
            assert delivery.source is not None
            outcomes = await self._connections.deliver(
                delivery, delivery.route, delivery.source, times
            )
            if isinstance(outcomes, Busy):
                return outcomes
            if isinstance(delivery.guard, Hand) and self._meets_hooks(entry):
                delivery.guard.note_delivered(
                    [
                        item.number
                        for item, outcome in zip(entry.items, outcomes, strict=True)
                        if outcome.disposition is Disposition.DELIVERED
                    ]
                )
        times.done = self._clock()
        return Settled(*self._settler.conclude(entry, delivery, outcomes, times))

    def _meets_hooks(self, entry: Entry) -> bool:
        """Whether a hook may be asked after an attempt: `reply`, or `seal` for a report."""
        if self._chain.steps["reply"] or len(entry.items) > 1:
            return True
        return entry.items[0].recipient.notify is not None

    async def _route(
        self, entry: Entry, delivery: Delivery
    ) -> Route | Delay | Reject | Quarantine | Outcome:
        via = entry.items[0].via
        if via:
            return self._router.via(via)
        answer = await self._chain.route(delivery) if self._chain.steps["route"] else None
        return await self._router.route(delivery.domain) if answer is None else answer

    def _delivery(self, entry: Entry, content: Content) -> Delivery:
        envelope = entry.envelope
        items = entry.items
        return Delivery(
            message_id=envelope.queue_id,
            sender=envelope.sender,
            recipients=[item.recipient for item in items],
            client=envelope.client,
            stream=envelope.stream,
            received=envelope.received,
            attempts=min([item.attempts for item in items]),
            content=cast(bytes, content),  # read when somebody asks for it
            notes=envelope.notes,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            return_path=items[0].recipient.return_path,
            require_tls=envelope.require_tls,
            priority=envelope.mt_priority,
            lane=entry.lane,
            in_seven_bits=lambda: self._in_seven_bits(entry, content),
        )

    def _in_seven_bits(self, entry: Entry, content: Content) -> Content | Outcome:
        """The message for a server without 8BITMIME; it is sealed anew, as its bytes change.

        A large one is in memory only until this returns, so never more than one.
        """
        envelope = entry.envelope
        converted = seven_bit(bytes(content)[envelope.seal :])
        if converted is None:
            text = "the message has 8-bit content that cannot be converted for this server"
            return Outcome(Disposition.FAILED, 0, "5.6.3", text, "data")
        message = _message_of(envelope, converted)
        refusal = None
        if envelope.seal:
            with self._custody.holding(entry, "seal"):
                refusal = self._chain.seal(Copy(message))
        if refusal is not None:
            text = f"the converted message cannot be sealed: {refusal.text}"
            return Outcome(Disposition.DEFERRED, 0, "4.6.3", text, "data")
        if message.size <= LARGE:
            return message.content
        try:
            return ScratchContent(message.octets, entry.shard.path.parent)
        except OSError as error:
            text = f"the converted message cannot be stored: {error.strerror}"
            return Outcome(Disposition.DEFERRED, 0, "4.3.1", text, "data")

    async def _receive(self, entry: Entry, content: Content, claimant: str) -> Settlement:
        """Gives a message that was held, and released by a person, to the plugin that it is for."""
        settler = self._settler
        if all(step.plugin != claimant for step in self._chain.steps["receive"]):
            return settler.hold(entry, f"it is for the plugin {claimant}, which is not there")
        async with contextlib.nullcontext() if isinstance(content, bytes) else self._one_large:
            message = _message_of(entry.envelope, bytes(content))
            for item in entry.items:
                message.add_recipient(item.recipient.address)
            answer = await self._chain.receive(claimant, message)
            del message
        if isinstance(answer, Quarantine):
            return settler.hold(entry, answer.reason)
        if isinstance(answer, Reject):
            return settler.hold(entry, f"the plugin {claimant} refused it: {answer.text}")
        if isinstance(answer, Tempfail):
            return settler.postpone(entry, RECEIVE_DELAY, answer.text)
        return Settlement(entry, done=list(entry.items))


async def is_sound(content: LargeContent) -> bool:
    """Whether large content is as it was stored: it is read once, and known from then on."""
    try:
        for _ in content.examine():
            await asyncio.sleep(0)  # others have their turn between two blocks
    except DamagedContentError:
        return False
    return True


def _take_apart(entry: Entry, delivery: Delivery, give_back: Callable[[Entry], None]) -> None:
    """Leaves as many recipients in an entry as one transaction may have."""
    most = delivery.recipients_per_message
    if most is None or len(entry.items) <= max(1, most):
        return
    most = max(1, most)
    rest = _part_of(entry, entry.items[most:])
    entry.items = entry.items[:most]
    delivery.proceed(recipients=delivery.recipients[:most])
    give_back(rest)


def _part_of(entry: Entry, items: list[Item]) -> Entry:
    return Entry(entry.shard, entry.envelope, entry.lane, entry.priority, items)


def _message_of(envelope: Envelope, content: bytes) -> Message:
    message = Message(envelope.queue_id, envelope.sender, envelope.client, envelope.stream)
    message.smtputf8 = envelope.smtputf8
    message.notes = dict(envelope.notes)
    message.receive(content)
    return message
