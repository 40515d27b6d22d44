"""The queue as commands read it and change it, beside the owner of its shards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.process.control import ControlError, ControlServer
from gateway.queue.administration import Changed, change, worker_stats
from gateway.queue.listing import Selection, read, read_content, read_stats
from tests.assembly import Assembly, configure, until

NOWHERE = "relay: {via: ['127.0.0.1:1']}"


async def _deferred(gateway: Assembly, count: int) -> None:
    await until(lambda: len(gateway.rows(state="deferred")) == count, "the deferrals")


async def test_what_a_row_tells(tmp_path: Path) -> None:
    async with Assembly(configure(tmp_path, NOWHERE)) as gateway:
        reply = await gateway.submit("b@example.net", "ü@example.net", mail=" SMTPUTF8")
        await _deferred(gateway, 2)
        first, second = gateway.rows()
        assert first.id == second.id == reply.split()[-1]
        assert (first.number, second.number) == (0, 1)
        assert second.recipient == "ü@example.net"
        assert first.attempts == 1
        assert "Connection refused" in first.reply
        content = read_content(gateway.config.spool.path, first)
        assert content is not None
        assert len(content) == first.size
        (lane,) = read_stats(gateway.config.spool.path)
        assert (lane.deferred, lane.octets) == (2, 2 * first.size)
        assert first.to_dict()["state"] == "deferred"
        assert list(read(gateway.config.spool.path, Selection(), limit=1)) == [first]


async def test_a_command_asks_the_owner(tmp_path: Path) -> None:
    config = configure(tmp_path, NOWHERE)
    path = tmp_path / "worker-0-1.sock"
    gateway = Assembly(config)
    gateway.spool._owner = str(path)
    async with gateway:
        control = ControlServer(path, gateway.queue.answer)
        await control.start()
        reply = await gateway.submit("b@example.net", "c@example.net")
        await _deferred(gateway, 2)
        folder = config.spool.path
        chosen = Selection(ids=(reply.split()[-1],), recipient="b@example.net")
        assert await change(folder, "hold", chosen) == Changed(1, 0)
        assert [row.state for row in gateway.rows()] == ["held", "deferred"]
        (stats,) = await asyncio.to_thread(worker_stats, tmp_path)
        assert stats["accepted"] == 1
        with pytest.raises(ValueError, match="is no queue id"):
            await change(folder, "drop", Selection(ids=("x",)))
        assert await change(folder, "drop", Selection()) == Changed(2, 0)
        assert gateway.rows() == []
        await gateway.submit("d@example.net")
        await control.close()
        with pytest.raises(ControlError):
            await change(folder, "drop", Selection())


async def test_changes_at_the_same_time(tmp_path: Path) -> None:
    async with Assembly(configure(tmp_path, NOWHERE)) as gateway:
        for number in range(20):
            await gateway.submit(f"{number}@example.net")
        await _deferred(gateway, 20)
        asked = [
            {"command": command, "shard": 1, "selection": {"recipient": f"{n}@example.net"}}
            for n in range(20)
            for command in ("hold", "drop")
        ]
        answers = await asyncio.gather(*map(gateway.queue.answer, asked))
        assert answers == [{"changed": 1, "busy": 0}] * 40
        assert gateway.rows() == []
        assert not gateway.dispatcher._withdrawn


async def test_a_person_who_gives_up_waiting_harms_nothing(tmp_path: Path) -> None:
    async with Assembly(configure(tmp_path, NOWHERE)) as gateway:
        await gateway.submit("b@example.net")
        await _deferred(gateway, 1)
        asked = {"command": "hold", "shard": 1, "selection": {}}
        waiting = asyncio.create_task(gateway.queue.answer(asked))
        (shard,) = gateway.spool.shards
        async with asyncio.timeout(60):
            while not (shard._pending or shard._writing):
                await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await gateway.submit("c@example.net")).startswith("250")
        await until(lambda: gateway.rows(state="held"), "the change")
