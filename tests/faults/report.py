"""Prints the table of docs/reliability.md with the figures of the last long runs.

python -m tests.faults.report [--short] [--write]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import click

from tests.faults.figures import ROOT, Result, Value, results

DOCUMENT = ROOT / "docs/reliability.md"

_ROW = re.compile(r"(\| *(\d+) *\|.*\|)[^|]*\|")
"""A numbered row: all but its last cell, and its number."""


def _number(value: int | float) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}"


def _text(values: Sequence[Value]) -> str:
    """One value, or what several runs of a test came to."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        return "; ".join(dict.fromkeys(map(str, values)))
    least, most = _number(min(numbers)), _number(max(numbers))
    return least if least == most else f"{least} to {most}"


def _runs(runs: Sequence[Result]) -> str:
    """The figures of one test, of all its parameters together."""
    names = dict.fromkeys(name for run in runs for name in run.values)
    figures = []
    for name in names:
        values = [run.values[name] for run in runs if name in run.values]
        figures.append(f"{name.replace('_', ' ')} {_text(values)}")
    text = ", ".join(figures)
    return text if len(runs) == 1 else f"{len(runs)} runs, each: {text}"


def figures_by_row(found: Iterable[Result]) -> dict[int, str]:
    """The last column, by row; the day is that of the oldest figure in it."""
    rows: dict[int, str] = {}
    for row, of_row in groupby(sorted(found, key=lambda one: (one.row, one.test)), _row_of):
        runs = list(of_row)
        tests = [list(those) for _, those in groupby(runs, _name_of)]
        day = min(one.day for one in runs)
        rows[row] = f"{day}: " + "<br>".join(map(_runs, tests))
    return rows


def _row_of(result: Result) -> int:
    return result.row


def _name_of(result: Result) -> str:
    return result.test.partition("[")[0]


def filled(table: str, figures: Mapping[int, str]) -> str:
    """A text with tables; the last cell of each numbered row that has figures is replaced."""
    lines = []
    for line in table.splitlines():
        match = _ROW.fullmatch(line)
        if match is not None and (text := figures.get(int(match[2]))) is not None:
            line = f"{match[1]} {text.replace('|', '/')} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--short", is_flag=True, help="Take the figures of the short form.")
@click.option("--write", is_flag=True, help=f"Write them into {DOCUMENT.relative_to(ROOT)}.")
def report(short: bool, write: bool) -> None:
    """Prints the rows of docs/reliability.md with the figures of the last long runs.

    A row that was not part of one, as it has no long form, has those of the short form.
    """
    figures = figures_by_row(results(long=False))
    if not short:
        figures = {row: f"{text} (short form)" for row, text in figures.items()}
        figures |= figures_by_row(results(long=True))
    if not figures:
        raise click.ClickException("there are no figures yet; run: make test-long")
    text = filled(DOCUMENT.read_text(), figures)
    if write:
        DOCUMENT.write_text(text)
        return
    for line in text.splitlines():
        if _ROW.fullmatch(line):
            click.echo(line)


if __name__ == "__main__":
    report()
