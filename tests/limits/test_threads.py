"""What other threads of a process may do while it changes limits: nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.limits import Limits, Rate, Take
from gateway.limits.layout import PLACES
from gateway.limits.limits_file import LimitsFile
from tests.limits.conftest import Open

NOW = 1_900_000_000.0
ROUNDS = 500


class Watch:
    """A thread that takes the lock and gives it up again, without end.

    Attributes:
        held: how often it held it.
        seen: how often it ran while the thread that it watches held it.
    """

    def __init__(self, file: LimitsFile) -> None:
        self._file = file
        self._over = False
        self.held = 0
        self.seen = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._over = True
        self._thread.join()

    def _run(self) -> None:
        while not self._over:
            if self._file.lock():
                self.seen += 1
            else:
                self.held += 1
                time.sleep(0.0001)
                self._file.unlock()
            time.sleep(0)


@pytest.fixture
def _only_by_consent() -> Iterator[None]:
    """A thread runs until it gives up the interpreter by itself."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_only_by_consent")
def test_no_thread_runs_while_another_holds_the_lock(limits: Limits, open_limits: Open) -> None:
    """It might go on for long, and all processes would wait."""
    other = open_limits()
    taken = other.lease({"taken": 1})
    assert taken is not None
    takes = [Take(f"rate{number}", Rate(1e6, 1)) for number in range(3)]
    text = "text"

    def work(number: int) -> None:
        limits.take(takes, NOW + number)
        limits.take([Take("rate0", Rate(1e6 + number, 1))], NOW + number)
        limits.change("cell", NOW, lambda _: (number, NOW + 9, text))
        limits.change(f"new{number % 20}", NOW, lambda _: (number, NOW + 9, text))
        limits.remove(f"new{number % 20}")
        lease = limits.lease({"free": 9})
        assert lease is not None
        lease.release()
        assert limits.lease({"taken": 1}) is None
        assert limits.leases("") == {"taken": 1}

    work(0)  # makes room for all keys
    watch = Watch(LimitsFile.open(limits.path, PLACES))
    try:
        for number in range(ROUNDS):
            work(number)
            time.sleep(0.00005)  # the watch gets the interpreter, and may get the lock
    finally:
        watch.stop()
    assert watch.held > 10
    assert watch.seen == 0
    taken.release()
