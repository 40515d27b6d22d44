"""The supervisor with real processes: small programs stand in for workers and the service."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.process.assignment import Assignment, sealed_file
from gateway.process.generation import Timing
from gateway.process.handover import Seats

DEADLINE = 60.0

# What the stand-in does is in the file `behaviour` beside gateway.yaml, read when it starts; each
# start, and each end in order, is a line in the file `log`.
CHILD = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
from gateway.process.assignment import BACKLOG, Assignment

assignment = Assignment.receive()
base = assignment.config_path.parent
behaviour = json.loads((base / "behaviour").read_text()).get(assignment.role, "serve")

inheritable = [number for number in assignment.descriptors if os.get_inheritable(number)]

def note(what):
    entry = {"what": what, "role": assignment.role, "index": assignment.index, "pid": os.getpid(),
             "config": assignment.config_text(), "addresses": list(assignment.sockets),
             "group": os.getpgid(0), "time": time.monotonic(),
             "environ": sorted(name for name in os.environ if name.startswith(("NOTIFY", "WATCH"))),
             "inheritable": inheritable}
    with open(base / "log", "a") as log:
        log.write(json.dumps(entry) + "\\n")

async def answer(reader, writer):
    writer.write(f"{os.getpid()}\\n".encode())
    try:
        await reader.read()
    except ConnectionError:
        pass
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    note("start")
    if behaviour == "fail":
        assignment.report_failure("no spool\\nno luck")
        sys.exit(7)
    if behaviour == "exit":
        sys.exit(3)
    if behaviour == "deaf":
        loop.add_signal_handler(signal.SIGTERM, lambda: note("deaf"))
    else:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    attending = asyncio.create_task(assignment.attend(0.05))
    if behaviour == "slow":
        while not (base / "go").exists():
            await asyncio.sleep(0.01)
    if behaviour == "never ready":
        await stop.wait()
        return
    servers = []
    for listener in assignment.listen_sockets().values():
        servers.append(await asyncio.start_server(answer, sock=listener, backlog=BACKLOG))
    assignment.report_ready()
    if behaviour == "crash":
        await asyncio.sleep(0.05)
        os._exit(5)
    if behaviour == "stall":
        await asyncio.sleep(0.1)
        (base / "calm").write_text("{}")
        (base / "calm").rename(base / "behaviour")
        time.sleep(1000)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, attending], return_when=asyncio.FIRST_COMPLETED)
    # asyncio drops what it accepted in the turn in which a server closes: stop accepting before.
    for server in servers:
        loop.remove_reader(server.sockets[0].fileno())
    ours = {asyncio.current_task(), stopping, attending}
    while connections := asyncio.all_tasks() - ours:
        await asyncio.wait(connections)
    for server in servers:
        server.close()
    note("orphaned" if attending.done() else "end")
    os._exit(0)

asyncio.run(main())
"""

SUPERVISOR = """
import logging, sys
from pathlib import Path
from gateway.process.generation import Timing
from gateway.process.supervisor import Supervisor

logging.basicConfig(level="DEBUG", format="%(levelname)s %(message)s")
folder = Path(sys.argv[1])
supervisor = Supervisor(
    folder / "gateway.yaml",
    command=lambda role: [sys.executable, str(folder / "child.py")],
    check=lambda path: [sys.executable, str(folder / "check.py"), str(path)],
    timing=Timing(**eval(sys.argv[2])),
)
sys.exit(supervisor.run())
"""

# Stands in for `gateway check`: the text `bad plugin` is an error.
CHECK = """
import sys, time
text = open(sys.argv[1]).read()
if "bad plugin" in text:
    print("gateway.yaml:9: plugins[0]: no good")
    print("gateway.yaml:10: plugins[1]: no good either", file=sys.stderr)
    sys.exit(1)
if "endless check" in text:
    time.sleep(1000)
"""

TIMING: dict[str, Any] = {
    "stall": 60.0,
    "settled": 0.0,
    "backoff": (0.01, 0.02, 0.03),
    "margin": 0.5,
    "check": 60.0,
}


