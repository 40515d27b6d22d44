"""One check after the other: what they share, and what they found."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gateway.testing.conformance.candidate import Candidate
from gateway.testing.conformance.probe import Failure, Probe
from gateway.testing.conformance.report import Finding, Level
from gateway.testing.conformance.request import Request
from gateway.testing.conformance.site import Instance, Site
from gateway.testing.conformance.watch import Watch
from gateway.testing.corpus import Sample, samples

MOST_LATE = 2
"""Calls that do not end, after which a check is given up: each takes its whole timeout."""


class SkippedError(Exception):
    """A check has nothing to look at. The text says why."""


@dataclass(eq=False)
class Examination:
    """What a check gets.

    Attributes:
        request, candidate: what is checked, and how.
        site: where instances come from.
        watch, probe: what hears of blocking calls, and what looks at calls of hooks.
        worker, service: the instances that most checks use, started.
        samples: the messages.
        opened_before: files that were open for writing before any plugin was started.
        findings: of the check that runs now.
        advance: tells how much of a check is done, from 0 to 1.
    """

    request: Request
    candidate: Candidate
    site: Site
    watch: Watch
    probe: Probe
    samples: list[Sample]
    advance: Callable[[float], None]
    opened_before: frozenset[Path] = frozenset()
    check: str = ""
    findings: list[Finding] = field(default_factory=list)
    warned: list[tuple[str, str]] = field(default_factory=list)
    _worker: Instance | None = None
    _service: Instance | None = None

    @property
    def worker(self) -> Instance:
        """The instance that has the hooks of a worker."""
        if self._worker is None:
            raise SkippedError("it does not start")
        return self._worker

    @property
    def service(self) -> Instance:
        """The instance that has the hooks of the service process."""
        if self._service is None:
            raise SkippedError("it does not start")
        return self._service

    def use(self, worker: Instance, service: Instance) -> None:
        """Takes instances that have been started."""
        self._worker, self._service = worker, service

    def require_start(self) -> None:
        """For checks that start instances of their own.

        Raises:
            SkippedError: that would be in vain.
        """
        if self._worker is None:
            raise SkippedError("it does not start")

    def has(self, *hooks: str) -> bool:
        """Whether the plugin, as it is configured, has any of these hooks."""
        return any(self.worker.has(hook) for hook in hooks)

    async def close(self) -> None:
        """Stops what was started."""
        for instance in (self._worker, self._service):
            if instance is not None:
                with suppress(Exception):  # it was told by the check of `stop`
                    await self.site.stop(instance)

    def error(self, text: str, place: str = "") -> None:
        """Notes what fails the plugin."""
        self._find("error", text, place)

    def warn(self, text: str, place: str = "") -> None:
        """Notes what should be better."""
        self._find("warning", text, place)

    def _find(self, level: Level, text: str, place: str) -> None:
        finding = Finding(self.check, level, " ".join(text.split()), place)
        if finding not in self.findings:
            self.findings.append(finding)

    def blame(self, failures: Iterable[Failure]) -> None:
        """Notes what calls did wrong: once, however many messages it happened on."""
        found: dict[tuple[str, str, str], list[Failure]] = {}
        for failure in failures:
            found.setdefault((failure.hook, failure.kind, failure.place), []).append(failure)
        for (hook, kind, place), same in found.items():
            what = f"{kind}: {same[0].text}" if same[0].text else kind
            self.error(f"{hook} {what} ({among(one.label for one in same)})", place)

    def hear(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Takes a warning of Python; stands in for `warnings.showwarning`."""
        place = self.candidate.source.first([(filename, lineno)])
        serious = issubclass(category, ResourceWarning) or "was never awaited" in str(message)
        if place or serious:
            self.warned.append((f"{category.__name__}: {message}", place))

    def listen(self) -> None:
        """From now on all warnings of Python are heard, until the process ends."""
        warnings.simplefilter("always")
        warnings.showwarning = self.hear


def among(labels: Iterable[str]) -> str:
    """Names the first of some messages, and how many others there are."""
    names = list(dict.fromkeys(label for label in labels if label))
    if not names:
        return "always"
    more = len(names) - 1
    return names[0] if not more else f"{names[0]} and {more} more"


def collected(folder: str) -> list[Sample]:
    """The messages of the corpus, and those of a folder; LF becomes CRLF.

    Raises:
        OSError: the folder cannot be read.
    """
    found = samples()
    if folder:
        for path in sorted(Path(folder).rglob("*.eml")):
            octets = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            found.append(Sample(str(path.relative_to(folder)), octets))
    return found
