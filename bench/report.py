"""What came out, as values, as JSON and as text."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench.case import Case, Figure
from bench.machine import Machine
from bench.table import aligned

_SIGNING_SHARE = 30
"""Percent of the machine's signatures per second that the gateway has to reach."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a system has no figures, and the end of its log."""

    reason: str
    log: str = ""


@dataclass
class Result:
    """All measurements of one case: by system, in the order in which they were made."""

    case: Case
    values: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def median(self, system: str, figure: Figure) -> float | None:
        """The median of a figure; None if the system has none."""
        values = self._all(system, figure)
        return statistics.median(values) if values else None

    def advantage(self, system: str, peer: str, figure: Figure) -> float | None:
        """How many times better `system` is than `peer`: above 1 is better, below is worse.

        The ratio of the medians: theirs by ours where less is better. None without both.
        """
        ours, theirs = self.median(system, figure), self.median(peer, figure)
        if not ours or not theirs:
            return None
        return ours / theirs if figure.more_is_better else theirs / ours

    def cell(self, system: str, figure: Figure) -> str:
        """A figure as text: the median, and in parentheses the least and the most."""
        if system in self.failures:
            return "failed"
        values = self._all(system, figure)
        if not values:
            return "-"
        low, middle, high = (
            f"{value:,.{figure.decimals}f}"
            for value in (min(values), statistics.median(values), max(values))
        )
        return middle if len(values) == 1 else f"{middle} ({low}–{high})"

    def _all(self, system: str, figure: Figure) -> list[float]:
        return [measured[figure.name] for measured in self.values.get(system, ())]


@dataclass(frozen=True)
class Report:
    """A whole run: `systems` are what was measured, the first of them against the others.

    `missing` says of systems that are not installed how to get them.
    """

    machine: Machine
    systems: Mapping[str, str]
    missing: Mapping[str, str]
    results: Sequence[Result]

    @property
    def failed(self) -> bool:
        """Whether any system failed in any case."""
        return any(result.failures for result in self.results)

    def text(self) -> str:
        """The report for people."""
        head = [*self.machine.lines(), *self.systems.items()]
        head += [(name, f"not installed: {how}") for name, how in self.missing.items()]
        blocks = [aligned(head, right=False)]
        blocks += [self._block(result) for result in self.results]
        if any(len(self._contestants(result)) > 1 for result in self.results):
            ours = next(iter(self.systems))
            blocks.append(f"×: how many times better {ours} is: more messages, less CPU and memory")
        for result in self.results:
            for system, failure in result.failures.items():
                said = "".join(f"\n  | {line}" for line in failure.log.splitlines())
                blocks.append(f"{system} failed at {result.case.name}: {failure.reason}{said}")
        return "\n\n".join(blocks) + "\n"

    def json(self) -> str:
        """The report for programs: every measurement, the medians, the ratios and the bars."""
        cases = {
            result.case.name: {
                "title": result.case.title,
                "measurements": result.values,
                "medians": {
                    system: {f.name: result.median(system, f) for f in result.case.figures}
                    for system in result.values
                },
                "advantage": {
                    peer: {f.name: result.advantage(ours, peer, f) for f in result.case.figures}
                    for ours, *peers in [self._contestants(result)]
                    for peer in peers
                },
                "ahead": dict(result.case.ahead),
                "share_of_signatures": self._signing_share(result, self._contestants(result)[0]),
                "bars": {f.name: f.bar for f in result.case.figures if f.bar is not None},
                "failures": {name: asdict(f) for name, f in result.failures.items()},
            }
            for result in self.results
        }
        whole = {
            "machine": asdict(self.machine),
            "systems": dict(self.systems),
            "missing": dict(self.missing),
            "cases": cases,
        }
        return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"

    def _block(self, result: Result) -> str:
        systems = self._contestants(result)
        ours, *peers = systems
        bars = any(figure.bar is not None for figure in result.case.figures)
        rows = [
            [
                f"{result.case.name}: {result.case.title}",
                *systems,
                *(f"{ours} : {peer}" for peer in peers),
                *(["bar"] if bars else []),
            ]
        ]
        for figure in result.case.figures:
            ratios = [result.advantage(ours, peer, figure) for peer in peers]
            rows.append(
                [
                    f"  {figure.name}",
                    *(result.cell(system, figure) for system in systems),
                    *(
                        self._ratio_cell(result.case, figure, *one)
                        for one in zip(peers, ratios, strict=True)
                    ),
                    *([figure.bar_cell()] if bars else []),
                ]
            )
        share = self._signing_share(result, ours)
        if share is not None:
            # The share of the machine's RSA signatures per second, of which each message has one.
            blank = [""] * (len(rows[0]) - 2 - bars)
            bar = [f"≥ {_SIGNING_SHARE}"] if bars else []
            rows.append(["  % of the RSA-2048 rate", f"{share:.0f}", *blank, *bar])
        return aligned(rows)

    @staticmethod
    def _ratio_cell(case: Case, figure: Figure, peer: str, ratio: float | None) -> str:
        if ratio is None:
            return "-"
        bar = case.ahead.get(peer) if figure is case.figures[0] else None
        return f"{ratio:.1f}×" if bar is None else f"{ratio:.1f}× (≥ {bar:g})"

    def _signing_share(self, result: Result, system: str) -> float | None:
        """The rate of a system as a share of the machine's rate of signatures, in percent."""
        rate = result.median(system, result.case.figures[0])
        most = self.machine.signatures_all_cores
        return 100 * rate / most if result.case.signs and rate and most else None

    def _contestants(self, result: Result) -> list[str]:
        """The systems that a case is about, ours first."""
        names = list(self.systems) or [""]
        if result.case.alone:
            part = [name for name in names if name in (*result.values, *result.failures)]
            return part or names[:1]
        return names
