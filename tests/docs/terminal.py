"""A shell that a test types into, and what it shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

DEADLINE = 60.0

_END = "-- the end of the command:"


class Terminal:
    """One shell, as a person has it open: folder and variables stay from command to command.

    Args:
        folder: where it begins.
        variables: its environment.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["/bin/bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(variables),
            # So that Ctrl-C reaches what runs in it, and not the test.
            start_new_session=True,
        )
        self._shown = bytearray()
        self._seen = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._shell.stdout is not None
        with self._shell.stdout as output:
            while octets := os.read(output.fileno(), 65536):
                self._shown += octets

    def _type(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text.encode())
        self._shell.stdin.flush()

    @property
    def news(self) -> str:
        """What it has shown since this was last taken as seen."""
        return self._shown[self._seen :].decode()

    def run(self, command: str) -> tuple[int, str]:
        """Runs a command to its end; its exit status, and what it printed."""
        self._type(f"{{ {command}\n}} </dev/null; printf '\\n{_END} %s\\n' $?\n")
        pattern = re.compile(rf"(.*)\n{_END} (\d+)\n", re.DOTALL)
        self.wait(lambda text: pattern.fullmatch(text) is not None, command)
        match = pattern.fullmatch(self.news)
        assert match is not None
        self.look()
        return int(match[2]), match[1]

    def start(self, command: str) -> None:
        """Begins a command that goes on."""
        self._type(f"exec {command}\n")

    def wait(self, condition: Callable[[str], bool], what: str) -> None:
        """Waits until the condition is true of the news."""
        end = time.monotonic() + DEADLINE
        while not condition(self.news):
            assert time.monotonic() < end, f"waited in vain: {what}\n{self.news}"
            assert self._reader.is_alive(), f"the shell has ended: {what}\n{self.news}"
            time.sleep(0.01)

    def look(self) -> None:
        """What it has shown up to now has been seen."""
        self._seen = len(self._shown)

    @property
    def folder(self) -> Path:
        """Where it is now."""
        return Path(f"/proc/{self._shell.pid}/cwd").readlink()

    def interrupt(self) -> int:
        """Types Ctrl-C; the exit status of what ran."""
        os.killpg(self._shell.pid, signal.SIGINT)
        return self._shell.wait(DEADLINE)

    def close(self) -> None:
        """Ends it, and all that runs in it."""
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait(DEADLINE)
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._reader.join(DEADLINE)
