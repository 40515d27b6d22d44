from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks.histogram import BOUNDS, Histogram
from gateway.metrics.catalogue import METRICS
from gateway.metrics.exposition import exposition
from gateway.metrics.readings import Distribution, Readings
from tests.metrics.text import Told

NUMBER = st.floats(0, 1e15, allow_nan=False)


@st.composite
def readings(draw: st.DrawFn) -> Readings:
    """Any values of any metrics."""
    made = Readings()
    for metric in METRICS.values():
        label = st.tuples(*[st.text(max_size=8)] * len(metric.labels))
        for labels in draw(st.lists(label, max_size=2, unique=True)):
            if metric.kind == "histogram":
                histogram = Histogram()
                for seconds in draw(st.lists(st.floats(0, 60), max_size=4)):
                    histogram.add(seconds)
                made.put_histogram(metric.name, BOUNDS, histogram, *labels)
            elif metric.kind == "summary":
                made.put_summary(metric.name, draw(st.integers(0, 10**9)), draw(NUMBER))
            else:
                made.put(metric.name, draw(NUMBER), *labels)
    return made


@given(readings())
def test_what_a_worker_tells_arrives_as_it_was(made: Readings) -> None:
    read = Readings.from_json(json.loads(json.dumps(made.to_json())))
    for name in METRICS:
        assert read.of(name) == made.of(name)


@given(readings(), readings())
def test_prometheus_reads_whatever_is_told(first: Readings, second: Readings) -> None:
    told = Told(exposition({"worker-0": first, "service": second}))
    for metric in METRICS.values():
        values = [*first.of(metric.name), *second.of(metric.name)]
        assert (metric.name in told.kinds) is bool(values)
        if metric.kind in ("histogram", "summary") and values:
            counts = [value.count for _, value in values if isinstance(value, Distribution)]
            assert told.sum(f"{metric.name}_count") == sum(counts)


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram()
    for seconds in (BOUNDS[0], BOUNDS[1], BOUNDS[1] * 1.01, 1e9):
        histogram.add(seconds)
    made = Readings()
    made.put_histogram("gateway_reception_seconds", BOUNDS, histogram)
    told = Told(exposition({"worker-0": made}))
    buckets = [
        told.sum("gateway_reception_seconds_bucket", le=bound)
        for bound in ("1e-05", "2.5e-05", "5e-05", "30.0", "+Inf")
    ]
    assert buckets == [1, 2, 3, 3, 4]
    assert told.sum("gateway_reception_seconds_count", process="worker-0") == 4
    assert told.sum("gateway_reception_seconds_sum") == pytest.approx(histogram.seconds)


def test_what_another_version_tells_and_this_one_does_not_know_is_left_out() -> None:
    read = Readings.from_json(
        {
            "gateway_of_tomorrow": [[[], 1]],
            "gateway_smtp_sessions": [[["label"], 1], [[], 2]],
            "gateway_lanes": [[[], [[], [1], 1.0]]],
            "gateway_messages_total": [[["2xx"], 3]],
        }
    )
    assert read.of("gateway_of_tomorrow") == read.of("gateway_lanes") == []
    assert read.of("gateway_smtp_sessions") == [((), 2.0)]
    assert read.of("gateway_messages_total") == [(("2xx",), 3.0)]


@pytest.mark.parametrize(
    "junk",
    [
        None,
        [],
        "text",
        {"gateway_lanes": 1},
        {"gateway_lanes": [1]},
        {"gateway_lanes": [[[], "x"]]},
        {"gateway_lanes": [[[], None]]},
        {"gateway_reception_seconds": [[[], [[1.0], [1], 1.0]]]},
        {"gateway_reception_seconds": [[[], [[1.0]]]]},
    ],
)
def test_what_makes_no_sense_is_refused(junk: Any) -> None:
    with pytest.raises(ValueError, match="no readings"):
        Readings.from_json(junk)


def test_names_are_as_prometheus_wants_them() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"(gateway|process)_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") is (metric.kind == "counter"), metric.name
        if metric.kind in ("histogram", "summary"):
            assert metric.name.endswith("_seconds")
        assert not {"process", "le", "quantile", "job", "instance"} & set(metric.labels)
        assert metric.meaning[0].isupper() or metric.meaning[0] == "1"
        assert metric.meaning.endswith(".")
