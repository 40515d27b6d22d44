"""Plugins that are bad on purpose, and what a check has to say of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.testing.conformance import Report, check_plugin

HEAD = '''
from __future__ import annotations
import asyncio, random, socket, sqlite3, subprocess, threading, time, warnings
from pathlib import Path
from typing import Any
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from gateway.hooks import *

class Config(BaseModel):
    """Nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
'''

GOOD = '''
class Site(Plugin[Config]):
    """Does what is shown here."""

    api = "1.0"
    changes = ()
'''


def write(folder: Path, body: str, head: str = HEAD + GOOD) -> str:
    """Writes a plugin and returns its reference."""
    path = folder / "site.py"
    path.write_text(head + textwrap.indent(textwrap.dedent(body), "    "))
    return str(path)


@dataclass(frozen=True)
class Flaw:
    """A flaw: the body of a plugin's class, and what has to be said of it.

    Attributes:
        check: the check that has to find it.
        says: words of the finding, in order.
        line: a part of the line that the finding has to point to; '' if it points to none.
        level: an error fails the plugin, a warning does not.
    """

    body: str
    check: str
    says: tuple[str, ...]
    line: str = ""
    level: str = "error"
    head: str = HEAD + GOOD
    settings: Mapping[str, Any] | None = field(default_factory=dict)


MESSAGE = """
    @hookimpl
    def message(self, message: Message) -> None:
"""


def _assert_found(report: Report, flaw: Flaw, file: Path) -> None:
    found = [one for one in report.findings if one.check == flaw.check]
    for finding in found:
        position = 0
        for words in flaw.says:
            position = finding.text.find(words, position)
            if position < 0:
                break
        else:
            assert finding.level == flaw.level, finding
            if flaw.line:
                name, _, line = finding.place.rpartition(":")
                assert Path(name).name == file.name
                assert flaw.line in file.read_text().splitlines()[int(line) - 1]
            return
    raise AssertionError(f"{flaw.says} was not found by {flaw.check}:\n{report}")


def assert_found(flaw: Flaw, folder: Path) -> None:
    """Runs the check that has to find the flaw, and sees that it does."""
    reference = write(folder, flaw.body, flaw.head)
    only = () if flaw.check == "loads" else (flaw.check,)
    report = check_plugin(reference, flaw.settings, only=only)
    _assert_found(report, flaw, folder / "site.py")
    assert report.good == (flaw.level == "warning"), str(report)
