"""Every metric that the gateway tells: its name, its kind, its labels, what it means. Pure.

Besides the labels named here, each series has the label `process`: whose number it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    `name` is as Prometheus stores it; histograms and summaries get `_count` and `_sum` behind it,
    histograms `_bucket` too. A label has few values: hooks, states, plugins, never addresses.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


_METRICS = (
    # Mail that comes in.
    Metric("gateway_smtp_connections_total", "counter", "Connections that clients have made."),
    Metric("gateway_smtp_sessions", "gauge", "Sessions that are open."),
    Metric(
        "gateway_smtp_refusals_total",
        "counter",
        "Commands that were refused, by the class of the reply: 4xx or 5xx.",
        ("reply",),
    ),
    Metric("gateway_smtp_recipients_total", "counter", "Recipients that were taken at RCPT."),
    Metric(
        "gateway_messages_total",
        "counter",
        "Messages that were answered after their last octet, by the class of the reply: 2xx means "
        "accepted, 4xx and 5xx refused.",
        ("reply",),
    ),
    Metric("gateway_message_bytes_total", "counter", "Octets of the messages that were accepted."),
    Metric(
        "gateway_reception_seconds",
        "histogram",
        "From the last octet of a message to its answer: the chain and the disk.",
    ),
    Metric(
        "gateway_chain_seconds",
        "summary",
        "In the hooks message and seal; the count is that of messages.",
    ),
    Metric(
        "gateway_commit_seconds",
        "summary",
        "In commits of the spool, each of which writes what waits.",
    ),
    # Mail that goes out.
    Metric(
        "gateway_deliveries_total",
        "counter",
        "Recipients by what became of an attempt: delivered, deferred, bounced, expired.",
        ("outcome",),
    ),
    Metric(
        "gateway_attempt_seconds",
        "histogram",
        "An attempt, from the first hook to the last reply of the server.",
    ),
    Metric("gateway_attempts", "gauge", "Attempts under way."),
    Metric("gateway_outgoing_connections", "gauge", "Connections to servers that are open."),
    Metric("gateway_lanes", "gauge", "Lanes in memory."),
    Metric("gateway_memory_recipients", "gauge", "Recipients of the queue that are in memory."),
    Metric("gateway_memory_message_bytes", "gauge", "Octets of messages that are in memory."),
    # Plugins.
    Metric(
        "gateway_plugin_call_seconds",
        "histogram",
        "Calls of a plugin's hook, and how long they took.",
        ("plugin", "hook"),
    ),
    Metric("gateway_plugin_faults_total", "counter", "Calls that failed.", ("plugin", "hook")),
    Metric(
        "gateway_plugin_timeouts_total",
        "counter",
        "Calls that failed because they took longer than the entry's timeout.",
        ("plugin", "hook"),
    ),
    Metric(
        "gateway_plugin_skipped_total",
        "counter",
        "Calls that were not made, because the plugin had failed too often.",
        ("plugin", "hook"),
    ),
    Metric(
        "gateway_plugin_breaker",
        "gauge",
        "1 for the state that the hook's breaker is in: closed (it is called), open (it is not), "
        "half-open (the next call is a trial).",
        ("plugin", "hook", "state"),
    ),
    # The queue and the disk.
    Metric(
        "gateway_queue_recipients",
        "gauge",
        "Recipients in the queue, by state: active, deferred, scheduled, held.",
        ("state",),
    ),
    Metric(
        "gateway_queue_held_recipients",
        "gauge",
        "Recipients that are held, by what holds them: damaged (on the disk), crash (processes "
        "ended over the message), salvaged (from a damaged shard), paused, hand, quarantined.",
        ("holder",),
    ),
    Metric("gateway_queue_lanes", "gauge", "Lanes that have mail in the queue."),
    Metric("gateway_queue_oldest_seconds", "gauge", "Age of the oldest mail; 0 if there is none."),
    Metric(
        "gateway_outbox_events",
        "gauge",
        "Events that wait for an observer.",
        ("observer",),
    ),
    Metric("gateway_spool_bytes", "gauge", "Octets of the spool's databases."),
    Metric("gateway_spool_free_bytes", "gauge", "Octets that are free on the spool's disk."),
    Metric("gateway_spool_reserve_bytes", "gauge", "Octets of it that mail may not take."),
    Metric("gateway_spool_failed", "gauge", "1 while a shard of the process cannot be written."),
    Metric(
        "gateway_spool_unreadable_shards",
        "gauge",
        "Shards that cannot be read: their mail waits for a person.",
    ),
    # Processes.
    Metric("gateway_up", "gauge", "1 if the process told its numbers, otherwise 0."),
    Metric("gateway_scrape_seconds", "gauge", "How long it took to tell them."),
    Metric("gateway_scrape_failures_total", "counter", "How often it did not."),
    Metric("gateway_build_info", "gauge", "1, with the version that runs.", ("version",)),
    Metric("process_cpu_seconds_total", "counter", "CPU time."),
    Metric("process_resident_memory_bytes", "gauge", "Memory in use."),
    Metric("process_open_fds", "gauge", "Open files and sockets."),
    Metric("process_max_fds", "gauge", "How many may be open."),
    Metric(
        "process_start_time_seconds", "gauge", "When it was started, in seconds since the epoch."
    ),
)

METRICS = {metric.name: metric for metric in _METRICS}
"""All metrics by their names, in the order in which they are told."""
