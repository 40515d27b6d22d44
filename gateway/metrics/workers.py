"""Asks all workers over their control sockets, at the same time and within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_ANSWER = 8 << 20
"""The longest answer, in octets."""

_NAME = re.compile(r"worker-(\d+)-(\d+)\.sock")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker said.

    Attributes:
        said: its answer; None if there was none in time.
        seconds: how long it took.
    """

    said: dict[str, Any] | None
    seconds: float


class Workers:
    """The workers of a gateway, as their sockets in the spool folder show them.

    They are called `worker-0`, `worker-1`, and so on. While a reload replaces them there are two of
    each number: the one that ends has `-old` behind its name.

    Args:
        folder: the spool.
        count: how many there should be.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self.names = tuple(f"worker-{index}" for index in range(count))

    async def ask(self, command: str, timeout: float) -> dict[str, Answer]:
        """The answers of all workers by their names; those that should be there and are not, too.

        Args:
            command: what is asked.
            timeout: how long a worker may take, in seconds.
        """
        found = dict(self._find())
        answers = await asyncio.gather(*[_ask(path, command, timeout) for path in found.values()])
        nobody = dict.fromkeys(self.names, Answer(None, 0.0))
        return nobody | dict(zip(found, answers, strict=True))

    def _find(self) -> Iterator[tuple[str, Path]]:
        """The sockets of processes that live, the newest of each number first."""
        sockets: dict[int, list[tuple[int, Path]]] = {}
        for path in self._folder.glob("worker-*.sock"):
            match = _NAME.fullmatch(path.name)
            if match is None or not Path("/proc", match[2]).exists():
                continue  # left by a worker that was killed
            with contextlib.suppress(FileNotFoundError):
                made = path.stat().st_mtime_ns
                sockets.setdefault(int(match[1]), []).append((made, path))
        for index, several in sorted(sockets.items()):
            name = f"worker-{index}"
            newest = sorted(several, reverse=True)
            if name in self.names:
                yield name, newest.pop(0)[1]
            if newest:
                yield f"{name}-old", newest[0][1]


async def _ask(path: Path, command: str, timeout: float) -> Answer:
    started = time.monotonic()
    said: dict[str, Any] | None = None
    with contextlib.suppress(OSError, ValueError, RecursionError, TimeoutError):
        async with asyncio.timeout(timeout):
            said = await _exchange(path, command)
    return Answer(said, time.monotonic() - started)


async def _exchange(path: Path, command: str) -> dict[str, Any]:
    """One request and its answer.

    Raises:
        OSError: nobody serves the socket, or not any more.
        ValueError: it refuses, or its answer makes no sense.
    """
    sock = _connected(path)
    try:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_ANSWER)
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(json.dumps({"command": command}).encode() + b"\n")
        answer = json.loads(await reader.readline())
    finally:
        writer.close()
    if not isinstance(answer, dict) or answer.pop("ok", False) is not True:
        raise ValueError(f"the worker refuses {command!r}")
    return answer


def _connected(path: Path) -> socket.socket:
    """A connection to a socket file, by way of a descriptor: its path may have any length."""
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # A worker that is stuck has a full queue at last, and then this fails at once.
            sock.connect(f"/proc/self/fd/{file}")
        except BaseException:
            sock.close()
            raise
    finally:
        os.close(file)
    return sock
