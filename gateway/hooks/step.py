"""One hook of one plugin in the chain, and how it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.events import EVERYTHING, Interest
from gateway.hooks.condition import Condition
from gateway.hooks.watchdog import HookTimeoutError

log = logging.getLogger("gateway.chain")


class Fault(Exception):  # noqa: N818 - the field's word for what a plugin does wrong
    """A hook failed. The text says how."""


@dataclass(slots=True, eq=False)
class Step:
    """One hook of one plugin, ready to be called, and what it has done so far."""

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
    calls: int = 0
    seconds: float = 0.0
    faults: int = 0

    def fault(self, error: BaseException) -> Fault:
        """Counts a failure, logs it with the plugin's name, and returns it."""
        self.faults += 1
        if isinstance(error, HookTimeoutError | TimeoutError):
            reason = f"ran longer than {self.timeout:g} s"
        elif isinstance(error, Fault):
            reason = str(error)
        else:
            reason = f"raised {type(error).__name__}: {error}"
        log.error(
            "plugin %s failed in %s: %s (on_error: %s)",
            self.plugin,
            self.hook,
            reason,
            self.on_error,
            exc_info=None if isinstance(error, Fault | HookTimeoutError | TimeoutError) else error,
        )
        return Fault(f"plugin {self.plugin} failed in {self.hook}: {reason}")

    def check(self, answer: Any) -> Any:
        """Returns what the hook answered.

        Raises:
            Fault: its stage does not know such an answer.
        """
        if answer is None or isinstance(answer, self.answers):
            return answer
        allowed = ", ".join(["None", *(kind.__name__ for kind in self.answers)])
        raise self.fault(Fault(f"answered {type(answer).__name__}, and may answer {allowed}"))
