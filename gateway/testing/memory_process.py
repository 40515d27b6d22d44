"""The objects of a process, without sockets and disk, on an event loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, TypeVar, cast

from gateway.configuration.config import Config
from gateway.configuration.network import NetworkSet
from gateway.configuration.users import load_users
from gateway.hooks.lifecycle import start_plugins, stop_plugins
from gateway.hooks.load import LoadedPlugin
from gateway.hooks.watchdog import Watchdog
from gateway.limits import Limits
from gateway.log import AcceptLog
from gateway.queue.dispatch import Dispatcher
from gateway.resolver import Resolver
from gateway.smtp.ingress import Ingress
from gateway.smtp.listener import Listener
from gateway.spool.spool import Spool
from gateway.testing.dns import FakeDns
from gateway.testing.faults import Fault, FaultLog
from gateway.testing.interruption import interrupting
from gateway.testing.memory_queue import MemoryQueue
from gateway.testing.observed_chain import ObservedChain
from gateway.testing.result import Timings
from gateway.testing.tasks import leaked

T = TypeVar("T")


class MemoryProcess:
    """What a process of the gateway is made of, with mail and events in memory.

    Args:
        config: what it is made by.
        plugins: those of `config`.
        clock: seconds since the epoch.
        dns: what the DNS says. It is served anew: the test may run this one in a loop of its own.
        resolver: asks the DNS instead.
        role: what plugins are told about the process.

    Attributes:
        chain, queue, listener, limits, resolver, watchdog: its objects.

    Raises:
        PluginStartError: a `start` hook failed.
        RuntimeError: an event loop runs already in this thread.
    """

    def __init__(
        self,
        config: Config,
        plugins: Sequence[LoadedPlugin],
        *,
        clock: Callable[[], float],
        dns: FakeDns,
        resolver: Resolver | None,
        role: Literal["worker", "service"],
    ) -> None:
        _check_alone()
        self._config = config
        self._plugins = plugins
        self._clock = clock
        self._log = FaultLog()
        self._open = AsyncExitStack()
        self.watchdog = Watchdog()
        self.queue = MemoryQueue()
        self.chain = ObservedChain(plugins, self.watchdog)
        config.spool.path.mkdir(parents=True, exist_ok=True)
        self.limits = Limits(config.spool.limits)
        self._loop = asyncio.new_event_loop()
        try:
            self.resolver, self.listener = self.run(self._start(dns, resolver, role))[0]
        except BaseException:
            self._end()
            raise

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._loop.is_closed()

    def run(
        self, work: Coroutine[Any, Any, T], *, last: bool = False
    ) -> tuple[T, tuple[Fault, ...]]:
        """Runs something to its end, and returns what plugins did wrong meanwhile.

        After the `last` work no task may be left, not even an older one.
        """
        try:
            _check_alone()
        except RuntimeError:
            work.close()
            raise
        failed = self._failed()
        with self._log.listening(), interrupting(self.watchdog):
            result, left = self._loop.run_until_complete(leaked(work, last=last))
        logged = self._log.take()
        return result, (*logged, *left, *self._unlogged(failed, logged))

    def _failed(self) -> dict[tuple[str, str], int]:
        """How often each hook of each plugin has failed."""
        steps = (step for steps in self.chain.steps.values() for step in steps)
        return {(step.plugin, step.hook): step.faults for step in steps}

    def _unlogged(
        self, before: dict[tuple[str, str], int], logged: Sequence[Fault]
    ) -> Iterator[Fault]:
        """Faults that a test suite which turns logging off would not see."""
        known = {(fault.plugin, fault.hook) for fault in logged}
        for key, count in self._failed().items():
            if count > before[key] and key not in known:
                plugin, hook = key
                yield Fault(f"plugin {plugin} failed in {hook}; logging is off", plugin, hook)

    def close(self) -> tuple[Fault, ...]:
        """Runs the `stop` hooks, and returns what plugins did wrong in them."""
        try:
            return self.run(self._stop(), last=True)[1]
        finally:
            self._end()

    async def _start(
        self, dns: FakeDns, resolver: Resolver | None, role: Literal["worker", "service"]
    ) -> tuple[Resolver, Listener]:
        server = FakeDns({}, ttl=dns.ttl)
        server.zones, server.queries, server.signed = dns.zones, dns.queries, dns.signed
        await self._open.enter_async_context(server)
        if resolver is None:
            resolver = Resolver([server.address], 1.0, loopback=True)
        await start_plugins(
            self._plugins, self._config, role, resolver, self.limits, self.queue.emit
        )
        return resolver, self._listen()

    def _listen(self) -> Listener:
        config = self._config
        listen = config.listen[0]
        ingress = Ingress(
            hostname=config.hostname,
            limits=config.limits,
            campaign_header=config.campaign_header,
            release_header=config.release_header,
            streams=config.compiled_streams,
            chain=self.chain,
            spool=cast(Spool, self.queue),
            dispatcher=cast(Dispatcher, self.queue),
            accept_log=AcceptLog(),
            clock=self._clock,
        )
        users = load_users(listen.users) if listen.users is not None else None
        return Listener(
            name=str(listen.address),
            ingress=ingress,
            allow=NetworkSet(listen.allow),
            users=users,
            logins=users is not None or bool(self.chain.steps["auth"]),
            plaintext_auth=True,
        )

    async def _stop(self) -> None:
        await stop_plugins(self._plugins)
        await self.resolver.close()
        await self._open.aclose()

    def _end(self) -> None:
        loop = self._loop
        loop.run_until_complete(self._open.aclose())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        self.limits.close()

    # How long hooks take.

    def calls(self) -> dict[tuple[str, str], tuple[int, float]]:
        """How often each hook of each plugin was called, and the seconds that it took."""
        return {
            (step.plugin, step.hook): (step.timing.calls, step.timing.seconds)
            for steps in self.chain.steps.values()
            for step in steps
        }

    def timings(self, before: dict[tuple[str, str], tuple[int, float]]) -> Timings:
        """The seconds in hooks since `calls` gave this."""
        return {
            key: seconds - before[key][1]
            for key, (calls, seconds) in self.calls().items()
            if calls > before[key][0]
        }


def _check_alone() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "a MemoryGateway is used without await: write `def test_...`, or use a Gateway"
    )
