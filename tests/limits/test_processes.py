"""Limits in several processes, some of which are killed."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path
from types import FrameType

import pytest

from gateway.limits import Cell, Limits, Rate, Take
from gateway.limits.gcra import arrive
from gateway.limits.layout import PLACES
from gateway.limits.limits_file import LOCKED, UNLOCKED, LimitsFile
from tests.limits.soundness import check

ROUNDS = 10

ROOT = Path(__file__).parent.parent.parent


def program(work: str, path: Path, *arguments: object) -> tuple[str, str]:
    """What it says, and what its log is."""
    command = [sys.executable, "-m", "tests.limits.program", work, str(path), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "seconds", "pause"), [("5000/s", 1.5, 0), ("400/s", 3, 0.003), ("10/s", 2, 0.005)]
)
def test_four_processes_get_the_rate_and_no_more(
    tmp_path: Path, text: str, seconds: float, pause: float
) -> None:
    told, _ = program("pace", tmp_path / "limits", text, 4, seconds, pause)
    taken = sum(map(int, told.split()))
    asked = array("d")
    for number in range(4):
        asked.frombytes((tmp_path / f"asked{number}").read_bytes())
    times = sorted(asked)
    rate = Rate.parse(text)
    assert taken <= (times[-1] - times[0]) / rate.interval + rate.burst + 1
    # On a busy machine nobody may ask for a while: one who asks at all these times gets as many.
    one, arrival = 0, 0.0
    for now in times:
        wait, after = arrive(arrival, now, rate.interval, rate.burst, 1)
        if not wait:
            one, arrival = one + 1, after
    assert 0.98 * one <= taken <= 1.01 * one + 1


def test_no_change_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    program("count", path, 4, 2000)
    limits = Limits(path)
    assert {cell.key: cell.value for cell in limits.cells("", 1e9)} == {
        "all": 8000,
        **{f"own{number}": 2000 for number in range(4)},
    }
    assert limits.read("all", 1e9) == Cell("all", 8000, 2e9, "8000.0")
    limits.close()


def test_no_ceiling_is_exceeded(tmp_path: Path) -> None:
    program("hold", tmp_path / "limits", 4, 300, 2)
    limits = Limits(tmp_path / "limits")
    assert limits.leases("") == {}
    limits.close()


@pytest.mark.parametrize("state", ["missing", "damaged"])
def test_processes_that_make_the_file_at_once_share_it(tmp_path: Path, state: str) -> None:
    path = tmp_path / "limits"
    _, log = program("begin", path, 8, state, ROUNDS)
    assert [path.name for path in tmp_path.iterdir()] == ["limits"]
    said = [line for line in log.splitlines() if line.startswith(f"{path} is damaged")]
    assert len(said) == (ROUNDS if state == "damaged" else 0)
    assert log.splitlines() == said


def test_processes_may_be_killed_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    _, log = program("die", path, 400)
    assert log == ""
    check(path)
    limits = Limits(path)
    for cell in limits.cells("", 0):
        assert cell.text == f"{cell.key} {cell.value} {cell.expires}" * 5
    assert limits.leases("") == {}
    lease = limits.lease({"lease": 1, "lease1": 1})
    assert lease is not None
    later = time.time() + 100
    assert limits.take([Take("after", Rate(1, 1))], later) == 0
    assert limits.take([Take("fixed", Rate(1, 3600))], later) < 3600 * 50
    limits.close()


def test_a_full_disk_ends_nobody(tmp_path: Path) -> None:
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*own, *mount], check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk of their own")
    command = [sys.executable, "-m", "tests.limits.program", "fill", str(tmp_path / "limits")]
    subprocess.run(
        [*own, "sh", "-c", f"{shlex.join(mount)} && exec {shlex.join(command)}"],
        cwd=ROOT,
        check=True,
        timeout=100,
    )


class Interrupted(BaseException):
    """As the watchdog's."""


SENDER = """
import os, random, sys, time
for _ in range(int(sys.argv[3])):
    time.sleep(random.uniform(float(sys.argv[4]), float(sys.argv[5])))
    os.kill(int(sys.argv[1]), int(sys.argv[2]))
"""


def sender(times: int, least: float, most: float) -> subprocess.Popen[bytes]:
    """Sends this process so many signals, with pauses of so many seconds."""
    arguments = map(str, (os.getpid(), int(signal.SIGUSR2), times, least, most))
    return subprocess.Popen([sys.executable, "-c", SENDER, *arguments])


# A signal that comes while Python collects a lease raises nothing; that is only told.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hook_may_be_interrupted_anywhere(tmp_path: Path) -> None:
    """An exception out of a signal handler leaves no lock, and no disorder."""
    limits = Limits(tmp_path / "limits", places=32)
    limits.open()
    other = LimitsFile.open(limits.path, PLACES)
    armed, interrupted, number = False, 0, 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interrupted

    before = signal.signal(signal.SIGUSR2, interrupt)
    sending = sender(500, 0.0002, 0.002)
    try:
        while sending.poll() is None:
            try:
                armed = True
                for _ in range(100):
                    number += 1
                    now = 1e9 + number
                    takes = [Take(f"{number % 50}", Rate(1, 1)), Take("same", Rate(1, 1))]
                    limits.take(takes, now)
                    limits.change(f"{number % 7}", now, lambda _: (1, 2e9, "text"))
                    limits.remove(f"{number % 5}")
                    lease = limits.lease({"a": 10**4, "b": 10**4})
                    if lease is not None:
                        lease.release()
                armed = False
            except Interrupted:
                interrupted += 1
            # Raises BlockingIOError if the lock is held.
            fcntl.fcntl(other.descriptor, fcntl.F_OFD_SETLK, LOCKED)
            fcntl.fcntl(other.descriptor, fcntl.F_OFD_SETLK, UNLOCKED)
    finally:
        sending.wait()
        signal.signal(signal.SIGUSR2, before)
    assert interrupted > 100
    other.close()
    check(limits.path)
    limits.close()


def test_who_waits_for_the_lock_can_be_interrupted(tmp_path: Path) -> None:
    limits = Limits(tmp_path / "limits")
    limits.open()
    other = LimitsFile.open(limits.path, PLACES)
    fcntl.fcntl(other.descriptor, fcntl.F_OFD_SETLK, LOCKED)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR2, interrupt)
    sending = sender(1, 0.3, 0.3)
    try:
        with pytest.raises(Interrupted):
            limits.take([Take("key", Rate(1, 1))], 1e9)
    finally:
        sending.wait()
        signal.signal(signal.SIGUSR2, before)
    other.close()
    assert limits.take([Take("key", Rate(1, 1))], 1e9) == 0
    limits.close()
