"""docs/plugins/testing.md: its tests pass, its failures look as shown, its names exist."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from gateway import testing
from gateway.testing import (
    AttemptResult,
    Changes,
    CommandResult,
    Gateway,
    HttpResult,
    MemoryGateway,
    NextHop,
    ObserveResult,
    QueuedMessage,
    Result,
)
from tests.testing.test_pytest_plugin import registered

DOCS = Path(__file__).parent.parent.parent / "docs"
TEXT = (DOCS / "plugins" / "testing.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def named(text: str) -> dict[str, str]:
    """The Python blocks that say which file they are."""
    found = (re.match(r"# site/(\S+\.py)\n", block) for block in blocks(text, "python"))
    return {match[1]: match.string for match in found if match is not None}


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *registered(), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with all files that are shown."""
    for name, text in (named((DOCS / "plugins" / "README.md").read_text()) | named(TEXT)).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_tests_that_are_shown_pass(site: Path) -> None:
    shown = [name for name in named(TEXT) if name.startswith("test_")]
    done = pytest_in(site, "-o", "asyncio_default_fixture_loop_scope=function", *shown)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(named(TEXT)[name].count('def test_') for name in shown)} passed" in done.stdout


def test_the_test_fails_as_it_is_shown(site: Path) -> None:
    changed, raised = [block for block in blocks(TEXT, "text") if "AssertionError" in block]
    footer = (site / "footer.py").read_text()
    body = "def message(self, message: Message) -> None:\n"
    for line, block in (
        ('message.headers.change("Subject", "Hello!")', changed),
        ('raise KeyError("customers")', raised),
    ):
        assert body in footer
        (site / "footer.py").write_text(footer.replace(body, f"{body}        {line}\n"))
        done = pytest_in(site, "--tb=short", "test_footer_text.py")
        assert done.returncode == 1
        shown = re.sub(r":\d+:", ":N:", done.stdout)
        for expected in re.sub(r":\d+:", ":N:", block).strip().splitlines():
            assert expected.strip() in re.sub(r" +", " ", shown) or expected in shown, expected


def test_code_without_a_name_runs_by_itself() -> None:
    code = [block for block in blocks(TEXT, "python") if not block.startswith("# site/")]
    assert len(code) == 3
    for block in code:
        done = subprocess.run([sys.executable, "-W", "error", "-c", block], check=False)
        assert done.returncode == 0


def test_what_is_named_exists() -> None:
    with MemoryGateway() as memory:
        gateways = {*dir(memory), *dir(Gateway()), *Gateway.__annotations__}
    known = {"result": _attributes(Result), "gateway": gateways, "hop": {*dir(NextHop())}}
    code = re.findall(r"`([^`\n]+)`", TEXT)
    named_ones = 0
    for text in code:
        match = re.match(r"(?:await )?(result|gateway|hop)\.(?!testing|yaml)(\w+)", text)
        if match is not None:
            named_ones += 1
            assert match[2] in known[match[1]], text
        match = re.match(r"(NextHop|FakeDns|MemoryGateway|Gateway|Certificate)\b", text)
        assert match is None or match[1] in testing.__all__
    assert named_ones > 20


def _attributes(kind: type) -> set[str]:
    return {*dir(kind), *(field.name for field in fields(kind))}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (AttemptResult, "route source admit made outcomes outcome events faults"),
        (ObserveResult, "seen again events faults"),
        (HttpResult, "status headers body text events faults"),
        (CommandResult, "status output errors faults"),
        (
            QueuedMessage,
            "text html subject headers content sender recipients stream notes held delay changes",
        ),
        (Changes, "only what spans beyond"),
    ],
)
def test_results_have_what_is_said(kind: type, names: str) -> None:
    assert set(names.split()) <= _attributes(kind)


def test_arguments_of_send_are_those_that_are_listed() -> None:
    table = TEXT.partition("| argument of `send` |")[2].partition("\n\n")[0]
    listed = {
        name
        for cell in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)", cell)
    }
    assert listed == set(inspect.signature(MemoryGateway.send).parameters) - {"self", "content"}


def test_all_public_names_are_documented() -> None:
    for name in testing.__all__:
        assert (getattr(testing, name).__doc__ or "").strip(), name
