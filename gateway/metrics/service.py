"""What the service process tells: of itself, of the spool, and what it asks the workers for."""

from __future__ import annotations

import asyncio

from gateway.configuration.config import Config
from gateway.hooks.chain import Chain
from gateway.metrics.plugins import SERVICE_HOOKS, open_breakers, read_plugins
from gateway.metrics.readings import Readings
from gateway.metrics.roll_call import RollCall
from gateway.metrics.scrape import Scrape
from gateway.metrics.spool_survey import SpoolSurvey
from gateway.metrics.storage import storage_of
from gateway.metrics.usage import Usage
from gateway.metrics.workers import Workers
from gateway.spool.spool import Spool
from gateway.web.health import Health, Report


class ServiceMetrics:
    """Answers `/metrics` and `/health` for all processes.

    Args:
        config: the gateway's.
        chain: this process's.
        spool: this process's, for what plugins emit here.
    """

    def __init__(self, config: Config, chain: Chain, spool: Spool) -> None:
        self._chain = chain
        self._spool = spool
        self._usage = Usage()
        folder, reserve = config.spool.path, config.spool.reserve
        workers = Workers(folder, config.worker_count)
        observers = [step.plugin for step in chain.steps["observe"]]
        self._survey = SpoolSurvey(folder, reserve, observers)
        self._scrape = Scrape(workers, self._read, self._survey)
        self._roll_call = RollCall(workers, self._report, folder, reserve)
        self._calls: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks after the health of all processes from now on."""
        self._calls = asyncio.create_task(self._roll_call.run())

    def health(self) -> Health:
        """How the gateway is, as it was found within the last seconds."""
        return self._roll_call.health

    async def text(self) -> bytes:
        """What all processes have counted, in Prometheus's text format."""
        return await self._scrape.text()

    def close(self) -> None:
        """Asks nobody any more."""
        if self._calls is not None:
            self._calls.cancel()
        self._scrape.close()

    def _read(self, readings: Readings) -> None:
        self._usage.read(readings)
        unreadable = self._survey.unreadable | self._roll_call.left
        readings.put("gateway_spool_failed", self._spool.failure is not None)
        readings.put("gateway_spool_unreadable_shards", len(unreadable))
        read_plugins(self._chain, SERVICE_HOOKS, readings)

    def _report(self) -> Report:
        return Report(storage_of(self._spool), open_breakers(self._chain))
