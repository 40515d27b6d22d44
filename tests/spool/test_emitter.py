"""Events that plugins make: in the outbox when they say so, and never in the way of mail."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.events import Event
from gateway.hooks.chain import Chain
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.spool.emitter import Emitter, emit_nothing
from gateway.spool.outbox import Outbox, forget_events
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool, shard_numbers
from tests.assembly import Assembly, configure, until, write_plugin

EVENT = Event(type="clicked", time=1.0, message_id="ID1", notes={"url": "https://example.com/"})

OBSERVE = """
@hookimpl
def observe(self, events):
    with (Path(__file__).parent / "seen.log").open("a") as log:
        log.writelines(f"{event.type} {event.reason}\\n" for event in events)
"""

EMIT = """
@hookimpl
def start(self, context):
    self.context = context

@hookimpl
def rcpt(self, recipient):
    message = recipient.message
    self.context.emit(Event(type="suppressed", time=self.context.clock(),
                            message_id=message.id, recipient=recipient.address))
    return Reject("no")
"""


def _events(spool: Spool) -> list[Event]:
    return [
        Event.from_json(text)
        for (text,) in spool.home.query("SELECT event FROM events ORDER BY number", ())
    ]


async def test_an_event_is_on_disk_when_the_future_is_done(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "nobody", 1)
    spool.open()
    await Emitter(spool, wanted=True).emit(EVENT)
    assert _events(spool) == [EVENT]
    spool.close()


async def test_without_observers_events_are_let_go(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "nobody", 1)
    spool.open()
    await Emitter(spool, wanted=False).emit(EVENT)
    assert _events(spool) == []
    spool.close()


async def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "nobody", 1)
    emitter = Emitter(spool, wanted=True)
    with pytest.raises(RuntimeError, match="not before"):
        emitter.emit(EVENT)
    with pytest.raises(TypeError, match="the note value is int; notes are text"):
        emitter.emit(Event("converted", 1.0, "ID1", notes={"value": 5}))  # type: ignore[dict-item]
    with pytest.raises(RuntimeError, match="only by running processes"):
        emit_nothing(EVENT)


async def test_a_shard_is_taken_for_the_first_event_and_never_one_with_mail(
    tmp_path: Path,
) -> None:
    mail = Spool(tmp_path, "nobody", 1)
    mail.open()
    mail.close()
    written = asyncio.Event()
    spool = Spool(tmp_path, "nobody", 1)
    emitter = Emitter(
        spool, wanted=True, open_spool=lambda: spool.open(new=True), written=written.set
    )
    assert spool.shards == []
    await emitter.emit(EVENT)
    assert [shard.number for shard in spool.shards] == [2]
    assert written.is_set()
    spool.close()
    assert shard_numbers(tmp_path) == [1, 2]


async def test_a_failure_reaches_who_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    spool = Spool(folder, "nobody", 1)
    emitter = Emitter(spool, wanted=True, open_spool=lambda: spool.open(new=True))
    for _ in range(3):
        with pytest.raises(SpoolError):
            await emitter.emit(EVENT)
    assert caplog.text.count("events could not be written: 1;") == 1


async def test_the_event_of_a_hook_reaches_the_outbox(tmp_path: Path) -> None:
    references = [write_plugin(tmp_path, "emit", EMIT), write_plugin(tmp_path, "see", OBSERVE)]
    config = configure(tmp_path, f"plugins: {json.dumps(references)}")
    async with Assembly(config) as gateway:
        async with gateway.client() as client:
            await client.say("MAIL FROM:<a@example.com>")
            assert (await client.say("RCPT TO:<b@example.net>")).startswith("550")
        (event,) = await until(gateway.events, "the event")
        assert (event.type, event.recipient) == ("suppressed", "b@example.net")
        chain = Chain(load_plugins(config), Watchdog())
        outbox = Outbox(config.spool.path, chain)
        assert await outbox.pass_on() == 1
        assert (tmp_path / "seen.log").read_text() == "suppressed \n"
        forget_events(config.spool.path, ["see"], gateway.spool.shards)
        await until(lambda: not gateway.events(), "the event to be forgotten")
        outbox.close()


async def test_the_campaign_is_in_the_events(tmp_path: Path) -> None:
    config = configure(tmp_path, f"plugins: [{write_plugin(tmp_path, 'see', OBSERVE)}]")
    async with Assembly(config) as gateway:
        await gateway.submit(
            "b@example.net",
            content=b"Subject: a\r\nX-Campaign: =?utf-8?q?Autumn=0A_2026?=\r\n\r\nHello\r\n",
        )
        await until(gateway.events, "the events")
        assert {event.notes.get("campaign") for event in gateway.events()} == {"Autumn 2026"}
