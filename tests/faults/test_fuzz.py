"""Odd inputs for everything that reads what strangers wrote: the targets of the folder `fuzz`.

Without coverage to lead it the short form finds what is easily broken; the long form goes on for
minutes. `python -m fuzz TARGET` does the same for as long as one likes, with atheris where it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import loop, mutation, targets
from fuzz.__main__ import main
from fuzz.target import BrokenLawError, Target, law
from tests.conftest import Scale
from tests.faults.figures import Figures

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def loaded() -> Iterator[dict[str, Target]]:
    """The targets that were asked for, each made once."""
    found: dict[str, Target] = {}
    yield found
    for target in found.values():
        target.close()


def target_of(loaded: dict[str, Target], name: str) -> Target:
    if name not in loaded:
        loaded[name] = targets.load(name)
    return loaded[name]


@pytest.mark.parametrize("name", targets.NAMES)
def test_no_mutation_breaks_a_law(
    loaded: dict[str, Target], name: str, scale: Scale, figures: Figures
) -> None:
    seed = scale(0, Random().randrange(1 << 30))
    target = target_of(loaded, name)
    count, crashes = loop.run(target, seconds=scale(1.0, 120.0), seed=seed)
    assert count > 0
    assert crashes == [], f"seed {seed}: {crashes[0].data!r}\n{crashes[0].error}"
    figures(12, inputs=count, crashes=0)


@pytest.mark.parametrize("name", targets.NAMES)
def test_no_octets_at_all_break_a_law(loaded: dict[str, Target], name: str, scale: Scale) -> None:
    target = target_of(loaded, name)
    pieces = st.one_of(st.sampled_from(target.tokens), st.binary(max_size=8))

    @settings(
        max_examples=scale(30, 5000),
        deadline=None,
        derandomize=scale(True, False),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(pieces, max_size=40).map(b"".join))
    def run(data: bytes) -> None:
        target.check(data)

    run()


# What was found once.

FOUND = [
    ("yaml", b"plugins:\n- o:\n   2:\n"),
    ("yaml", b"plugins:\n- o:\n   ~: 1\n   x: 1\n"),
    ("yaml", b"~: 1\nlisten: []\n"),
    ("yaml", b"&http:\n  addr0.1:8025\nplugins:\n  - /e/today.py: {}\n"),
    ("yaml", b'hostname: "\\x1b"'),
    ("yaml", b'http:\n address: "\\ud800"'),
    ("yaml", b"plugins:\n- .:\n   when: {stream: d\xe2\x80\xa8t}"),
    ("mime", b"Content-Type:;charset=u7\r\n\r\n+ANmentum "),
    ("mime", b"Content-Type: text/html; charset=utf-7\r\n\r\n<p>+2D0-</p>\r\n"),
    ("header", b"Subject: =?utf-7?Q?+2D0-?=\r\n\r\n"),
    ("smtp", b"EHLO g\r\nMAIL FROM:<s@m>\r\nRCPT TO:<> ORCPT=2;\r\n"),
]


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_once_is_not_found_again(
    loaded: dict[str, Target], name: str, data: bytes
) -> None:
    target_of(loaded, name).check(data)


# The fuzzer itself: one that finds nothing in anything is worse than none.


def fragile(data: bytes) -> None:
    law(b"<<" not in data, "two brackets")
    if data.startswith(b"\xff"):
        raise ValueError("not text")


FRAGILE = Target("fragile", fragile, [b"hello <world>", b"<a href='x'>y</a>"], [b"<"])


def test_a_fault_is_found_and_cut_to_what_it_needs() -> None:
    count, crashes = loop.run(FRAGILE, seconds=30, most=20_000)
    assert count == 20_000
    assert sorted(crash.data for crash in crashes) == [b"<<", b"\xff"]
    assert any("BrokenLawError: two brackets" in crash.error for crash in crashes)


def test_equal_seeds_give_equal_inputs() -> None:
    def first(seed: int) -> list[bytes]:
        made = loop.inputs(FRAGILE, seed)
        return [next(made) for _ in range(200)]

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(1)[:4:2] == list(FRAGILE.seeds)


def test_what_takes_too_long_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SLOWEST", 0.01)

    def slow(data: bytes) -> None:
        sum(range(3_000_000))

    error = loop.attempt(slow, b"x")
    assert isinstance(error, BrokenLawError)
    assert "of CPU" in str(error)
    assert loop.attempt(lambda data: None, b"x") is None


def test_mutations_stay_within_their_bound() -> None:
    random = Random(1)
    for _ in range(300):
        made = mutation.mutated(random, [b"x" * mutation.LARGEST, b"y"], [b"token"])
        assert len(made) <= mutation.LARGEST


def test_the_command(tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(main, ["reply", "--seconds", "1", "--engine", "mutation"])
    assert done.exit_code == 0, done.output
    assert "reply: " in done.output
    assert "0 kinds of crashes" in done.output
    file = tmp_path / "input"
    file.write_bytes(b"250 Ok\r\n")
    assert runner.invoke(main, ["reply", "--input", str(file)]).exit_code == 0
    assert runner.invoke(main, ["nothing"]).exit_code == 2
    done = runner.invoke(main, ["all", "--engine", "atheris"])
    assert done.exit_code == 2
    wanted = "takes one target" if find_spec("atheris") else "pip install mail-gateway[fuzz]"
    assert wanted in done.output


def test_atheris_runs_a_target_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="pip install mail-gateway[fuzz]")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "reply", "--seconds", "1", "--crashes", str(tmp_path)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
