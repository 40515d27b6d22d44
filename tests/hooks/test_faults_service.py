"""Every way of a plugin to do wrong where no mail passes: start, stop, observe, http, commands."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from gateway.cli.plugins import add_plugin_commands
from gateway.hooks.chain import Chain
from gateway.hooks.lifecycle import PluginStartError
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import NEVER, Watchdog
from gateway.spool.outbox import Outbox
from gateway.web.application import load_applications
from tests.assembly import Assembly, configure, until, write_plugin

NOWHERE = "relay: {via: ['127.0.0.1:1']}"
ON_ERROR = ("tempfail", "skip", "quarantine")

WRONG = {
    "raises": ("raise RuntimeError('broken')", "raised RuntimeError: broken"),
    "exits": ("raise SystemExit(3)", "raised SystemExit: 3"),
    "hangs": ("time.sleep(60)", "ran longer than 0.2 s"),
    "spins": ("\n        while True: pass", "ran longer than 0.2 s"),
    "junk": ("return 5", "answered int, and may answer None"),
    "forbidden": ("events[0].sender = 'evil@example.com'", "raised FrozenInstanceError"),
}
ASYNC_HANG = "await asyncio.sleep(60)"


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    watchdog.start()
    yield watchdog
    watchdog.stop()


def _plugins(folder: Path, *bodies: str, rules: str = "") -> str:
    lines = [
        f"  - {write_plugin(folder, f'p{number}', body)}: {{{rules if number == 1 else ''}}}"
        for number, body in enumerate(bodies)
    ]
    return "\n".join([NOWHERE, "plugins:", *lines])


# start and stop

LIFE = """
@hookimpl
def start(self, context):
    (Path(__file__).parent / "{0}-started").touch()
@hookimpl
def stop(self):
    (Path(__file__).parent / "{0}-stopped").touch()
"""


def _life(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*-*"))


@pytest.mark.parametrize("kind", ["def", "async def", "blocking"])
@pytest.mark.parametrize("fault", ["raises", "exits"])
async def test_a_start_that_fails(tmp_path: Path, fault: str, kind: str) -> None:
    line = WRONG[fault][0]
    blocking = "blocking = True\n" if kind == "blocking" else ""
    word = "def" if blocking else kind
    wrong = f"{blocking}@hookimpl\n{word} start(self, context):\n    {line}"
    text = _plugins(tmp_path, LIFE.format("first"), wrong, LIFE.format("last"))
    assembly = Assembly(configure(tmp_path, text))
    with pytest.raises(PluginStartError, match=r"^plugin p1 cannot start: "):
        async with assembly:
            raise AssertionError("it must not start")
    # What had started is stopped; what comes later never starts; no mail was taken.
    assert _life(tmp_path) == ["first-started", "first-stopped"]
    assembly.limits.close()


@pytest.mark.parametrize("kind", ["def", "async def", "blocking"])
@pytest.mark.parametrize("fault", ["raises", "exits", "junk"])
async def test_a_stop_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, kind: str
) -> None:
    blocking = "blocking = True\n" if kind == "blocking" else ""
    word = "def" if blocking else kind
    wrong = f"{blocking}@hookimpl\n{word} stop(self):\n    {WRONG[fault][0]}"
    text = _plugins(tmp_path, LIFE.format("first"), wrong, LIFE.format("last"))
    async with Assembly(configure(tmp_path, text)) as gateway:
        assert (await gateway.submit("b@example.net")).startswith("250")
        assert len(gateway.rows()) == 1
    assert _life(tmp_path) == ["first-started", "first-stopped", "last-started", "last-stopped"]
    said = [one.getMessage() for one in caplog.records if one.name == "gateway.plugins"]
    assert [line.startswith("plugin p1 failed in stop") for line in said] == (
        [] if fault == "junk" else [True]
    )


# observe

SEES = """
seen = ()
@hookimpl
async def observe(self, events):
    self.seen += tuple((event.type, event.recipient, dict(event.notes)) for event in events)
"""

EXPECTED: tuple[str, str, dict[str, str]] = ("accepted", "b@example.net", {})

CELLS = [
    (fault, kind, on_error)
    for fault in WRONG
    for kind in ("def", "async def", "blocking")
    for on_error in ON_ERROR
]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log says of plugins that failed."""
    caplog.set_level(logging.ERROR, "gateway.chain")
    return lambda: [one.getMessage() for one in caplog.records if one.name == "gateway.chain"]


