"""What the tests of faults measured, kept as files from which docs/reliability.md is filled."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]

Value = int | float | str


@dataclass(frozen=True)
class Result:
    """What one test measured.

    Attributes:
        row: the row of the table in docs/reliability.md.
        test: the name of the test, with its parameters.
        day: when, as 2026-04-15, UTC.
        values: the figures, named by words with `_` between them.
    """

    row: int
    test: str
    day: str
    values: dict[str, Value]


def folder(long: bool) -> Path:
    """Where the figures of the long or of the short form are.

    They are below build/, or in the folder that GATEWAY_FAULTS_FIGURES names.
    """
    base = os.environ.get("GATEWAY_FAULTS_FIGURES")
    return Path(base or ROOT / "build/faults") / ("long" if long else "short")


class Figures:
    """Takes the figures of a test: `figures(7, failures=24, lost=0)`.

    Args:
        test: the name of the test.
        long: whether the long form runs.
    """

    def __init__(self, test: str, long: bool) -> None:
        self._test = test
        self._folder = folder(long)

    def __call__(self, row: int, **values: Value) -> None:
        """Keeps the figures of a row in place of those of the test's last run."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "-", f"{row:02}-{self._test}")
        day = datetime.now(UTC).date().isoformat()
        text = json.dumps({"row": row, "test": self._test, "day": day, "values": values})
        (self._folder / f"{name}.json").write_text(text + "\n")


def results(long: bool) -> Iterator[Result]:
    """The figures of the last runs, by row and test."""
    for path in sorted(folder(long).glob("*.json")):
        yield Result(**json.loads(path.read_text()))
