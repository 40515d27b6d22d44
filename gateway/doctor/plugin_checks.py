"""What plugins say of themselves.

A plugin that can check its own world, such as the keys that it has published, has a command
`check` with the option `--json` that needs no argument: `gateway dkim check`. It is run as anybody
would run it, in a process of its own, so that nothing that it does can end the examination.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.doctor.finding import Finding, note, ok, problem, warning

if TYPE_CHECKING:
    from gateway.doctor.site import Site

TIMEOUT = 120.0
"""Seconds that one check may take."""

_ERRORS = ("errors", "problems")
_WARNINGS = ("warnings",)


@dataclass(frozen=True, slots=True)
class PluginCheck:
    """What one plugin said.

    Attributes:
        plugin: its entry's name.
        status: the exit status of its command; 0 if all is well; None: it did not end in time.
        said: what it printed as JSON; None if that is none.
        error: the last line that it printed on standard error.
    """

    plugin: str
    status: int | None
    said: Any = None
    error: str = ""


async def run_checks(
    names: Sequence[str], config: Path, advance: Callable[[], object]
) -> list[PluginCheck]:
    """Runs the checks of these plugins, all at the same time.

    Args:
        names: entries of gateway.yaml with a command `check`.
        config: gateway.yaml.
        advance: called after each.
    """

    async def one(name: str) -> PluginCheck:
        try:
            return await _run(name, config)
        finally:
            advance()

    return list(await asyncio.gather(*map(one, names)))


async def _run(name: str, config: Path) -> PluginCheck:
    words = ("-P", "-m", "gateway", "-c", str(config), name, "check", "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT)
    except TimeoutError:
        return PluginCheck(name, None)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        said = json.loads(output)
    except ValueError:
        said = None
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return PluginCheck(name, process.returncode, said, lines[-1] if lines else "")


async def examine(site: Site) -> AsyncIterator[Finding]:
    """What plugins say of themselves."""
    for check in site.checks:
        for finding in findings(check):
            yield finding
    if not site.checks:
        yield note("no plugin has a check of its own")


def findings(check: PluginCheck) -> Iterator[Finding]:
    """One plugin's answer in our words.

    It is a list of objects: `errors` or `problems`, and `warnings`, are lists of sentences, and
    the first text among its other values says what they are about.
    """
    remedy = f"gateway {check.plugin} check"
    if check.status is None:
        yield problem(f"{check.plugin}: its check takes over {TIMEOUT:g} s", remedy)
        return
    told = 0
    for subject, severity, text in _sentences(check.said):
        told += severity == "problem"
        where = f"{check.plugin}: {subject}: {text}" if subject else f"{check.plugin}: {text}"
        yield problem(where, remedy) if severity == "problem" else warning(where, remedy)
    if check.status and not told:
        text = check.error or f"its check ended with status {check.status}"
        yield problem(f"{check.plugin}: {text}", remedy)
    elif not told:
        yield ok(f"{check.plugin} finds itself well")


def _sentences(said: Any) -> Iterator[tuple[str, str, str]]:
    for one in said if isinstance(said, list) else ():
        if not isinstance(one, dict):
            continue
        subject = str(one.get("name") or next((v for v in one.values() if type(v) is str), ""))
        for keys, severity in ((_ERRORS, "problem"), (_WARNINGS, "warning")):
            for key in keys:
                texts = one.get(key)
                for text in texts if isinstance(texts, list) else ():
                    yield subject, severity, str(text)
