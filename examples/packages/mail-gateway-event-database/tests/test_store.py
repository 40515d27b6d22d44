"""The database itself: SQLite, and servers where the environment names them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from gateway.hooks import Event
from hypothesis import given
from hypothesis import strategies as st

from mail_gateway_event_database.store import PORTION, Selection, Store
from mail_gateway_event_database.table import EVENTS, fingerprint, moment, row_of

NOW = 1_790_000_000.0
"""2026-09-21 14:13:20 UTC."""
ALL = Selection()


def event(number: int = 1, kind: str = "delivered", after: float = 0.0, **fields: Any) -> Event:
    return Event(kind, NOW + after, f"ID{number}", recipient=f"u{number}@example.net", **fields)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url, Path())
    store.prepare()
    yield store
    store.close()


def test_events_are_there_after_they_are_written(store: Store) -> None:
    written = event(
        sender="news@shop.example",
        stream="bulk",
        client="192.0.2.7",
        user="shop",
        reason="250 2.0.0 OK",
        relay="mx.example.net[192.0.2.9]:25",
        code=250,
        status="2.0.0",
        notes={"campaign": "春の便り", "variant": "b"},
        after=0.123456,
    )
    assert store.write([written]) == 1
    (row,) = store.last(9, ALL)
    assert row == {
        "id": row["id"],
        "time": datetime(2026, 9, 21, 14, 13, 20, 123456),
        "type": "delivered",
        "message_id": "ID1",
        "campaign": "春の便り",
        "sender": "news@shop.example",
        "recipient": "u1@example.net",
        "stream": "bulk",
        "client": "192.0.2.7",
        "login": "shop",
        "reason": "250 2.0.0 OK",
        "relay": "mx.example.net[192.0.2.9]:25",
        "code": 250,
        "status": "2.0.0",
        "notes": '{"campaign": "春の便り", "variant": "b"}',
    }


def test_what_comes_again_is_written_once(store: Store) -> None:
    first, second, third = event(1), event(2), event(3)
    assert store.write([first, second, first]) == 2
    assert store.write([second, third]) == 1
    assert [row["message_id"] for row in store.last(9, ALL)] == ["ID3", "ID2", "ID1"]


def test_more_events_than_fit_into_one_statement_are_all_written(store: Store) -> None:
    events = [event(number) for number in range(PORTION * 2 + 7)]
    assert store.write(events) == len(events)
    assert store.write(events) == 0
    assert store.count("type", ALL, 9) == [("delivered", "delivered", len(events))]


def test_a_batch_that_fails_is_not_written_in_part(store: Store, url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        # As another program may write at the same moment: the second half of the batch conflicts.
        row = row_of(event(PORTION + 1)) | {"fingerprint": "x"}
        connection.execute(sqlalchemy.insert(EVENTS), [row])
        index = sqlalchemy.Index("one_message", EVENTS.c.message_id, unique=True)
        index.create(connection)
        EVENTS.indexes.discard(index)
    engine.dispose()
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        store.write([event(number) for number in range(PORTION + 2)])
    assert [row["message_id"] for row in store.last(PORTION * 2, ALL)] == [f"ID{PORTION + 1}"]


def test_what_is_too_old_is_forgotten_in_portions(store: Store) -> None:
    store.write([event(number, after=-100) for number in range(PORTION + 3)] + [event(0)])
    before = moment(NOW - 1)
    assert store.forget(before) == PORTION
    assert store.forget(before) == 3
    assert store.forget(before) == 0
    assert [row["time"] for row in store.last(9, ALL)] == [moment(NOW)]


def test_a_selection_holds_for_both_questions(store: Store) -> None:
    spring = {"campaign": "spring"}
    store.write(
        [
            event(1, notes=spring),
            event(2, notes=spring, after=5),
            event(2, "opened", notes=spring, after=9),
            event(3, "bounced", notes={"campaign": "Spring"}),
        ]
    )
    assert store.count("campaign", ALL, 9) == [
        ("spring", "delivered", 2),
        ("Spring", "bounced", 1),
        ("spring", "opened", 1),
    ]
    chosen = Selection(
        types=["delivered", "opened"],
        campaign="spring",
        recipient="u2@example.net",
        since=moment(NOW + 5),
    )
    assert [row["type"] for row in store.last(9, chosen)] == ["opened", "delivered"]
    assert [row["type"] for row in store.last(1, chosen)] == ["opened"]
    assert store.count("type", chosen, 9) == [
        ("delivered", "delivered", 1),
        ("opened", "opened", 1),
    ]
    assert store.count("type", chosen, 1) == [("delivered", "delivered", 1)]


def test_hours_are_those_of_the_clock(store: Store) -> None:
    store.write([event(1), event(2, "bounced"), event(3, after=-800), event(4, after=-7000)])
    assert store.hours(moment(NOW), 2) == [
        (datetime(2026, 9, 21, 13), {}),
        (datetime(2026, 9, 21, 14), {"bounced": 1, "delivered": 2}),
    ]
    assert store.hours(moment(NOW), 3)[0] == (datetime(2026, 9, 21, 12), {"delivered": 1})


@pytest.mark.parametrize(
    "odd",
    [
        event(reason="\0 and \ud800"),
        event(reason="あ" * 100_000),
        replace(event(), type="t" * 1000, message_id="m" * 1000, recipient="r" * 1000),
        replace(event(), stream="s" * 1000, client="c" * 1000, user="u" * 1000, status="9" * 99),
        event(relay="x" * 1000, notes={"campaign": "c" * 1000, "a": "\0"}),
        event(code=10**12),
        event(code=-1),
        replace(event(), time=math.nan),
        replace(event(), time=math.inf),
        replace(event(), time=1e300),
        replace(event(), time=-1e12),
        Event("", 0, ""),
    ],
    ids=lambda odd: repr(odd)[:60],
)
def test_no_event_is_refused(store: Store, odd: Event) -> None:
    """One that were would come again for ever, and all others behind it would wait."""
    assert store.write([odd]) == 1
    assert store.write([odd]) == 0
    assert len(store.last(9, ALL)) == 1


def test_a_table_that_is_there_is_used(store: Store, url: str) -> None:
    store.write([event()])
    again = Store(url, Path())
    again.prepare()
    assert again.write([event()]) == 0
    again.close()


def test_a_table_of_another_version_is_refused(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {EVENTS.name} (id INTEGER PRIMARY KEY)")
    store = Store(url, Path())
    with pytest.raises(ValueError, match="has no column fingerprint: it is of another version"):
        store.prepare()
    store.close()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {EVENTS.name}")
    engine.dispose()


def test_a_relative_file_is_beside_gateway_yaml(tmp_path: Path) -> None:
    store = Store("sqlite:///some.db", tmp_path)
    store.prepare()
    store.close()
    assert (tmp_path / "some.db").exists()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite:/nothing", "SQLAlchemy cannot read this URL"),
        ("nosuchdatabase://u:secret@h/x", "SQLAlchemy cannot read this URL"),
        ("mssql+pyodbc://u:secret@h/x", "pyodbc is not installed"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as refused:
        Store(url, Path())
    assert "secret" not in str(refused.value)


# What tells events apart.

_TEXT = st.text(max_size=5)
_EVENTS = st.builds(
    Event,
    type=_TEXT,
    time=st.floats(allow_nan=False),
    message_id=_TEXT,
    recipient=_TEXT,
    reason=_TEXT,
    code=st.integers(0, 999),
    notes=st.dictionaries(_TEXT, _TEXT, max_size=2),
)


@given(_EVENTS)
def test_an_event_that_went_through_the_outbox_has_the_same_fingerprint(one: Event) -> None:
    assert fingerprint(Event.from_json(one.to_json())) == fingerprint(one)


@given(_EVENTS, _EVENTS)
def test_other_events_have_other_fingerprints(one: Event, other: Event) -> None:
    assert (fingerprint(one) == fingerprint(other)) is (one == other)


def test_the_order_of_notes_makes_no_difference() -> None:
    assert fingerprint(event(notes={"a": "1", "b": "2"})) == fingerprint(
        event(notes={"b": "2", "a": "1"})
    )


def test_each_field_makes_a_difference() -> None:
    another: dict[str, Any] = dict.fromkeys(Event.__dataclass_fields__, "another")
    another |= {"time": 1.0, "code": 1, "notes": {"a": "b"}}
    others = [replace(event(), **{name: value}) for name, value in another.items()]
    assert len({fingerprint(one) for one in (event(), *others)}) == len(others) + 1


def test_columns_are_long_enough_for_what_mail_has() -> None:
    row = row_of(event(notes={"campaign": "x" * 200}, sender=f"{'l' * 64}@{'d' * 255}"))
    assert len(row["campaign"]) == 200
    assert row["sender"].endswith("d" * 255)


def test_a_moment_is_in_utc() -> None:
    assert moment(NOW) == datetime(2026, 9, 21, 14, 13, 20)
    assert moment(NOW) - moment(NOW - 60) == timedelta(minutes=1)
