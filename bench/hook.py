"""How long a plugin's `message` hook takes, in this process and with nothing around it."""

from __future__ import annotations

import asyncio
import inspect
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import ClassVar

from bench.case import Case, Figure
from bench.error import BenchError
from bench.newsletter import SENDER
from bench.systems.system import System
from gateway.configuration.config import ConfigError, load_config
from gateway.events import Event
from gateway.hooks import Client, Message
from gateway.hooks.lifecycle import PluginStartError, start_plugins, stop_plugins
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.limits import Limits
from gateway.resolver import Resolver

RUNS = 500
WARM_UP = 100


class HookTime(Case):
    """Calls the hook of one plugin with the same message again and again.

    `entry` is the plugin's entry in gateway.yaml. `messages` are what it gets, by a name for the
    report. `check` raises BenchError if what comes out is not what it should be. `bar` is how many
    milliseconds the median may take.
    """

    alone: ClassVar[bool] = True
    sends_mail: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        title: str,
        entry: str,
        messages: Mapping[str, bytes],
        check: Callable[[bytes], None],
        bar: float | None = None,
    ) -> None:
        super().__init__(name, title)
        self.entry = entry
        self.messages = messages
        self.check = check
        self.figures = tuple(
            figure
            for label in messages
            for figure in (
                Figure(f"{label}: median ms", 3, more_is_better=False, bar=bar),
                Figure(f"{label}: p95 ms", 3, more_is_better=False),
            )
        )

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[HookTrial]:
        """Loads and starts the plugin, as a worker does."""
        file = folder / "gateway.yaml"
        file.write_text(
            f"hostname: gateway.bench.test\nspool: {{path: spool}}\n"
            f"listen: [{{address: '127.0.0.1:2525', allow: [127.0.0.0/8]}}]\n"
            f"plugins: [{self.entry}]\n"
        )
        with asyncio.Runner() as runner:
            try:
                config = load_config(file)
                plugins = load_plugins(config)
                resolver = runner.run(_resolver())
                limits = Limits(config.spool.limits)
                runner.run(start_plugins(plugins, config, "worker", resolver, limits, _no_event))
            except (ConfigError, PluginStartError) as error:
                raise BenchError(str(error)) from error
            try:
                trial = HookTrial(self, plugins[0], runner)
                trial.measure(WARM_UP)
                yield trial
            finally:
                runner.run(stop_plugins(plugins))
                runner.run(resolver.close())


class HookTrial:
    """A plugin that has started, and has seen the messages already."""

    def __init__(self, case: HookTime, plugin: LoadedPlugin, runner: asyncio.Runner) -> None:
        self._case = case
        self._hook = plugin.hooks["message"]
        self._runner = runner
        self._number = 0

    def measure(self, runs: int = RUNS) -> Mapping[str, float]:
        """Calls the hook so often for each message.

        Raises:
            BenchError: it did not do its work.
        """
        measured: dict[str, float] = {}
        for label, content in self._case.messages.items():
            times = self._runner.run(self._times(content, runs))
            measured[f"{label}: median ms"] = statistics.median(times) * 1e3
            measured[f"{label}: p95 ms"] = statistics.quantiles(times, n=20)[-1] * 1e3
        return measured

    async def _times(self, content: bytes, runs: int) -> list[float]:
        times: list[float] = []
        for _ in range(runs):
            self._number += 1
            message = Message(f"B{self._number:07}", SENDER, Client("127.0.0.1"))
            message.receive(content)
            message.add_recipient(f"{self._number}recipient@example.net")
            message.notes["campaign"] = "autumn-sale"
            started = perf_counter()
            answer = self._hook(message)
            if inspect.isawaitable(answer):
                answer = await answer
            octets = message.content
            times.append(perf_counter() - started)
            if answer is not None:
                raise BenchError(f"the plugin answered {answer}")
        self._case.check(octets)
        return times


async def _resolver() -> Resolver:
    return Resolver(["127.0.0.1:1"], 1.0)  # nothing here asks it


def _no_event(event: Event) -> asyncio.Future[None]:
    raise BenchError(f"the plugin emitted {event.type}")
