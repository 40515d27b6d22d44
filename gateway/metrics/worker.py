"""What a worker tells of itself: its numbers, and how well it is."""

from __future__ import annotations

from typing import Any

from gateway.delivery.connections import Connections
from gateway.hooks.chain import Chain
from gateway.hooks.histogram import BOUNDS
from gateway.metrics.plugins import WORKER_HOOKS, open_breakers, read_plugins
from gateway.metrics.readings import Readings
from gateway.metrics.storage import storage_of
from gateway.metrics.usage import Usage
from gateway.queue.dispatch import Dispatcher
from gateway.queue.settle import Settler
from gateway.smtp.ingress import Ingress
from gateway.spool.spool import Spool
from gateway.web.health import Report


class WorkerMetrics:
    """Reads the counters of a worker's objects, when it is asked to."""

    def __init__(
        self,
        *,
        chain: Chain,
        ingress: Ingress,
        settler: Settler,
        dispatcher: Dispatcher,
        connections: Connections,
        spool: Spool,
    ) -> None:
        self._chain = chain
        self._ingress = ingress
        self._settler = settler
        self._dispatcher = dispatcher
        self._connections = connections
        self._spool = spool
        self._usage = Usage()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The reply to a request over the control socket; None for one about something else."""
        command = asked.get("command")
        if command == "metrics":
            return {"readings": self.read().to_json()}
        if command == "health":
            return {"report": self.report().to_json()}
        return None

    def report(self) -> Report:
        """How this worker is."""
        left = tuple(sorted(self._spool.left))
        return Report(storage_of(self._spool), open_breakers(self._chain), left)

    def read(self) -> Readings:
        """All numbers as they are now."""
        readings = Readings()
        self._usage.read(readings)
        read_plugins(self._chain, WORKER_HOOKS, readings)
        self._read_reception(readings)
        self._read_delivery(readings)
        return readings

    def _read_reception(self, readings: Readings) -> None:
        ingress, traffic = self._ingress, self._ingress.traffic
        messages = ingress.accepted + traffic.deferred + traffic.refused
        filters = (*self._chain.steps["message"], *self._chain.steps["seal"])
        readings.put("gateway_smtp_connections_total", traffic.connections)
        readings.put("gateway_smtp_sessions", ingress.attendance.connections)
        readings.put("gateway_smtp_refusals_total", traffic.commands_deferred, "4xx")
        readings.put("gateway_smtp_refusals_total", traffic.commands_refused, "5xx")
        readings.put("gateway_smtp_recipients_total", traffic.recipients)
        readings.put("gateway_messages_total", ingress.accepted, "2xx")
        readings.put("gateway_messages_total", traffic.deferred, "4xx")
        readings.put("gateway_messages_total", traffic.refused, "5xx")
        readings.put("gateway_message_bytes_total", traffic.octets)
        readings.put_histogram("gateway_reception_seconds", BOUNDS, traffic.reception)
        readings.put_summary(
            "gateway_chain_seconds", messages, sum(step.timing.seconds for step in filters)
        )
        readings.put_summary(
            "gateway_commit_seconds", self._spool.commits, self._spool.commit_seconds
        )
        readings.put("gateway_spool_failed", self._spool.failure is not None)

    def _read_delivery(self, readings: Readings) -> None:
        settler, load = self._settler, self._dispatcher.load
        readings.put("gateway_deliveries_total", settler.delivered, "delivered")
        readings.put("gateway_deliveries_total", settler.deferred, "deferred")
        readings.put("gateway_deliveries_total", settler.failed - settler.expired, "bounced")
        readings.put("gateway_deliveries_total", settler.expired, "expired")
        readings.put_histogram("gateway_attempt_seconds", BOUNDS, settler.attempts)
        readings.put("gateway_attempts", load.attempts)
        readings.put("gateway_outgoing_connections", self._connections.count)
        readings.put("gateway_lanes", load.lanes)
        readings.put("gateway_memory_recipients", load.recipients)
        readings.put("gateway_memory_message_bytes", load.octets)
