"""All checks of one plugin, in the process that exists for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.reference import hooks_of
from gateway.hooks.spec import STAGES
from gateway.hooks.watchdog import HookTimeoutError
from gateway.testing.conformance import (
    declarations,
    failure,
    files,
    harmlessness,
    hostility,
    leaks,
    restart,
    settings,
    timing,
)
from gateway.testing.conformance.candidate import Candidate, CandidateError, entry_name, find
from gateway.testing.conformance.examination import Examination, SkippedError, collected
from gateway.testing.conformance.probe import Probe
from gateway.testing.conformance.report import Finding, Result, Status
from gateway.testing.conformance.request import Request
from gateway.testing.conformance.site import Site
from gateway.testing.conformance.watch import Watch

Check = Callable[[Examination], Awaitable[str]]
Tell = Callable[[dict[str, Any]], None]
"""Takes what happens, as plain values: a check that begins, advances or has ended."""

LOADS = "loads"

CHECKS: tuple[tuple[str, Check], ...] = (
    ("configuration", settings.check),
    ("declarations", declarations.check),
    ("start-and-stop", restart.check),
    ("messages", harmlessness.check),
    ("time", timing.check),
    ("hostile-input", hostility.check),
    ("event-loop", timing.check_waiting),
    ("failures", failure.check),
    ("leaks", leaks.check),
    ("files", files.check),
)
"""The checks after the plugin was loaded, in order: later ones use what earlier ones have seen."""

_ALWAYS = "start-and-stop"
_NEEDED = {
    "time": ("messages",),
    "event-loop": ("messages", "hostile-input"),
    "files": ("messages",),
}
"""Checks that use what another one has seen."""


def run(request: Request, tell: Tell) -> None:
    """Checks a plugin, and tells of each check as it ends."""
    logging.getLogger().addHandler(logging.NullHandler())
    tell({"begins": LOADS, "done": 0.0})
    try:
        candidate = find(request)
    except CandidateError as error:
        lines = [line for line in str(error).splitlines() if line]
        findings = tuple(Finding(LOADS, "error", line) for line in lines)
        _tell_result(tell, Result(LOADS, "failed", _hint(lines, request), findings))
        return
    hooks = [name for name in STAGES if name in hooks_of(candidate.plugin_class)]
    tell({"plugin": {"distribution": candidate.distribution, "hooks": hooks}})
    _tell_result(tell, Result(LOADS, "passed", f"hooks: {', '.join(hooks)}"))
    asyncio.run(_run(request, candidate, tell))


def _hint(lines: list[str], request: Request) -> str:
    """How settings are given, if some are missing and none were."""
    given = request.settings is not None or request.site
    if given or not any(": missing" in line for line in lines):
        return ""
    return (
        "it needs settings: --config 'KEY: VALUE', --config @FILE.yaml, -c gateway.yaml, or in "
        f"pyproject.toml [tool.mail-gateway.check.{entry_name(request.reference)}]"
    )


async def _run(request: Request, candidate: Candidate, tell: Tell) -> None:
    watch = Watch(candidate.source.of_frame)
    watch.install()
    probe = Probe(candidate.source, watch)
    checks = _chosen(request)
    current = 0

    def advance(part: float) -> None:
        tell({"begins": checks[current][0], "done": (current + part) / len(checks)})

    async with Site(candidate, dns=request.dns) as site:
        examination = Examination(
            request,
            candidate,
            site,
            watch,
            probe,
            collected(request.corpus),
            advance,
            frozenset(files.open_for_writing()),
        )
        examination.listen()
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: _unhandled(examination, context)
        )
        for name, check in checks:
            advance(0.0)
            examination.check, examination.findings = name, []
            status: Status = "passed"
            try:
                note = await check(examination)
            except SkippedError as reason:
                status, note = "skipped", str(reason)
            except (ConfigError, HookTimeoutError) as error:
                note = ""
                examination.error(f"cannot be checked: {type(error).__name__}: {error}")
            if any(finding.level == "error" for finding in examination.findings):
                status = "failed"
            result = Result(name, status, note, tuple(examination.findings))
            _tell_result(tell, result)
            current += 1
        await examination.close()


def _chosen(request: Request) -> list[tuple[str, Check]]:
    """The checks to run: all, or those that were asked for with what they need."""
    wanted = {one for name in request.only for one in (name, *_NEEDED.get(name, ()))}
    return [one for one in CHECKS if not wanted or one[0] in wanted or one[0] == _ALWAYS]


def _unhandled(examination: Examination, context: dict[str, Any]) -> None:
    """Takes what the loop has no other place for, such as the exception of a task left alone."""
    error = context.get("exception")
    text = str(context.get("message", ""))
    place = ""
    if isinstance(error, BaseException):
        text = f"{text}: {type(error).__name__}: {error}"
        place = examination.candidate.source.of_error(error)
    examination.warned.append((text, place))


def _tell_result(tell: Tell, result: Result) -> None:
    tell({"ended": asdict(result)})
