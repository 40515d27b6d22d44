"""Sources that are not used for a while, at one receiver or at all; known to all processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from math import inf
from typing import Literal

from gateway.hooks import Attempt, Cell, Event, Limits
from plugins.ippool.day import format_time

EVERYWHERE = "*"
"""Stands for the receiver of a suspension that holds for all."""

_COUNT_WITHIN = _TELL_WITHIN = 3_600.0
_LONGEST_REASON = 160

State = Literal["new", "on", "off"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a source is suspended, in seconds.

    `first` is the first time; it doubles with every time, up to `longest`. After `forget` without
    a suspension it begins anew.
    """

    first: float
    longest: float
    forget: float

    def seconds(self, times: int, first: float | None = None) -> float:
        """How long the suspension is that is the so-and-so-many'th in a row."""
        return min((first or self.first) * 2.0 ** min(times - 1, 40), self.longest)


@dataclass(frozen=True, slots=True)
class Suspension:
    """A source that is not used at a receiver until a time.

    Attributes:
        source: its name.
        judge: the receiver, `*` for all.
        until: in seconds since the epoch; infinity: until a person resumes it.
        times: how often in a row receivers have caused it; 0 where a person has.
        state: whether its beginning (`new`) and its end (`off`) have been told.
        reason: what the receiver said, or the person.
    """

    source: str
    judge: str
    until: float
    times: int
    state: State
    reason: str


class Suspensions:
    """The suspensions of all sources; what any process changes holds in all of them at once.

    Args:
        limits: where they are kept.
        name: of the entry in gateway.yaml.
        policy: how long they last.
    """

    def __init__(self, limits: Limits, name: str, policy: Policy) -> None:
        self._limits = limits
        self._policy = policy
        self._prefix = f"{name}/suspended/"
        self._refused = f"{name}/refused/"
        self._generation_key = f"{name}/suspensions"
        self._generation = -1.0
        self._next_end = inf
        self._by_source: dict[str, dict[str, Suspension]] = {}

    def __bool__(self) -> bool:
        """Whether any source may be suspended anywhere."""
        return bool(self._by_source)

    def __iter__(self) -> Iterator[Suspension]:
        """All that are remembered, those that are over too."""
        for judges in self._by_source.values():
            yield from judges.values()

    def refresh(self, now: float) -> bool:
        """Learns what other processes have done. Returns whether `tell` may have something."""
        cell = self._limits.read(self._generation_key, now)
        generation = 0.0 if cell is None else cell.value
        if generation != self._generation:
            self._generation = generation
            self._load(now)
            return True
        return now >= self._next_end

    def until(self, source: str, judge: str, now: float) -> float:
        """When a source may be used at a receiver again; 0.0 if it may now."""
        judges = self._by_source.get(source)
        if judges is None:
            return 0.0
        end = 0.0
        for key in (judge, EVERYWHERE):
            found = judges.get(key)
            if found is not None and found.until > now and found.until > end:
                end = found.until
        return end

    def block(
        self,
        source: str,
        judge: str,
        now: float,
        reason: str,
        first: float | None,
    ) -> Suspension | None:
        """A receiver refuses a source: suspends it there. None: it is suspended there already.

        Args:
            source: its name.
            judge: the receiver.
            now: seconds since the epoch.
            reason: what the receiver said.
            first: seconds, instead of the policy's first time.
        """
        began = False

        def change(cell: Cell | None) -> tuple[float, float, str]:
            nonlocal began
            times, _, _ = _read(cell)
            began = cell is None or cell.value <= now
            if cell is not None and not began:
                return cell.value, cell.expires, cell.text
            until = now + self._policy.seconds(times + 1, first)
            return until, until + self._policy.forget, _text("on", times + 1, reason)

        cell = self._limits.change(self._key(source, judge), now, change)
        if not began:
            return None
        self._changed(now)
        return _suspension(source, judge, cell)

    def suspend(self, source: str, judge: str, now: float, until: float, reason: str) -> Suspension:
        """A person suspends a source. One that is suspended for longer stays so."""

        def change(cell: Cell | None) -> tuple[float, float, str]:
            if cell is not None and cell.value >= until:
                return cell.value, cell.expires, cell.text
            return until, until + self._policy.forget, _text("new", 0, reason)

        cell = self._limits.change(self._key(source, judge), now, change)
        self._changed(now)
        return _suspension(source, judge, cell)

    def resume(self, source: str, judge: str | None, now: float) -> list[Suspension]:
        """Ends what suspends a source, at one receiver or (None) at all; returns what did.

        The next suspension is as short as the first one.
        """
        ended = []
        self._load(now)
        for found in list(self._by_source.get(source, {}).values()):
            if judge is None or judge == found.judge:
                key = self._key(source, found.judge)
                if found.until <= now:
                    self._limits.remove(key)
                    continue
                ended.append(found)
                # It stays for a while, so that a worker can tell of its end.
                self._limits.change(key, now, partial(_ended, found, now))
        self._changed(now)
        return ended

    def tell(self, now: float) -> list[Suspension]:
        """Suspensions whose beginning or end is to be told, each to one process only."""
        found = [one for one in self if _untold(one, now)]
        told = [one for one in found if self._claim(one, now)]
        if found:
            self._load(now)
        return told

    def refused(self, source: str, judge: str, message_id: str, now: float) -> int:
        """Counts a message that a receiver refused; how many within an hour, this one too."""

        def change(cell: Cell | None) -> tuple[float, float, str]:
            if cell is None:
                return 1.0, now + _COUNT_WITHIN, message_id
            # The recipients of one message, and its next attempt, are no further evidence.
            return cell.value + (cell.text != message_id), cell.expires, message_id

        return int(self._limits.change(f"{self._refused}{source}/{judge}", now, change).value)

    def _key(self, source: str, judge: str) -> str:
        return f"{self._prefix}{source}/{judge}"

    def _changed(self, now: float) -> None:
        self._generation = self._limits.change(self._generation_key, now, _one_more).value
        self._load(now)

    def _load(self, now: float) -> None:
        self._by_source = {}
        self._next_end = inf
        for cell in self._limits.cells(self._prefix, now):
            source, _, judge = cell.key[len(self._prefix) :].partition("/")
            found = _suspension(source, judge, cell)
            self._by_source.setdefault(source, {})[judge] = found
            if found.state != "off":
                self._next_end = min(self._next_end, found.until)

    def _claim(self, suspension: Suspension, now: float) -> bool:
        """Whether it falls to this process to tell of it."""
        claimed = False

        def change(cell: Cell | None) -> tuple[float, float, str]:
            nonlocal claimed
            claimed = False
            if cell is None:
                return 0.0, now, ""
            times, state, reason = _read(cell)
            claimed = (state, cell.value) == (suspension.state, suspension.until)
            following: State = "off" if cell.value <= now else "on"
            return (
                cell.value,
                cell.expires,
                _text(following, times, reason) if claimed else cell.text,
            )

        self._limits.change(self._key(suspension.source, suspension.judge), now, change)
        return claimed


