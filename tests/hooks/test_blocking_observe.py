"""Observers that fail or block: every event comes, in order, whatever the breaker does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.events import Event
from gateway.hooks.breaker import FAULTS
from gateway.hooks.chain import Chain
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.spool.outbox import Outbox
from gateway.spool.shard import Shard
from tests.assembly import configure, write_plugin

OBSERVER = """
blocking = {blocking}
@hookimpl
def observe(self, events):
    if self.broken:
        raise OSError("no database")
    self.got += [event.message_id for event in events]
"""


class Observed:
    """A shard and its observers, one on the loop and one in threads."""

    def __init__(self, folder: Path, rule: str) -> None:
        folder.mkdir()
        entries = [
            f"  - {write_plugin(folder, f'p{blocking}', OBSERVER.format(blocking=blocking))}: "
            f"{{on_error: {rule}}}"
            for blocking in (False, True)
        ]
        self.plugins: list[LoadedPlugin] = load_plugins(
            configure(folder, "\n".join(["plugins:", *entries]))
        )
        self.chain = Chain(self.plugins, Watchdog())
        for plugin in self.plugins:
            self.set(plugin, broken=False)
            vars(plugin.instance)["got"] = []
        shards = folder / "shards"
        shards.mkdir()
        self.shard = Shard.claim(shards, 1, "")
        self.shard.recover()
        self.outbox = Outbox(shards, self.chain)
        self.written = 0

    def set(self, plugin: LoadedPlugin, *, broken: bool) -> None:
        """Lets an observer fail, or work."""
        vars(plugin.instance)["broken"] = broken

    def got(self, plugin: LoadedPlugin) -> list[str]:
        """What an observer has seen."""
        got: list[str] = vars(plugin.instance)["got"]
        return got

    async def write(self) -> None:
        """Puts an event into the outbox."""
        self.written += 1
        self.shard.append((), (Event("x", 0.0, str(self.written)),), lambda error: None)
        await self.shard.drain()

    async def close(self) -> None:
        """Lets go of everything."""
        self.outbox.close()
        await self.shard.drain()
        self.shard.close()
        for plugin in self.plugins:
            if plugin.pool is not None:
                plugin.pool.close()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    numbers = iter(range(10_000))
    return (tmp_path / str(number) for number in numbers)


@pytest.mark.parametrize("rule", ["tempfail", "skip"])
async def test_events_wait_until_the_observer_works(tmp_path: Path, rule: str) -> None:
    observed = Observed(tmp_path / "site", rule)
    await observed.write()
    assert await observed.outbox.pass_on() == 2
    for plugin in observed.plugins:
        observed.set(plugin, broken=True)
    for _ in range(FAULTS + 10):
        await observed.write()
        await observed.outbox.pass_on()
    lost = FAULTS if rule == "skip" else 0
    breakers = [step.breaker for step in observed.chain.steps["observe"]]
    assert all(breaker.faults_in_a_row == FAULTS for breaker in breakers)
    for plugin in observed.plugins:
        observed.set(plugin, broken=False)
        assert observed.got(plugin) == ["1"]
    assert await observed.outbox.pass_on() == 0
    for breaker in breakers:
        breaker.retry_at = time.monotonic()
    assert await observed.outbox.pass_on() == 2 * (FAULTS + 10 - lost)
    expected = ["1", *(str(number) for number in range(2 + lost, observed.written + 1))]
    for plugin in observed.plugins:
        assert observed.got(plugin) == expected
    await observed.close()


@given(st.lists(st.sampled_from(["write", "pass on", "break 0", "break 1", "mend 0", "mend 1"])))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_every_event_comes_once_and_in_order(
    folders: Iterator[Path], acts: list[str]
) -> None:
    observed = Observed(next(folders), "tempfail")
    for act in acts:
        if act == "write":
            await observed.write()
        elif act == "pass on":
            await observed.outbox.pass_on()
        else:
            broken, _, number = act.partition(" ")
            observed.set(observed.plugins[int(number)], broken=broken == "break")
    for plugin in observed.plugins:
        observed.set(plugin, broken=False)
    for step in observed.chain.steps["observe"]:
        step.breaker.retry_at = 0.0
    while await observed.outbox.pass_on():
        pass
    for plugin in observed.plugins:
        assert observed.got(plugin) == [str(number) for number in range(1, observed.written + 1)]
    await observed.close()
