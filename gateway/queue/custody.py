"""Who has an accepted message in hand, so that a hook that ends its process is found out.

Mail that is in the queue outlives its process, and meets the same hook in the next one. After
`DEATHS` processes have ended over it, it is held for a person. What was in hand by chance is tried
alone, so that only what is to blame is suspected again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from gateway.hooks.breaker import FAULTS
from gateway.hooks.chain import Chain
from gateway.hooks.spec import STAGES
from gateway.hooks.step import Fault, Step
from gateway.mail.guard import Guard, Rights
from gateway.spool import queue_id
from gateway.spool.held_reason import DIED
from gateway.spool.queue_entry import Entry
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from gateway.spool.suspects import DEATHS, LONGEST_NAME, Suspect, Suspects, forget

ATTEMPT = ("route", "source", "admit", "reply")
"""The hooks of each attempt. The chain opens the guard of the delivery for each of them."""

MOST_DOUBLINGS = 8
"""After so many, the pause of a breaker does not get longer."""

log = logging.getLogger("gateway.dispatch")


class Hand(Guard):
    """The guard of a delivery that notes in the file of its shard which hook has it in hand."""

    __slots__ = ("_entry", "_numbers", "_octets", "_place", "_suspects")

    def __init__(self, suspects: Suspects, place: int, entry: Entry) -> None:
        super().__init__()
        self._suspects = suspects
        self._octets = suspects.octets
        self._numbers = suspects.numbers
        self._place = place
        self._entry = entry

    def open(self, plugin: str, rights: Rights, subject: Any = None) -> None:
        """As that of any guard; from now on the hook has the mail in hand."""
        self._octets[self._place] = self._numbers[plugin, rights]
        Guard.open(self, plugin, rights, subject)  # which is quicker than by `super`

    def close(self) -> None:
        """As that of any guard; the hook has let go of the mail."""
        self._octets[self._place] = 0
        Guard.close(self)

    def note(self, hook: Hashable) -> None:
        """Until `close`, a hook that has another guard has the mail in hand."""
        self._octets[self._place] = self._numbers.get(hook, 0)

    def note_delivered(self, numbers: Sequence[int]) -> None:
        """The next hop has taken the mail for these recipients: it must not get it again."""
        self._suspects.note_delivered(self._place, self._entry, numbers)

    def leave(self) -> None:
        """The attempt has ended."""
        self._suspects.leave(self._place)


class Custody:
    """Notes what is in hand in the shards of this worker, and knows what is suspected.

    Attributes:
        alone: held while a hook has mail that is suspected, so that it has no other suspect.
    """

    def __init__(self, chain: Chain) -> None:
        self._hooks: dict[Hashable, str] = {}
        self._steps: dict[str, Step] = {}
        for hook in ATTEMPT:
            for step in chain.steps[hook]:
                self._add((step.plugin, STAGES[hook].rights), [step])
        for step in chain.steps["receive"]:
            self._add(("receive", step.plugin), [step])
        if chain.steps["seal"]:
            self._add("seal", chain.steps["seal"])
        self.alone = asyncio.Lock()

    def _add(self, key: Hashable, steps: Sequence[Step]) -> None:
        plugins = ",".join(step.plugin for step in steps)
        name = f"{steps[0].hook} {plugins}".encode()[:LONGEST_NAME].decode(errors="ignore")
        self._hooks[key] = name
        self._steps[name] = steps[0]

    def adopt(self, shards: Iterable[Shard]) -> None:
        """Looks up what the owner before had in hand, before anything is tried."""
        for shard in shards:
            if not self._hooks:
                forget(shard.path)
                continue
            try:
                shard.suspects = Suspects.take(shard.path, self._hooks, shard.waits)
            except SpoolError as error:
                # Mail goes on without it.
                log.error("mail that ends its process will not be found out: %s", error)
                continue
            for suspect in {*shard.suspects.known.values()}:
                if suspect.is_new:
                    self._report(suspect)
            for hook, times in shard.suspects.repeated.items():
                if hook in self._steps:
                    _rest(self._steps[hook], times)

    def _report(self, suspect: Suspect) -> None:
        name = queue_id.to_text(suspect.id)
        fault = Fault(f"a process ended while it had {name} ({suspect.deaths} of {DEATHS} times)")
        if suspect.hook in self._steps:
            self._steps[suspect.hook].fault(fault)
        else:
            log.error("%s: %s", _owner(suspect.hook), fault)

    def suspect(self, entry: Entry) -> Suspect | None:
        """The suspect among the recipients of an entry, if there is one."""
        suspects = entry.shard.suspects
        return suspects.of(entry) if suspects is not None and suspects.known else None

    def hand(self, entry: Entry) -> Hand | None:
        """The guard for an attempt; None if nothing can be noted. Call its `leave` at the end."""
        suspects = entry.shard.suspects
        place = 0 if suspects is None else suspects.enter(entry)
        return Hand(suspects, place, entry) if suspects is not None and place else None

    @contextmanager
    def holding(self, entry: Entry, hook: Hashable, guard: Guard | None = None) -> Iterator[None]:
        """Notes that a hook other than those of `ATTEMPT` has mail in hand.

        Args:
            entry: the mail.
            hook: `seal`, or (`receive`, plugin).
            guard: that of the delivery, if it is on its way.
        """
        hand = guard if isinstance(guard, Hand) else self.hand(entry)
        if hand is None:
            yield
            return
        hand.note(hook)
        try:
            yield
        finally:
            hand.close()
            if hand is not guard:
                hand.leave()


def _rest(step: Step, times: int) -> None:
    """Opens the breaker of a hook that ends its process over one message after the other.

    It was opened so many times before, so the pause is as long as if as many trials had failed.
    """
    now = monotonic()
    reason = "its process ended"
    breaker = step.breaker
    for _ in range(FAULTS):
        breaker.fail(now, now, reason)
    for _ in range(min(times, MOST_DOUBLINGS)):
        trial = breaker.retry_at
        if breaker.allows(trial, 0.0):
            breaker.fail(trial, now, reason)
    log.error(
        "plugin %s ends its process in %s over one message after the other: it is not asked for %g"
        " s (on_error: %s), and then tried again",
        step.plugin,
        step.hook,
        breaker.retry_at - now,
        step.on_error,
    )


def reason_of(suspect: Suspect) -> str:
    """Why a suspect is held, for people."""
    return f"{DIED}{suspect.deaths} times while {_owner(suspect.hook)} had this message"


def _owner(name: str) -> str:
    hook, _, plugin = name.partition(" ")
    return f"plugin {plugin}'s `{hook}`" if plugin else "a plugin's hook"
