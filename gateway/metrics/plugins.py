"""What a chain has counted of its plugins."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from gateway.hooks.chain import Chain
from gateway.hooks.histogram import BOUNDS
from gateway.hooks.spec import STAGES
from gateway.hooks.step import Step
from gateway.metrics.readings import Readings
from gateway.web.health import OpenBreaker

STATES = ("closed", "half-open", "open")

SERVICE_HOOKS = ("observe", "http")
WORKER_HOOKS = tuple(
    name for name in STAGES if name not in (*SERVICE_HOOKS, "start", "stop", "commands")
)
"""Hooks that are called again and again in processes of each kind."""


def read_plugins(chain: Chain, hooks: tuple[str, ...], readings: Readings) -> None:
    """Adds what each of these hooks has done, and the state of its breaker."""
    now = monotonic()
    for step in _steps(chain, hooks):
        labels = (step.plugin, step.hook)
        readings.put_histogram("gateway_plugin_call_seconds", BOUNDS, step.timing, *labels)
        readings.put("gateway_plugin_faults_total", step.faults, *labels)
        readings.put("gateway_plugin_timeouts_total", step.timeouts, *labels)
        readings.put("gateway_plugin_skipped_total", step.skipped, *labels)
        state = step.breaker.state(now)
        for one in STATES:
            readings.put("gateway_plugin_breaker", one == state, *labels, one)


def open_breakers(chain: Chain) -> tuple[OpenBreaker, ...]:
    """The hooks that failed so often that they are not called for now, or on trial."""
    now = monotonic()
    return tuple(
        OpenBreaker(
            step.plugin,
            f"{step.hook} {step.breaker.reason}",
            max(0.0, step.breaker.retry_at - now),
            step.on_error,
        )
        for steps in chain.steps.values()
        for step in steps
        if step.breaker.state(now) != "closed"
    )


def _steps(chain: Chain, hooks: tuple[str, ...]) -> Iterator[Step]:
    for hook in hooks:
        yield from chain.steps[hook]
