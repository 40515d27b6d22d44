"""What docs/operations.md says of metrics is what the gateway tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from gateway.metrics.catalogue import METRICS, Metric

TEXT = (Path(__file__).parents[2] / "docs/operations.md").read_text()

SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
EXPOSED = {
    f"{metric.name}{suffix}": metric
    for metric in METRICS.values()
    for suffix in SUFFIXES.get(metric.kind, ("",))
}
"""The series that Prometheus stores, by their names."""


def row(metric: Metric) -> str:
    """A row of the table, as it has to stand there."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |"


def test_the_table_of_metrics_is_complete() -> None:
    found = [line for line in TEXT.splitlines() if re.match(r"\| `(gateway|process)_", line)]
    assert found == [row(metric) for metric in METRICS.values()]


def _blocks() -> list[Any]:
    return [
        yaml.safe_load(block)
        for block in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    ]


def _expressions() -> list[str]:
    (alerts,) = (block for block in _blocks() if "groups" in block)
    (group,) = alerts["groups"]
    questions = re.findall(r"^\| [^|]+ \| `([^`]*\brate\([^`]*)` \|$", TEXT, re.MULTILINE)
    assert len(questions) > 5
    return [rule["expr"] for rule in group["rules"]] + questions


def test_alerts_and_questions_are_about_metrics_that_there_are() -> None:
    expressions = _expressions()
    assert len(expressions) > 15
    for text in expressions:
        names = re.findall(r"\b((?:gateway|process)_\w+|up)(?:\{(.*?)\})?", text)
        assert names, text
        for name, selectors in names:
            if name == "up":
                continue
            assert name in EXPOSED, text
            labels = {"process", "le", *EXPOSED[name].labels}
            assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selectors)) <= labels, text


def test_what_rates_are_taken_of_are_counters() -> None:
    for text in _expressions():
        for name in re.findall(r"\b(?:rate|increase)\((\w+)", text):
            assert EXPOSED[name].kind != "gauge", text


def test_alerts_have_what_prometheus_needs() -> None:
    (alerts,) = (block for block in _blocks() if "groups" in block)
    (scrape,) = (block for block in _blocks() if "scrape_configs" in block)
    (job,) = scrape["scrape_configs"]
    rules = alerts["groups"][0]["rules"]
    assert f'up{{job="{job["job_name"]}"}} == 0' in [rule["expr"] for rule in rules]
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        for opening, closing in ("()", "{}", "[]"):
            assert rule["expr"].count(opening) == rule["expr"].count(closing)
