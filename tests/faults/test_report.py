"""The figures of the tests, on their way to docs/reliability.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.faults.figures import ROOT, Figures, Result, results
from tests.faults.report import DOCUMENT, figures_by_row, filled, report

DAY = "2026-04-15"
TABLE = "| # | fault | last |\n| --- | --- | --- |\n| 1 | kill | old |\n| 12 | a, b |  |\n"


def test_figures_are_kept_by_test_and_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_FAULTS_FIGURES", str(tmp_path))
    Figures("test_a[x/y]", long=True)(3, lost=1)
    Figures("test_a[x/y]", long=True)(3, lost=0)
    Figures("test_a[x/y]", long=False)(3, lost=2)
    (kept,) = results(long=True)
    assert (kept.row, kept.test, kept.values) == (3, "test_a[x/y]", {"lost": 0})


def test_runs_of_one_test_are_told_together() -> None:
    found = [
        Result(12, "test_b", DAY, {"seconds": 0.12345, "said": "yes"}),
        Result(1, "test_a[2]", "2026-04-16", {"bytes_read": 2500, "lost": 0}),
        Result(1, "test_a[1]", DAY, {"bytes_read": 12, "lost": 0}),
    ]
    assert figures_by_row(found) == {
        1: f"{DAY}: 2 runs, each: bytes read 12 to 2,500, lost 0",
        12: f"{DAY}: seconds 0.123, said yes",
    }


def test_only_the_last_cell_of_a_row_with_figures_changes() -> None:
    expected = TABLE.replace("| old |", "| new |")
    assert filled(TABLE, {1: "new", 7: "none"}) == expected
    assert filled(expected, {12: "x"}) == expected.replace("| a, b |  |", "| a, b | x |")


def test_each_row_of_the_document_names_its_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_FAULTS_FIGURES", str(tmp_path))
    runner = CliRunner()
    assert "make test-long" in runner.invoke(report, []).output
    for row in range(1, 18):
        Figures("test_a", long=True)(row, lost=0)
    rows = runner.invoke(report, []).output.splitlines()
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, 18))
    assert all(row.endswith(": lost 0 |") for row in rows)
    text = DOCUMENT.read_text()
    modules = {path.name for path in (ROOT / "tests/faults").glob("test_*.py")}
    unnamed = {name for name in modules if name not in text}
    assert unnamed == {Path(__file__).name}
