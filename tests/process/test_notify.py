from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.process.notify import Notifier, watchdog_interval

Receive = Callable[[], list[str]]


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Receive]]:
    """The address of a notification socket, and a function that gives the next message's lines."""
    if request.param == "path":
        address = name = os.path.relpath(tmp_path / "notify")
    else:
        name = f"@gateway-test-{secrets.token_hex(8)}"
        address = "\0" + name[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        yield name, lambda: receiver.recv(65536).decode().split("\n")


def test_states(listening: tuple[str, Receive]) -> None:
    address, receive = listening
    notifier = Notifier(address)

    notifier.ready("4 workers")
    assert receive() == ["READY=1", "STATUS=4 workers"]

    before = time.monotonic_ns() // 1000
    notifier.reloading()
    reloading, monotonic, status = receive()
    assert (reloading, status) == ("RELOADING=1", "STATUS=reloading")
    name, _, value = monotonic.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000

    notifier.stopping()
    assert receive() == ["STOPPING=1", "STATUS=stopping"]
    notifier.alive()
    assert receive() == ["WATCHDOG=1"]


def test_a_value_cannot_forge_a_state(listening: tuple[str, Receive]) -> None:
    address, receive = listening
    Notifier(address).ready("one\nSTOPPING=1\rX=2")
    assert receive() == ["READY=1", "STATUS=one STOPPING=1 X=2"]


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_socket_nothing_happens(
    address: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier(address).ready()
    assert not caplog.records


def test_a_socket_that_is_gone_is_logged_and_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier(os.path.relpath(tmp_path / "gone")).ready()
    assert "cannot notify systemd" in caplog.text


def test_a_receiver_that_does_not_read_does_not_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = os.path.relpath(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        notifier = Notifier(address)
        while not caplog.records:
            notifier.alive()
    assert "cannot notify systemd" in caplog.text


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval(environ) == interval
