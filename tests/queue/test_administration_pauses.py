"""Pauses in a running gateway: nothing gets past one, and `resume` lets go what it held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.process.control import ControlError, ControlServer
from gateway.queue.administration import change, pause, resume
from gateway.queue.change import Changed
from gateway.queue.listing import read
from gateway.queue.pauses import read_pauses
from gateway.queue.selection import Selection
from gateway.testing import NextHop, Wait
from tests.assembly import Assembly, until, write_plugin
from tests.queue.served import NOWHERE, Left, leave, served

SPRING = Selection(campaign="spring")


@asynccontextmanager
async def _gateway(folder: Path, hop: NextHop | None = None, **how: Any) -> AsyncIterator[Assembly]:
    relay = NOWHERE if hop is None else f"relay: {{via: ['{hop.address}']}}"
    async with served(folder, f"{relay}\ncampaign_header: X-Campaign", **how) as gateway:
        yield gateway


async def _submit(gateway: Assembly, campaign: str, *recipients: str) -> None:
    content = f"X-Campaign: {campaign}\r\n\r\nHello\r\n".encode()
    reply = await gateway.submit(*(recipients or ("b@example.net",)), content=content)
    assert reply.startswith("250"), reply


def _held(gateway: Assembly) -> dict[str, str | None]:
    return {row.recipient.partition("@")[0]: row.held for row in gateway.rows()}


async def test_what_is_there_and_what_comes(tmp_path: Path) -> None:
    async with _gateway(tmp_path) as gateway:
        spool = gateway.config.spool.path
        await _submit(gateway, "spring", "old@example.net")
        await _submit(gateway, "summer", "other@example.net")
        await until(lambda: len(gateway.rows(state="deferred")) == 2, "the deferrals")
        made, done = await pause(spool, SPRING, "complaints")
        assert (made.id, done) == (1, Changed(1))
        await _submit(gateway, "spring", "new@example.net")
        await _submit(gateway, "summer", "another@example.net")
        await until(lambda: len(gateway.rows(state="deferred")) == 2, "the deferrals")
        reason = "paused: 1 complaints"
        assert _held(gateway) == {"old": reason, "other": None, "new": reason, "another": None}
        assert await resume(spool, [1]) == Changed(2)
        assert read_pauses(spool) == ()
        await _submit(gateway, "spring", "newest@example.net")
        await until(lambda: len(gateway.rows(state="deferred")) == 5, "all to be tried")


async def test_one_recipient_of_several(tmp_path: Path) -> None:
    async with NextHop() as hop, _gateway(tmp_path, hop) as gateway:
        await pause(gateway.config.spool.path, Selection(domain="example.org"), "")
        await _submit(gateway, "spring", "b@example.net", "c@example.org", "d@example.net")
        (message,) = await hop.wait(1)
        assert [address for address, _ in message.recipients] == ["b@example.net", "d@example.net"]
        await until(lambda: _held(gateway) == {"c": "paused: 1"}, "one to be held")
        await resume(gateway.config.spool.path, [1])
        await hop.wait(2)
        await until(lambda: not gateway.rows(), "the queue to be empty")


async def test_a_pause_survives_a_restart(tmp_path: Path) -> None:
    async with _gateway(tmp_path) as gateway:
        await pause(gateway.config.spool.path, SPRING, "")
    async with NextHop() as hop, _gateway(tmp_path, hop) as gateway:
        await _submit(gateway, "spring")
        await _submit(gateway, "summer", "c@example.net")
        await hop.wait(1)
        await until(lambda: _held(gateway) == {"b": "paused: 1"}, "one to be held")


async def test_a_pause_while_nothing_runs(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    made, done = await pause(spool, Selection(), "")
    assert (made.id, done) == (1, Changed())
    leave(spool, [Left()])
    assert await pause(spool, Selection(), "") == (made, Changed(1))
    # A worker that was killed has left its socket.
    async with _gateway(tmp_path) as gateway:
        (socket,) = spool.glob("*.sock")
        left = spool / "worker-7-1.sock"
        left.hardlink_to(socket)
        await _submit(gateway, "spring", "c@example.net")
        assert _held(gateway) == {"b": "paused: 1", "c": "paused: 1"}
    assert await resume(spool, [1]) == Changed(2)
    assert left.exists()


async def test_what_was_taken_before_is_on_disk_when_the_worker_answers(tmp_path: Path) -> None:
    """So that the command that asked for it finds all that did not meet the pause."""
    async with _gateway(tmp_path) as gateway:
        sending = asyncio.create_task(_submit(gateway, "spring"))
        (shard,) = gateway.spool.shards
        async with asyncio.timeout(60):
            while not (shard._pending or shard._writing):
                await asyncio.sleep(0)
        assert list(read(gateway.config.spool.path, Selection())) == []
        assert await gateway.queue.answer({"command": "pauses"}) == {}
        assert len(list(read(gateway.config.spool.path, Selection()))) == 1
        await sending


async def test_what_is_being_delivered_and_deferred_is_held_then(tmp_path: Path) -> None:
    async with (
        NextHop(dot=Wait(1.0, "450 4.3.0 Later")) as hop,
        _gateway(tmp_path, hop) as gateway,
    ):
        await _submit(gateway, "spring")
        await hop.wait(1)
        _, done = await pause(gateway.config.spool.path, SPRING, "")
        assert done == Changed(1)
        assert _held(gateway) == {"b": "paused: 1"}


async def test_nothing_gets_past_a_pause_under_load(tmp_path: Path) -> None:
    """Mail that was accepted after the command ended is held, and none before is lost."""
    async with NextHop() as hop, _gateway(tmp_path, hop) as gateway:
        spool = gateway.config.spool.path
        accepted = {"spring": 0, "summer": 0}
        ended = False
        late = 0

        async def load(client: int) -> None:
            nonlocal late
            number = 0
            while number < 60 and (not ended or late < 40):
                for campaign in accepted:
                    was_ended = ended
                    await _submit(gateway, campaign, f"{campaign}-{client}-{number}@example.net")
                    accepted[campaign] += 1
                    late += was_ended
                number += 1

        clients = [asyncio.create_task(load(client)) for client in range(6)]
        await hop.wait(30)
        _, done = await pause(spool, SPRING, "")
        ended = True
        sent = _sent(hop, "spring")
        await asyncio.gather(*clients)
        held = [row for row in gateway.rows() if row.held == "paused: 1"]
        assert late > 0
        # What was under way when the command ended was counted as such.
        assert sent <= _sent(hop, "spring") <= sent + done.busy
        await until(lambda: _sent(hop, "summer") == accepted["summer"], "the other campaign")
        assert len(held) + _sent(hop, "spring") == accepted["spring"]
        assert all("spring" in row.recipient for row in held)
        assert await resume(spool, [1]) == Changed(len(held))
        await until(lambda: not gateway.rows(), "the queue to be empty")
        assert _sent(hop, "spring") == accepted["spring"]


def _sent(hop: NextHop, campaign: str) -> int:
    return sum(
        address.startswith(campaign)
        for message in hop.messages
        for address, _ in message.recipients
    )


# What a pause holds stays held.


async def test_mail_that_two_pauses_are_about(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    leave(spool, [Left(lane="one", envelope={"notes": {"campaign": "spring"}}), Left(lane="one")])
    await pause(spool, SPRING, "first")
    _, done = await pause(spool, Selection(lane="one"), "second")
    assert done == Changed(1), "what is held already stays with the first"
    assert await resume(spool, [1]) == Changed(0, paused=1)
    assert {row.held for row in read(spool, Selection())} == {"paused: 2 second"}
    assert await resume(spool, [2]) == Changed(2)


async def test_release_does_not_undo_a_pause(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    held = {"due": None, "held": "suspicious"}
    leave(spool, [Left(lane="one"), Left(lane="one", columns=held), Left(columns=held)])
    await pause(spool, Selection(lane="one"), "")
    assert await change(spool, "release", Selection()) == Changed(1, paused=2)
    reasons = [row.held for row in read(spool, Selection())]
    assert reasons == ["paused: 1", "paused: 1", None]
    assert await resume(spool, [1]) == Changed(2)


async def test_held_by_hand_outlives_the_pause(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    leave(spool, [Left(["b@example.net", "c@example.net"])])
    await pause(spool, Selection(), "")
    assert await change(spool, "hold", Selection(recipient="b@example.net")) == Changed(1)
    assert await resume(spool, [1]) == Changed(1)
    assert {row.held for row in read(spool, Selection())} == {"held by hand", None}


async def test_what_a_pause_left_behind_can_be_resumed_and_released(tmp_path: Path) -> None:
    """As when a resume broke off."""
    spool = tmp_path / "spool"
    left = {"due": None, "held": "paused: 4 x"}
    leave(spool, [Left(["b@example.net", "c@example.net"], columns=left)])
    selection = Selection(recipient="b@example.net")
    assert await change(spool, "release", selection) == Changed(1)
    assert await resume(spool, [4]) == Changed(1)


async def test_scheduled_mail_waits_on_after_a_pause(tmp_path: Path) -> None:
    body = """
