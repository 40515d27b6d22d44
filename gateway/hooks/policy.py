"""What becomes of mail where a hook failed: what `on_error` of the plugin's entry says."""

from __future__ import annotations

from gateway.hooks.actions import Delay, Quarantine, Tempfail
from gateway.hooks.step import Fault, Step

FAULT_DELAY = 60.0
"""Seconds until a delivery is tried again after a plugin failed before the attempt."""

TEMPFAIL = Tempfail("The mail cannot be checked now, please try again later", status="4.3.0")


def without_seal(step: Step, fault: Fault) -> Tempfail | Quarantine | None:
    """What becomes of a message whose `seal` hook failed; None: it goes on without it."""
    return {"skip": None, "tempfail": TEMPFAIL, "quarantine": Quarantine(str(fault))}[step.on_error]


def postponed(step: Step, fault: Fault) -> Delay | Quarantine:
    """What becomes of a delivery before whose attempt a hook failed, unless it is skipped."""
    if step.on_error == "quarantine":
        return Quarantine(str(fault))
    return Delay(FAULT_DELAY, str(fault))
