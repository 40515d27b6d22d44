"""Every operation, ended before each of its lines: as if the process had been killed there."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from gateway import limits as package
from gateway.limits import Cell, Limits, Rate, Take
from tests.limits.soundness import check

NOW = 1_900_000_000.0
OURS = str(Path(package.__file__).parent)
FAST, SLOW = Rate(100, 1, 5), Rate(1, 3600)
OLD, NEW = Cell("cell", 1, NOW + 9, "old"), Cell("cell", 2, NOW + 8, "a new text" * 20)


class Ended(BaseException):
    """Here it ends."""


def run(work: Callable[[], object], lines: int) -> bool:
    """Runs that many lines of the package's of it. True: that was all of it."""
    left = lines

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        # What ends while Python collects an object raises nothing.
        code = frame.f_code
        if not code.co_filename.startswith(OURS) or code.co_name == "__del__":
            return None
        if event == "line":
            left -= 1
            if left < 0:
                raise Ended
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Ended:
        return False
    finally:
        sys.settrace(before)
    return True


@dataclass(frozen=True)
class Case:
    """What is there, what is done, and what has to be true wherever that ends."""

    prepare: Callable[[Limits], object]
    work: Callable[[Limits], object]
    holds: Callable[[Limits], bool]


def cell(limits: Limits, cell: Cell, now: float = NOW) -> Cell:
    return limits.change(cell.key, now, lambda _: (cell.value, cell.expires, cell.text))


def full_of_old(limits: Limits) -> None:
    for number in range(3):
        limits.change(f"{number}", NOW - 100, lambda _: (1, NOW - 50, ""))
    limits.take([], NOW)


def taken(limits: Limits, *keys: str, rate: Rate = FAST) -> float:
    return limits.take([Take(key, rate) for key in keys], NOW)


CASES = {
    "new rates in old places": Case(
        full_of_old,
        lambda limits: taken(limits, "a", "b"),
        lambda limits: all(3.99 < one.available < 5.01 for one in limits.rates("", NOW)),
    ),
    "rates that are there": Case(
        lambda limits: taken(limits, "a", "b"),
        lambda limits: taken(limits, "a", "b"),
        lambda limits: all(2.99 < one.available < 4.01 for one in limits.rates("", NOW)),
    ),
    "a slower rate": Case(
        lambda limits: taken(limits, "a"),
        lambda limits: taken(limits, "a", rate=SLOW),
        lambda limits: taken(limits, "a", rate=SLOW) <= 3600.1,
    ),
    "a new cell": Case(
        full_of_old,
        lambda limits: cell(limits, NEW),
        lambda limits: limits.read("cell", NOW) in (None, NEW),
    ),
    "a cell that is there": Case(
        lambda limits: cell(limits, OLD),
        lambda limits: cell(limits, NEW),
        lambda limits: limits.read("cell", NOW) in (OLD, NEW),
    ),
    "a cell that goes": Case(
        lambda limits: cell(limits, OLD),
        lambda limits: limits.remove("cell"),
        lambda limits: limits.read("cell", NOW) in (None, OLD),
    ),
    "a lease": Case(
        full_of_old,
        lambda limits: limits.lease({"a": 1, "b": 1}),
        lambda limits: limits.leases("") == {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_may_end_anywhere(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    for lines in itertools.count():
        path = tmp_path / f"{lines}"
        limits, watching = Limits(path, places=3), Limits(path)
        case.prepare(limits)
        # What others remember must not outlive what they remember it of.
        watching.read("cell", NOW)
        done = run(lambda limits=limits: case.work(limits), lines)  # type: ignore[misc]
        limits.close()
        check(path)
        assert case.holds(watching), lines
        after = Limits(path)
        assert after.read("cell", NOW) == watching.read("cell", NOW)
        assert after.take([Take("x", FAST), Take("y", FAST)], NOW + 10_000) == 0
        assert after.lease({"z": 1}) is not None
        after.close()
        watching.close()
        path.unlink()
        if done:
            break
    assert lines > 10
