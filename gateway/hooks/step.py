"""One hook of one plugin in the chain, and how it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary

from gateway.events import EVERYTHING, Interest
from gateway.hooks.breaker import Breaker
from gateway.hooks.condition import Condition
from gateway.hooks.histogram import Histogram
from gateway.hooks.thread_pool import ThreadPool
from gateway.hooks.watchdog import HookTimeoutError
from gateway.mail.message import Message

LONGEST_REASON = 500
"""Characters of an exception's text that are told."""

log = logging.getLogger("gateway.chain")


class Fault(Exception):  # noqa: N818 - the field's word for what a plugin does wrong
    """A hook failed. The text says how."""


class Unasked(Fault):
    """A hook was not called: its breaker is open."""


@dataclass(slots=True, eq=False)
class Step:
    """One hook of one plugin, ready to be called, and what it has done so far.

    Attributes:
        plugin: the entry's name in gateway.yaml.
        answers: the types that the hook may answer besides None.
        timeout: seconds that a call may take.
        timing: how long the calls took, faults too.
        faults: how many calls have failed; timeouts: how many of them because they were late.
        skipped: how many calls were not made, because the breaker was open.
        breaker: says when the hook is not called. Each hook has its own: one that works, as often
            as it may be called, tells nothing about another.
        pool: the threads in which the hook runs; None: it runs on the event loop.
        wholes: for `replica.py`, the copies of messages that were parted.
    """

    plugin: str
    hook: str
    call: Callable[..., Any]
    is_async: bool
    answers: tuple[type, ...]
    condition: Condition | None
    timeout: float
    on_error: str
    per_recipient: bool
    interest: Interest = EVERYTHING
    breaker: Breaker = field(default_factory=Breaker)
    pool: ThreadPool | None = None
    timing: Histogram = field(default_factory=Histogram)
    faults: int = 0
    timeouts: int = 0
    skipped: int = 0
    wholes: WeakKeyDictionary[Message, Message] = field(
        default_factory=WeakKeyDictionary, repr=False
    )

    @property
    def calls(self) -> int:
        """How many calls were made and have ended."""
        return self.timing.calls

    @property
    def seconds(self) -> float:
        """How long all calls took together."""
        return self.timing.seconds

    def fault(self, error: BaseException) -> Fault:
        """Counts a failure, logs it with the plugin's name, and returns it."""
        return self._fault(error, logging.ERROR)

    def _fault(self, error: BaseException, level: int) -> Fault:
        self.faults += 1
        is_late = isinstance(error, HookTimeoutError)
        self.timeouts += is_late
        reason = self._reason(error)
        log.log(
            level,
            "plugin %s failed in %s: %s (on_error: %s)",
            self.plugin,
            self.hook,
            reason,
            self.on_error,
            exc_info=None if is_late or isinstance(error, Fault) else error,
        )
        return Fault(f"plugin {self.plugin} failed in {self.hook}: {reason}")

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, HookTimeoutError):
            return f"ran longer than {self.timeout:g} s"
        if isinstance(error, Fault):
            return str(error)
        try:
            text = " ".join(str(error).split())[:LONGEST_REASON]
        except Exception:
            text = "(it has no text)"
        return f"raised {type(error).__name__}: {text}"

    # The breaker. Only who sees `breaker.faults_in_a_row` calls these: usually there are none.

    def ask_breaker(self, now: float) -> None:
        """Lets a call begin.

        Raises:
            Unasked: the breaker is open. That is no failure, and is not logged.
        """
        breaker = self.breaker
        if breaker.allows(now, self.timeout):
            return
        self.skipped += 1
        if breaker.retry_at > now:
            again = f"again in {ceil(breaker.retry_at - now)} s"
        else:
            again = "a call is on trial now"
        raise Unasked(
            f"plugin {self.plugin} is not asked in {self.hook}: it failed "
            f"{breaker.faults_in_a_row} times in a row, last: {breaker.reason}; {again}"
        )

    def failed(self, error: BaseException, started: float, now: float) -> Fault:
        """As `fault`, for a call that began at `started`; the breaker counts it.

        What comes in after the breaker has opened, from calls that were under way, is not logged.
        """
        breaker = self.breaker
        level = logging.DEBUG if breaker.is_stale(started) else logging.ERROR
        fault = self._fault(error, level)
        if breaker.fail(started, now, self._reason(error)):
            log.error(
                "plugin %s failed in %s %d times in a row: it is not asked for %g s (on_error: "
                "%s), and then tried again",
                self.plugin,
                self.hook,
                breaker.faults_in_a_row,
                breaker.retry_at - now,
                self.on_error,
            )
        return fault

    def succeeded(self, started: float, now: float) -> None:
        """A call that began at `started` has gone well; the breaker closes if it was the trial."""
        if self.breaker.succeed(started, now):
            log.warning("plugin %s works again in %s", self.plugin, self.hook)

    def check(self, answer: Any) -> Any:
        """Returns what the hook answered.

        Raises:
            Fault: its stage does not know such an answer. It is not counted yet.
        """
        if answer is None or isinstance(answer, self.answers):
            return answer
        allowed = ", ".join(["None", *(kind.__name__ for kind in self.answers)])
        raise Fault(f"answered {type(answer).__name__}, and may answer {allowed}")