def _one_more(cell: Cell | None) -> tuple[float, float, str]:
    return (1.0 if cell is None else cell.value + 1), inf, ""


def _ended(suspension: Suspension, now: float, _: Cell | None) -> tuple[float, float, str]:
    return now, now + _TELL_WITHIN, _text(suspension.state, 0, suspension.reason)


def _untold(suspension: Suspension, now: float) -> bool:
    if suspension.until <= now:
        return suspension.state != "off"
    return suspension.state == "new"


def _suspension(source: str, judge: str, cell: Cell) -> Suspension:
    times, state, reason = _read(cell)
    return Suspension(source, judge, cell.value, times, state, reason)


def _text(state: State, times: int, reason: str) -> str:
    return f"{state} {times} {reason[:_LONGEST_REASON]}"


def _read(cell: Cell | None) -> tuple[int, State, str]:
    """Times, state and reason in a cell's text."""
    state, _, rest = (cell.text if cell is not None else "").partition(" ")
    times, _, reason = rest.partition(" ")
    known: State = "new" if state == "new" else "off" if state == "off" else "on"
    return int(times) if times.isdigit() else 0, known, reason


def told(suspension: Suspension, now: float, zone: tzinfo, attempt: Attempt | None) -> Event:
    """The event that a suspension has begun, or ended.

    Args:
        suspension: the suspension.
        now: seconds since the epoch.
        zone: of the time in the event's text.
        attempt: the one that the receiver refused; None: a person did it, or it is over.
    """
    ended = suspension.until <= now
    where = "all receivers" if suspension.judge == EVERYWHERE else suspension.judge
    notes = {"source": suspension.source, "provider": suspension.judge}
    if ended:
        reason = f"source {suspension.source} is used for {where} again"
    else:
        end = until_text(suspension.until, zone)
        reason = f"source {suspension.source} is suspended for {where} {end}: {suspension.reason}"
        notes["until"] = "" if suspension.until == inf else format_time(suspension.until, zone)
    kind = "source_resumed" if ended else "source_suspended"
    if attempt is None:
        return Event(kind, now, "", reason=reason, notes=notes)
    delivery, outcome = attempt.delivery, attempt.outcome
    return Event(
        kind,
        now,
        delivery.message_id,
        sender=delivery.sender,
        recipient=attempt.recipient.address,
        stream=delivery.stream,
        client=delivery.client.address,
        user=delivery.client.user or "",
        reason=reason,
        relay=outcome.relay,
        code=outcome.code,
        status=outcome.status,
        notes=notes,
    )


def until_text(until: float, zone: tzinfo) -> str:
    """The end of a suspension: `until 2026-11-21T12:00:00Z`, or `until it is resumed`."""
    return f"until {'it is resumed' if until == inf else format_time(until, zone)}"
