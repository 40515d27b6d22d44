"""Asking workers over real sockets, whatever state they are in."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.metrics.workers import Answer, Workers
from gateway.process.control import ControlError, ControlServer

ALIVE = os.getpid()


@asynccontextmanager
async def serving(path: Path, *, seconds: float = 0.0, refused: bool = False) -> AsyncIterator[Any]:
    """A worker that answers with its socket's name."""

    async def answer(asked: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(seconds)
        if refused:
            raise ControlError("no")
        return {"name": path.name, "asked": asked}

    server = ControlServer(path, answer)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def _said(answers: dict[str, Answer]) -> dict[str, str | None]:
    return {
        name: None if answer.said is None else str(answer.said["name"])
        for name, answer in answers.items()
    }


async def test_all_workers_are_asked_at_the_same_time(tmp_path: Path) -> None:
    paths = [tmp_path / f"worker-{index}-{ALIVE}.sock" for index in range(3)]
    async with (
        serving(paths[0], seconds=0.3),
        serving(paths[1], seconds=0.3),
        serving(paths[2], seconds=0.3),
    ):
        started = time.monotonic()
        answers = await Workers(tmp_path, 3).ask("health", 30.0)
        assert time.monotonic() - started < 0.9
    assert _said(answers) == {f"worker-{index}": paths[index].name for index in range(3)}
    for answer in answers.values():
        assert answer.said is not None
        assert answer.said["asked"] == {"command": "health"}
        assert answer.seconds >= 0.3


async def test_one_that_does_not_answer_keeps_nobody_else_up(tmp_path: Path) -> None:
    slow, refusing, deaf = (tmp_path / f"worker-{index}-{ALIVE}.sock" for index in range(3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(deaf))
        listener.listen()
        async with (
            serving(slow, seconds=60.0),
            serving(refusing, refused=True),
            serving(tmp_path / f"worker-3-{ALIVE}.sock"),
        ):
            started = time.monotonic()
            answers = await Workers(tmp_path, 5).ask("health", 0.3)
            assert time.monotonic() - started < 10
    assert _said(answers) == {
        "worker-0": None,
        "worker-1": None,
        "worker-2": None,
        "worker-3": f"worker-3-{ALIVE}.sock",
        "worker-4": None,  # it is not there at all
    }
    assert 0.3 <= answers["worker-0"].seconds < 10


async def test_a_queue_of_connections_that_is_full_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / f"worker-0-{ALIVE}.sock"
    waiting = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        try:
            while True:
                client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                waiting.append(client)
                client.connect(str(path))
        except BlockingIOError:
            pass
        answers = await Workers(tmp_path, 1).ask("health", 30.0)
        for client in waiting:
            client.close()
    assert answers["worker-0"].said is None
    assert answers["worker-0"].seconds < 10


async def test_junk_is_no_answer(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(junk)
        writer.close()

    path = tmp_path / f"worker-0-{ALIVE}.sock"
    for junk in (b"", b"{", b"[]\n", b"{}\n", b'{"ok": 1}\n', b"\xff\n", b"[" * 5000 + b"\n"):
        server = await asyncio.start_unix_server(answer, path)
        answers = await Workers(tmp_path, 1).ask("health", 30.0)
        assert answers["worker-0"].said is None, junk
        server.close()
        await server.wait_closed()


async def test_what_a_killed_worker_left_is_passed_over(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"worker-0-{dead.pid}.sock", "worker-x-1.sock", "worker-1.sock"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / name))
    answers = await Workers(tmp_path, 1).ask("health", 30.0)
    assert answers == {"worker-0": Answer(None, 0.0)}
    async with serving(tmp_path / f"worker-0-{ALIVE}.sock"):
        answers = await Workers(tmp_path, 1).ask("health", 30.0)
    assert _said(answers) == {"worker-0": f"worker-0-{ALIVE}.sock"}


async def test_the_newer_of_two_is_the_worker(tmp_path: Path) -> None:
    old = tmp_path / f"worker-0-{os.getppid()}.sock"
    new = tmp_path / f"worker-0-{ALIVE}.sock"
    surplus = tmp_path / f"worker-1-{ALIVE}.sock"
    async with serving(old), serving(new), serving(surplus):
        os.utime(old, ns=(1, 1))
        answers = await Workers(tmp_path, 1).ask("health", 30.0)
        assert _said(answers) == {
            "worker-0": new.name,
            "worker-0-old": old.name,
            # Of a configuration that had two.
            "worker-1-old": surplus.name,
        }
        os.utime(new, ns=(0, 0))
        answers = await Workers(tmp_path, 1).ask("health", 30.0)
        assert _said(answers)["worker-0"] == old.name


async def test_a_path_may_be_long(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    async with serving(folder / f"worker-0-{ALIVE}.sock"):
        answers = await Workers(folder, 1).ask("health", 30.0)
    assert answers["worker-0"].said is not None
