"""docs/plugins/tutorial.md, followed to the letter by somebody who begins with nothing.

Each block is one of these, and none of them is left out:

- a file, if the line above is its name in backticks and a colon;
- commands. They have to succeed, unless the line above ends in "fails:" or the one with a test that
  does. After "second terminal" and "third terminal" they are typed there, and the last goes on;
- text, right below the commands that print it, or below a line that says in which terminal it
  appears. A line with nothing but … is any number of lines.

Numbers of ports are others than those in the text, so that nobody is disturbed. Of what is printed,
times, dates, ids, numbers of processes, and counts of the conformance check may differ.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import TUTORIAL, Block, blocks
from tests.docs.newcomer import Newcomer
from tests.docs.terminal import DEADLINE, Terminal
from tests.e2e.conftest import free_port

BLOCKS = list(blocks(TUTORIAL))

_FILE = re.compile(r"`([\w./-]+)`:")
_TERMINAL = re.compile(r"\b(second|third) terminal\b")
_FAILS = re.compile(r"\bfails?:$")
_LOOKS = ("cat ", "gateway queue list")
"""What changes nothing, and shows what other processes do in their own time."""
_MAY_DIFFER = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+\+00:00)?", "TIME"),
    (r"\w{3}, \d\d? \w{3} \d{4} \d\d:\d\d:\d\d \+0000", "DATE"),
    (r"\b0[0-9A-HJKMNP-TV-Z]{12}\b", "ID"),
    (r"\b\d+(?:\.\d+)? ?(?:ms|s)\b", "SECONDS"),
    (r"/supervisor\[\d+\]", "/supervisor[PID]"),
    (r"^X-Peer: .*", "X-Peer:"),
    # With the name of the machine in Received.
    (r"(queued: .*), \d+ octets", r"\1, SIZE"),
    (r"(sent|\s)\d+ B ", r"\1SIZE "),
)


def normal(text: str, counts: bool = False) -> list[str]:
    """The lines of a text without what may differ."""
    for pattern, plain in _MAY_DIFFER:
        text = re.sub(pattern, plain, text, flags=re.MULTILINE)
    if counts:
        # Which message took longest is chance, too.
        text = re.sub(r"\([a-z0-9-]+\)(?=;|$)", "(NAME)", text, flags=re.MULTILINE)
        text = re.sub(r"\d+(?:\.\d+)?", "N", text)
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def is_shown(shown: list[str], printed: list[str]) -> bool:
    """Whether it was printed as shown; … is any number of lines, perhaps none."""
    lines = "".join(r"(?:.*\n)*?" if line == "…" else rf"{re.escape(line)}\n" for line in shown)
    return re.fullmatch(lines, "".join(f"{line}\n" for line in printed)) is not None


class Reader:
    """Somebody who does what the tutorial says, block by block.

    Attributes:
        folder: the one to begin in.
        done: the blocks that were dealt with.
    """

    def __init__(self, folder: Path, newcomer: Newcomer) -> None:
        self.folder = folder
        self.done: list[Block] = []
        self.terminals = {"first": Terminal(folder, newcomer.variables)}
        self._newcomer = newcomer
        self._printed = ""
        self._command = ""
        self._again: list[str] = []
        self._ports = {"2525": str(free_port()), "2600": str(free_port())}

    @property
    def first(self) -> Terminal:
        return self.terminals["first"]

    def follow(self, block: Block) -> None:
        """Does what a block is for."""
        text = re.sub(r"\b2525\b|\b2600\b", lambda match: self._ports[match[0]], block.text)
        file, terminal = _FILE.fullmatch(block.before), _TERMINAL.search(block.before)
        if file:
            path = self.first.folder / file[1]
            assert path.parent.is_dir(), f"{block}: where is {path.parent}?"
            path.write_text(text)
        elif block.language == "sh" and terminal and "In a " in block.before:
            self._open(terminal[1], text.splitlines())
        elif block.language == "sh":
            self._run(block, text.splitlines())
        elif block.language == "text" and terminal:
            self._watch(block, self.terminals[terminal[1]], normal(text))
        elif block.language == "text" and self._follows_commands(block):
            self._compare(block, text)
        else:
            raise AssertionError(f"{block}: nobody knows what this block is for")
        self.done.append(block)

    def _follows_commands(self, block: Block) -> bool:
        return block.before == "" and bool(self.done) and self.done[-1].language == "sh"

    def _open(self, name: str, lines: list[str]) -> None:
        new = self.terminals[name] = Terminal(self.first.folder, self._newcomer.variables)
        for line in lines[:-1]:
            status, printed = new.run(line)
            assert status == 0, f"{line}\n{printed}"
        new.start(lines[-1])
        self._command = name

    def _run(self, block: Block, lines: list[str]) -> None:
        self._command, self._again = lines[-1], []
        printed = []
        for line in lines:
            status, text = self.first.run(line)
            assert (status == 0) is not bool(_FAILS.search(block.before)), (
                f"{block}: {line}\n{text}"
            )
            self._newcomer.furnish(self.folder / ".venv")
            printed.append(text)
            if line.startswith(_LOOKS):
                self._again.append(line)
        self._printed = "".join(printed)

    def _compare(self, block: Block, text: str) -> None:
        counts = self._command.startswith("gateway plugin check")
        shown = normal(text, counts)
        if self._command in self.terminals:
            self._watch(block, self.terminals[self._command], shown)
            return
        if self._again:
            self._look_again(shown)
        assert is_shown(shown, normal(self._printed, counts)), f"{block}:\n{self._printed}"

    def _look_again(self, shown: list[str]) -> None:
        end = time.monotonic() + DEADLINE
        while not is_shown(shown, normal(self._printed)) and time.monotonic() < end:
            self._printed = "".join(self.first.run(line)[1] for line in self._again)

    def _watch(self, block: Block, terminal: Terminal, shown: list[str]) -> None:
        terminal.wait(lambda text: is_shown(shown, normal(text)), str(block))
        terminal.look()


@pytest.fixture
def reader(tmp_path: Path, gateway_wheel: Path) -> Iterator[Reader]:
    (tmp_path / "here").mkdir()
    (tmp_path / "work").mkdir()
    made = Reader(tmp_path / "work", Newcomer(tmp_path / "here", gateway_wheel))
    yield made
    for terminal in made.terminals.values():
        terminal.close()


@pytest.mark.timeout(300)
def test_the_tutorial_works_as_it_is_written(reader: Reader) -> None:
    for block in BLOCKS:
        reader.follow(block)
    assert reader.done == BLOCKS
    assert reader.terminals["third"].interrupt() == 0
    (installed,) = reader.folder.glob(".venv/lib/*/site-packages/mail_gateway_card_guard")
    assert (installed / "__init__.py").is_file()
    (configuration,) = (
        block.text
        for block in blocks(reader.folder / "mail-gateway-card-guard/README.md")
        if block.language == "yaml"
    )
    (reader.folder / "readme.yaml").write_text(configuration)
    for command in ("gateway check -c readme.yaml", "gateway plugin check --strict card-guard"):
        status, text = reader.first.run(command)
        assert status == 0, text


# What holds the tutorial can fail.


def _block(language: str, text: str, before: str = "") -> Block:
    return Block(TUTORIAL, 1, 3, language, text, before)


def test_what_differs_from_the_text_is_noticed(reader: Reader) -> None:
    for block in (
        _block("text", "no command is above\n"),
        _block("toml", "[project]\n", "Add this:"),
        _block("text", "words\n", "It prints:"),
        _block("sh", "false\n", "Type this:"),
        _block("sh", "true\n", "This fails:"),
        _block("python", "", "`no/folder/module.py`:"),
    ):
        with pytest.raises(AssertionError):
            reader.follow(block)
    assert reader.done == []
    reader.follow(_block("text", "one\ntwo\nthree\n", "`file`:"))
    commands = _block("sh", "cd .\nhead file\n")
    for shown, right in (("one\n…\nthree\n", True), ("one\nthree\n", False), ("two\n…", False)):
        reader.follow(commands)
        if right:
            reader.follow(_block("text", shown))
        else:
            with pytest.raises(AssertionError, match=r"tutorial\.md:1"):
                reader.follow(_block("text", shown))


def test_only_what_may_differ_does() -> None:
    assert normal("3 passed in 0.35s") == normal("3 passed in 1.2s") != normal("2 passed in 1s")
    assert normal("queued as 0MQY3SQNK9G01") == normal("queued as 0MQY3SV6S1801")
    assert normal("held: 2") != normal("held: 3")
    assert normal("124 messages", counts=True) == normal("125 messages", counts=True)
    assert is_shown(["…", "b"], ["a", "a", "b"])
    assert is_shown(["a", "…"], ["a"])
    assert not is_shown(["a"], ["a", "b"])
    assert not is_shown(["a.c"], ["abc"])


def test_the_code_that_is_shown_is_written_as_it_should_be(tmp_path: Path) -> None:
    shown = [block for block in BLOCKS if block.language == "python"]
    assert len(shown) > 5
    for block in shown:
        (tmp_path / f"line_{block.line}.py").write_text(block.text)
    for arguments in (["format", "--diff"], ["check", "--select=E,F,W,UP,B"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--isolated", "--line-length=100", tmp_path],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
