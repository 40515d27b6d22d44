"""Mail in and out: Postfix's `smtp-source` sends it, `smtp-sink` receives and counts it."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench.daemon import LOCALHOST, START_SECONDS, greets, tail
from bench.error import BenchError
from bench.processes import Tree
from bench.signature import DOMAIN

POLL_SECONDS = 0.01
QUIT_SECONDS = 5.0
_COUNTER = re.compile(rb"mesg=(\d+)\s")
_ENOUGH = 128  # bytes that hold the last whole counter line


def missing() -> str | None:
    """What has to be installed before anything can be measured; None if all is there."""
    if shutil.which("smtp-source") and shutil.which("smtp-sink"):
        return None
    return "smtp-source and smtp-sink are needed: apt-get install postfix"


def last_count(output: bytes) -> int:
    """The number of messages in the newest line that `smtp-sink -c` wrote; 0 before the first."""
    found = _COUNTER.findall(output)
    return int(found[-1]) if found else 0


class Sink:
    """A running `smtp-sink` that counts messages; it keeps them if `record` names a folder.

    The counter goes to a file in memory: it costs the disk under test nothing, and reading it
    does not wake anything. `host` is the address that it listens at; with `deferring` it answers
    each MAIL with 4xx.
    """

    def __init__(
        self,
        port: int,
        folder: Path,
        record: Path | None = None,
        *,
        host: str = LOCALHOST,
        deferring: bool = False,
    ) -> None:
        self._port = port
        self._host = host
        self._counter = os.memfd_create("smtp-sink")
        command = ["smtp-sink", "-c", "-m", "1000"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        if record is not None:
            record.mkdir()
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.chown(record, nobody.pw_uid, nobody.pw_gid)
            command += ["-d", f"{record}/message."]
        if deferring:
            command += ["-r", "mail"]
        self.log = folder / "smtp-sink.log"
        with self.log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, f"{host}:{port}", "1024"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=self._counter,
                stderr=errors,
                start_new_session=True,
            )

    def __enter__(self) -> Sink:
        """Waits until it listens: a system that comes too early may try again much later."""
        deadline = time.monotonic() + START_SECONDS
        while not greets(self._port, self._host):
            try:
                self.check()
                if time.monotonic() > deadline:
                    raise BenchError("smtp-sink gave no banner", tail(self.log))
            except BenchError:
                self._end()
                raise
            time.sleep(POLL_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._counter)

    def count(self) -> int:
        """How many messages have arrived since the start."""
        size = os.fstat(self._counter).st_size
        return last_count(os.pread(self._counter, _ENOUGH, max(0, size - _ENOUGH)))

    def cpu(self) -> float:
        """Seconds of CPU time that it has used."""
        return Tree([self._process.pid]).cpu()

    def check(self) -> None:
        """Raises BenchError if the sink has ended."""
        if (code := self._process.poll()) is not None:
            raise BenchError(f"smtp-sink ended with status {code}", tail(self.log))


@dataclass(frozen=True, slots=True)
class Load:
    """What `smtp-source` sends: the same for every system.

    `size` is the body's length in bytes. `sessions` connections send at the same time, each one
    message after the other. Where `message` names a file, what is in there is sent instead of lines
    of one letter.
    """

    size: int
    sessions: int = 20
    message: Path | None = None

    def command(self, messages: int, port: int) -> list[str]:
        """The `smtp-source` command line."""
        what = ("-l", str(self.size)) if self.message is None else ("-F", str(self.message))
        return [
            *("smtp-source", "-4", "-d", "-N"),
            *("-s", str(min(self.sessions, messages)), "-m", str(messages), *what),
            *("-M", f"client.{DOMAIN}", "-f", f"sender@{DOMAIN}", "-t", "recipient@example.net"),
            f"{LOCALHOST}:{port}",
        ]

    def run(
        self,
        messages: int,
        port: int,
        sink: Sink,
        within: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> float:
        """Sends `messages` to `port` and waits until `sink` has them all.

        `meanwhile` is called every hundredth of a second.

        Returns:
            Seconds from the start of smtp-source until the last message had arrived.

        Raises:
            BenchError: the messages were not taken, or not all delivered `within` seconds.
        """
        goal = sink.count() + messages
        started = time.monotonic()
        with subprocess.Popen(
            self.command(messages, port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as source:
            try:
                while (arrived := sink.count()) < goal:
                    if source.poll():
                        assert source.stderr is not None
                        said = source.stderr.read().decode(errors="replace").strip()
                        raise BenchError(f"smtp-source was refused: {said}")
                    if time.monotonic() - started > within:
                        raise BenchError(
                            f"{arrived - goal + messages} of {messages} messages "
                            f"arrived in {within:.0f} s"
                        )
                    sink.check()
                    meanwhile()
                    time.sleep(POLL_SECONDS)
                seconds = time.monotonic() - started
                source.wait(QUIT_SECONDS)
                return seconds
            finally:
                source.kill()


async def close(writer: asyncio.StreamWriter) -> None:
    """Closes a client's connection, and waits until it is; one that has ended is well too."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
