from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Event
from plugins.tracking.conversion import Conversion, ConversionError, conversion
from plugins.tracking.orders import Orders
from plugins.tracking.recording import Recorder
from tests.plugins.tracking_web import NOW, Outbox

LOG = logging.getLogger("gateway.plugins.tracking")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Conversion()),
        ({"value": "1200", "currency": "JPY"}, Conversion("1200", "JPY")),
        ({"value": " 12.50 ", "currency": "eur"}, Conversion("12.50", "EUR")),
        ({"value": "007.0", "currency": "USD"}, Conversion("7.0", "USD")),
        ({"value": "0", "currency": "JPY"}, Conversion("0", "JPY")),
        ({"currency": "JPY", "order": "A-1"}, Conversion("", "", "A-1")),
        ({"order": " 注文 12 "}, Conversion("", "", "注文 12")),
        ({"order": "x" * 128}, Conversion("", "", "x" * 128)),
    ],
)
def test_what_is_valid(fields: dict[str, str], expected: Conversion) -> None:
    assert conversion(fields) == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"value": "-1", "currency": "JPY"}, "value must be a number such as 1200 or 12.50"),
        ({"value": "1,200", "currency": "JPY"}, "value must"),
        ({"value": "1e3", "currency": "JPY"}, "value must"),
        ({"value": "NaN", "currency": "JPY"}, "value must"),
        ({"value": "Infinity", "currency": "JPY"}, "value must"),
        ({"value": "1" * 13, "currency": "JPY"}, "value must"),
        ({"value": "1.1234567", "currency": "JPY"}, "value must"),
        ({"value": "１２", "currency": "JPY"}, "value must"),
        ({"value": "1.", "currency": "JPY"}, "value must"),
        ({"value": "1"}, "a value needs a currency"),
        ({"value": "1", "currency": "YEN"}, "currency must be a code of ISO 4217"),
        ({"value": "1", "currency": "D A"}, "currency must"),
        ({"value": "1", "currency": "AED AFN"}, "currency must"),
        ({"value": "1", "currency": "<b>"}, "currency must"),
        ({"order": "x" * 129}, "order must be at most 128 printable characters"),
        ({"order": "a\nb"}, "order must"),
        ({"order": "a\0b"}, "order must"),
        ({"order": "a\u202eb"}, "order must"),
        ({"order": "a\ud800b"}, "order must"),
    ],
)
def test_what_is_not(fields: dict[str, str], text: str) -> None:
    with pytest.raises(ConversionError) as caught:
        conversion(fields)
    assert str(caught.value).startswith(text)


@given(st.decimals(min_value=0, max_value=10**12 - 1, places=2))
def test_a_value_stays_what_it_was(value: Decimal) -> None:
    made = conversion({"value": f"{value:f}", "currency": "JPY"})
    assert Decimal(made.value) == value


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_valid_or_refused(value: str, currency: str, order: str) -> None:
    try:
        made = conversion({"value": value, "currency": currency, "order": order})
    except ConversionError:
        return
    assert made.order.isprintable()
    assert bool(made.value) is bool(made.currency)


def test_an_order_is_one_whoever_made_it() -> None:
    first, second = Conversion("1", "JPY", "A-1"), Conversion("2", "EUR", "A-1")
    assert first.key("ID1", "taro@example.jp") == second.key("ID2", "hanako@example.jp")
    assert first.key("", "") != Conversion("1", "JPY", "A-2").key("", "")


def test_without_an_order_a_message_makes_one_conversion_with_each_recipient() -> None:
    made = Conversion("1", "JPY")
    assert made.key("ID1", "taro@example.jp") == Conversion().key("ID1", "taro@example.jp")
    others = {
        made.key("ID2", "taro@example.jp"),
        made.key("ID1", "hanako@example.jp"),
        Conversion(order="message\0ID1\0taro@example.jp").key("", ""),
    }
    assert made.key("ID1", "taro@example.jp") not in others
    assert len(others) == 3


# Orders.


