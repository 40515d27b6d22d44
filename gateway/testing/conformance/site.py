"""A site that exists for a check only: a folder, a clock, a DNS and limits, and no network."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self

from gateway.configuration.config import Config
from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.lifecycle import context_of, resolver_of
from gateway.hooks.load import LoadedPlugin
from gateway.hooks.plugin import Context
from gateway.hooks.thread_context import for_threads
from gateway.hooks.watchdog import NEVER, Watchdog
from gateway.limits import Limits
from gateway.resolver import Resolver
from gateway.testing.conformance.candidate import Candidate
from gateway.testing.dns import FakeDns

LONGEST = 20.0
"""Seconds that `start` and `stop` may take."""

Role = Literal["worker", "service"]


@dataclass(slots=True, eq=False)
class Instance:
    """A plugin in the role of one process, and a chain of it alone."""

    loaded: LoadedPlugin
    config: Config
    role: Role
    watchdog: Watchdog
    chain: Chain

    def renew(self) -> None:
        """A chain that knows of no failure so far."""
        self.chain = Chain([self.loaded], self.watchdog)

    def rewired(self, loaded: LoadedPlugin) -> Instance:
        """The same plugin in a chain with other hooks."""
        return Instance(
            loaded, self.config, self.role, self.watchdog, Chain([loaded], self.watchdog)
        )

    def has(self, hook: str) -> bool:
        """Whether the chain calls this hook."""
        return hook in self.loaded.hooks

    def close(self) -> None:
        """Ends the threads of a blocking plugin."""
        if self.loaded.pool is not None:
            self.loaded.pool.close()


class Site:
    """Makes instances of a plugin, and starts and stops them.

    Attributes:
        folder: what the plugins' own folders are in.
        now: the time of the clock, in seconds since the epoch; checks move it.
        events: what plugins have emitted.
    """

    def __init__(self, candidate: Candidate, *, dns: bool) -> None:
        self.candidate = candidate
        self.now = float(int(time.time()))
        self.events: list[Event] = []
        self.folder = Path()
        self._dns = dns
        self._resources = AsyncExitStack()
        self._resolver: Resolver
        self._limits: Limits
        self._watchdog = Watchdog()

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="plugin-check-"))
        self._resources.callback(shutil.rmtree, self.folder, ignore_errors=True)
        if self._dns:
            self._resolver = resolver_of(self.candidate.config)
        else:
            server = await self._resources.enter_async_context(FakeDns({}))
            self._resolver = Resolver([server.address], 1.0)
        self._resources.push_async_callback(self._resolver.close)
        self._limits = Limits(self.folder / "limits")
        self._limits.open()
        self._resources.callback(self._limits.close)
        self._watchdog.start()
        self._resources.callback(self._watchdog.stop)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._resources.aclose()

    def instance(
        self,
        role: Role = "worker",
        *,
        name: str = "",
    ) -> Instance:
        """A new instance, not started."""
        loaded, config = self.candidate.load(self.folder, name=name)
        return Instance(loaded, config, role, self._watchdog, Chain([loaded], self._watchdog))

    async def start(self, instance: Instance) -> None:
        """Runs the hook `start` as a process does.

        Raises:
            Exception: whatever the hook raises.
        """
        hook = instance.loaded.hooks.get("start")
        if hook is not None:
            context = self.context(instance, instance.role)
            if instance.loaded.pool is not None:
                context = for_threads(context)
            await self._run(instance, hook, context)

    async def stop(self, instance: Instance) -> None:
        """Runs the hook `stop`.

        Raises:
            Exception: whatever the hook raises.
        """
        hook = instance.loaded.hooks.get("stop")
        if hook is not None:
            await self._run(instance, hook)
        instance.close()

    def context(self, instance: Instance, role: Literal["worker", "service", "command"]) -> Context:
        """What the plugin gets in a process of that role."""
        context = context_of(
            instance.loaded.entry.name,
            instance.config,
            role,
            self._resolver,
            self._limits,
            self._emit,
        )
        return replace(context, clock=lambda: self.now)

    async def _run(self, instance: Instance, hook: Callable[..., Any], *arguments: Any) -> None:
        pool = instance.loaded.pool
        if pool is not None:
            await pool.run(hook, *arguments, timeout=LONGEST)
            return
        self._watchdog.deadline = monotonic() + LONGEST
        try:
            result = hook(*arguments)
        finally:
            self._watchdog.deadline = NEVER
        if asyncio.iscoroutine(result):
            async with asyncio.timeout(LONGEST):
                await result

    def _emit(self, event: Event) -> asyncio.Future[None]:
        for name, note in event.notes.items():
            if not isinstance(note, str):
                raise TypeError(f"the note {name} is {type(note).__name__}; notes are text")
        self.events.append(event)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.set_result(None)
        return written