T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str) -> T:
    """Waits until the condition gives something true, and returns it."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"waited in vain: {what}")


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@dataclass
class Gateway:
    """A supervisor as a process, in a folder of its own."""

    folder: Path
    timing: dict[str, Any] = field(default_factory=lambda: dict(TIMING))
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    addresses: tuple[str, ...] = ("127.0.0.1:0",)

    def __post_init__(self) -> None:
        (self.folder / "child.py").write_text(CHILD)
        (self.folder / "check.py").write_text(CHECK)
        (self.folder / "supervisor.py").write_text(SUPERVISOR)
        (self.folder / "log").touch()
        self.behave()
        self.configure()

    def behave(self, **roles: str) -> None:
        (self.folder / "behaviour").write_text(json.dumps(roles))

    def configure(self, workers: int = 2, more: str = "", *addresses: str) -> str:
        listen = "".join(f"- address: '{name}'\n" for name in addresses or self.addresses)
        text = (
            f"hostname: gw.example.com\nworkers: {workers}\nshutdown_timeout: 2s\n"
            f"listen:\n{listen}{more}\n"
        )
        (self.folder / "gateway.yaml").write_text(text)
        return text

    def start(self) -> None:
        arguments = [str(self.folder), repr(self.timing)]
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(self.folder / "supervisor.py"), *arguments],
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environ},
            )

    def start_ready(self) -> None:
        self.start()
        self.said("INFO ready: ")

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def said(self, text: str, times: int = 1) -> str:
        """Waits for the n-th line with this text and returns it."""

        def lines() -> list[str] | None:
            if self.process is not None and self.process.poll() is not None:
                found = [line for line in self.output.splitlines() if text in line]
                assert len(found) >= times, f"{text!r} is not in:\n{self.output}"
            found = [line for line in self.output.splitlines() if text in line]
            return found if len(found) >= times else None

        return until(lines, text)[times - 1]

    def notes(self, what: str, role: str | None = None) -> list[dict[str, Any]]:
        """What the children noted in their log."""
        *lines, _ = (self.folder / "log").read_text().split("\n")
        entries = [json.loads(line) for line in lines]
        return [e for e in entries if e["what"] == what and role in (None, e["role"])]

    def noted(self, what: str, times: int, role: str | None = None) -> list[dict[str, Any]]:
        """Waits until the children noted it so often."""

        def entries() -> list[dict[str, Any]] | None:
            found = self.notes(what, role)
            return found if len(found) >= times else None

        return until(entries, f"{times} times {what}")

    def pids(self) -> set[int]:
        return {entry["pid"] for entry in self.notes("start") if running(entry["pid"])}

    def port(self) -> int:
        return int(self.said("listening on").rpartition(":")[2])

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(DEADLINE)

    def connect(self, port: int | None = None, host: str = "127.0.0.1") -> int:
        """Connects and returns the pid of the process that answered."""
        with socket.create_connection((host, port or self.port()), DEADLINE) as client:
            return int(client.makefile().readline())

    def clean(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.clean()


def test_starts_everything_and_stops_it(gateway: Gateway) -> None:
    text = gateway.configure(workers=3)
    gateway.environ = {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    gateway.start_ready()
    starts = gateway.notes("start")
    assert sorted((start["role"], start["index"]) for start in starts) == [
        ("service", 0),
        ("worker", 0),
        ("worker", 1),
        ("worker", 2),
    ]
    for start in starts:
        assert start["config"] == text
        assert start["addresses"] == (["127.0.0.1:0"] if start["role"] == "worker" else [])
        assert start["environ"] == []
        assert start["inheritable"] == []
        assert start["group"] == start["pid"]
    workers = {start["pid"] for start in starts if start["role"] == "worker"}
    until(lambda: {gateway.connect() for _ in range(20)} == workers, "all workers answer")

    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert len(gateway.notes("end")) == 4
    assert gateway.pids() == set()
    assert "ERROR" not in gateway.output
    assert gateway.output.endswith("INFO stopped\n")


def test_tells_systemd(gateway: Gateway, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(DEADLINE)
        systemd.bind(os.path.relpath(tmp_path / "notify"))
        gateway.environ = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "100000",
        }

        def receive(states: list[str]) -> None:
            while states:
                message = systemd.recv(4096).decode()
                if message.startswith(states[0]):
                    states.pop(0)
                else:
                    assert message == "WATCHDOG=1"

        gateway.start()
        receive(["WATCHDOG=1", "READY=1\nSTATUS=2 workers, listening on 127.0.0.1:"])
        receive(["WATCHDOG=1", "WATCHDOG=1"])
        gateway.signal(signal.SIGHUP)
        receive(["RELOADING=1\nMONOTONIC_USEC=", "READY=1"])
        gateway.configure(workers=0)
        gateway.signal(signal.SIGHUP)
        receive(["RELOADING=1", "READY=1"])
        gateway.signal(signal.SIGTERM)
        receive(["STOPPING=1"])
        assert gateway.wait() == 0


def test_is_ready_only_when_every_child_is(gateway: Gateway) -> None:
    gateway.behave(service="slow")
    gateway.start()
    port = until(lambda: gateway.notes("start", "worker"), "a worker")
    assert port
    gateway.noted("start", 3)
    assert "ready" not in gateway.output
    (gateway.folder / "go").touch()
    gateway.said("INFO ready: 2 workers")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("fail", "ERROR worker 0: no spool; no luck"),
        ("exit", "ERROR worker 0: ended with exit status 3 before it was ready"),
        ("never ready", "ERROR worker 0: not ready after 0.5 s"),
    ],
)
def test_a_child_that_cannot_start_stops_everything(
    gateway: Gateway, behaviour: str, reason: str
) -> None:
    if behaviour == "never ready":
        gateway.timing["start"] = 0.5
    gateway.configure(workers=1)
    gateway.behave(worker=behaviour)
    gateway.start()
    assert gateway.wait() == 1
    assert reason in gateway.output
    assert "ready:" not in gateway.output
    assert gateway.pids() == set()


def test_a_program_that_is_not_there_is_told(gateway: Gateway) -> None:
    program = gateway.folder / "supervisor.py"
    program.write_text(
        program.read_text().replace('[sys.executable, str(folder / "child', '[str(folder / "child')
    )
    gateway.start()
    assert gateway.wait() == 1
    assert "ERROR worker 0: cannot be started: " in gateway.output


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ("hostnam: x", ["gateway.yaml:6: hostnam: unknown key"]),
        ("# bad plugin", ["gateway.yaml:9: plugins[0]: no good", "gateway.yaml:10: plugins[1]: "]),
        ("# endless check", ["the check took over 0.5 s"]),
    ],
)
def test_a_bad_configuration_is_not_started(gateway: Gateway, more: str, lines: list[str]) -> None:
    if "endless" in more:
        gateway.timing["check"] = 0.5
    gateway.configure(2, more)
    gateway.start()
    assert gateway.wait() == 2
    for line in lines:
        assert line in gateway.output
    assert gateway.notes("start") == []


def test_a_missing_configuration_is_told(gateway: Gateway) -> None:
    (gateway.folder / "gateway.yaml").unlink()
    gateway.start()
    assert gateway.wait() == 2
    assert "gateway.yaml: no such file" in gateway.output


def test_a_taken_address_is_told(gateway: Gateway) -> None:
    with socket.socket() as other:
        # Sharing the port must not help: mail would go to two gateways by turns.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        gateway.configure(2, "", f"127.0.0.1:{port}")
        gateway.start()
        assert gateway.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in gateway.output
    assert gateway.notes("start") == []


def test_an_address_of_another_machine_is_told(gateway: Gateway) -> None:
    gateway.configure(2, "", "192.0.2.1:2525")
    gateway.start()
    assert gateway.wait() == 1
    assert "cannot listen on 192.0.2.1:2525: Cannot assign requested address" in gateway.output


def test_ipv6_and_ipv4_on_the_same_port(gateway: Gateway) -> None:
    gateway.configure(2, "", "[::1]:0")
    gateway.start_ready()
    port = gateway.port()
    gateway.configure(2, "", "[::1]:0", f"127.0.0.1:{port}")
    gateway.signal(signal.SIGHUP)
    line = gateway.said("INFO ready: ", 2)
    assert line.endswith(f"listening on [::1]:{port}, 127.0.0.1:{port}")
    assert gateway.connect(port) in gateway.pids()
    with socket.create_connection(("::1", port), DEADLINE) as client:
        assert int(client.makefile().readline()) in gateway.pids()


def test_a_dead_child_is_replaced_and_its_waiting_connections_are_served(gateway: Gateway) -> None:
    gateway.configure(workers=1)
    gateway.timing["settled"] = 1000.0
    gateway.timing["backoff"] = (0.3,)
    gateway.start_ready()
    port = gateway.port()
    (first,) = (start["pid"] for start in gateway.notes("start", "worker"))
    os.kill(first, signal.SIGKILL)
    until(lambda: not running(first), "the worker is dead")
    # Nobody serves the slot now, and still nobody is refused.
    second = gateway.connect(port)
    assert second != first
    assert [start["pid"] for start in gateway.notes("start", "worker")] == [first, second]
    gateway.said(f"ERROR worker 0 (pid {first}) ended: signal SIGKILL")
    gateway.said(f"INFO worker 0 runs again (pid {second})")

    (service,) = (start["pid"] for start in gateway.notes("start", "service"))
    os.kill(service, signal.SIGTERM)
    gateway.noted("start", 2, "service")
    gateway.said(f"ERROR service (pid {service}) ended: exit status 0")


@pytest.mark.parametrize("behaviour", ["crash", "fail"])
def test_a_child_that_dies_again_and_again_is_restarted_less_and_less(
    gateway: Gateway, behaviour: str
) -> None:
    gateway.configure(workers=1)
    gateway.timing["settled"] = 1000.0
    gateway.timing["backoff"] = (0.05, 0.1, 0.2)
    gateway.start_ready()
    gateway.behave(worker=behaviour)
    os.kill(gateway.notes("start", "worker")[0]["pid"], signal.SIGKILL)
    for text, times in (("0.05", 1), ("0.1", 1), ("0.2", 3)):
        gateway.said(f"WARNING worker 0 is started again in {text} s", times)
    starts = [start["time"] for start in gateway.noted("start", 6, "worker")]
    for (sooner, later), delay in zip(pairwise(starts[1:]), (0.1, 0.2, 0.2, 0.2), strict=False):
        assert later - sooner >= delay
    gateway.behave()

    def answer() -> int | None:
        try:
            return gateway.connect()
        except (OSError, ValueError):
            return None

    until(answer, "a worker that lives")
    assert len(gateway.notes("start", "service")) == 1


def test_the_restart_delays() -> None:
    timing = Timing()
    delays = [timing.restart_delay(deaths) for deaths in range(9)]
    assert delays == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_stalled_child_is_replaced(gateway: Gateway) -> None:
    gateway.timing["stall"] = 4.0
    gateway.configure(workers=1)
    gateway.behave(worker="stall")
    gateway.start_ready()
    (stalled,) = (start["pid"] for start in gateway.notes("start", "worker"))
    gateway.said(f"ERROR worker 0 (pid {stalled}) has shown no life for 4 s and is killed")
    gateway.noted("start", 2, "worker")
    assert gateway.connect() != stalled
    assert not running(stalled)
    assert len(gateway.notes("start", "service")) == 1


def test_a_supervisor_that_was_stopped_itself_kills_nobody(gateway: Gateway) -> None:
    gateway.timing["stall"] = 4.0
    gateway.configure(workers=1)
    gateway.start_ready()
    before = gateway.pids()
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    # What they wrote before is read, and no stall yet.
    quiet = time.monotonic() + 1.0
    until(lambda: time.monotonic() > quiet, "silence")
    gateway.signal(signal.SIGSTOP)
    # Longer than a stall: to the clock, everybody has been silent.
    paused = time.monotonic() + 5.0
    until(lambda: time.monotonic() > paused, "the pause")
    gateway.signal(signal.SIGCONT)
    judged = time.monotonic() + 1.0
    until(lambda: time.monotonic() > judged, "the supervisor has looked at them")
    for pid in before:
        os.kill(pid, signal.SIGCONT)
    gateway.signal(signal.SIGHUP)
    gateway.said("INFO ready: ", 2)
    assert "ERROR" not in gateway.output


def test_an_assignment_passes_through_a_command_line(tmp_path: Path) -> None:
    config_fd = sealed_file("hostname: あ\n" * 100_000)
    ready, ready_fd = os.pipe()
    parent_fd, lifeline = os.pipe()
    seats = Seats(4)
    sent = Assignment(
        *("worker", 3, tmp_path / "a b.yaml", config_fd, ready_fd, parent_fd, {}, seats.seat(3))
    )
    received = Assignment.receive([sent.to_json()])
    assert received == sent
    assert received.config_text() == received.config_text() == "hostname: あ\n" * 100_000
    received.report_failure("one\ntwo\r\n" + "x" * 100_000)
    report = os.read(ready, 1_000_000)
    assert report.startswith(b"failed: one; two; xxx")
    assert report.endswith(b"x\n")
    assert report.count(b"\n") == 1
    os.close(ready)
    received.report_ready()
    seats.close()
    for number in (config_fd, ready_fd, parent_fd, lifeline):
        os.close(number)


@pytest.mark.parametrize("arguments", [[], ["run"], ["{}"], ["[]"], ["{}", "{}"], ['{"role": 1}']])
def test_a_child_started_by_hand_says_so(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match="gateway run"):
        Assignment.receive(arguments)


def test_the_text_of_a_sealed_file_cannot_be_changed() -> None:
    number = sealed_file("text")
    with pytest.raises(PermissionError):
        os.pwrite(number, b"evil", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(number, 0)
    os.close(number)


class Knocking:
    """Connects again and again from several threads, and counts how that went."""

    def __init__(self, gateway: Gateway, port: int, host: str = "127.0.0.1") -> None:
        self.answered: set[int] = set()
        self.count = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._knock, args=(gateway, port, host)) for _ in range(4)
        ]

    def _knock(self, gateway: Gateway, port: int, host: str) -> None:
        while not self._stop.is_set():
            try:
                self.answered.add(gateway.connect(port, host))
                self.count += 1
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))

    def __enter__(self) -> Knocking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_reload_replaces_every_process_and_refuses_no_connection(gateway: Gateway) -> None:
    gateway.start_ready()
    port = gateway.port()
    with Knocking(gateway, port) as knocking:
        for reload in (1, 2, 3):
            old = gateway.pids()
            text = gateway.configure(more=f"# {reload}")
            gateway.signal(signal.SIGHUP)
            gateway.said("INFO ready: ", reload + 1)
            gateway.noted("end", 3 * reload)
            until(lambda old=old: not old & gateway.pids(), "the old are gone")  # type: ignore[misc]
            assert len(gateway.pids()) == 3
            assert all(start["config"] == text for start in gateway.notes("start")[-3:])
    assert knocking.failures == []
    assert knocking.count > 0
    workers = {start["pid"] for start in gateway.notes("start", "worker")}
    assert knocking.answered <= workers
    assert len(knocking.answered) > 2
    assert "ERROR" not in gateway.output


@pytest.mark.parametrize(
    ("more", "behaviour", "reason"),
    [
        ("hostnam: x", {}, "gateway.yaml:6: hostnam: unknown key"),
        ("# bad plugin", {}, "gateway.yaml:10: plugins[1]: no good either"),
        ("# new", {"service": "fail"}, "service: no spool; no luck"),
        ("# new", {"worker": "exit"}, "ended with exit status 3 before it was ready"),
        ("- address: '192.0.2.1:25'", {}, "cannot listen on 192.0.2.1:25"),
    ],
)
def test_a_bad_reload_changes_nothing(
    gateway: Gateway, more: str, behaviour: dict[str, str], reason: str
) -> None:
    text = gateway.configure()
    gateway.start_ready()
    port = gateway.port()
    before = gateway.pids()
    gateway.behave(**behaviour)
    gateway.configure(2, more)
    with Knocking(gateway, port) as knocking:
        gateway.signal(signal.SIGHUP)
        gateway.said("ERROR the reload changed nothing")
        until(lambda: gateway.pids() == before, "only the old ones run")
    assert knocking.failures == []
    assert reason in gateway.output
    assert gateway.said("INFO ready: ", 2).endswith(f"2 workers, listening on 127.0.0.1:{port}")

    # The old configuration is also what a restarted worker gets.
    gateway.behave()
    (victim,) = (s["pid"] for s in gateway.notes("start") if s["pid"] in before and s["index"] == 1)
    starts = len(gateway.notes("start"))
    os.kill(victim, signal.SIGKILL)
    assert gateway.noted("start", starts + 1)[-1]["config"] == text


def test_a_reload_changes_workers_and_addresses(gateway: Gateway) -> None:
    gateway.configure(4)
    gateway.start_ready()
    port = gateway.port()
    with Knocking(gateway, port) as knocking:
        gateway.configure(6)
        gateway.signal(signal.SIGHUP)
        gateway.said("INFO ready: 6 workers")
        until(lambda: len(gateway.pids()) == 7, "one generation")
        gateway.configure(4, "", "127.0.0.1:0", "[::1]:0")
        gateway.signal(signal.SIGHUP)
        second = int(gateway.said("INFO ready: ", 3).rpartition(":")[2])
        until(lambda: len(gateway.pids()) == 5, "one generation")
    # The kernel resets what waits unaccepted on a socket when its last owner closes it, so giving
    # up a slot may cost a connection that has said nothing yet; but none is refused.
    assert [text for text in knocking.failures if "Refused" in text] == []
    workers = {s["pid"] for s in gateway.notes("start", "worker")} & gateway.pids()
    until(lambda: {gateway.connect(port) for _ in range(20)} == workers, "all workers answer")
    with socket.create_connection(("::1", second), DEADLINE) as client:
        assert int(client.makefile().readline()) in workers

    # The same port on every address: the old socket must not stand in the way of the new.
    gateway.configure(1, "", f"0.0.0.0:{port}")
    gateway.signal(signal.SIGHUP)
    gateway.said(f"INFO ready: 1 worker, listening on 0.0.0.0:{port}")
    until(lambda: len(gateway.pids()) == 2, "one generation")
    assert gateway.connect(port) in gateway.pids()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", second), DEADLINE)


def test_a_failed_reload_gives_up_the_new_slots(gateway: Gateway) -> None:
    gateway.configure(1)
    gateway.start_ready()
    port = gateway.port()
    before = gateway.pids()
    gateway.behave(service="fail")
    gateway.configure(4, "", "127.0.0.1:0", "[::1]:0")
    gateway.signal(signal.SIGHUP)
    gateway.said("ERROR the reload changed nothing")
    until(lambda: gateway.pids() == before, "only the old ones run")
    # Were a socket of the new slots still listening, some of these would wait in vain.
    assert {gateway.connect(port) for _ in range(50)} <= before
    assert gateway.said("INFO ready: ", 2).endswith(f"1 worker, listening on 127.0.0.1:{port}")


def test_a_slow_old_worker_does_not_hold_up_the_next_reload(gateway: Gateway) -> None:
    gateway.configure(workers=1)
    gateway.behave(worker="deaf")
    gateway.start_ready()
    (deaf,) = (start["pid"] for start in gateway.notes("start", "worker"))
    gateway.behave()
    gateway.signal(signal.SIGHUP)
    gateway.said("INFO ready: ", 2)
    gateway.noted("deaf", 1)
    gateway.signal(signal.SIGHUP)
    gateway.said("INFO ready: ", 3)
    assert running(deaf)
    gateway.said(f"ERROR worker 0 (pid {deaf}) did not stop within 2.5 s")
    until(lambda: not running(deaf), "the deaf one is killed")
    assert len(gateway.pids()) == 2


def test_a_second_sighup_is_not_lost(gateway: Gateway) -> None:
    gateway.start_ready()
    gateway.behave(service="slow")
    gateway.configure(3)
    gateway.signal(signal.SIGHUP)
    gateway.noted("start", 7)
    gateway.configure(1)
    gateway.signal(signal.SIGHUP)
    (gateway.folder / "go").touch()
    gateway.said("INFO ready: 3 workers")
    gateway.said("INFO ready: 1 worker,")
    until(lambda: len(gateway.pids()) == 2, "one generation")


def test_sigterm_during_start_and_during_reload_stops_everything(gateway: Gateway) -> None:
    gateway.behave(service="slow")
    gateway.start()
    gateway.noted("start", 3)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert gateway.pids() == set()

    gateway.behave()
    gateway.start_ready()
    gateway.behave(service="slow")
    gateway.signal(signal.SIGHUP)
    gateway.noted("start", 9)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert gateway.pids() == set()


def test_a_child_that_does_not_stop_is_killed_in_the_end(gateway: Gateway) -> None:
    gateway.behave(service="deaf")
    gateway.start_ready()
    (deaf,) = (start["pid"] for start in gateway.notes("start", "service"))
    port = gateway.port()
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.pids() == {deaf}, "the workers are gone")
    # A client must not wait on a socket that nobody will serve.
    with pytest.raises(ConnectionRefusedError):
        gateway.connect(port)
    assert gateway.wait() == 0
    assert f"ERROR service (pid {deaf}) did not stop within 2.5 s" in gateway.output
    assert gateway.pids() == set()


def test_a_second_interrupt_does_not_wait(gateway: Gateway) -> None:
    gateway.timing["margin"] = 1000.0
    gateway.behave(worker="deaf")
    gateway.start_ready()
    gateway.signal(signal.SIGINT)
    gateway.noted("deaf", 2)
    gateway.signal(signal.SIGINT)
    assert gateway.wait() == 1
    assert gateway.pids() == set()


def test_children_end_when_the_supervisor_is_killed(gateway: Gateway) -> None:
    gateway.start_ready()
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    assert len(gateway.noted("orphaned", 3)) == 3
    until(lambda: not gateway.pids(), "nobody is left")


# The socket of the service.

HTTP = "http: {address: '127.0.0.2:0'}"


def http_port(gateway: Gateway, times: int = 1) -> int:
    line = gateway.said("HTTP on 127.0.0.2:", times)
    match = re.search(r"listening on 127\.0\.0\.1:\d+, HTTP on 127\.0\.0\.2:(\d+)$", line)
    assert match is not None
    return int(match[1])


def test_the_service_gets_the_socket_of_http(gateway: Gateway) -> None:
    gateway.configure(2, HTTP)
    gateway.start_ready()
    port = http_port(gateway)
    addresses = {start["role"]: start["addresses"] for start in gateway.notes("start")}
    assert addresses == {"worker": ["127.0.0.1:0"], "service": ["127.0.0.2:0"]}
    (service,) = (start["pid"] for start in gateway.notes("start", "service"))
    assert {gateway.connect(port, "127.0.0.2") for _ in range(10)} == {service}
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        gateway.connect(port, "127.0.0.2")


def test_what_waits_for_a_dead_service_is_served_by_the_next(gateway: Gateway) -> None:
    gateway.timing["settled"] = 1000.0
    gateway.timing["backoff"] = (0.3,)
    gateway.configure(1, HTTP)
    gateway.start_ready()
    port = http_port(gateway)
    (first,) = (start["pid"] for start in gateway.notes("start", "service"))
    os.kill(first, signal.SIGKILL)
    until(lambda: not running(first), "the service is dead")
    second = gateway.connect(port, "127.0.0.2")
    assert second != first
    assert [start["pid"] for start in gateway.notes("start", "service")] == [first, second]


def test_a_reload_hands_the_socket_of_http_over(gateway: Gateway) -> None:
    gateway.configure(1, HTTP)
    gateway.start_ready()
    port = http_port(gateway)
    with Knocking(gateway, port, "127.0.0.2") as knocking:
        for reload in (1, 2, 3):
            old = gateway.pids()
            gateway.configure(1, f"{HTTP}\n# {reload}")
            gateway.signal(signal.SIGHUP)
            assert http_port(gateway, reload + 1) == port
            until(lambda old=old: not old & gateway.pids(), "the old are gone")  # type: ignore[misc]
            new = gateway.notes("start", "service")[reload]["pid"]
            until(lambda new=new: new in knocking.answered, "the new one answers")  # type: ignore[misc]
    assert knocking.failures == []
    # Without the section nobody listens there any more.
    gateway.configure(1)
    gateway.signal(signal.SIGHUP)
    gateway.said("INFO ready: ", 5)
    until(lambda: len(gateway.pids()) == 2, "one generation")
    with pytest.raises(ConnectionRefusedError):
        gateway.connect(port, "127.0.0.2")


@pytest.mark.parametrize(
    ("address", "listen", "status", "reason"),
    [
        ("192.0.2.1:8025", "127.0.0.1:0", 1, "cannot listen on 192.0.2.1:8025: Cannot assign"),
        ("127.0.0.1:9", "127.0.0.1:9", 2, "http.address: 127.0.0.1:9 is already taken by listen"),
    ],
)
def test_an_address_of_http_that_cannot_be_is_told(
    gateway: Gateway, address: str, listen: str, status: int, reason: str
) -> None:
    gateway.configure(1, f"http: {{address: '{address}'}}", listen)
    gateway.start()
    assert gateway.wait() == status
    assert reason in gateway.output
    assert gateway.notes("start") == []