@asynccontextmanager
async def opened(
    path: Path, outbox: Outbox, clock: Callable[[], float] = lambda: NOW
) -> AsyncIterator[Orders]:
    orders = Orders(path, 100.0, Recorder(outbox.emit, LOG), clock, LOG)
    try:
        yield orders
    finally:
        await orders.close()


EVENT = Event("converted", NOW, "ID1", notes={"order": "A-1"})


async def test_an_order_that_comes_again_is_known_after_a_restart_too(tmp_path: Path) -> None:
    outbox = Outbox()
    async with opened(tmp_path / "orders.db", outbox) as orders:
        assert await orders.record(b"1", EVENT) == "recorded"
        assert await orders.record(b"1", EVENT) == "known"
        assert await orders.record(b"2", EVENT) == "recorded"
    async with opened(tmp_path / "orders.db", outbox) as orders:
        assert await orders.record(b"1", EVENT) == "known"
    assert len(outbox.events) == 2


async def test_an_order_is_forgotten_after_its_time(tmp_path: Path) -> None:
    outbox = Outbox()
    now = NOW
    async with opened(tmp_path / "orders.db", outbox, lambda: now) as orders:
        assert await orders.record(b"1", EVENT) == "recorded"
        now += 10_000
        assert await orders.record(b"2", EVENT) == "recorded"
        assert await orders.record(b"1", EVENT) == "recorded"
        assert await orders.record(b"2", EVENT) == "known"


async def test_one_order_from_many_sides_at_a_time_is_recorded_once(tmp_path: Path) -> None:
    outbox = Outbox()
    async with opened(tmp_path / "orders.db", outbox) as orders:
        outcomes = await asyncio.gather(*[orders.record(b"1", EVENT) for _ in range(20)])
    assert sorted(outcomes) == ["known"] * 19 + ["recorded"]
    assert len(outbox.events) == 1


async def test_an_event_that_cannot_be_written_leaves_the_order_open(tmp_path: Path) -> None:
    outbox = Outbox()
    outbox.failure = OSError("disk full")
    async with opened(tmp_path / "orders.db", outbox) as orders:
        outcomes = await asyncio.gather(*[orders.record(b"1", EVENT) for _ in range(3)])
        assert outcomes == ["failed"] * 3
        outbox.failure = None
        assert await orders.record(b"1", EVENT) == "recorded"


async def test_the_event_is_on_disk_before_the_order_is(tmp_path: Path) -> None:
    """A crash between the two must make one event too many, never one too few."""
    outbox = Outbox()
    outbox.stuck = True
    async with opened(tmp_path / "orders.db", outbox) as orders:
        task = asyncio.create_task(orders.record(b"1", EVENT))
        while not outbox.events:
            await asyncio.sleep(0)
        with closing(apsw.Connection(str(tmp_path / "orders.db"))) as reader:
            assert reader.execute("SELECT count(*) FROM orders").get == 0
            outbox.release()
            assert await task == "recorded"
            assert reader.execute("SELECT count(*) FROM orders").get == 1


async def test_an_event_on_disk_is_recorded_even_if_the_order_cannot_be_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox()
    async with opened(tmp_path / "orders.db", outbox) as orders:
        with closing(apsw.Connection(str(tmp_path / "orders.db"))) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON orders "
                "BEGIN SELECT RAISE(FAIL, 'disk full'); END"
            )
        assert await orders.record(b"1", EVENT) == "recorded"
    assert len(outbox.events) == 1
    assert "cannot be used: disk full" in caplog.text


async def test_a_file_that_fails_is_logged_and_no_conversion_is_said_to_be_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox()
    async with opened(tmp_path / "orders.db", outbox) as orders:
        with closing(apsw.Connection(str(tmp_path / "orders.db"))) as other:
            other.execute("DROP TABLE orders")
        assert await orders.record(b"1", EVENT) == "failed"
    assert outbox.events == []
    assert f"{tmp_path / 'orders.db'} cannot be used: " in caplog.text


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(ValueError) as caught:
        Orders(path, 1.0, Recorder(Outbox().emit, LOG), lambda: NOW, LOG)
    assert str(caught.value).startswith(f"{path}: the file of orders cannot be used: ")