@hookimpl
def message(self, message):
    message.release = 4e9
"""
    text = f"{NOWHERE}\nplugins: [{write_plugin(tmp_path, 'site', body)}]"
    async with served(tmp_path, text) as gateway:
        spool = gateway.config.spool.path
        await gateway.submit("b@example.net")
        await pause(spool, Selection(), "")
        await gateway.submit("c@example.net")
        assert [row.state for row in gateway.rows()] == ["held", "held"]
        await resume(spool, [1])
        assert [(row.state, row.due) for row in gateway.rows()] == [("scheduled", 4e9)] * 2


# Workers that do not know.


async def test_a_worker_that_cannot_read_the_pauses_is_told_of(tmp_path: Path) -> None:
    async with _gateway(tmp_path) as gateway:
        spool = gateway.config.spool.path

        async def refuse(asked: dict[str, Any]) -> dict[str, Any]:
            raise ControlError("not now")

        control = ControlServer(spool / "worker-9-1.sock", refuse)
        await control.start()
        await _submit(gateway, "spring")
        await until(lambda: gateway.rows(state="deferred"), "the deferral")
        with pytest.raises(ControlError, match="pause 1 is not in force everywhere yet: not now"):
            await pause(spool, SPRING, "")
        assert _held(gateway) == {"b": "paused: 1"}
        with pytest.raises(ControlError, match="not now"):
            await resume(spool, [1])
        assert gateway.rows(state="held") == []
        await control.close()
        (spool / "pauses.json").write_text(json.dumps({"next": 3}))
        with pytest.raises(ControlError, match=r"pauses\.json is damaged"):
            await gateway.queue.answer({"command": "pauses"})
