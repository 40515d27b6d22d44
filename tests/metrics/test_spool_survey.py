"""What waits in the spool, in real shards."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from gateway.events import Event
from gateway.metrics import spool_survey
from gateway.metrics.exposition import exposition
from gateway.metrics.readings import Readings
from gateway.metrics.spool_survey import SpoolSurvey
from gateway.queue.custody import reason_of
from gateway.queue.pauses import Pause
from gateway.queue.selection import Selection
from gateway.spool.held_reason import BY_HAND
from gateway.spool.outbox import count_waiting
from gateway.spool.shard_file import SpoolError
from gateway.spool.suspects import Suspect
from tests.metrics.text import Told
from tests.queue.served import Left, leave, shard_database

NOW = time.time()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_survey, "LEAST_PAUSE", 0.0)
    monkeypatch.setattr(spool_survey, "SHARE", 0)


async def _read(survey: SpoolSurvey, timeout: float = 60.0) -> Told:
    readings = Readings()
    assert await survey.read(readings, timeout)
    return Told(exposition({"service": readings}))


async def test_the_queue_is_counted_by_state(tmp_path: Path) -> None:
    later = {"due": NOW + 3600}
    leave(
        tmp_path,
        [
            Left(("a@example.net", "b@example.net")),
            Left(lane="example.org", columns=later),
            Left(columns=later | {"attempts": 1}),
            Left(columns={"due": None}),
        ],
    )
    leave(tmp_path, [Left(columns={"due": None, "held": "why"})] * 2, number=2)
    with shard_database(tmp_path, 2) as db:
        db.execute(
            "UPDATE messages SET received=? WHERE id=(SELECT min(id) FROM messages)",
            (time.time() - 90,),
        )
    survey = SpoolSurvey(tmp_path, 1000, ())
    told = await _read(survey)
    states = {
        state: told.sum("gateway_queue_recipients", state=state)
        for state in ("active", "deferred", "scheduled", "held")
    }
    assert states == {"active": 3, "deferred": 1, "scheduled": 1, "held": 2}
    assert told.sum("gateway_queue_lanes") == 2
    assert 90 <= told.sum("gateway_queue_oldest_seconds") < 150
    sizes = [path.stat().st_size for path in tmp_path.glob("*.db*")]
    assert told.sum("gateway_spool_bytes") == sum(sizes) > 0
    assert told.sum("gateway_spool_reserve_bytes") == 1000
    assert told.sum("gateway_spool_free_bytes") > 0
    survey.close()


async def test_an_empty_queue(tmp_path: Path) -> None:
    survey = SpoolSurvey(tmp_path, 0, ("report",))
    told = await _read(survey)
    assert told.sum("gateway_queue_recipients") == 0
    assert told.sum("gateway_queue_oldest_seconds") == 0
    assert told.sum("gateway_outbox_events", observer="report") == 0
    survey.close()


async def test_mail_without_its_message_has_no_age(tmp_path: Path) -> None:
    leave(tmp_path, [Left(), Left(lane="example.org")])
    with shard_database(tmp_path) as db:
        db.execute("DELETE FROM messages WHERE id=(SELECT min(id) FROM messages)")
    survey = SpoolSurvey(tmp_path, 0, ())
    told = await _read(survey)
    assert told.sum("gateway_queue_recipients", state="active") == 2
    assert told.sum("gateway_queue_oldest_seconds") < 3600
    survey.close()


async def test_events_wait_for_each_observer(tmp_path: Path) -> None:
    for shard in (1, 2):
        with shard_database(tmp_path, shard) as db:
            for number in range(1, 11):
                event = Event("delivered", NOW, "ID").to_json()
                db.execute("INSERT INTO events VALUES (?,?)", (number, event))
    seen = {"quick": {"1": 10, "2": 10}, "slow": {"1": 4}}
    (tmp_path / "observed.json").write_text(json.dumps(seen))
    survey = SpoolSurvey(tmp_path, 0, ("quick", "slow", "new"))
    told = await _read(survey)
    waiting = {
        name: told.sum("gateway_outbox_events", observer=name) for name in ("quick", "slow", "new")
    }
    assert waiting == {"quick": 0, "slow": 16, "new": 20}
    survey.close()


async def test_what_holds_mail(tmp_path: Path) -> None:
    leave(tmp_path, [Left()])
    suspect = Suspect(0, 0, 0, deaths=3, hook="x", delivered=frozenset(), is_new=True)
    reasons = {
        "damaged on disk: its message is missing": 1,
        reason_of(suspect): 2,
        "salvaged from 0003.db: may have been delivered before": 3,
        Pause(12, Selection(), "prices", 0.0).held: 4,
        BY_HAND: 5,
        "damaged": 6,
        "": 7,
    }
    for reason, count in reasons.items():
        leave(tmp_path, [Left(columns={"due": None, "held": reason})] * count)
    survey = SpoolSurvey(tmp_path, 0, ())
    told = await _read(survey)
    assert dict(told.samples["gateway_queue_held_recipients"]) == {
        (("holder", holder), ("process", "service")): count
        for holder, count in {
            "damaged": 1,
            "crash": 2,
            "salvaged": 3,
            "paused": 4,
            "hand": 5,
            "quarantined": 13,
        }.items()
    }
    survey.close()


async def test_what_cannot_be_read_is_told_and_all_else_too(tmp_path: Path) -> None:
    leave(tmp_path, [Left()])
    survey = SpoolSurvey(tmp_path, 0, ("report",))
    await _read(survey)
    assert survey.unreadable == frozenset()
    (tmp_path / "0002.db").write_bytes(b"no database" * 1000)
    # Of this one the queue can be read, and its events cannot.
    leave(tmp_path, [Left()], number=3)
    with shard_database(tmp_path, 3) as db:
        db.execute("DROP TABLE events")
    told = await _read(survey)
    assert survey.unreadable == {2, 3}
    assert told.sum("gateway_queue_recipients") == 2
    assert told.sum("gateway_outbox_events") == 0
    with pytest.raises(SpoolError, match="0002 cannot be read"):
        count_waiting(tmp_path, ["report"])
    for number in (2, 3):
        (tmp_path / f"{number:04d}.db").unlink()
    assert (await _read(survey)).sum("gateway_queue_recipients") == 1
    assert survey.unreadable == frozenset()
    survey.close()


async def test_a_folder_that_cannot_be_read_is_not_told(tmp_path: Path) -> None:
    leave(tmp_path, [Left()])
    survey = SpoolSurvey(tmp_path, 0, ())
    (tmp_path / "0002.db").mkdir()
    readings = Readings()
    assert not await survey.read(readings, 60.0)
    assert readings.of("gateway_queue_recipients") == []
    assert len(readings.of("gateway_spool_free_bytes")) == 1
    survey.close()

    missing = SpoolSurvey(tmp_path / "missing", 0, ())
    assert not await missing.read(Readings(), 60.0)
    missing.close()


async def test_what_takes_long_is_told_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, [Left()])
    go = threading.Event()
    count = spool_survey._count

    def slow(*arguments: object) -> spool_survey.Count:
        go.wait(60)
        return count(tmp_path, ())

    survey = SpoolSurvey(tmp_path, 0, ())
    monkeypatch.setattr(spool_survey, "_count", slow)
    readings = Readings()
    started = time.monotonic()
    assert await survey.read(readings, 0.05)
    assert time.monotonic() - started < 30
    assert readings.of("gateway_queue_recipients") == []
    go.set()
    assert (await _read(survey)).sum("gateway_queue_recipients") == 1
    # While it is counted again, what was counted before is told.
    go.clear()
    leave(tmp_path, [Left()], number=2)
    monkeypatch.setattr(spool_survey, "LEAST_PAUSE", 3600.0)
    assert (await _read(survey, 0.05)).sum("gateway_queue_recipients") == 1
    go.set()
    # What comes after its time is not counted again.
    assert (await _read(survey)).sum("gateway_queue_recipients") == 2
    survey.close()


async def test_it_is_not_counted_more_often_than_it_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_survey, "LEAST_PAUSE", 3600.0)
    leave(tmp_path, [Left()])
    survey = SpoolSurvey(tmp_path, 0, ())
    assert (await _read(survey)).sum("gateway_queue_recipients") == 1
    leave(tmp_path, [Left()], number=2)
    first, second = await asyncio.gather(_read(survey), _read(survey))
    assert first.sum("gateway_queue_recipients") == second.sum("gateway_queue_recipients") == 1
    survey.close()


async def test_many_ask_at_the_same_time(tmp_path: Path) -> None:
    leave(tmp_path, [Left()])
    survey = SpoolSurvey(tmp_path, 0, ())
    for told in await asyncio.gather(*[_read(survey) for _ in range(5)]):
        assert told.sum("gateway_queue_recipients") == 1
    survey.close()
