"""What the processes of the tests do with a file of limits: `program WORK PATH ARGUMENT...`.

It is run on its own, so that it may fork at will.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import random
import signal
import sys
import time
import traceback
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.limits import Cell, Limits, LimitsFullError, Rate, Take
from tests.limits.soundness import check


def forked(count: int, work: Callable[[int], None]) -> None:
    """Runs that in so many processes at a time; raises if one of them fails."""
    gate, opener = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            try:
                os.close(opener)
                os.read(gate, 1)
                work(number)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        children.append(child)
    os.close(gate)
    os.close(opener)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(ends), ends


def pace(path: Path, text: str, processes: str, seconds: str, pause: str) -> None:
    """Takes as much of a rate as there is. Each process prints how many it got, and writes down
    when it asked.
    """
    end = time.time() + float(seconds)
    out = os.dup(1)

    def work(number: int) -> None:
        limits, taken, asked = Limits(path), 0, array("d")
        takes = [Take("key", Rate.parse(text))]
        while (now := time.time()) < end:
            asked.append(now)
            if limits.take(takes, now) == 0:
                taken += 1
            else:
                time.sleep(float(pause))
        path.with_name(f"asked{number}").write_bytes(asked.tobytes())
        os.write(out, f"{taken}\n".encode())

    forked(int(processes), work)


def count(path: Path, processes: str, times: str) -> None:
    """Counts up one cell, and one of each process's own."""

    def add(cell: Cell | None) -> tuple[float, float, str]:
        value = (cell.value if cell else 0) + 1
        return value, 2e9, str(value)

    def work(number: int) -> None:
        limits = Limits(path)
        for done in range(int(times)):
            limits.change("all", 1e9, add)
            assert limits.change(f"own{number}", 1e9, add).value == done + 1

    forked(int(processes), work)


def hold(path: Path, processes: str, times: str, ceiling: str) -> None:
    """Takes leases and gives them back; a file for each that is held shows
    whether there are too many."""
    held = path.with_name("held")
    held.mkdir()

    def work(number: int) -> None:
        limits, done = Limits(path), 0
        while done < int(times):
            lease = limits.lease({"key": int(ceiling), "other": 1000})
            if lease is not None:
                mark = held / f"{number}-{done}"
                mark.touch()
                assert len(list(held.iterdir())) <= int(ceiling)
                mark.unlink()
                lease.release()
                done += 1

    forked(int(processes), work)


def begin(path: Path, processes: str, state: str, rounds: str) -> None:
    """Makes the file in several processes at once, again and again."""
    for number in range(int(rounds)):
        path.unlink(missing_ok=True)
        if state == "damaged":
            path.write_bytes(b"no limits" * 1000)
        count(path, processes, "3")
        limits = Limits(path)
        cell = limits.read("all", 1e9)
        assert cell is not None
        assert cell.value == 3 * int(processes), (number, cell)
        limits.close()


def die(path: Path, kills: str) -> None:
    """Kills processes in the middle of whatever they do with the limits, so many times."""
    chance = random.Random(1)
    alive: list[int] = []
    try:
        for number in range(int(kills)):
            child = os.fork()
            if not child:
                try:
                    busy(path, number)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            alive.append(child)
            if len(alive) == 4:
                time.sleep(chance.uniform(0, 0.008))
                victim = alive[chance.randrange(4)]
                os.kill(victim, signal.SIGKILL)
                alive.remove(victim)
                assert os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL
    finally:
        for victim in alive:
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)


def busy(path: Path, seed: int) -> None:
    """Does everything that there is to do, in a table that is too small for it, without end."""
    chance = random.Random(seed)
    limits = Limits(path, places=64)
    fast, slow = Rate(1000, 1, 5), Rate(1, 3600)
    held = []
    while True:
        now = time.time()
        name = f"{chance.randrange(40)}"
        what = chance.randrange(8)
        try:
            if what < 3:
                limits.take([Take(name, fast), Take("x" + name, fast), Take("y", fast)], now)
            elif what == 3:
                limits.take([Take("fixed", chance.choice([fast, slow]))], now)
            elif what == 4:
                limits.change(name, now, functools.partial(_next, name, now + 0.05))
            elif what == 5:
                limits.remove(name)
            elif what == 6:
                lease = limits.lease({"lease": 10**6, f"lease{name[0]}": 10**6})
                if lease is not None:
                    held.append(lease)
            elif held:
                held.pop().release()
        except LimitsFullError:
            pass


def _next(name: str, expires: float, cell: Cell | None) -> tuple[float, float, str]:
    value = (cell.value if cell else 0.0) + 1
    return value, expires, f"{name} {value} {expires}" * 5


def fill(path: Path) -> None:
    """Fills the disk; what has a place can still be used, and what has none is an error."""
    limits = Limits(path)
    for number in range(50):
        limits.change(f"{number}", 1e9, lambda _: (1, 2e9, ""))
        assert limits.take([Take(f"{number}", Rate(1, 3600))], 1e9) == 0
    no_space = "No space left on device"
    filling = path.with_name("filling").open("wb", buffering=0)
    with filling, pytest.raises(OSError, match=no_space):
        filling.writelines(itertools.repeat(bytes(512)))
    problems = []
    for number in range(500):
        now = 1e9 + number
        try:
            assert limits.take([Take(f"more{number}", Rate(1, 300))], now) == 0
        except OSError as error:
            problems.append(error.errno)
        limits.change(f"{number % 50}", now, lambda _: (2, 2e9, "x" * 250))
        assert limits.take([Take(f"{number % 50}", Rate(1, 3600))], now) > 0
    assert set(problems) == {errno.ENOSPC}
    assert 100 < len(problems) < 490, len(problems)
    with pytest.raises(OSError, match=no_space):
        Limits(path.with_name("another")).open()
    path.with_name("filling").unlink()
    for number in range(500):
        limits.change(f"new{number}", 1e9, lambda _: (1, 2e9, ""))
    assert len(limits.cells("", 1e9)) == 550
    limits.close()
    check(path)


WORKS: dict[str, Callable[..., None]] = {
    "pace": pace,
    "count": count,
    "hold": hold,
    "begin": begin,
    "die": die,
    "fill": fill,
}

if __name__ == "__main__":
    work, path, *arguments = sys.argv[1:]
    WORKS[work](Path(path), *arguments)
