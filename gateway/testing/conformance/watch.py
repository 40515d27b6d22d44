"""Hears of calls that make the event loop wait, while a hook runs on it.

The interpreter tells of most of them by audit events; of `time.sleep` it does so from version 3.13
on, and before that `time.sleep` is replaced. Both stay for good, so this belongs into a process
that exists for the check alone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, SupportsIndex

BLOCKING = {
    "time.sleep": "time.sleep",
    "socket.connect": "a connection is opened",
    "socket.getaddrinfo": "the DNS is asked (getaddrinfo)",
    "socket.gethostbyname": "the DNS is asked (gethostbyname)",
    "socket.gethostbyaddr": "the DNS is asked (gethostbyaddr)",
    "socket.getnameinfo": "the DNS is asked (getnameinfo)",
    "subprocess.Popen": "a program is started",
    "os.system": "a program is run",
    "os.posix_spawn": "a program is started",
    "os.fork": "the process is forked",
    "sqlite3.connect": "a database is opened",
    "builtins.input": "standard input is read",
}
"""Audit events, and what happens there."""

_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, slots=True)
class BlockingCall:
    """A call that made the loop wait: in which hook, what it was, and the plugin's line."""

    hook: str
    what: str
    place: str


class Watch:
    """Listens to the threads in which a hook runs.

    Args:
        place_of: the plugin's line that a frame was called from, '' if it is none of the plugin's.

    Attributes:
        calls: those that blocked the loop's thread, which made this object.
        loops: those that made an event loop in another thread.
        written: files that the plugin has opened for writing at any time, and its line.
    """

    def __init__(self, place_of: Callable[[FrameType | None], str]) -> None:
        self.calls: list[BlockingCall] = []
        self.loops: list[BlockingCall] = []
        self.written: dict[Path, str] = {}
        self._place_of = place_of
        self._thread = threading.get_ident()
        self._hooks: dict[int, str] = {}

    def begin(self, hook: str) -> None:
        """A hook runs in this thread from now on."""
        self._hooks[threading.get_ident()] = hook

    def end(self) -> None:
        """It does not run any more."""
        self._hooks.pop(threading.get_ident(), None)

    def install(self) -> None:
        """Begins to listen, until the process ends."""
        if sys.version_info < (3, 13):
            sleep = time.sleep

            def heard(seconds: float | SupportsIndex, /) -> None:
                self.hear("time.sleep", ())
                sleep(seconds)

            time.sleep = heard
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Takes an audit event (PEP 578)."""
        if event == "open" or event == "sqlite3.connect":
            self._hear_file(arguments)
        if not self._hooks or (event not in BLOCKING and event != "socket.__new__"):
            return
        thread = threading.get_ident()
        hook = self._hooks.get(thread)
        if hook is None:
            return
        if event == "socket.__new__":
            self._hear_socket(hook, thread)
        elif thread == self._thread and not _is_patient(event, arguments):
            self._note(self.calls, hook, BLOCKING[event])

    def _hear_socket(self, hook: str, thread: int) -> None:
        """A new event loop makes a pair of sockets: in a thread, that is a loop of its own."""
        if thread == self._thread:
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name == "_make_self_pipe":
                self._note(self.loops, hook, "an event loop is made")
                return
            frame = frame.f_back

    def _hear_file(self, arguments: tuple[Any, ...]) -> None:
        path, flags = arguments[0], arguments[2] if len(arguments) > 2 else os.O_RDWR
        if not isinstance(path, str | bytes | os.PathLike) or not flags & _WRITE:
            return
        file = Path(os.fsdecode(path))
        # Compiled modules are the interpreter's, and what is temporary goes away by itself.
        if "__pycache__" in file.parts or str(file).startswith(("/dev/", "/proc/", ":memory:")):
            return
        frame = sys._getframe(1)
        place = self._place_of(frame)
        if place and not _is_temporary(frame):
            self.written.setdefault(file.absolute(), place)

    def _note(self, calls: list[BlockingCall], hook: str, what: str) -> None:
        place = self._place_of(sys._getframe(1))
        call = BlockingCall(hook, what, place)
        # Only where the plugin's own code is on the way: the gateway's own calls are its own.
        if place and not any(one.place == place for one in calls):
            calls.append(call)


def _is_temporary(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "tempfile":
            return True
        frame = frame.f_back
    return False


def _is_patient(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a connection is opened by a socket that does not wait for it."""
    return event == "socket.connect" and arguments[0].gettimeout() == 0.0
