"""Where log records end up: a handler that writes lines in batches, and its setup.

Code logs through the standard library.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import stat
import time
from pathlib import Path
from typing import Protocol

from gateway.attempt import Outcome, Times
from gateway.configuration.config import Log
from gateway.log_line import DELIVERY, INGRESS, AcceptRecord, AttemptRecord, JsonLines, TextLines
from gateway.mail.message import Recipient

_BATCH = 64 << 10
_WAIT = 1000
"""Milliseconds to wait for a reader of the log who does not read; then lines are lost."""

_STATUS = {"delivered": "sent"}
"""Postfix's words where they are not the events'."""


class LineHandler(logging.Handler):
    """Collects lines and writes them with one system call per turn of the event loop.

    Where no loop runs, after an error, and at exit, lines are written at once. Processes that
    share a file or a pipe do not tear each other's lines. Logging never fails: lines that cannot
    be written are counted, and the count is logged when writing works again.
    """

    def __init__(self, lines: TextLines | JsonLines, file: Path | None = None) -> None:
        """Opens the file for appending; None is standard error.

        Raises:
            OSError: the file cannot be opened.
        """
        super().__init__()
        self._render = lines
        self._file = file
        self._lines: list[str] = []
        self._size = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._torn = False
        self.lost = 0
        self._descriptor = self._open()

    def _open(self) -> int:
        if self._file is None:
            descriptor = 2
        else:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._file, flags, 0o640)
        mode = os.fstat(descriptor).st_mode
        # What is written to a pipe in one piece stays in one piece only up to PIPE_BUF.
        shared = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._most = select.PIPE_BUF if shared else _BATCH
        return descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record; called with the handler's lock held."""
        self._put(self._render(record), record.levelno >= logging.ERROR)

    def attempt(self, attempt: AttemptRecord) -> None:
        """Takes an attempt, without a record of the standard library's around it."""
        self._take(self._render.attempt(attempt, time.time()))

    def accepted(self, accepted: AcceptRecord) -> None:
        """Takes an accepted message, likewise."""
        self._take(self._render.accepted(accepted, time.time()))

    def _take(self, line: str) -> None:
        self.acquire()
        try:
            self._put(line, False)
        finally:
            self.release()

    def _put(self, line: str, urgent: bool) -> None:
        self._lines.append(line)
        self._size += len(line)
        if urgent or self._size >= _BATCH:
            self.flush()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what has been collected."""
        self.acquire()
        try:
            self._loop = None
            if not self._lines:
                return
            lines, self._lines, self._size = self._lines, [], 0
            content = "".join(lines).encode("utf-8", "backslashreplace")
            if len(content) <= self._most:
                self._write(content)
            else:
                for piece in _pieces(content, self._most):
                    self._write(piece)
        finally:
            self.release()

    def _write(self, lines: bytes) -> None:
        before = b"\n" if self._torn else b""
        if self.lost:
            before += f"{self.lost} log lines could not be written\n".encode()
        content = before + lines
        rest = memoryview(content)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(self._descriptor, select.POLLOUT)
                    if not poll.poll(_WAIT):
                        raise
        except OSError:
            # Nowhere is left to complain to.
            written = len(content) - len(rest)
            told = written >= len(before)
            self.lost = bytes(rest).count(b"\n") if told else self.lost + lines.count(b"\n")
            if written:
                self._torn = content[written - 1 : written] != b"\n"
            return
        self.lost, self._torn = 0, False

    def reopen(self) -> None:
        """Opens the file anew after it was moved away (log rotation).

        Raises:
            OSError: that is not possible; the log goes on in the old file.
        """
        if self._file is None:
            return
        self.acquire()
        try:
            self.flush()
            old, self._descriptor = self._descriptor, self._open()
            os.close(old)
        finally:
            self.release()

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        self.acquire()
        try:
            if self._descriptor < 0:
                return
            self.flush()
            if self._file is not None:
                os.close(self._descriptor)
            self._descriptor = -1
        finally:
            self.release()
        super().close()


def _pieces(content: bytes, most: int) -> list[bytes]:
    """Cuts at line ends, so that no piece is longer than `most` unless a line is."""
    pieces = []
    start = 0
    while len(content) - start > most:
        end = content.rfind(b"\n", start, start + most) + 1
        if not end:
            end = content.index(b"\n", start) + 1
        pieces.append(content[start:end])
        start = end
    if start < len(content):
        pieces.append(content[start:])
    return pieces


class _Envelope(Protocol):
    received: float

    @property
    def queue_id(self) -> str: ...


class AttemptLog:
    """Writes the line for each recipient of each attempt.

    With the handler that `setup` returned it writes there directly: making a record of the standard
    library's would cost twice as much as all the rest. Without one it logs as anyone does.
    """

    def __init__(self, handler: LineHandler | None = None) -> None:
        self._logger = logging.getLogger(DELIVERY)
        self._handler = handler

    def write(
        self, kind: str, envelope: _Envelope, recipient: Recipient, outcome: Outcome, times: Times
    ) -> None:
        """Logs how an attempt ended; `kind` is the type of the event that goes with it."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        received, active, done = envelope.received, times.active, times.done
        # A point that was never reached: all the time went into what came before it.
        connect = times.connect or done
        connected = times.connected or done
        attempt = AttemptRecord(
            envelope.queue_id,
            recipient.address,
            outcome.relay,
            done - received,
            (active - received, connect - active, connected - connect, done - connected),
            outcome.status,
            _STATUS.get(kind, kind),
            outcome.reply,
        )
        if self._handler is None:
            self._logger.info(attempt)
        else:
            self._handler.attempt(attempt)


class AcceptLog:
    """Writes the line for each message that is accepted, in the same two ways."""

    def __init__(self, handler: LineHandler | None = None) -> None:
        self._logger = logging.getLogger(INGRESS)
        self._handler = handler

    @property
    def enabled(self) -> bool:
        """Whether such lines are wanted."""
        return self._logger.isEnabledFor(logging.INFO)

    def write(self, accepted: AcceptRecord) -> None:
        """Logs that a message is on disk."""
        if self._handler is None:
            self._logger.info(accepted)
        else:
            self._handler.accepted(accepted)


def setup(config: Log, hostname: str, role: str) -> LineHandler:
    """Sends everything that is logged in this process where the configuration says.

    The gateway and its plugins log from the configured level on, libraries only from warnings on.
    Called again, it replaces what it set up before.

    Raises:
        OSError: the log file cannot be opened.
    """
    lines = JsonLines(hostname, role) if config.format == "json" else TextLines(hostname, role)
    handler = LineHandler(lines, config.file)
    root = logging.getLogger()
    for earlier in [earlier for earlier in root.handlers if isinstance(earlier, LineHandler)]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[config.level.upper()]
    logging.getLogger("gateway").setLevel(level)
    root.setLevel(max(level, logging.WARNING))
    # None of these is in a line of ours, and each costs time for every record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return handler
