"""What a blocking plugin may not be, its start and its stop, and a process that it hangs in."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent
from types import FrameType
from typing import Any

import pytest

from gateway.configuration.config import Config, ConfigError
from gateway.events import Event
from gateway.hooks.lifecycle import PluginStartError, start_plugins, stop_plugins
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.limits import Limits
from gateway.resolver import Resolver
from tests.assembly import configure, write_plugin

DEADLINE = 30.0


def _load(folder: Path, *sources: str, rules: str = "") -> tuple[Config, list[LoadedPlugin]]:
    entries = [
        f"  - {write_plugin(folder, f'p{number}', source)}: {{{rules}}}"
        for number, source in enumerate(sources)
    ]
    config = configure(folder, "\n".join(["plugins:", *entries]))
    return config, load_plugins(config)


def _problems(folder: Path, source: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _load(folder, source)
    return [problem.message for problem in caught.value.problems]


# What is refused.


@pytest.mark.parametrize(
    ("hook", "subject"),
    [
        ("claim", "recipient"),
        ("source", "delivery"),
        ("admit", "delivery"),
        ("reply", "attempt"),
    ],
)
def test_hooks_of_the_loop_are_refused(tmp_path: Path, hook: str, subject: str) -> None:
    receive = "\n@hookimpl\ndef receive(self, message): ..." if hook == "claim" else ""
    source = f"blocking = True\n@hookimpl\ndef {hook}(self, {subject}): ...{receive}"
    (problem,) = _problems(tmp_path, source)
    assert problem.partition(": ")[2] == (
        f"{hook} runs on the event loop, where nothing may block, and the plugin says "
        f"blocking = True; put {hook} into a plugin of its own, without it"
    )
    _load(tmp_path, source.removeprefix("blocking = True\n"))


@pytest.mark.parametrize("hook", ["start", "stop", "message", "observe", "seal"])
def test_a_coroutine_is_refused(tmp_path: Path, hook: str) -> None:
    subject = {"start": ", context", "stop": "", "observe": ", events"}.get(hook, ", message")
    problems = _problems(
        tmp_path,
        "blocking = True\n@hookimpl\ndef connect(self, client): ...\n"
        f"@hookimpl\nasync def {hook}(self{subject}): ...",
    )
    said = [problem.partition(": ")[2] for problem in problems]
    assert said[-1] == (
        f"{hook} must not be async: the plugin says blocking = True, and its hooks run in threads; "
        f"write def {hook}, or leave out blocking"
    )


@pytest.mark.parametrize("threads", ["0", "-1", "'4'", "2.5", "None"])
def test_a_number_of_threads_that_is_none(tmp_path: Path, threads: str) -> None:
    source = f"blocking = True\nthreads = {threads}\n@hookimpl\ndef connect(self, client): ..."
    (problem,) = _problems(tmp_path, source)
    assert problem == f"Site says threads = {threads}; expected: a number from 1"


# Start and stop.

RECORDER = """
blocking = True
@hookimpl
def start(self, context):
    import threading
    self.context = context
    self.started = threading.current_thread()
    {start}
@hookimpl
def stop(self):
    import threading
    self.stopped = threading.current_thread()
    {stop}
