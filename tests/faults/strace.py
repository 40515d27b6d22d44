"""strace attached to a running process: makes system calls fail, and writes down what it saw."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import DEADLINE, until

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_START = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<more>.*)")
_END = re.compile(r"(?P<arguments>.*)\) += (?P<result>-?\d+|\?).*")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that has ended.

    Attributes:
        name: such as `fdatasync`.
        arguments: as strace writes them.
        result: what it returned, as strace writes it after the value: errors have their name.
        failed: whether it returned an error.
    """

    name: str
    arguments: str
    result: str
    failed: bool


class Strace:
    """Attaches to processes.

    Args:
        program: the path of strace.
        output: the file for what it sees.
    """

    def __init__(self, program: Path, output: Path) -> None:
        self._program = program
        self.output = output

    @contextmanager
    def attached(self, pid: int, *arguments: str) -> Iterator[None]:
        """Traces all threads of a process until the end of the block.

        The test is skipped where that is not allowed.
        """
        command = [str(self._program), "-f", "-p", str(pid), "-y", "-o", str(self.output)]
        errors = self.output.with_suffix(".err")
        with errors.open("wb") as stderr:
            process = subprocess.Popen([*command, *arguments], stderr=stderr)

        def is_attached() -> bool:
            text = errors.read_text()
            if process.poll() is not None and "not permitted" in text:
                pytest.skip(f"strace may not trace here: {text.strip()}")
            assert process.poll() is None, text
            return "attached" in text

        try:
            until(is_attached, "strace")
            yield
        finally:
            process.terminate()
            process.wait(DEADLINE)

    def calls(self) -> list[Call]:
        """The calls that it saw, in the order of their ends."""
        return list(_calls(self.output.read_text()))


def _calls(text: str) -> Iterator[Call]:
    begun: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        thread, rest = match["thread"], match["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
            continue
        resumed = _RESUMED.fullmatch(rest)
        if resumed is not None:
            rest = begun.pop(thread, f"{resumed['name']}(") + resumed["more"]
        start = _START.fullmatch(rest)
        end = _END.fullmatch(start["arguments"]) if start is not None else None
        if start is None or end is None:
            continue  # a signal, or the end of a thread
        result = rest.rpartition(" = ")[2]
        yield Call(start["name"], end["arguments"], result, end["result"].startswith("-"))


@pytest.fixture
def strace(debian_program: Callable[[str], Path], tmp_path: Path) -> Strace:
    """strace, which writes into the folder of the test."""
    return Strace(debian_program("strace"), tmp_path / "trace")
