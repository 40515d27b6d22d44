"""When a commit waits for company, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.spool import group_commit
from gateway.spool.expectation import Expectation
from gateway.spool.shard import Shard
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool

NEVER = 3600.0


@pytest.fixture
async def shard(tmp_path: Path) -> AsyncIterator[Shard]:
    shard = Shard.claim(tmp_path, 1, "owner")
    shard.recover()
    yield shard
    shard.expected.messages = 0
    await shard.drain()
    shard.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits wait for as long as they may, so that it shows what they wait for."""
    monkeypatch.setattr(group_commit, "COMMIT_DELAY", NEVER)


def _write(shard: Shard, *, awaited: bool) -> asyncio.Future[SpoolError | None]:
    done: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()
    shard.submit(lambda db: None, done.set_result, 0, () if awaited else None)
    return done


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_is_alone_does_not_wait(shard: Shard, patient: None) -> None:
    shard.expected.messages = 1
    assert await asyncio.wait_for(_write(shard, awaited=True), 30) is None
    shard.expected.messages = 0
    assert await asyncio.wait_for(_write(shard, awaited=True), 30) is None
    assert shard.commits == 2


async def test_who_expects_others_waits_for_all_of_them(shard: Shard, patient: None) -> None:
    shard.expected.messages = 3
    writes = [_write(shard, awaited=True)]
    await _turns()
    writes.append(_write(shard, awaited=True))
    await _turns()
    assert shard.commits == 0
    writes.append(_write(shard, awaited=True))
    assert await asyncio.wait_for(asyncio.gather(*writes), 30) == [None] * 3
    assert shard.commits == 1


async def test_what_nobody_waits_for_goes_with_the_next(shard: Shard, patient: None) -> None:
    settled = _write(shard, awaited=False)
    await _turns()
    assert not settled.done()
    await asyncio.wait_for(_write(shard, awaited=True), 30)
    assert settled.done()
    assert shard.commits == 1


async def test_nothing_waits_for_long(shard: Shard) -> None:
    shard.expected.messages = 1000
    for awaited in (True, False):
        assert await asyncio.wait_for(_write(shard, awaited=awaited), 30) is None
    assert shard.commits == 2


async def test_clients_that_never_go_on_hold_nobody_up(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard.expected.messages = 1000
    waited = 0
    learn = Expectation.learn

    def count(expected: Expectation, here: int, before: int | None) -> None:
        nonlocal waited
        waited += before is not None
        learn(expected, here, before)

    monkeypatch.setattr(Expectation, "learn", count)
    for _ in range(300):
        assert await asyncio.wait_for(_write(shard, awaited=True), 30) is None
    assert shard.commits == 300
    assert 1 <= waited <= 10


async def test_all_shards_of_a_process_expect_the_same(tmp_path: Path) -> None:
    first = Spool(tmp_path, "other", 1)
    first.open()
    spool = Spool(tmp_path, "owner", 1)
    spool.open()
    first.close()
    spool.adopt()
    assert len(spool.shards) == 2
    assert all(shard.expected is spool.expected for shard in spool.shards)
    await spool.drain()
    spool.close()
