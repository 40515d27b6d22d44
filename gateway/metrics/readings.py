"""The numbers that one process has to tell. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.metrics.catalogue import METRICS


class Timed(Protocol):
    """What counts durations by buckets, as `gateway.hooks.histogram` does."""

    counts: list[int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often something took how long.

    Attributes:
        bounds: upper bounds of the buckets, in seconds; none for a summary.
        counts: how often it was in each bucket, and at last how often above all bounds.
        seconds: the sum.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float

    @property
    def count(self) -> int:
        """How often in all."""
        return sum(self.counts)


Value = float | Distribution
Series = tuple[tuple[str, ...], Value]
"""The values of a metric's labels, and its value for them."""


class Readings:
    """Values of metrics, each under its name and the values of its labels."""

    def __init__(self) -> None:
        self._series: dict[str, list[Series]] = {}

    def put(self, name: str, value: float, *labels: str) -> None:
        """Notes the value of a counter or a gauge."""
        self._add(name, labels, value)

    def put_histogram(
        self, name: str, bounds: tuple[float, ...], timed: Timed, *labels: str
    ) -> None:
        """Notes a histogram; its last count is that above all bounds."""
        self._add(name, labels, Distribution(bounds, tuple(timed.counts), timed.seconds))

    def put_summary(self, name: str, count: int, seconds: float) -> None:
        """Notes how often something was done, and how long it took in all."""
        self._add(name, (), Distribution((), (count,), seconds))

    def _add(self, name: str, labels: tuple[str, ...], value: Value) -> None:
        assert len(labels) == len(METRICS[name].labels), name
        self._series.setdefault(name, []).append((labels, value))

    def of(self, name: str) -> list[Series]:
        """The series of a metric."""
        return self._series.get(name, [])

    def update(self, other: Readings) -> None:
        """Adds what another one has."""
        for name, series in other._series.items():
            self._series.setdefault(name, []).extend(series)

    def to_json(self) -> dict[str, Any]:
        """An object for JSON, which `from_json` reads."""
        return {
            name: [
                [
                    labels,
                    [value.bounds, value.counts, value.seconds]
                    if isinstance(value, Distribution)
                    else value,
                ]
                for labels, value in series
            ]
            for name, series in self._series.items()
        }

    @classmethod
    def from_json(cls, told: Any) -> Readings:
        """Reads what `to_json` wrote.

        A process of another version may tell more, or less; what is not known here is left out.

        Raises:
            ValueError: these are no readings.
        """
        readings = cls()
        try:
            for name, series in told.items():
                metric = METRICS.get(name)
                if metric is None:
                    continue
                plain = metric.kind in ("counter", "gauge")
                readings._series[name] = [
                    (labels, value)
                    for labels, value in _series(series)
                    if len(labels) == len(metric.labels) and isinstance(value, float) is plain
                ]
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"these are no readings: {error!r}") from None
        return readings


def _series(told: Any) -> Iterator[Series]:
    for labels, value in told:
        names = tuple(map(str, labels))
        if isinstance(value, list):
            bounds, counts, seconds = value
            if len(counts) != len(bounds) + 1:
                raise ValueError(f"{len(counts)} counts for {len(bounds)} bounds")
            yield (
                names,
                Distribution(tuple(map(float, bounds)), tuple(map(int, counts)), float(seconds)),
            )
        else:
            yield names, float(value)
