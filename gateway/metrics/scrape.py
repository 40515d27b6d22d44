"""The numbers of all processes at one moment, as `/metrics` tells them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.metrics.exposition import exposition
from gateway.metrics.readings import Readings
from gateway.metrics.spool_survey import SpoolSurvey
from gateway.metrics.workers import Answer, Workers

TIMEOUT = 3.0
"""Seconds that a process has to tell its numbers: Prometheus waits for ten."""

FRESH = 1.0
"""Seconds for which the same text is given to everyone who asks."""

OWN = "service"

log = logging.getLogger("gateway.metrics")


class Scrape:
    """Asks all processes, once for all who ask at the same time.

    Args:
        workers: who is asked.
        own: reads the numbers of this process.
        survey: counts what waits in the spool.
    """

    def __init__(
        self, workers: Workers, own: Callable[[Readings], None], survey: SpoolSurvey
    ) -> None:
        self._workers = workers
        self._own = own
        self._survey = survey
        self._failures: Counter[str] = Counter()
        self._task: asyncio.Task[bytes] | None = None
        self._text = b""
        self._fresh_until = 0.0
        # Of its own: plugins may keep the threads that all share.
        self._thread = ThreadPoolExecutor(1, "metrics")

    async def text(self) -> bytes:
        """All numbers in Prometheus's text format; not older than a second."""
        if time.monotonic() < self._fresh_until:
            return self._text
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._gather())
        # Who asked first may go away; the others get the answer all the same.
        return await asyncio.shield(self._task)

    def close(self) -> None:
        """Tells nothing more."""
        self._survey.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> bytes:
        own = Readings()
        started = time.monotonic()
        answers, counted = await asyncio.gather(
            self._workers.ask("metrics", TIMEOUT), self._survey.read(own, TIMEOUT)
        )
        self._own(own)
        if not counted:
            self._failures[OWN] += 1
        told = {name: self._told(name, answer) for name, answer in answers.items()}
        told[OWN] = own
        own.put("gateway_up", 1)
        own.put("gateway_scrape_seconds", time.monotonic() - started)
        for name, readings in told.items():
            readings.put("gateway_scrape_failures_total", self._failures[name])
        # In a thread: the text of many workers and plugins takes some tens of milliseconds.
        loop = asyncio.get_running_loop()
        self._text = await loop.run_in_executor(self._thread, exposition, told)
        self._fresh_until = time.monotonic() + FRESH
        return self._text

    def _told(self, name: str, answer: Answer) -> Readings:
        readings = Readings()
        up = answer.said is not None
        if answer.said is not None:
            try:
                readings = Readings.from_json(answer.said["readings"])
            except (KeyError, ValueError) as error:
                log.error("%s: its metrics cannot be read: %s", name, error)
                up = False
        readings.put("gateway_up", up)
        if up:
            readings.put("gateway_scrape_seconds", answer.seconds)
        else:
            self._failures[name] += 1
        return readings
