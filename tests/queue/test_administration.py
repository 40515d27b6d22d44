"""The queue as commands change it, beside the owner of its shards or without one."""

from __future__ import annotations

import asyncio
import json
import math
import time
from array import array
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gateway.process.control import ControlError
from gateway.queue import administration
from gateway.queue.administration import BATCH, change, perform, worker_stats
from gateway.queue.change import Change, Changed
from gateway.queue.listing import Row, Survey, read, survey
from gateway.queue.selection import Selection
from gateway.spool.shard_file import SpoolError
from gateway.testing import Hang, NextHop
from tests.assembly import Assembly, until, write_plugin
from tests.queue.served import NOWHERE, Left, leave, served, shard_database

LATER = time.time() + 3600
DEFERRED = {"due": LATER, "attempts": 1, "reply": "450 Later"}
SCHEDULED = {"due": LATER}
HELD = {"due": None, "held": "suspicious"}

OBSERVER = """
@hookimpl
def observe(self, events):
    pass
"""


async def _deferred(gateway: Assembly, count: int) -> None:
    await until(lambda: len(gateway.rows(state="deferred")) == count, "the deferrals")
    await _over(gateway)


async def _over(gateway: Assembly) -> None:
    """Attempts are on disk a moment before they are over in memory: until then they are busy."""
    await until(
        lambda: not gateway.dispatcher._runners and gateway.spool.home.is_written,
        "the end of the attempts",
    )


def _by_recipient(spool: Path) -> dict[str, Row]:
    return {row.recipient.partition("@")[0]: row for row in read(spool, Selection())}


def _leave_one_in_each_state(spool: Path) -> None:
    states: dict[str, dict[str, Any]] = {
        "active": {},
        "deferred": DEFERRED,
        "scheduled": SCHEDULED,
        "held": HELD,
        "paused": {"due": None, "held": "paused: 1 why"},
    }
    leave(spool, [Left([f"{name}@example.net"], columns=state) for name, state in states.items()])


# What a change is made to.


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        (Change("retry"), {"deferred": "active"}),
        (Change("retry", scheduled=True), {"scheduled": "active"}),
        (
            Change("hold"),
            dict.fromkeys(("active", "deferred", "scheduled", "paused"), "held"),
        ),
        (
            Change("hold", "paused: 2", 2),
            dict.fromkeys(("active", "deferred", "scheduled"), "held"),
        ),
        (Change("release"), {"held": "active", "paused": "active"}),
        (Change("release", pause=1), {"paused": "active"}),
        (Change("release", pause=11), {}),
        (
            Change("drop"),
            dict.fromkeys(("active", "deferred", "scheduled", "held", "paused")),
        ),
        (
            Change("reroute", pool="b"),
            {
                "active": "active",
                "deferred": "active",
                "scheduled": "scheduled",
                "held": "held",
                "paused": "held",
            },
        ),
    ],
    ids=lambda value: f"{value.name}-{value.pause}" if isinstance(value, Change) else "",
)
async def test_what_a_change_is_made_to(
    tmp_path: Path, what: Change, changed: dict[str, str | None]
) -> None:
    _leave_one_in_each_state(tmp_path)
    before = _by_recipient(tmp_path)
    found = survey(tmp_path, Selection(), what.narrow)
    assert found.recipients == len(changed)
    assert await change(tmp_path, what, Selection()) == Changed(len(changed))
    after = _by_recipient(tmp_path)
    for name in before:
        if name in changed:
            assert (after[name].state if name in after else None) == changed[name], name
        else:
            assert after[name] == before[name], name
    if what.name == "hold":
        assert {after[name].held for name in changed} == {what.reason}


async def test_the_last_recipient_takes_the_message_along(tmp_path: Path) -> None:
    leave(tmp_path, [Left(["b@example.net", "c@example.net"])])
    for left, recipient in ((1, "b@example.net"), (0, "c@example.net")):
        await change(tmp_path, "drop", Selection(recipient=recipient))
        with shard_database(tmp_path) as db:
            assert db.execute("SELECT count(*) FROM messages").get == left


