"""The processes that run one version of the configuration: a worker for each slot, one service."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.configuration.config import Config
from gateway.process.assignment import Role, sealed_file
from gateway.process.child import Child, ChildError, child_name
from gateway.process.handover import Seats
from gateway.process.listen import ListenSockets, Slots

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the supervisor waits for what, in seconds.

    Attributes:
        start: for a child to be ready.
        stall: without a sign of life until a child is killed.
        settled: what a child has to live so that its death counts as the first.
        backoff: before the restart after the first, second, ... death of a child that had not
            settled; the last one repeats.
        margin: beyond `shutdown_timeout`, before a child is killed.
        check: for the check of a new configuration.
    """

    start: float = 300.0
    stall: float = 60.0
    settled: float = 10.0
    backoff: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
    margin: float = 5.0
    check: float = 60.0

    def restart_delay(self, early_deaths: int) -> float:
        """How long to wait before a restart, after so many deaths in a row that came early."""
        if early_deaths == 0:
            return 0.0
        return self.backoff[min(early_deaths, len(self.backoff)) - 1]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all children of all generations share.

    `command` gives the program of a role; the assignment is appended to it. `parent_fd` is a pipe
    that ends with the supervisor.
    """

    config_path: Path
    command: Callable[[Role], Sequence[str]]
    environ: Mapping[str, str]
    parent_fd: int
    sockets: ListenSockets
    timing: Timing


class Generation:
    """Starts the children of one version of the configuration and replaces those that die.

    Attributes:
        endpoints: the addresses that the workers listen on.
        slots: how many workers there are.
        http: the address that the service process listens on, if there is one.
    """

    def __init__(self, config: Config, text: str, surroundings: Surroundings) -> None:
        """`text` is the text of `config`; the children get exactly it."""
        self.endpoints = [listener.address for listener in config.listen]
        self.slots = config.worker_count
        self.http = config.http.address if config.http is not None else None
        self._shutdown_timeout = config.shutdown_timeout
        self._around = surroundings
        self._timing = surroundings.timing
        self._config_fd = sealed_file(text)
        self._seats = Seats(self.slots) if self.slots > 1 else None
        self._children: dict[tuple[Role, int], Child] = {}
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def listening(self) -> Slots:
        """Every address with the number of processes that listen on it."""
        service = [(self.http, 1)] if self.http is not None else []
        return [(endpoint, self.slots) for endpoint in self.endpoints] + service

    async def start(self) -> None:
        """Starts every child and waits until all are ready; from then on the dead are replaced.

        Raises:
            ChildError: one of them did not start. The others run until `stop`.
        """
        workers: list[tuple[Role, int]] = [("worker", index) for index in range(self.slots)]
        for role, index in (*workers, ("service", 0)):
            self._spawn(role, index)
        self._tasks.append(asyncio.create_task(self._watch()))
        waits = [
            asyncio.ensure_future(child.wait_ready(self._timing.start))
            for child in self._children.values()
        ]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()
        for seat, child in self._children.items():
            self._tasks.append(asyncio.create_task(self._keep(*seat, child)))

    def retire(self) -> None:
        """From now on, children that end are not replaced."""
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Asks all children to finish and waits; kills those that outstay their time."""
        self.retire()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        running = [child for child in self._children.values() if child.alive]
        for child in running:
            child.terminate()
        ends = [asyncio.ensure_future(child.wait_exit()) for child in running]
        limit = self._shutdown_timeout + self._timing.margin
        if ends:
            await asyncio.wait(ends, timeout=limit)
        for child in running:
            if child.alive:
                _log.error("%s (pid %d) did not stop within %g s", child.name, child.pid, limit)
                child.kill()
        await asyncio.gather(*ends)
        if self._seats is not None:
            self._seats.close()
        os.close(self._config_fd)

    def reopen_logs(self) -> None:
        """Asks all children to open their log files anew."""
        for child in self._children.values():
            child.reopen_log()

    def kill(self) -> None:
        """Ends all children at once."""
        for child in self._children.values():
            if child.alive:
                child.kill()

    def _spawn(self, role: Role, index: int) -> Child:
        endpoints = self.endpoints
        if role == "service":
            endpoints = [self.http] if self.http is not None else []
        child = Child(
            self._around.command(role),
            role,
            index,
            config_path=self._around.config_path,
            config_fd=self._config_fd,
            parent_fd=self._around.parent_fd,
            sockets=self._around.sockets.slot(index, endpoints),
            seat=self._seats.seat(index) if self._seats and role == "worker" else None,
            environ=self._around.environ,
        )
        self._children[role, index] = child
        return child

    async def _keep(self, role: Role, index: int, child: Child | None) -> None:
        """Replaces a child whenever it ends."""
        loop = asyncio.get_running_loop()
        name = child_name(role, index)
        early_deaths = 0
        while True:
            if child is None:
                early_deaths += 1
            else:
                end = await child.wait_exit()
                settled = loop.time() - child.started >= self._timing.settled
                early_deaths = 0 if settled else early_deaths + 1
                _log.error("%s (pid %d) ended: %s", name, child.pid, end)
                if self._seats is not None and role == "worker":
                    self._seats.vacate(index)
            delay = self._timing.restart_delay(early_deaths)
            if delay:
                _log.warning("%s is started again in %g s", name, delay)
            await asyncio.sleep(delay)
            child = None
            try:
                child = self._spawn(role, index)
                await child.wait_ready(self._timing.start)
            except ChildError as error:
                _log.error("%s", error)
                if child is not None and child.alive:
                    child.kill()
            except Exception:
                # Whatever it was, giving up would be worse.
                _log.exception("%s cannot be started", name)
            else:
                _log.info("%s runs again (pid %d)", name, child.pid)

    async def _watch(self) -> None:
        """Kills children that are silent: a plugin that blocks its process must not stop mail."""
        loop = asyncio.get_running_loop()
        pause = self._timing.stall / 10
        while True:
            begun = loop.time()
            await asyncio.sleep(pause)
            # A supervisor that was itself stopped for a while cannot judge the others.
            late = loop.time() - begun > 2 * pause
            for child in self._children.values():
                if not child.alive:
                    continue
                child.take_reports()
                if late:
                    child.heard = loop.time()
                elif loop.time() - child.heard > self._timing.stall:
                    _log.error(
                        "%s (pid %d) has shown no life for %g s and is killed",
                        child.name,
                        child.pid,
                        self._timing.stall,
                    )
                    child.kill()
