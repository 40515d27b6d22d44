"""What the end of an attempt means for each recipient: done, again later, held; and who is told.

A settlement is written in one transaction with its events and with the report to the sender, so
that a crash loses neither and repeats neither.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway.attempt import Attempt, Delivery, Disposition, Outcome, Times
from gateway.events import Event, Interest
from gateway.hooks.actions import Quarantine
from gateway.hooks.chain import Chain, Copy
from gateway.hooks.histogram import Histogram
from gateway.log import AttemptLog
from gateway.mail.message import Client, Message, Recipient
from gateway.queue import bounce
from gateway.queue.bounce import Kind, Result
from gateway.queue.custody import Custody
from gateway.queue.schedule import RetryPolicy, next_attempt
from gateway.spool import queue_id
from gateway.spool.queue_entry import Entry, Envelope, Item, Placed, Settlement
from gateway.spool.spool import Spool

REPORT_RETRY = 300.0
"""Seconds until delivery is tried again where the report of its failure could not be sealed."""

WARN_AFTER = 4 * 3600.0
"""Seconds until a sender who asked to be told of delays is, where nothing else is configured."""

log = logging.getLogger("gateway.dispatch")


class Settler:
    """Turns the outcomes of an attempt into a settlement.

    Args:
        hostname: our name, in reports.
        retry_of: when deferred mail of a stream is tried again.
        events: which events observers want.
        clock: seconds since the epoch.

    Attributes:
        delivered, deferred: recipients whose attempt ended so.
        failed: those that were given up; expired: those of them whose lifetime was over.
        attempts: how long attempts took.
        custody: notes which hook has which mail in hand.
    """

    def __init__(
        self,
        *,
        hostname: str,
        retry_of: Callable[[str], RetryPolicy],
        events: Interest,
        chain: Chain,
        spool: Spool,
        attempt_log: AttemptLog,
        clock: Callable[[], float],
    ) -> None:
        self._hostname = hostname
        self._retry_of = retry_of
        self._events = events
        self._chain = chain
        self._spool = spool
        self._attempt_log = attempt_log
        self._clock = clock
        self.delivered = self.deferred = self.failed = self.expired = 0
        self.attempts = Histogram()
        self.custody = Custody(chain)

    def conclude(
        self,
        entry: Entry,
        delivery: Delivery,
        outcomes: Sequence[Outcome],
        times: Times,
        *,
        ask: bool = True,
    ) -> tuple[Settlement, list[Copy]]:
        """Settles an attempt; `ask` tells whether `reply` hooks are asked what it means.

        Returns the settlement, and the reports that have to be placed in it.
        """
        self.attempts.add(times.done - times.active)
        settlement = Settlement(entry)
        ended: dict[Kind, list[tuple[Item, Outcome]]] = {}
        more_room = any(outcome.disposition is Disposition.DELIVERED for outcome in outcomes)
        for item, outcome in zip(entry.items, outcomes, strict=True):
            item.attempts += 1
            if ask and self._chain.steps["reply"]:
                answer = self._chain.reply(
                    Attempt(delivery, item.recipient, delivery.route, delivery.source, outcome)
                )
                if isinstance(answer, Quarantine):
                    settlement.deferred.append((item, None, answer.reason, outcome.reply))
                    self._record(settlement, "held", item, outcome, times)
                    continue
                outcome = answer
            if outcome.disposition is Disposition.DELIVERED:
                settlement.done.append(item)
                self.delivered += 1
                self._record(settlement, "delivered", item, outcome, times)
                if not outcome.relayed_dsn and item.recipient.notify is not None:
                    ended.setdefault(Kind.RELAYED, []).append((item, outcome))
            elif outcome.disposition is Disposition.DEFERRED:
                due = self._next(entry, item, outcome, times.done, more_room)
                if due is None:
                    self._record(settlement, "expired", item, outcome, times)
                    ended.setdefault(Kind.EXPIRED, []).append((item, outcome))
                else:
                    settlement.deferred.append((item, due, None, outcome.reply))
                    self.deferred += 1
                    self._record(settlement, "deferred", item, outcome, times)
                    if self._is_late(entry, item, times.done):
                        ended.setdefault(Kind.DELAYED, []).append((item, outcome))
            else:
                self._record(settlement, "bounced", item, outcome, times)
                ended.setdefault(Kind.FAILED, []).append((item, outcome))
        reports = [
            report
            for kind, results in ended.items()
            for report in self._report(settlement, kind, results, delivery, times.done)
        ]
        return settlement, reports

    def _next(
        self, entry: Entry, item: Item, outcome: Outcome, now: float, more_room: bool
    ) -> float | None:
        if more_room and outcome.status == "4.5.3":
            return now  # the server takes no more recipients at once; these go in the next round
        chance = random.random()  # noqa: S311 (jitter needs no secrecy)
        policy = self._retry_of(entry.envelope.stream)
        return next_attempt(now, entry.envelope.begins, item.attempts, policy, chance)

    def _is_late(self, entry: Entry, item: Item, now: float) -> bool:
        """Whether the sender is told now that a recipient has to wait."""
        envelope = entry.envelope
        if item.warned or not envelope.sender:
            return False
        after = self._retry_of(envelope.stream).warn_after
        notify = item.recipient.notify
        if notify is not None:
            # Who asks gets a warning, also where nobody else does (RFC 3461 4.1).
            return "DELAY" in notify and now - envelope.begins >= (after or WARN_AFTER)
        return after is not None and now - envelope.begins >= after

    def _record(
        self, settlement: Settlement, kind: str, item: Item, outcome: Outcome, times: Times
    ) -> None:
        envelope = settlement.entry.envelope
        self._attempt_log.write(kind, envelope, item.recipient, outcome, times)
        if kind in self._events:
            settlement.events.append(event_of(kind, times.done, envelope, item.recipient, outcome))

    def _report(
        self,
        settlement: Settlement,
        kind: Kind,
        ended: list[tuple[Item, Outcome]],
        delivery: Delivery,
        now: float,
    ) -> list[Copy]:
        """Finishes recipients, with a report to the sender if one is due.

        Where the report of a failure cannot be sealed now, they stay in the queue: they are tried
        again, fail again, and are reported then.
        """
        results = [
            Result(item.recipient, outcome, now)
            for item, outcome in ended
            if kind is Kind.DELAYED
            or bounce.wants_report(delivery.sender, item.recipient.notify, kind)
        ]
        until = settlement.entry.envelope.begins + self._retry_of(delivery.stream).lifetime
        report: Copy | None = None
        if results:
            with self.custody.holding(settlement.entry, "seal", delivery.guard):
                report = self._sealed(kind, delivery, results, now, until)
        if kind is Kind.RELAYED:
            return [report] if report is not None else []
        if kind is Kind.DELAYED:
            if report is None:
                return []
            for item, _ in ended:
                item.warned = True
                settlement.warned.append(item)
            return [report]
        if results and report is None:
            settlement.deferred += [
                (item, now + REPORT_RETRY, None, outcome.reply) for item, outcome in ended
            ]
            return []
        settlement.done += [item for item, _ in ended]
        self.failed += len(ended)
        if kind is Kind.EXPIRED:
            self.expired += len(ended)
        return [report] if report is not None else []

    def _sealed(
        self, kind: Kind, delivery: Delivery, results: Sequence[Result], now: float, until: float
    ) -> Copy | None:
        identifier = queue_id.to_text(self._spool.home.next_id(now))
        client = Client(address="127.0.0.1", helo=self._hostname)
        message = Message(identifier, "", client, delivery.stream)
        message.smtputf8 = delivery.smtputf8
        message.recipients = [Recipient(delivery.sender, notify=frozenset({"NEVER"}))]
        message.require_tls = delivery.require_tls
        message.content = bounce.report(
            kind,
            delivery,
            results,
            hostname=self._hostname,
            identifier=identifier,
            now=now,
            until=until,
        )
        copy = Copy(message)
        refusal = self._chain.seal(copy)
        if refusal is not None:
            log.warning("%s: its report cannot be sealed: %s", delivery.message_id, refusal.text)
            return None
        log.info("%s: report to <%s>: %s", delivery.message_id, delivery.sender, identifier)
        return copy

    def has_time(self, entry: Entry) -> bool:
        """Whether an entry may wait any longer: its lifetime is not over."""
        return self._clock() < self._end(entry)

    def _end(self, entry: Entry) -> float:
        envelope = entry.envelope
        return envelope.begins + self._retry_of(envelope.stream).lifetime

    def postpone(self, entry: Entry, seconds: float, reason: str) -> Settlement:
        """All of an entry again in some seconds; it does not count as an attempt."""
        due = min(self._clock() + seconds, max(self._clock(), self._end(entry)))
        return Settlement(entry, deferred=[(item, due, None, reason) for item in entry.items])

    def hold(self, entry: Entry, reason: str) -> Settlement:
        """All of an entry waits for a person."""
        log.warning("%s: held: %s", entry.envelope.queue_id, reason)
        settlement = Settlement(entry, deferred=[(item, None, reason, "") for item in entry.items])
        if "held" in self._events:
            now = self._clock()
            settlement.events += [
                event_of("held", now, entry.envelope, item.recipient, reason=reason)
                for item in entry.items
            ]
        return settlement


def event_of(
    kind: str,
    time: float,
    envelope: Envelope,
    recipient: Recipient,
    outcome: Outcome | None = None,
    reason: str = "",
) -> Event:
    """The event of one recipient."""
    return Event(
        type=kind,
        time=time,
        message_id=envelope.queue_id,
        sender=envelope.sender,
        recipient=recipient.address,
        stream=envelope.stream,
        client=envelope.client.address,
        user=envelope.client.user or "",
        reason=outcome.text if outcome is not None else reason,
        relay=outcome.relay if outcome is not None else "",
        code=outcome.code if outcome is not None else 0,
        status=outcome.status if outcome is not None else "",
        notes={**envelope.notes, **recipient.notes},
    )


def events_of(placed: Iterable[Placed], received: float, interest: Interest) -> Iterator[Event]:
    """The events of a message that is accepted."""
    accepted = "accepted" in interest
    for item in placed:
        for row in item.entry.items:
            envelope = item.entry.envelope
            if accepted:
                yield event_of("accepted", received, envelope, row.recipient)
            if item.held is not None:
                yield event_of("held", received, envelope, row.recipient, reason=item.held)