async def test_a_change_is_told_to_observers(tmp_path: Path) -> None:
    envelope = {"user": "shop", "notes": {"campaign": "spring"}}
    leave(tmp_path, [Left(envelope=envelope, columns={"parameters": '{"notes": {"v": "B"}}'})])
    for what in (
        Change("hold"),
        Change("release"),
        Change("hold", "paused: 1 why", 1),
        Change("reroute", via=("127.0.0.1:1",)),
        Change("drop"),
    ):
        await change(tmp_path, what, Selection())
    with shard_database(tmp_path) as db:
        events = [
            json.loads(text) for (text,) in db.execute("SELECT event FROM events ORDER BY number")
        ]
    assert [(event["type"], event["reason"]) for event in events] == [
        ("held", "by hand"),
        ("released", "by hand"),
        ("held", "paused: 1 why"),
        ("dropped", "by hand"),
    ]
    for event in events:
        assert event["notes"] == {"campaign": "spring", "v": "B"}
        assert (event["user"], event["client"]) == ("shop", "127.0.0.1")


@pytest.mark.parametrize("plugins", ["", "plugins: [{}]"])
async def test_what_nobody_wants_to_know_is_not_written(tmp_path: Path, plugins: str) -> None:
    text = plugins.format(write_plugin(tmp_path, "observer", OBSERVER))
    async with served(tmp_path, f"{NOWHERE}\n{text}") as gateway:
        await gateway.submit("b@example.net")
        await _deferred(gateway, 1)
        await change(gateway.config.spool.path, "hold", Selection())
        kinds = [event.type for event in gateway.events()]
        assert kinds == (["accepted", "deferred", "held"] if plugins else [])


async def test_damage_can_be_held_and_dropped(tmp_path: Path) -> None:
    leave(tmp_path, [Left([f"{number}@example.net"]) for number in range(3)])
    with shard_database(tmp_path) as db:
        db.execute("DELETE FROM messages WHERE id=(SELECT min(id) FROM messages)")
        db.execute("UPDATE messages SET envelope='{' WHERE id=(SELECT min(id) FROM messages)")
        db.execute("UPDATE deliveries SET parameters='[' WHERE recipient='2@example.net'")
    reroute = Change("reroute", pool="b")
    assert await change(tmp_path, reroute, Selection()) == Changed(0)
    assert await change(tmp_path, "hold", Selection()) == Changed(3)
    assert await change(tmp_path, "drop", Selection()) == Changed(3)
    assert list(read(tmp_path, Selection())) == []


async def test_a_release_is_not_before_its_time(tmp_path: Path) -> None:
    release = {"release": LATER}
    leave(tmp_path, [Left(envelope=release, columns=SCHEDULED)])
    await change(tmp_path, "hold", Selection())
    assert await change(tmp_path, "release", Selection()) == Changed(1)
    (row,) = read(tmp_path, Selection())
    assert (row.state, row.due) == ("scheduled", LATER)


# Who makes it.


async def test_a_command_asks_the_owner(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        reply = await gateway.submit("b@example.net", "c@example.net")
        await _deferred(gateway, 2)
        folder = gateway.config.spool.path
        chosen = Selection(ids=(reply.split()[-1],), recipient="b@example.net")
        assert await change(folder, "hold", chosen) == Changed(1)
        assert [row.state for row in gateway.rows()] == ["held", "deferred"]
        (stats,) = await asyncio.to_thread(worker_stats, folder)
        assert stats["accepted"] == 1
        assert await change(folder, "drop", Selection()) == Changed(2)
        assert gateway.rows() == []


async def test_an_owner_without_a_socket_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as gateway:
        await gateway.submit("b@example.net")
        await _deferred(gateway, 1)
        folder = gateway.config.spool.path
        (socket,) = folder.glob("*.sock")
        socket.rename(folder / "away")
        waiting = asyncio.create_task(change(folder, "hold", Selection()))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        (folder / "away").rename(socket)
        assert await waiting == Changed(1)
        socket.rename(folder / "away")
        monkeypatch.setattr(administration, "OWNER_SECONDS", 0.3)
        with pytest.raises(ControlError, match="shard 0001 has no owner that answers"):
            await change(folder, "drop", Selection())
        (folder / "away").rename(socket)


async def test_a_shard_that_has_a_new_owner(tmp_path: Path) -> None:
    """The lock file names a worker that has just given the shard up."""
    async with served(tmp_path) as gateway:
        await gateway.submit("b@example.net")
        await _deferred(gateway, 1)
        (shard,) = gateway.spool.shards
        gateway.spool.shards.clear()
        folder = gateway.config.spool.path
        waiting = asyncio.create_task(change(folder, "hold", Selection()))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        gateway.spool.shards.append(shard)
        assert await waiting == Changed(1)


async def test_a_shard_that_has_run_empty_is_not_made_again(tmp_path: Path) -> None:
    keys = {7: array("q", [1, 0])}
    assert await perform(tmp_path, Change("drop"), keys) == (Changed(), {})
    assert list(tmp_path.iterdir()) == []


async def test_one_bad_shard_does_not_keep_the_others_from_being_changed(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        leave(tmp_path, [Left()], number)
    found = survey(tmp_path, Selection())
    (tmp_path / "0002.db").write_bytes(b"no database " * 1000)
    counts: list[Changed] = []
    with pytest.raises(SpoolError, match=r"0002\.db"):
        await perform(tmp_path, Change("hold"), found.keys, counts.append)
    assert counts == [Changed(1), Changed(1)]
    (tmp_path / "0002.db").unlink()
    assert [row.state for row in read(tmp_path, Selection())] == ["held", "held"]


@pytest.mark.parametrize("runs", [True, False])
async def test_a_large_change_is_made_in_batches(tmp_path: Path, runs: bool) -> None:
    spool = tmp_path / "spool"
    many = [f"{number}@example.net" for number in range(BATCH * 2 + 10)]
    leave(spool, [Left(many[:10], columns=DEFERRED), Left(many[10:], columns=DEFERRED)])
    counts: list[Changed] = []
    if runs:
        async with served(tmp_path) as gateway:
            await change(spool, "hold", Selection(), counts.append)
            await until(lambda: not gateway.dispatcher._withdrawn, "the queue to be looked at")
    else:
        await change(spool, "hold", Selection(), counts.append)
    assert counts == [Changed(BATCH), Changed(BATCH), Changed(10)]
    assert {row.state for row in read(spool, Selection())} == {"held"}


async def test_the_last_of_many_batches_is_tried_too(tmp_path: Path) -> None:
    """The queue is not looked at after each batch, but after the last one."""
    spool = tmp_path / "spool"
    many = [f"{number}@example.net" for number in range(BATCH * 3)]
    leave(spool, [Left([address], columns=HELD) for address in many])
    async with NextHop() as hop, served(tmp_path, f"relay: {{via: ['{hop.address}']}}") as gateway:
        assert await change(spool, "release", Selection()) == Changed(len(many))
        await until(lambda: not gateway.rows(), "all to be delivered")
        assert len(hop.messages) == len(many)


# What a worker answers.


async def test_changes_at_the_same_time(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        for number in range(20):
            await gateway.submit(f"{number}@example.net")
        await _deferred(gateway, 20)
        folder = gateway.config.spool.path
        changes = [
            change(folder, name, Selection(recipient=f"{number}@example.net"))
            for number in range(20)
            for name in ("hold", "reroute")
        ]
        # Where rerouting comes first, an attempt is made at once, and holding finds it under way.
        assert all(one.changed + one.busy == 1 for one in await asyncio.gather(*changes))
        await _over(gateway)
        await asyncio.gather(*[change(folder, "drop", Selection()) for _ in range(3)])
        assert gateway.rows() == []
        await until(lambda: not gateway.dispatcher._withdrawn, "the queue to be looked at")
        assert gateway.dispatcher._memory.recipients == 0


def _request(found: Survey, **fields: Any) -> dict[str, Any]:
    """A request as a command sends it."""
    keys = list(zip(found.keys[1][::2], found.keys[1][1::2], strict=True))
    what = {**asdict(Change("hold")), **fields}
    request: dict[str, Any] = json.loads(json.dumps({"change": what, "keys": keys}))
    return {"command": "change", "shard": 1, **request}


async def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        await gateway.submit("b@example.net")
        await _deferred(gateway, 1)
        good = _request(survey(gateway.config.spool.path, Selection()))
        for wrong in (
            {},
            {"command": "explode"},
            {**good, "change": {}},
            {**good, "change": {**good["change"], "name": "explode"}},
            {**good, "change": {**good["change"], "colour": "red"}},
            {**good, "keys": [[1]]},
            {**good, "keys": [["a", "b"]]},
            {**good, "keys": 7},
            {"command": "change"},
        ):
            with pytest.raises(ControlError):
                await gateway.queue.answer(wrong)
        assert await gateway.queue.answer({**good, "shard": 99}) == {"moved": True}
        assert [row.state for row in gateway.rows()] == ["deferred"]
        done = await gateway.queue.answer(good)
        assert done == {"changed": 1, "busy": 0, "paused": 0, "delivering": []}
        assert (await gateway.queue.answer(good))["changed"] == 0


async def test_a_person_who_gives_up_waiting_harms_nothing(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    leave(spool, [Left(columns=HELD)])
    async with NextHop() as hop, served(tmp_path, f"relay: {{via: ['{hop.address}']}}") as gateway:
        asked = _request(survey(spool, Selection()), name="release")
        (shard,) = gateway.spool.shards
        shard._threads_until = math.inf  # a slow disk: commits do not end within a turn
        waiting = asyncio.create_task(gateway.queue.answer(asked))
        async with asyncio.timeout(60):
            while not shard._writing:
                await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # The change is made, and what is released goes at once.
        await hop.wait(1)
        await until(lambda: not gateway.rows(), "the queue to be empty")
        assert (await gateway.submit("c@example.net")).startswith("250")


async def test_what_is_being_changed_is_not_loaded_meanwhile(tmp_path: Path) -> None:
    """The queue is not looked at between the withdrawal of rows and the end of their change."""
    async with served(tmp_path) as gateway:
        await gateway.submit("b@example.net")
        await _deferred(gateway, 1)
        folder = gateway.config.spool.path
        # Three in a row: the look after the second one is put off, and comes during the third.
        for name in ("hold", "release"):
            await change(folder, name, Selection())
        assert gateway.queue._rescan_timer is not None
        await gateway.queue._changing.acquire()
        gateway.dispatcher.withdraw({(1, 2)})
        await asyncio.sleep(gateway.queue._rescan_from - time.monotonic() + 0.1)
        assert gateway.dispatcher._withdrawn == {(1, 2)}
        gateway.queue._changing.release()
        await change(folder, "hold", Selection())
        await until(lambda: not gateway.dispatcher._withdrawn, "the queue to be looked at")


async def test_what_is_being_delivered_is_left_alone(tmp_path: Path) -> None:
    async with (
        NextHop(dot=Hang()) as hop,
        served(tmp_path, f"relay: {{via: ['{hop.address}']}}") as gateway,
    ):
        await gateway.submit("b@example.net")
        await hop.wait(1)
        folder = gateway.config.spool.path
        for what in (Change("hold"), Change("drop"), Change("reroute", pool="b")):
            found = survey(folder, Selection(), what.narrow)
            assert await perform(folder, what, found.keys) == (Changed(0, busy=1), found.keys)
        assert len(gateway.rows()) == 1


async def test_mail_in_memory_is_changed_before_it_is_tried(tmp_path: Path) -> None:
    """One attempt blocks the lane; what waits behind it in memory is taken out."""
    async with NextHop(dot=[Hang(), "250 Ok"]) as hop, NextHop() as other:
        text = f"relay: {{via: ['{hop.address}'], connections: 1}}"
        async with served(tmp_path, text) as gateway:
            for name in ("stuck", "hold", "drop", "reroute"):
                await gateway.submit(f"{name}@example.net")
            await hop.wait(1)
            folder = gateway.config.spool.path
            changes = (Change("hold"), Change("drop"), Change("reroute", via=(other.address,)))
            for what in changes:
                selection = Selection(recipient=f"{what.name}@example.net")
                assert await change(folder, what, selection) == Changed(1)
            states = {row.recipient: row.state for row in gateway.rows()}
            assert states == {
                "stuck@example.net": "active",
                "hold@example.net": "held",
                "reroute@example.net": "active",
            }
            assert gateway.dispatcher._memory.octets == 0
        assert len(hop.messages) == 1
        async with served(tmp_path, text) as gateway:
            (message,) = await other.wait(1)
            assert message.recipients[0][0] == "reroute@example.net"
            await until(lambda: len(gateway.rows()) == 1, "one to be held")


async def test_a_change_that_cannot_be_written_strands_nothing(tmp_path: Path) -> None:
    """What was taken out of memory for it is tried again."""
    async with NextHop(mail=["450 4.3.0 Later", "250 Ok"]) as hop:
        body = """
@hookimpl
async def route(self, delivery):
    while not (Path(__file__).parent / "open").exists():
        await asyncio.sleep(0.005)
"""
        plugin = write_plugin(tmp_path, "gate", body)
        text = f"relay: {{via: ['{hop.address}'], connections: 1}}\nplugins: [{plugin}]"
        async with served(tmp_path, text) as gateway:
            for number in range(2):
                await gateway.submit(f"{number}@example.net")
            folder = gateway.config.spool.path
            with shard_database(folder) as db:
                db.execute(
                    "CREATE TRIGGER refuse BEFORE UPDATE OF held ON deliveries"
                    " WHEN new.held IS NOT NULL BEGIN SELECT raise(ABORT, 'refused'); END"
                )
            with pytest.raises(ControlError, match="refused"):
                await change(folder, "hold", Selection())
            (tmp_path / "open").touch()
            await hop.wait(1)
            await until(lambda: len(gateway.rows()) == 1, "the second to be delivered")


# Rerouting.


async def test_reroute_to_another_server_and_back(tmp_path: Path) -> None:
    async with NextHop(rcpt="450 4.2.0 Later") as hop, NextHop() as other:
        text = f"relay: {{via: ['{hop.address}']}}"
        async with served(tmp_path, text) as gateway:
            await gateway.submit("b@example.net", "c@example.net")
            await _deferred(gateway, 2)
            folder = gateway.config.spool.path
            via = Change("reroute", via=("127.0.0.1:1", other.address))
            assert await change(folder, via, Selection(recipient="c@example.net")) == Changed(1)
            (message,) = await other.wait(1)
            assert [address for address, _ in message.recipients] == ["c@example.net"]
            (left,) = await until(lambda: len(rows := gateway.rows()) == 1 and rows, "one")
            assert (left.recipient, left.via) == ("b@example.net", ())
    assert len(other.messages) == 1


async def test_reroute_says_and_unsays(tmp_path: Path) -> None:
    parameters = json.dumps({"notify": ["NEVER"], "notes": {"x": "y"}})
    leave(tmp_path, [Left(columns={**DEFERRED, "parameters": parameters})])
    pool, via = Change("reroute", pool="b"), Change("reroute", via=("[::1]:25", "mx.example:25"))

    async def reroute(what: Change) -> Row:
        assert await change(tmp_path, what, Selection()) == Changed(1)
        (row,) = read(tmp_path, Selection())
        return row

    row = await reroute(pool)
    assert (row.pool, row.via) == ("b", ())
    row = await reroute(via)
    assert (row.pool, row.via) == ("b", ("[::1]:25", "mx.example:25"))
    row = await reroute(Change("reroute"))
    assert (row.pool, row.via) == (None, ())
    with shard_database(tmp_path) as db:
        text = db.execute("SELECT parameters FROM deliveries").get
    said = json.loads(text)
    del said["crc32"]
    assert said == json.loads(parameters)


async def test_a_server_that_is_left_alone_is_tried_again_when_a_person_says_so(
    tmp_path: Path,
) -> None:
    async with NextHop(banner=["421 4.3.2 Not now", "220 mx.test ESMTP"]) as hop:
        text = f"relay: {{via: ['{hop.address}']}}\nretry: {{schedule: [1h]}}\n"
        async with served(tmp_path, text) as gateway:
            await gateway.submit("b@example.net")
            await _deferred(gateway, 1)
            assert hop.connections == 1
            assert await change(gateway.config.spool.path, "retry", Selection()) == Changed(1)
            await hop.wait(1)
            assert hop.connections == 2
