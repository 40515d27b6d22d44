"""The contract between the supervisor and the processes that it starts, as a child sees it.

The supervisor runs `python -m gateway.process.worker ASSIGNMENT` (or `.service`); the
assignment is JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from gateway.process.handover import Seat

Role = Literal["worker", "service"]

BACKLOG = 4096
"""How many connections may wait on a listening socket; a child that listens has to say the same."""

BEAT = 5.0
"""How often a child shows that it is alive, in seconds."""

_MAX_FAILURE = 16_384


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a child is to do, and the descriptors that it inherits for it.

    Attributes:
        role: what the process is.
        index: the worker's slot, from 0; 0 for the service process.
        config_path: `gateway.yaml`, as problems name it and as relative paths start from.
        config_fd: a file with the text that was validated; `config_path` may have changed since.
        ready_fd: a pipe to the supervisor: `ready` once, or `failed: text`; empty lines between and
            after show that the process is alive.
        parent_fd: a pipe that ends when the supervisor does.
        sockets: the bound sockets of this slot, by the listener's address as `gateway.yaml` has it.
        seat: for connections that workers give each other; None where there is one worker.

    A child listens on its sockets with `BACKLOG` before it reports ready, and closes them first
    thing when it gets SIGTERM; then it finishes what it holds and exits.
    """

    role: Role
    index: int
    config_path: Path
    config_fd: int
    ready_fd: int
    parent_fd: int
    sockets: Mapping[str, int]
    seat: Seat | None = None

    @classmethod
    def receive(cls, arguments: Sequence[str] | None = None) -> Assignment:
        """Reads the assignment from the command line (or `arguments`) and takes the descriptors.

        They do not pass on to programs that this process starts.

        Raises:
            ValueError: there is no assignment; the process was not started by the supervisor.
        """
        arguments = sys.argv[1:] if arguments is None else arguments
        try:
            (text,) = arguments
            fields = json.loads(text)
            seat = fields["seat"]
            if seat is not None:
                fields["seat"] = Seat(seat["memory"], seat["inbox"], tuple(seat["outboxes"]))
            assignment = cls(**{**fields, "config_path": Path(fields["config_path"])})
        except (ValueError, TypeError, KeyError):
            raise ValueError("this program is started by `gateway run`, not by hand") from None
        for descriptor in assignment.descriptors:
            os.set_inheritable(descriptor, False)
        os.set_blocking(assignment.ready_fd, False)
        return assignment

    def to_json(self) -> str:
        """The text that `receive` reads."""
        return json.dumps({**asdict(self), "config_path": str(self.config_path)})

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Every descriptor that the process inherits besides standard input and output."""
        seat = () if self.seat is None else self.seat.descriptors
        return (self.config_fd, self.ready_fd, self.parent_fd, *self.sockets.values(), *seat)

    def config_text(self) -> str:
        """The text of `gateway.yaml` that was validated."""
        # The position in the file is shared with all other children: read without moving it.
        return os.pread(self.config_fd, os.fstat(self.config_fd).st_size, 0).decode()

    def listen_sockets(self) -> dict[str, socket.socket]:
        """The bound sockets of this slot as objects, which own them from now on; call it once."""
        return {address: socket.socket(fileno=number) for address, number in self.sockets.items()}

    def report_ready(self) -> None:
        """Tells the supervisor that this process does its work from now on."""
        self._report("ready")

    def report_failure(self, text: str) -> None:
        """Tells the supervisor why this process cannot start; the caller exits after it."""
        self._report("failed: " + "; ".join(text.splitlines()))

    async def attend(self, interval: float = BEAT) -> None:
        """Shows the supervisor every `interval` seconds that the loop runs; ends when it is gone.

        Start it before anything that takes long: a process that is silent for too long is killed.
        """
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self.parent_fd, gone.set)
        try:
            while not gone.is_set():
                self._report("")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(gone.wait(), interval)
        finally:
            loop.remove_reader(self.parent_fd)

    def _report(self, line: str) -> None:
        # A full pipe or none means a supervisor that is stuck or gone; `attend` sees to the latter.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self.ready_fd, line.encode(errors="replace")[:_MAX_FAILURE] + b"\n")


def sealed_file(text: str) -> int:
    """A descriptor of a file in memory that holds `text` and that nobody can change any more."""
    descriptor = os.memfd_create("gateway.yaml", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode())
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor
