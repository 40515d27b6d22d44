"""An observer that ends its process over an event: it is passed over after three deaths."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.events import Event
from gateway.spool.observation import Observation
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from gateway.spool.suspects import DEATHS
from tests.assembly import configure, write_plugin
from tests.spool.dying_observer import STATUS, run

OBSERVER = """
@hookimpl
def observe(self, events):
    folder = Path(__file__).parent
    with (folder / "{name}.log").open("a") as log:
        log.write(" ".join(event.message_id for event in events) + "\\n")
    if any(event.message_id == "{poison}" for event in events):
        import os
        os._exit(3)
"""


async def _write(folder: Path, *names: str) -> None:
    """Puts events into the first shard of a spool."""
    folder.mkdir(exist_ok=True)
    shard = Shard.claim(folder, 1, "")
    shard.recover()
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    events = [Event("accepted", 1_900_000_000.0, name) for name in names]
    shard.append([], events, done.set_result)
    assert await done is None
    shard.close()


def _given(folder: Path, name: str) -> list[list[str]]:
    """What an observer was given, call by call."""
    return [line.split() for line in (folder / f"{name}.log").read_text().splitlines()]


async def test_an_event_that_ends_its_process_is_passed_over(tmp_path: Path) -> None:
    plugins = [
        write_plugin(tmp_path, name, OBSERVER.format(name=name, poison=poison))
        for name, poison in (("first", ""), ("second", "c"))
    ]
    configure(tmp_path, f"plugins: [{', '.join(plugins)}]")
    await _write(tmp_path / "spool", *"abcde")
    logs = []
    for status in (STATUS, STATUS, STATUS, 0):
        end, log = await asyncio.to_thread(run, tmp_path)
        assert end == status, log
        logs.append(log)
    assert _given(tmp_path, "first") == [[*"abcde"]]
    # All of them were in hand at first; then it is found out which of them it is.
    assert _given(tmp_path, "second") == [[*"abcde"], ["a"], ["b"], ["c"], ["c"], ["d"], ["e"]]
    assert "its process ended while it had events" in logs[1]
    assert "its process ended while it had event " in logs[2]
    assert "its process ended 3 times while it had event " in logs[3]
    assert "(accepted, c): it is passed over" in logs[3]
    assert "first" not in "".join(logs)
    # What comes then comes together again.
    await _write(tmp_path / "spool", *"fg")
    assert (await asyncio.to_thread(run, tmp_path))[0] == 0
    assert _given(tmp_path, "second")[-1] == [*"fg"]
    assert not (tmp_path / "spool" / "observing.json").exists()


def _die(folder: Path, first: int, last: int) -> Observation:
    """The process after one that has ended with these events in hand."""
    observation = Observation(folder)
    observation.look_back()
    observation.begin("site", 1, first, last)
    observation = Observation(folder)
    assert observation.look_back() == ("site", 1, first, last)
    return observation


def test_an_event_that_came_alone_is_passed_over(tmp_path: Path) -> None:
    for deaths in range(1, DEATHS + 1):
        observation = _die(tmp_path, 5, 5)
        assert observation.deaths("site", 1, 5) == deaths
        assert observation.comes_alone("site", 1, 5)
    assert observation.is_passed_over("site", 1, 5)
    assert not observation.is_passed_over("site", 2, 5)
    assert not observation.is_passed_over("other", 1, 5)
    assert not observation.comes_alone("site", 1, 6)
    observation.end("site", 1, 5, taken=True)
    assert not observation.comes_alone("site", 1, 5)


def test_events_that_were_in_hand_by_chance_come_alone(tmp_path: Path) -> None:
    observation = _die(tmp_path, 5, 8)
    assert [observation.comes_alone("site", 1, event) for event in (5, 8, 9)] == [True, True, False]
    observation.begin("site", 1, 5, 5)
    observation.end("site", 1, 5, taken=True)
    assert observation.comes_alone("site", 1, 6)
    observation = _die(tmp_path, 6, 6)
    assert (observation.deaths("site", 1, 6), observation.deaths("site", 1, 7)) == (2, 0)
    observation.end("site", 1, 8, taken=False)
    assert observation.comes_alone("site", 1, 7)
    observation.end("site", 1, 8, taken=True)
    assert not observation.comes_alone("site", 1, 7)


def test_an_end_with_nothing_in_hand_is_nobodys_fault(tmp_path: Path) -> None:
    observation = Observation(tmp_path)
    observation.begin("site", 1, 5, 5)
    observation.end("site", 1, 5, taken=False)
    assert Observation(tmp_path).look_back() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"in_hand": 5, "doubts": []}', "\xff", "null"])
def test_a_damaged_file_stops_no_events(tmp_path: Path, text: str) -> None:
    (tmp_path / "observing.json").write_bytes(text.encode("latin-1"))
    observation = Observation(tmp_path)
    assert observation.look_back() is None
    observation.begin("site", 1, 5, 5)
    assert Observation(tmp_path).look_back() == ("site", 1, 5, 5)


def test_a_file_that_cannot_be_written_stops_no_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    observation = Observation(tmp_path / "none")
    for event in (5, 6):
        observation.begin("site", 1, event, event)
        observation.end("site", 1, event, taken=True)
    observation.clear()
    (line,) = caplog.messages
    assert "observing.json cannot be written: No such file or directory" in line
