"""Readings as text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import core
from prometheus_client.exposition import generate_latest
from prometheus_client.utils import floatToGoString

from gateway.metrics.catalogue import METRICS, Metric
from gateway.metrics.readings import Distribution, Readings, Series


class _Collector:
    """What prometheus-client asks for metrics: nothing that the whole program shares."""

    def __init__(self, readings: Mapping[str, Readings]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[core.Metric]:
        """Each metric that any process has a value of."""
        for metric in METRICS.values():
            series: list[Series] = [
                ((process, *labels), value)
                for process, readings in self._readings.items()
                for labels, value in readings.of(metric.name)
            ]
            if series:
                yield _family(metric, series)


def _family(metric: Metric, series: list[Series]) -> core.Metric:
    labels = ("process", *metric.labels)
    if metric.kind == "histogram":
        histogram = core.HistogramMetricFamily(metric.name, metric.meaning, labels=labels)
        for values, value in series:
            assert isinstance(value, Distribution)
            bounds = [*map(floatToGoString, value.bounds), "+Inf"]
            buckets = list(zip(bounds, accumulate(value.counts), strict=True))
            histogram.add_metric(values, buckets, value.seconds)
        return histogram
    if metric.kind == "summary":
        summary = core.SummaryMetricFamily(metric.name, metric.meaning, labels=labels)
        for values, value in series:
            assert isinstance(value, Distribution)
            summary.add_metric(values, value.count, value.seconds)
        return summary
    simple = core.CounterMetricFamily if metric.kind == "counter" else core.GaugeMetricFamily
    family = simple(metric.name, metric.meaning, labels=labels)
    for values, value in series:
        assert isinstance(value, float | int)
        family.add_metric(values, value)
    return family


def exposition(readings: Mapping[str, Readings]) -> bytes:
    """The metrics of all processes, by their names, in Prometheus's text format 0.0.4."""
    return generate_latest(_Collector(readings))
