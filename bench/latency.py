"""How long one client waits for its 250, beside what an fsync takes."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.case import Case, Figure
from bench.daemon import LOCALHOST, free_port
from bench.error import BenchError
from bench.load import POLL_SECONDS, Load, Sink
from bench.signature import DOMAIN
from bench.systems.system import System
from bench.throughput import SETTLE_SECONDS, start_signing

MEDIAN = Figure("final dot to 250: median ms", 2, more_is_better=False)
P99 = Figure("final dot to 250: p99 ms", 2, more_is_better=False)
FSYNC = Figure("fsync: median ms", 2, more_is_better=False)
ABOVE = Figure("median above 1.5 fsync, ms", 2, more_is_better=False, bar=1.0)

_SECONDS = 20.0
_PAUSE = 0.02


class Latency(Case):
    """One connection, one message after the other, each signed; fsyncs in between.

    `size` is the body's length in octets, `seconds` how long one measurement takes about.
    """

    figures = (MEDIAN, P99, FSYNC, ABOVE)

    def __init__(self, name: str, title: str, size: int, seconds: float) -> None:
        super().__init__(name, title)
        self.size = size
        self.seconds = seconds

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[LatencyTrial]:
        """Starts the system, checks the signature of one message, and connects to it."""
        port, next_hop = free_port(), free_port()
        try:
            start_signing(system, Load(self.size), folder, port, next_hop)
            with (
                Sink(next_hop, folder) as sink,
                socket.create_connection((LOCALHOST, port), _SECONDS) as connection,
            ):
                client = Client(connection)
                client.send_for(self.seconds / 4, self.size)
                yield LatencyTrial(self, system, client, sink, folder)
        finally:
            system.stop()


class LatencyTrial:
    """A system that runs, and a connection to it."""

    def __init__(
        self, case: Latency, system: System, client: Client, sink: Sink, folder: Path
    ) -> None:
        self._case = case
        self._system = system
        self._client = client
        self._sink = sink
        self._file = folder / "fsync"
        self._deadline = _SECONDS

    def measure(self) -> Mapping[str, float]:
        """Sends messages, and looks at the disk under the same conditions in between.

        Raises BenchError unless each message arrives, once.
        """
        self._system.tree().settle(SETTLE_SECONDS)
        waited: list[float] = []
        synced: list[float] = []
        until = time.monotonic() + self._case.seconds
        with self._file.open("wb", buffering=0) as file:
            # Writing over what is there is the least that a durable write can cost: a file that
            # grows has its new length written as well.
            file.write(bytes(self._case.size))
            os.fsync(file.fileno())
            while time.monotonic() < until:
                waited += self._client.send_for(0.05, self._case.size)
                # The system is still delivering the last message, and writes that down.
                time.sleep(_PAUSE)
                for _ in range(5):
                    file.seek(0)
                    file.write(bytes(self._case.size))
                    started = time.perf_counter()
                    os.fsync(file.fileno())
                    synced.append(time.perf_counter() - started)
        self._file.unlink()
        self._check_arrived()
        median, fsync = statistics.median(waited) * 1e3, statistics.median(synced) * 1e3
        return {
            MEDIAN.name: median,
            P99.name: statistics.quantiles(waited, n=100)[98] * 1e3,
            FSYNC.name: fsync,
            ABOVE.name: median - 1.5 * fsync,
        }

    def _check_arrived(self) -> None:
        deadline = time.monotonic() + self._deadline
        while (arrived := self._sink.count()) < self._client.sent:
            self._sink.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{arrived} of {self._client.sent} messages arrived")
            time.sleep(POLL_SECONDS)
        self._system.tree().settle(SETTLE_SECONDS)
        if (surplus := self._sink.count() - self._client.sent) != 0:
            raise BenchError(f"{surplus} messages came twice")


class Client:
    """One SMTP connection, in which each command waits for its reply.

    `sent` is how many messages it has sent.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reply = connection.makefile("rb")
        self.sent = 0
        self._expect(b"220")
        self._say(f"EHLO client.{DOMAIN}", b"250")

    def send_for(self, seconds: float, size: int) -> list[float]:
        """Sends messages; returns for each the seconds from its final dot to the reply."""
        waited = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.sent += 1
            self._say(f"MAIL FROM:<sender@{DOMAIN}>", b"250")
            self._say(f"RCPT TO:<{self.sent}@example.net>", b"250")
            self._say("DATA", b"354")
            line = b"X" * 78 + b"\r\n"
            header = f"From: sender@{DOMAIN}\r\nSubject: {self.sent}\r\n\r\n".encode()
            self._connection.sendall(header + line * (size // len(line)))
            started = time.perf_counter()
            self._say(".", b"250")
            waited.append(time.perf_counter() - started)
        return waited

    def _say(self, line: str, code: bytes) -> None:
        self._connection.sendall(line.encode() + b"\r\n")
        self._expect(code)

    def _expect(self, code: bytes) -> None:
        while True:
            line = self._reply.readline()
            if not line.startswith(code):
                raise BenchError(f"expected {code.decode()}, and got {line!r}")
            if line[3:4] != b"-":
                return
