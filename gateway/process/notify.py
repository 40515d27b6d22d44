"""Tells systemd how the service is doing: the sd_notify protocol, see sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

_log = logging.getLogger(__name__)


class Notifier:
    """Sends states to the socket that systemd named; without one, does nothing.

    A state that cannot be sent is logged and forgotten: mail matters more.
    """

    def __init__(self, address: str | None) -> None:
        """`address` is NOTIFY_SOCKET: a path, or a name after `@`; None or empty: no systemd."""
        self._address = address or None

    def ready(self, status: str = "") -> None:
        """The service is up, or its reload has ended."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # Type=notify-reload wants to know that this answers its own SIGHUP, not an earlier one.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        """The service is on its way down."""
        self._send("STOPPING=1", "STATUS=stopping")

    def alive(self) -> None:
        """Keeps the watchdog quiet."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        # One assignment a line: a line end inside a value would forge the next.
        text = "\n".join(" ".join(assignment.splitlines()) for assignment in assignments)
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.connect(address)
                sender.send(text.encode(errors="replace"))
        except OSError as error:
            _log.warning("cannot notify systemd at %s: %s", self._address, error)


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """How often `alive` is due, in seconds: half of WATCHDOG_USEC; None: nobody waits for it."""
    period, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not period.isdecimal() or int(period) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(period) / 2_000_000