@pytest.mark.parametrize(
    ("fault", "kind", "on_error"), CELLS, ids=["-".join(cell).replace(" ", "_") for cell in CELLS]
)
async def test_an_observer_that_does_wrong(
    tmp_path: Path,
    watchdog: Watchdog,
    said: Callable[[], list[str]],
    fault: str,
    kind: str,
    on_error: str,
) -> None:
    line, reason = WRONG[fault]
    if fault == "hangs":
        line = {"async def": ASYNC_HANG, "blocking": "time.sleep(2)"}.get(kind, line)
    word = "def" if kind == "blocking" else kind
    wrong = (
        f"{'blocking = True' if kind == 'blocking' else ''}\nbroken = True\nseen = ()\n"
        f"@hookimpl\n{word} observe(self, events):\n"
        "    if self.broken:\n"
        "        for event in events: event.notes['bad'] = 'x'\n"
        f"        {line}\n"
        "    self.seen += tuple((one.type, one.recipient, dict(one.notes)) for one in events)"
    )
    text = _plugins(tmp_path, SEES, wrong, SEES, rules=f"timeout: 200ms, on_error: {on_error}")
    async with Assembly(configure(tmp_path, text)) as gateway:
        assert (await gateway.submit("b@example.net")).startswith("250")
        await until(gateway.events, "the event")
        chain = Chain(gateway.plugins, watchdog)
        first, bad, last = [plugin.instance for plugin in gateway.plugins]
        outbox = Outbox(gateway.config.spool.path, chain)
        await outbox.pass_on()
        # It affects no other observer, and no mail.
        seen: list[Any] = [getattr(one, "seen") for one in (first, last)]  # noqa: B009
        assert [one[0] for one in seen] == [EXPECTED, EXPECTED]
        assert "bad" not in repr(seen)
        assert all(line.startswith("plugin p1 failed in observe: ") for line in said())
        assert reason in said()[0]
        assert (watchdog.tasks, watchdog.deadline) == ({}, NEVER)
        vars(bad)["broken"] = False
        deadline = time.monotonic() + 30
        while not getattr(bad, "seen") and time.monotonic() < deadline:  # noqa: B009
            # With `skip` these events are gone, and only later ones come.
            if on_error == "skip":
                await gateway.submit("c@example.net")
            await outbox.pass_on()
            await asyncio.sleep(0.01)
        (got, *_) = getattr(bad, "seen")  # noqa: B009
        if on_error == "skip":
            assert got[1] in ("b@example.net", "c@example.net")
            assert "bad" not in got[2]
        else:
            assert got == EXPECTED
        assert [row.recipient for row in gateway.rows()][:1] == ["b@example.net"]
        outbox.close()


async def test_a_task_that_an_observer_leaves_behind_changes_no_event(
    tmp_path: Path, watchdog: Watchdog
) -> None:
    leaks = (
        "@hookimpl\nasync def observe(self, events):\n"
        "    async def later():\n"
        "        while True:\n"
        "            for event in events: event.notes['bad'] = 'x'\n"
        "            await asyncio.sleep(0)\n"
        "    self.task = asyncio.create_task(later())"
    )
    slow = SEES.replace("    self.seen", "    await asyncio.sleep(0.05)\n    self.seen")
    text = _plugins(tmp_path, leaks, slow)
    async with Assembly(configure(tmp_path, text)) as gateway:
        await gateway.submit("b@example.net")
        await until(gateway.events, "the event")
        outbox = Outbox(gateway.config.spool.path, Chain(gateway.plugins, watchdog))
        await outbox.pass_on()
        outbox.close()
        leaking, seeing = [plugin.instance for plugin in gateway.plugins]
        assert getattr(seeing, "seen")[0] == EXPECTED  # noqa: B009
        getattr(leaking, "task").cancel()  # noqa: B009


# http and commands


@pytest.mark.parametrize("on_error", ON_ERROR)
@pytest.mark.parametrize("fault", ["raises", "exits", "hangs", "spins", "junk"])
def test_an_http_hook_that_does_wrong(
    tmp_path: Path, watchdog: Watchdog, fault: str, on_error: str
) -> None:
    wrong = f"@hookimpl\ndef http(self):\n    if True:\n        {WRONG[fault][0]}"
    good = "@hookimpl\ndef stop(self):\n    pass"
    text = _plugins(tmp_path, good, wrong, rules=f"timeout: 200ms, on_error: {on_error}")
    chain = Chain(load_plugins(configure(tmp_path, text)), watchdog)
    with pytest.raises(PluginStartError, match=r"^plugin p1 cannot start: http "):
        load_applications(chain.steps["http"], watchdog)
    assert watchdog.deadline == NEVER


@pytest.mark.parametrize("fault", ["raises", "exits", "junk"])
def test_commands_that_do_wrong(tmp_path: Path, fault: str) -> None:
    wrong = f"@hookimpl\ndef commands(self, context):\n    {WRONG[fault][0]}"
    good = (
        "@hookimpl\ndef commands(self, context):\n    import click\n"
        "    return click.Command('p1', callback=lambda: click.echo('it speaks'))"
    )
    configure(tmp_path, _plugins(tmp_path, wrong, good))
    for name, status, text in (("p1", 0, "it speaks\n"), ("p0", 2, "No such command 'p0'")):
        group = click.Group("gateway", params=[click.Option(["-c", "config"])])
        add_plugin_commands(group, ["-c", str(tmp_path / "gateway.yaml"), name])
        result = CliRunner().invoke(group, [name])
        assert result.exit_code == status, result.output
        assert text in result.output
