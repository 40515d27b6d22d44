"""A whole gateway as it runs in production: `gateway run`, its processes, files and ports."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner

from gateway.cli.command import gateway as gateway_command

DEADLINE = 90.0

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str) -> T:
    """Waits until the condition gives something true, and returns it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited in vain: {what}")


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Gateway:
    """A gateway in a folder of its own.

    Args:
        folder: for everything that it writes.
        via: the next hops, `ip:port`.
        more: further text of gateway.yaml.
        listen: what its one listener says besides the address.
        workers: how many worker processes it has.
    """

    def __init__(
        self,
        folder: Path,
        via: str,
        more: str = "",
        listen: str = "allow: [127.0.0.0/8]",
        workers: int = 2,
    ) -> None:
        self.folder = folder
        self.config = folder / "gateway.yaml"
        self.spool = folder / "spool"
        self.port = free_port()
        self._via = via
        self._listen = listen
        self._workers = workers
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(more)

    def configure(self, more: str = "") -> None:
        """Writes gateway.yaml."""
        lines = [
            "hostname: gw.example.com",
            f"workers: {self._workers}",
            "shutdown_timeout: 20s",
            "spool: {path: spool, reserve: 1}",
            f"listen: [{{address: '127.0.0.1:{self.port}', {self._listen}}}]",
        ]
        if "relay:" not in more:
            lines.append(f"relay: {{via: ['{self._via}'], idle: 2s}}")
        self.config.write_text("\n".join([*lines, more, ""]))

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        self._starts += 1
        with self._log_path.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "-c", str(self.config)],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.logged("ready: ")

    @property
    def _log_path(self) -> Path:
        return self.folder / f"log-{self._starts}"

    @property
    def log(self) -> str:
        """What it has logged since its last start."""
        return self._log_path.read_text()

    def logged(self, text: str, times: int = 1) -> list[str]:
        """Waits for so many lines of the log with this text, and returns them."""

        def lines() -> list[str] | None:
            running = self._process is not None and self._process.poll() is None
            found = [line for line in self.log.splitlines() if text in line]
            if len(found) >= times:
                return found
            assert running, f"it ended without {text!r}:\n{self.log}"
            return None

        try:
            return until(lines, text)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-5000:]}") from None

    def pids(self) -> dict[str, int]:
        """Its running processes: `supervisor`, `worker 0`, …, `service`."""
        assert self._process is not None
        found = {"supervisor": self._process.pid}
        for line in self._children():
            pid, arguments = line
            assignment = json.loads(arguments[-1])
            name = assignment["role"]
            found[f"worker {assignment['index']}" if name == "worker" else name] = pid
        return found

    def _children(self) -> list[tuple[int, list[str]]]:
        assert self._process is not None
        children = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                arguments = (entry / "cmdline").read_bytes().decode().split("\0")[:-1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self._process.pid and str(self.config) in (arguments or [""])[-1]:
                children.append((int(entry.name), arguments))
        return children

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the supervisor."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends all of its processes at once."""
        pids = self.pids()
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(DEADLINE)
        until(lambda: not any(map(is_running, pids.values())), "the end of all processes")

    def stop(self) -> int:
        """Asks it to end, waits, and returns the exit status."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        return self._process.wait(DEADLINE)

    def clean(self) -> None:
        """Ends what still runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def command(self, *arguments: str, status: int = 0, stdin: str = "") -> str:
        """Runs a `gateway` command and returns what it printed, errors after output."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == status, done
        return done.stdout + done.stderr

    def queue(self, *arguments: str) -> list[dict[str, Any]]:
        """The recipients that wait, as `gateway queue list --json` prints them.

        It runs in this process: tests wait for what it says, and starting it takes half a second.
        """
        words = ["queue", "list", "--json", "-c", str(self.config), *arguments]
        done = CliRunner().invoke(gateway_command, words)
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.output.splitlines()]

    def wait_empty(self) -> None:
        """Waits until nothing is in the queue any more."""
        until(lambda: self.queue() == [], "the queue to be empty")

    def client(self) -> smtplib.SMTP:
        """A connection by Python's own SMTP client."""
        return smtplib.SMTP("127.0.0.1", self.port, "client.example.org", timeout=DEADLINE)

    def submit(
        self, subject: str, *recipients: str, sender: str = "a@example.com", header: str = ""
    ) -> str:
        """Sends a message and returns its queue id."""
        with self.client() as client:
            client.ehlo()
            client.mail(sender)
            for recipient in recipients or ("b@example.net",):
                code, text = client.rcpt(recipient)
                assert code == 250, text
            code, text = client.data(f"Subject: {subject}\r\n{header}\r\nHello\r\n")
            assert code == 250, text
            return text.decode().split()[-1]


MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[MakeGateway]:
    """Makes gateways; what still runs at the end of the test is ended."""
    gateways: list[Gateway] = []

    def make(via: str = "127.0.0.1:1", *arguments: Any, **options: Any) -> Gateway:
        folder = tmp_path / f"gateway-{len(gateways)}"
        folder.mkdir()
        gateway = Gateway(folder, via, *arguments, **options)
        gateways.append(gateway)
        return gateway

    yield make
    for gateway in gateways:
        gateway.clean()


class Sink:
    """Postfix's smtp-sink as a next hop, which writes each message into a file."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o777)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        self._process = subprocess.Popen(
            [str(program), *user, "-d", "m.%M%S.", self.address, "4000"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        until(self._listens, "smtp-sink")

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._process.stderr
        with socket.socket() as probe:
            host, port = self.address.split(":")
            return probe.connect_ex((host, int(port))) == 0

    def messages(self) -> list[bytes]:
        """What has arrived, in the format of smtp-sink."""
        return [path.read_bytes() for path in self.folder.iterdir()]

    def found(self, pattern: bytes) -> list[bytes]:
        """What the first group of a pattern matches in each message that it is in."""
        matches = (re.search(pattern, message) for message in self.messages())
        return [match[1] for match in matches if match is not None]

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def sink(debian_program: Callable[[str], Path]) -> Iterator[Sink]:
    """A running smtp-sink."""
    # Not below the folder of the test, which the user nobody may not enter.
    folder = Path(tempfile.mkdtemp(prefix="sink-"))
    sink = Sink(debian_program("smtp-sink"), folder)
    yield sink
    sink.stop()
    shutil.rmtree(folder)
