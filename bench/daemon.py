"""A server that the bench starts and stops."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.error import BenchError
from bench.processes import Tree, running

LOCALHOST = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 15.0


def free_port() -> int:
    """A TCP port on loopback that nobody listens on.

    It lies below the range from which the kernel takes ports for outgoing connections, so the
    load cannot take it before the server does.
    """
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind((LOCALHOST, port))
            except OSError:
                continue
            return port


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class Daemon:
    """A process in the foreground of its own session, its output in a log file.

    `ending` is the command that stops it in order, where SIGTERM is not the way. `start_seconds` is
    how long `wait_for_smtp` has waited.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        ending: Sequence[str | Path] = (),
    ) -> None:
        self.name = name
        self.start_seconds = 0.0
        self._ending = [str(word) for word in ending]
        self.log = log
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches only the bench, which stops it in order.
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises BenchError if the process has ended."""
        if (code := self._process.poll()) is not None:
            raise BenchError(f"{self.name} ended with status {code}", tail(self.log))

    def wait_for_socket(self, path: Path) -> None:
        """Waits until there is a socket at `path`.

        Raises:
            BenchError: the process ended, or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while not path.is_socket():
            self._keep_waiting(deadline, f"made no socket {path.name}")

    def wait_for_smtp(self, port: int) -> None:
        """Waits until a banner comes from `port` on loopback.

        Raises:
            BenchError: the process ended, or took too long.
        """
        started = time.monotonic()
        while not greets(port):
            self._keep_waiting(started + START_SECONDS, f"gave no SMTP banner on port {port}")
        self.start_seconds = time.monotonic() - started

    def stop(self) -> None:
        """Ends it and all that descends from it: with `ending`, or else SIGTERM.

        What is left after `STOP_SECONDS` is killed.
        """
        family = {(member.pid, member.started) for member in Tree([self.pid]).members()}
        if self._process.poll() is None:
            if self._ending:
                try:
                    subprocess.run(
                        self._ending,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        timeout=STOP_SECONDS,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    pass  # then all of it is killed
            else:
                self._process.send_signal(signal.SIGTERM)
        kill_at = time.monotonic() + STOP_SECONDS
        while (left := self._left(family)) and time.monotonic() < kill_at + STOP_SECONDS:
            if time.monotonic() > kill_at:
                for pid in left:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass  # it ended just now
            time.sleep(0.05)
        self._process.poll()  # it may have ended since it was last looked at

    def _left(self, family: set[tuple[int, int]]) -> list[int]:
        self._process.poll()  # reaps it
        return [
            process.pid
            for process in running()
            if (process.pid, process.started) in family and not process.ended
        ]

    def _keep_waiting(self, deadline: float, complaint: str) -> None:
        self.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{self.name} {complaint} in {START_SECONDS:.0f} s", tail(self.log))
        time.sleep(0.05)


def greets(port: int, host: str = LOCALHOST) -> bool:
    """Whether an SMTP banner comes from there."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            if not connection.recv(512).startswith(b"220"):
                return False
            connection.sendall(b"QUIT\r\n")
            return True
    except OSError:
        return False
