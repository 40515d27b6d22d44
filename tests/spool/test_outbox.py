"""The outbox: every event reaches every observer at least once, in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.spool.outbox import BATCH, Outbox, observed
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from tests.assembly import Assembly, configure, write_plugin

# Writes what it gets into a file, and fails for as long as another one is there.
OBSERVER = """
@hookimpl
def observe(self, events):
    folder = Path(__file__).parent
    if (folder / "{name}.broken").exists():
        raise RuntimeError("broken")
    with (folder / "{name}.log").open("a") as log:
        for event in events:
            log.write(event.message_id + "\\n")
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Chain]:
    def make(*names: str, rules: str = "", streams: str = "") -> Chain:
        lines = ["plugins:"]
        for name in names:
            path = write_plugin(tmp_path, name, OBSERVER.format(name=name))
            lines.append(f"  - {path}: {{{rules}}}")
        text = "\n".join([f"streams: {{{streams}}}", *lines])
        return Chain(load_plugins(configure(tmp_path, text)), Watchdog())

    return make


@asynccontextmanager
async def _shard(folder: Path, number: int = 1) -> AsyncIterator[Shard]:
    folder.mkdir(exist_ok=True)
    shard = Shard.claim(folder, number, "")
    shard.recover()
    yield shard
    await shard.drain()
    shard.close()


async def _write(shard: Shard, *names: str, **values: Any) -> None:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    events = [Event("accepted", 1_900_000_000.0, name, **values) for name in names]
    shard.append([], events, done.set_result)
    assert await done is None


def _seen(folder: Path, name: str) -> list[str]:
    try:
        return (folder / f"{name}.log").read_text().split()
    except FileNotFoundError:
        return []


async def _all(outbox: Outbox) -> None:
    while await outbox.pass_on():
        pass


async def test_every_observer_gets_every_event_in_order(
    tmp_path: Path, make: Callable[..., Chain]
) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as one, _shard(spool, 2) as two:
        outbox = Outbox(spool, make("first", "second"))
        names = [f"e{number}" for number in range(BATCH + 10)]
        await _write(one, *names)
        await _write(two, "other")
        await _all(outbox)
        for observer in ("first", "second"):
            seen = _seen(tmp_path, observer)
            assert [name for name in seen if name != "other"] == names
            assert seen.count("other") == 1
        assert await outbox.pass_on() == 0
        await _write(one, "later")
        assert await outbox.pass_on() == 2
        outbox.close()


async def test_a_shard_that_is_written_all_the_time_does_not_starve_the_others(
    tmp_path: Path, make: Callable[..., Chain]
) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as one, _shard(spool, 2) as two:
        outbox = Outbox(spool, make("first"))
        await _write(one, *(f"e{number}" for number in range(3 * BATCH)))
        await _write(two, "other")
        await outbox.pass_on()
        assert "other" in _seen(tmp_path, "first")
        outbox.close()


async def test_an_observer_that_fails_gets_its_events_again(
    tmp_path: Path, make: Callable[..., Chain]
) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as shard:
        outbox = Outbox(spool, make("first", "second"))
        (tmp_path / "first.broken").touch()
        await _write(shard, "a", "b")
        await outbox.pass_on()
        assert _seen(tmp_path, "first") == []
        assert _seen(tmp_path, "second") == ["a", "b"]
        # What somebody still waits for is not deleted.
        assert observed(spool, ["first", "second"]) == {1: 0}
        (tmp_path / "first.broken").unlink()
        await outbox.pass_on()
        assert _seen(tmp_path, "first") == ["a", "b"]
        assert _seen(tmp_path, "second") == ["a", "b"]
        assert observed(spool, ["first", "second"])[1] > 0
        outbox.close()


async def test_an_observer_may_be_skipped(tmp_path: Path, make: Callable[..., Chain]) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as shard:
        outbox = Outbox(spool, make("first", rules="on_error: skip"))
        (tmp_path / "first.broken").touch()
        await _write(shard, "a")
        await outbox.pass_on()
        (tmp_path / "first.broken").unlink()
        await _write(shard, "b")
        await outbox.pass_on()
        assert _seen(tmp_path, "first") == ["b"]
        outbox.close()


