"""The order of things: every case, and in each case the systems in turn."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.case import Case, Trial
from bench.error import BenchError
from bench.report import Failure, Result
from bench.systems.system import System

# What one system can do wrong. The others are measured all the same.
_WRONG = (BenchError, OSError, subprocess.SubprocessError)


def measure(
    case: Case,
    systems: Sequence[System],
    repeat: int,
    folder: Path,
    progress: Callable[[str], None],
) -> Result:
    """Measures each of `systems` `repeat` times in one case, in turn: A B C A B C.

    So what disturbs the machine for a while disturbs all of them. All run for the whole case;
    those whose turn it is not have nothing to do.
    """
    result = Result(case)
    with ExitStack() as stack:
        trials: list[tuple[System, Trial]] = []
        for system in systems:
            progress(f"{case.name}: {system.name} starts")
            place = folder / case.name / system.name
            place.mkdir(parents=True)
            try:
                trials.append((system, stack.enter_context(case.trial(system, place))))
            except _WRONG as error:
                result.failures[system.name] = _failure(error, system)
        for turn in range(1, repeat + 1):
            for system, trial in trials:
                if system.name in result.failures:
                    continue
                progress(f"{case.name}: {system.name} {turn}/{repeat}")
                try:
                    measured = trial.measure()
                except _WRONG as error:
                    result.failures[system.name] = _failure(error, system)
                else:
                    result.values.setdefault(system.name, []).append(measured)
        progress(f"{case.name}: stopping")
    return result


def _failure(error: Exception, system: System) -> Failure:
    own = error.log if isinstance(error, BenchError) else ""
    return Failure(str(error) or type(error).__name__, own or system.log())
