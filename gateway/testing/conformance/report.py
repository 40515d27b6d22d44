"""What a check of a plugin found. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning"]
Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        check: the name of the check that found it.
        level: a `warning` alone does not fail the plugin.
        text: what is wrong and what to do, on one line.
        place: `file:line` in the plugin, '' where it has no place.
    """

    check: str
    level: Level
    text: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


@dataclass(frozen=True, slots=True)
class Result:
    """How one check ended. `note` says what was looked at, or why it was skipped."""

    check: str
    status: Status
    note: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """How the checks of one plugin ended.

    Attributes:
        plugin: what was asked for: a name, or a path.
        distribution: the package that it comes from, with its version; '' for a file.
        hooks: those that it has, in the order of a message's way.
        results: one for each check, in the order in which they ran.
        seconds: how long all of it took.
    """

    plugin: str
    distribution: str = ""
    hooks: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    seconds: float = 0.0

    @property
    def findings(self) -> list[Finding]:
        """All findings, in order."""
        return [finding for result in self.results for finding in result.findings]

    @property
    def errors(self) -> list[Finding]:
        """What fails the plugin."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What should be better, and fails nothing."""
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def good(self) -> bool:
        """Whether nothing failed."""
        return bool(self.results) and not self.errors

    def to_data(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {**asdict(self), "good": self.good}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Report:
        """Reads what `to_data` gave."""
        return cls(
            plugin=data["plugin"],
            distribution=data["distribution"],
            hooks=tuple(data["hooks"]),
            results=tuple(
                Result(
                    one["check"],
                    one["status"],
                    one["note"],
                    tuple(Finding(**finding) for finding in one["findings"]),
                )
                for one in data["results"]
            ),
            seconds=data["seconds"],
        )

    def __str__(self) -> str:
        return "\n".join(_lines(self)) or f"{self.plugin}: nothing to say"


def _lines(report: Report) -> Sequence[str]:
    lines = []
    for result in report.results:
        lines.append(f"{result.status:<8}{result.check:<16}{result.note}".rstrip())
        lines += [f"  {finding.level}: {finding}" for finding in result.findings]
    return lines
