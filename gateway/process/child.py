"""One running child of the supervisor: its start, what it reports, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.process.assignment import Assignment, Role
from gateway.process.handover import Seat

_MAX_REPORT = 65_536


class ChildError(Exception):
    """A child that did not start; the text names it and gives the reason."""


class Child:
    """A worker or the service process. It starts when the object is made.

    Attributes:
        name: its role, and of workers the slot, for people.
        pid: its process id.
        started: when it started, on the loop's clock.
        heard: when it last showed that it is alive, on the loop's clock.
        exited: its exit status, or the negative number of the signal that ended it.
    """

    def __init__(
        self,
        command: Sequence[str],
        role: Role,
        index: int,
        *,
        config_path: Path,
        config_fd: int,
        parent_fd: int,
        sockets: Mapping[str, socket.socket],
        seat: Seat | None,
        environ: Mapping[str, str],
    ) -> None:
        """Starts `command` with the assignment as its last argument.

        Raises:
            ChildError: the system could not start it.
        """
        self._loop = asyncio.get_running_loop()
        self.name = child_name(role, index)
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._failure: asyncio.Future[str | None] = self._loop.create_future()
        self._unfinished = b""
        try:
            self._report, ready_fd = os.pipe()
        except OSError as error:
            raise ChildError(f"{self.name}: cannot be started: {error}") from error
        try:
            numbers = {address: listener.fileno() for address, listener in sockets.items()}
            assignment = Assignment(
                role, index, config_path, config_fd, ready_fd, parent_fd, numbers, seat
            )
            # A process group of its own: Ctrl-C on a terminal is for the supervisor to handle.
            self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                [*command, assignment.to_json()],
                stdin=subprocess.DEVNULL,
                pass_fds=assignment.descriptors,
                env=environ,
                process_group=0,
            )
        except OSError as error:
            os.close(self._report)
            raise ChildError(f"{self.name}: cannot be started: {error}") from error
        finally:
            os.close(ready_fd)
        self.pid = self._process.pid
        self.started = self.heard = self._loop.time()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            # Without it nobody would notice its end.
            self._process.kill()
            self._process.wait()
            os.close(self._report)
            raise ChildError(f"{self.name}: cannot be watched: {error}") from error
        os.set_blocking(self._report, False)
        self._loop.add_reader(self._report, self.take_reports)
        self._loop.add_reader(self._pidfd, self._bury)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return not self.exited.done()

    async def wait_ready(self, timeout: float) -> None:
        """Waits until the child says that it does its work, at most `timeout` seconds.

        Raises:
            ChildError: it said that it cannot, ended, or took too long.
        """
        try:
            failure = await asyncio.wait_for(asyncio.shield(self._failure), timeout)
        except TimeoutError:
            failure = f"not ready after {timeout:g} s"
        if failure is not None:
            raise ChildError(f"{self.name}: {failure}")

    async def wait_exit(self) -> str:
        """Waits for the end of the process and says how it ended."""
        return describe_exit(await asyncio.shield(self.exited))

    def reopen_log(self) -> None:
        """Asks it to open its log file anew (SIGUSR1), which one that still starts does anyway."""
        if self.alive and self._failure.done():
            self._process.send_signal(signal.SIGUSR1)

    def terminate(self) -> None:
        """Asks it to finish what it holds and to end (SIGTERM)."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once (SIGKILL)."""
        self._process.send_signal(signal.SIGKILL)

    def take_reports(self) -> None:
        """Takes in what the child has reported since the last time."""
        if self._report < 0:
            return
        try:
            data = os.read(self._report, _MAX_REPORT)
        except BlockingIOError:
            return
        if not data:
            self._hang_up()
            return
        self.heard = self._loop.time()
        if self._failure.done():
            return
        *lines, self._unfinished = (self._unfinished + data)[-_MAX_REPORT:].split(b"\n")
        for line in lines:
            word, _, reason = line.decode(errors="replace").partition(": ")
            if word == "ready":
                self._decide(None)
            elif word == "failed":
                self._decide(reason)

    def _bury(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._process.wait()
        # What it wrote last may not have been read yet, and it is the better reason.
        self.take_reports()
        self._hang_up()
        self._decide(f"ended with {describe_exit(status)} before it was ready")
        self.exited.set_result(status)

    def _hang_up(self) -> None:
        if self._report >= 0:
            self._loop.remove_reader(self._report)
            os.close(self._report)
            self._report = -1

    def _decide(self, failure: str | None) -> None:
        if not self._failure.done():
            self._failure.set_result(failure)


def child_name(role: Role, index: int) -> str:
    """What people call a child: `worker 2`, `service`."""
    return f"worker {index}" if role == "worker" else role


def describe_exit(status: int) -> str:
    """An exit status as `subprocess` gives it, for people: `exit status 3` or `signal SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
