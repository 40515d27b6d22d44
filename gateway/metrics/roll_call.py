"""Asks twice a second how all processes are, so that `/health` is answered from memory."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from gateway.metrics.workers import Workers
from gateway.spool.room import room_of
from gateway.web.health import Health, Report, judge

PERIOD = 0.5
"""Seconds between two calls of the roll."""

TIMEOUT = 2.0
"""Seconds that a worker has to answer."""

SILENCE = 5.0
"""Seconds without an answer until that is a problem: a worker that died is there again before."""

log = logging.getLogger("gateway.health")


class RollCall:
    """How all processes are.

    Attributes:
        health: how, as it was found last.
        left: the numbers of shards that workers cannot read.

    Args:
        workers: who is asked.
        own: how this process is.
        folder, reserve: the spool, and how many octets of its disk mail may not take.
    """

    def __init__(
        self, workers: Workers, own: Callable[[], Report], folder: Path, reserve: int
    ) -> None:
        self._workers = workers
        self._own = own
        self._folder = folder
        self._reserve = reserve
        self._heard = dict.fromkeys(workers.names, time.monotonic())
        self._looked = time.monotonic()
        self.health = Health()
        self.left: frozenset[int] = frozenset()

    async def run(self) -> None:
        """Calls the roll until it is cancelled."""
        while True:
            started = time.monotonic()
            try:
                await self.call()
            except Exception as error:
                log.exception("nobody can be asked how they are")
                self.health = Health({"service": f"{type(error).__name__}; see the log"})
            await asyncio.sleep(max(0.0, started + PERIOD - time.monotonic()))

    async def call(self) -> None:
        """Asks everybody, and keeps what that means."""
        answers = await self._workers.ask("health", TIMEOUT)
        now = time.monotonic()
        reports: dict[str, Report] = {}
        for name, answer in answers.items():
            if answer.said is None:
                continue
            try:
                reports[name] = Report.from_json(answer.said["report"])
            except (KeyError, ValueError) as error:
                log.error("%s: how it is cannot be read: %s", name, error)
                continue
            self._heard[name] = now
        reports["service"] = self._own()
        silent = {
            name: now - self._heard[name]
            for name in self._workers.names
            if now - self._heard[name] > SILENCE
        }
        self.left = frozenset(number for report in reports.values() for number in report.left)
        self.health = judge(reports, silent, spool=self._problem_of_spool(), workers="worker-")

    def _problem_of_spool(self) -> str:
        """Why nothing new can be stored; '' if there is room."""
        try:
            status = os.statvfs(self._folder)
        except OSError as error:
            # At the very first start, a worker has yet to make it.
            late = time.monotonic() - self._looked > SILENCE
            return f"cannot be looked at: {error.strerror}" if late else ""
        self._looked = time.monotonic()
        if room_of(status) < self._reserve:
            return "less than spool.reserve is free on the disk: mail is refused for now"
        return ""