async def test_the_place_is_remembered(tmp_path: Path, make: Callable[..., Chain]) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as shard:
        outbox = Outbox(spool, make("first"))
        await _write(shard, "a")
        await outbox.pass_on()
        outbox.close()
        await _write(shard, "b")
        outbox = Outbox(spool, make("first", "second"))
        await outbox.pass_on()
        assert _seen(tmp_path, "first") == ["a", "b"]
        assert _seen(tmp_path, "second") == ["a", "b"]
        outbox.close()
        # A file that is damaged costs repetition, nothing else.
        (spool / "observed.json").write_text('{"first": ')
        assert observed(spool, ["first"]) == {}
        outbox = Outbox(spool, make("first"))
        await outbox.pass_on()
        assert _seen(tmp_path, "first") == ["a", "b", "a", "b"]
        outbox.close()


async def test_a_new_observer_holds_back_the_deletion(
    tmp_path: Path, make: Callable[..., Chain]
) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as shard:
        outbox = Outbox(spool, make("first"))
        await _write(shard, "a")
        await outbox.pass_on()
        outbox.close()
        assert observed(spool, ["first"])[1] > 0
        assert observed(spool, ["first", "new"]) == {1: 0}
        # One that is no longer configured does not.
        (place,) = json.loads((spool / "observed.json").read_text())["first"].values()
        (spool / "observed.json").write_text(json.dumps({"first": {"1": place}, "gone": {}}))
        assert observed(spool, ["first"]) == {1: place}


async def test_one_process_at_a_time_passes_events_on(
    tmp_path: Path, make: Callable[..., Chain]
) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as shard:
        old, new = Outbox(spool, make("first")), Outbox(spool, make("first"))
        await _write(shard, "a")
        assert await old.pass_on() == 1
        assert await new.pass_on() == 0
        await _write(shard, "b")
        old.close()
        assert await new.pass_on() == 1
        assert _seen(tmp_path, "first") == ["a", "b"]
        new.close()


async def test_damaged_events_do_not_stop_the_others(
    tmp_path: Path, make: Callable[..., Chain], caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as shard:
        outbox = Outbox(spool, make("first"))
        await _write(shard, *(str(number) for number in range(BATCH)))

        def damage(db: apsw.Connection) -> None:
            db.execute("UPDATE events SET event='{'")

        shard.change(damage, lambda error: None)
        await shard.drain()
        await _write(shard, "good")
        await _all(outbox)
        assert _seen(tmp_path, "first") == ["good"]
        assert "is damaged" in caplog.text
        outbox.close()


async def test_conditions_of_observers(tmp_path: Path, make: Callable[..., Chain]) -> None:
    spool = tmp_path / "spool"
    async with _shard(spool) as shard:
        rules = "when: {recipient_domain: example.net, stream: bulk}"
        chain = make("first", rules=rules, streams="bulk: {when: {sender: x@example.com}}")
        outbox = Outbox(spool, chain)
        await _write(shard, "no", recipient="b@example.net", stream="default")
        await _write(shard, "yes", recipient="b@EXAMPLE.net", stream="bulk")
        await _write(shard, "no", recipient="b@example.org", stream="bulk")
        await _all(outbox)
        assert _seen(tmp_path, "first") == ["yes"]
        outbox.close()


def test_events_as_text() -> None:
    event = Event("delivered", 1.5, "ID", "a@b.c", "ü@c.d", notes={"k": "v"}, code=250)
    text = event.to_json()
    assert "\n" not in text
    assert set(json.loads(text)) == set(Event.__dataclass_fields__)
    assert Event.from_json(text) == event
    newer = json.dumps({**json.loads(text), "colour": "red"})
    assert Event.from_json(newer) == event
    for wrong in ("{", "{}", '{"type": "x"}'):
        with pytest.raises(ValueError):
            Event.from_json(wrong)


CHOOSY = """
observes = ("bounced", "wanted")

@hookimpl
def observe(self, events):
    with (Path(__file__).parent / "choosy.log").open("a") as log:
        log.writelines(event.type + "\\n" for event in events)
"""


async def test_an_observer_gets_what_it_wants_and_nothing_else_is_written(tmp_path: Path) -> None:
    config = configure(tmp_path, f"plugins: [{write_plugin(tmp_path, 'choosy', CHOOSY)}]")
    async with Assembly(config) as gateway:
        await gateway.submit("b@example.net")
        assert gateway.events() == []
        for kind in ("wanted", "other"):
            await gateway.emitter.emit(Event(kind, 1.0, "ID"))
        outbox = Outbox(config.spool.path, gateway.chain)
        assert await outbox.pass_on() == 2
        assert (tmp_path / "choosy.log").read_text() == "wanted\n"
        outbox.close()