@hookimpl
def connect(self, client): ...
"""


def _recorder(start: str = "pass", stop: str = "pass") -> str:
    return RECORDER.format(start=start, stop=stop)


class Life:
    """Plugins that are started, and everything that they emitted."""

    def __init__(self, config: Config, plugins: list[LoadedPlugin]) -> None:
        self._config = config
        self.plugins = plugins
        self.limits = Limits(config.spool.limits)
        self.emitted: list[tuple[Event, threading.Thread]] = []
        self.written: list[asyncio.Future[None]] = []

    async def start(self) -> None:
        """Runs the start hooks."""
        resolver = Resolver(["127.0.0.1:1"], 1.0)
        await start_plugins(self.plugins, self._config, "worker", resolver, self.limits, self._emit)

    async def stop(self) -> None:
        """Runs the stop hooks."""
        await stop_plugins(self.plugins)
        self.limits.close()

    def _emit(self, event: Event) -> asyncio.Future[None]:
        if event.type == "refused":
            raise RuntimeError("not now")
        self.emitted.append((event, threading.current_thread()))
        self.written.append(asyncio.get_running_loop().create_future())
        return self.written[-1]

    def instance(self, number: int = 0) -> Any:
        """A plugin."""
        return self.plugins[number].instance

    async def run(self, function: Any, *arguments: Any) -> Any:
        """Calls something in a thread of the first plugin."""
        pool = self.plugins[0].pool
        assert pool is not None
        return await pool.run(function, *arguments, timeout=DEADLINE)


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    life = Life(*_load(tmp_path, _recorder()))
    await life.start()
    yield life
    await life.stop()


async def test_start_and_stop_run_in_a_thread(tmp_path: Path) -> None:
    life = Life(*_load(tmp_path, _recorder()))
    await life.start()
    await life.stop()
    plugin = life.instance()
    assert plugin.started.name == plugin.stopped.name == "plugin p0 1"
    plugin.stopped.join(DEADLINE)
    assert not plugin.stopped.is_alive()


async def test_others_go_on_during_the_start(tmp_path: Path) -> None:
    life = Life(*_load(tmp_path, _recorder("time.sleep(0.2)")))
    starting, turns = asyncio.create_task(life.start()), 0
    while not starting.done():
        turns += 1
        await asyncio.sleep(0.001)
    await starting
    assert turns > 10
    await life.stop()


@pytest.mark.parametrize("error", ["OSError('no database')", "SystemExit(3)"])
async def test_a_start_that_fails_stops_those_before_it(tmp_path: Path, error: str) -> None:
    life = Life(*_load(tmp_path, _recorder(), _recorder(f"raise {error}")))
    kind, _, text = error.partition("(")
    with pytest.raises(
        PluginStartError, match=f"plugin p1 cannot start: {kind}: {text[:-1].strip(chr(39))}"
    ):
        await life.start()
    for thread in (life.instance(0).stopped, life.instance(1).started):
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.mark.parametrize("stop", ["while True: time.sleep(0.01)", "raise OSError('gone')"])
async def test_a_stop_that_fails_or_hangs_is_logged(
    tmp_path: Path, stop: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, plugins = _load(tmp_path, _recorder(), _recorder(stop=stop), rules="timeout: 200ms")
    life = Life(config, plugins)
    await life.start()
    started = time.monotonic()
    await life.stop()
    assert time.monotonic() - started < DEADLINE
    assert "plugin p1 failed in stop" in caplog.text
    assert ("ran longer than 0.2 s" in caplog.text) == ("while" in stop)
    life.instance(0).stopped.join(DEADLINE)
    assert not life.instance(0).stopped.is_alive()


# The context.


async def test_an_event_is_emitted_on_the_loop(life: Life) -> None:
    event = Event("seen", 1.0, "1")

    def hook() -> str:
        future = life.instance().context.emit(event)
        assert not future.done()
        life.instance().writing.set()
        future.result(DEADLINE)
        return "written"

    life.instance().writing = threading.Event()
    running = asyncio.create_task(life.run(hook))
    end = time.monotonic() + DEADLINE
    while not (life.emitted and life.instance().writing.is_set()):
        assert time.monotonic() < end
        await asyncio.sleep(0.001)
    assert life.emitted == [(event, threading.main_thread())]
    assert not running.done()
    life.written[0].set_result(None)
    assert await running == "written"


async def test_events_are_emitted_in_order_and_before_the_answer(life: Life) -> None:
    def hook() -> None:
        for number in range(50):
            life.instance().context.emit(Event("seen", float(number), "1"))

    await life.run(hook)
    assert [event.time for event, _ in life.emitted] == list(range(50))


async def test_an_event_that_is_not_written(life: Life) -> None:
    def hook() -> None:
        life.instance().context.emit(Event("seen", 1.0, "1")).result(DEADLINE)

    running = asyncio.create_task(life.run(hook))
    end = time.monotonic() + DEADLINE
    while not life.written:
        assert time.monotonic() < end
        await asyncio.sleep(0.001)
    life.written[0].set_exception(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        await running


async def test_an_event_that_is_refused_is_logged_too(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    def hook() -> None:
        life.instance().context.emit(Event("refused", 1.0, "1")).result(DEADLINE)

    with pytest.raises(RuntimeError, match="not now"):
        await life.run(hook)
    assert ("gateway.plugin.p0", logging.ERROR, "the event refused is lost: not now") in (
        caplog.record_tuples
    )


async def test_on_the_loop_emit_is_as_always(life: Life) -> None:
    future = life.instance().context.emit(Event("seen", 1.0, "1"))
    assert future is life.written[0]
    with pytest.raises(RuntimeError, match="not now"):
        life.instance().context.emit(Event("refused", 1.0, "1"))


async def test_limits_are_shared_with_the_loop_and_between_threads(life: Life) -> None:
    """Many changes of one cell at a time: none is lost."""
    limits, turns, threads = life.instance().context.limits, 20, 4

    def others_first(frame: FrameType, event: str, _: object) -> Any:
        """Lets other threads run at every line of the limits' code."""
        if frame.f_code.co_filename.endswith(("limits.py", "table.py")):
            time.sleep(0)
            return others_first
        return None

    def count(limits: Limits) -> None:
        limits.change("n", 1.0, lambda cell: ((cell.value if cell else 0.0) + 1, 1e12, ""))

    def hook() -> None:
        sys.settrace(others_first)
        for _ in range(turns):
            count(limits)
        sys.settrace(None)

    running = [asyncio.create_task(life.run(hook)) for _ in range(threads)]
    here = 0
    while not all(task.done() for task in running):
        count(life.limits)
        here += 1
        await asyncio.sleep(0.05)
    await asyncio.gather(*running)
    cell = life.limits.read("n", 1.0)
    assert cell is not None
    assert cell.value == turns * threads + here


