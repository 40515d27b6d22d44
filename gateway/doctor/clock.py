"""The clock: whether somebody keeps it right, and whether it went back."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from datetime import datetime

from gateway.doctor.finding import Finding, note, ok, problem, warning
from gateway.doctor.site import Site
from gateway.queue.listing import read_stats
from gateway.spool.shard_file import SpoolError

FIRST = 1_704_067_200.0
"""When queue ids begin: a clock before 2024 makes none."""

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_SIZE = 256
_STATUS_AT = 40
"""Where `status` is in `struct timex` with 64 bits: after modes and four longs."""


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of the clock."""
    now = datetime.now().astimezone()
    if site.started < FIRST:
        yield problem(f"the clock says {now:%Y-%m-%d}", "set it; timedatectl set-ntp true")
        return
    disciplined = synchronized()
    told = f"it is {now:%Y-%m-%d %H:%M:%S}, {now.tzname()} (UTC{now:%z})"
    if disciplined:
        yield ok(f"{told}; the clock is kept right")
    elif disciplined is None:
        yield note(f"{told}; the system does not tell whether somebody keeps the clock right")
    else:
        yield warning(
            f"{told}; nobody keeps the clock right: retries, signatures and logs go wrong with it",
            "timedatectl set-ntp true, or run chrony",
        )
    yield from _steps(site)


def synchronized() -> bool | None:
    """Whether the kernel's clock is disciplined (adjtimex(2)); None where nothing tells."""
    if ctypes.sizeof(ctypes.c_long) != 8:
        return None
    buffer = (ctypes.c_char * _SIZE)()
    try:
        state = ctypes.CDLL(None).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    status = int.from_bytes(bytes(buffer)[_STATUS_AT : _STATUS_AT + 4], "little", signed=True)
    return state != _TIME_ERROR and not status & _STA_UNSYNC


def _steps(site: Site) -> Iterator[Finding]:
    """Whether there is mail from the future."""
    folder = site.config.spool.path
    try:
        oldest = min((group.oldest for group in read_stats(folder) if group.oldest), default=0.0)
    except (SpoolError, OSError):
        return  # the examination of the shards says so
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ahead = oldest - site.started
    if ahead > 60:
        yield problem(
            f"all mail in the queue comes from the future, {ahead:,.0f} s ahead: "
            "the clock was set back, and what is due waits until then",
            "set the clock right; then: gateway queue retry --all",
        )
    elif site.running.since and site.running.since < boot - 60:
        yield warning(
            "the gateway seems to have started before this machine: the clock made a step",
            "restart the gateway, so that no wait is measured over the step",
        )