async def test_a_lease_may_be_released_in_another_thread(life: Life) -> None:
    limits = life.instance().context.limits
    lease = await life.run(limits.lease, {"x": 1})
    assert life.limits.leased("x") == 1
    assert await life.run(limits.lease, {"x": 1}) is None
    assert life.limits.lease({"x": 1}) is None
    await life.run(lease.release)
    lease.release()
    assert life.limits.leased("x") == 0
    lost = await life.run(limits.lease, {"x": 1})
    del lost
    again = await life.run(limits.lease, {"x": 1})
    assert again is not None
    again.release()


def test_nothing_of_limits_is_left_to_one_thread() -> None:
    from gateway.hooks.thread_context import ThreadLease, ThreadLimits
    from gateway.limits import Lease

    for base, safe in ((Limits, ThreadLimits), (Lease, ThreadLease)):
        public = {name for name in vars(base) if not name.startswith("_")} - {"path", "places"}
        assert public <= set(vars(safe))


# A process.


@pytest.mark.parametrize(
    "hang", ["time.sleep(600)", "while True: pass", "threading.Event().wait()"]
)
def test_a_process_with_hooks_that_hang_ends(tmp_path: Path, hang: str) -> None:
    (tmp_path / "hanging.py").write_text(
        dedent(f"""
        import threading, time
        from pydantic import BaseModel
        from gateway.hooks import Plugin, hookimpl

        class Config(BaseModel): pass

        class Hanging(Plugin[Config]):
            blocking = True
            @hookimpl
            def stop(self):
                {hang}
            @hookimpl
            def connect(self, client):
                {hang}
    """)
    )
    configure(tmp_path, "plugins: [./hanging.py: {timeout: 200ms}]")
    program = dedent(f"""
        import asyncio
        from pathlib import Path
        from gateway.configuration.config import load_config
        from gateway.hooks import Client
        from gateway.hooks.chain import Chain
        from gateway.hooks.lifecycle import start_plugins, stop_plugins
        from gateway.hooks.load import load_plugins
        from gateway.hooks.watchdog import Watchdog

        async def main():
            plugins = load_plugins(load_config(Path({str(tmp_path / "gateway.yaml")!r})))
            chain = Chain(plugins, Watchdog())
            print(await chain.connect(Client("127.0.0.1")))
            await stop_plugins(plugins)

        asyncio.run(main())
        print("end")
    """)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Tempfail(")
    assert ended.stdout.endswith("end\n")
    assert "plugin hanging failed in stop: ran longer than 0.2 s" in ended.stderr
    assert "Traceback" not in ended.stderr
