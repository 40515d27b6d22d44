from __future__ import annotations

import asyncio
import socket
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from plugins.personalization.sources import SourceError, Sources, build
from plugins.personalization.sources.config import SqlConfig
from tests.assembly import until
from tests.conftest import DebianProgram
from tests.plugins.personalization_databases import (
    PASSWORD,
    DatabaseServer,
    mariadb,
    postgresql,
)
from tests.plugins.personalization_site import configs, context, copies, message, started, values_of

CUSTOMERS = """
CREATE TABLE customers (
  email varchar(100) PRIMARY KEY, name varchar(50), points integer, balance numeric(10,2),
  vip boolean, born date, seen timestamp NULL
)
"""
ROWS = """
INSERT INTO customers VALUES
  ('taro@example.com', '太郎', 1200, 19.90, true, '1980-02-29', '2024-01-02 03:04:05'),
  ('Hanako@example.com', '花子 😀', NULL, 0.10, false, NULL, NULL)
"""
ORDERS = """
CREATE TABLE orders (email varchar(100), item varchar(50), price numeric(10,2))
"""
ITEMS = """
INSERT INTO orders VALUES ('taro@example.com', '茶', 3.50), ('taro@example.com', '碗', 12.00),
  ('hanako@example.com', '米', 8.25)
"""
BY_ADDRESS = "SELECT * FROM customers WHERE email = :address"

Address = Callable[[Path], str]
"""Makes the URL of a database."""


@pytest.fixture(scope="session")
def postgres_server(debian_program: DebianProgram) -> Iterator[DatabaseServer]:
    with postgresql(debian_program) as server:
        server.execute(CUSTOMERS, ROWS, ORDERS, ITEMS)
        yield server


@pytest.fixture(scope="session")
def mariadb_server(debian_program: DebianProgram) -> Iterator[DatabaseServer]:
    with mariadb(debian_program) as server:
        server.execute(CUSTOMERS, ROWS, ORDERS, ITEMS)
        yield server


def sqlite_file(folder: Path) -> Path:
    path = folder / "customers.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(";".join([CUSTOMERS, ROWS, ORDERS, ITEMS]))
    connection.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of each kind of database, with the same tables in it."""
    if request.param == "sqlite":
        sqlite_file(tmp_path)
        return "sqlite:///customers.db"
    if request.param == "postgresql":
        server: DatabaseServer = request.getfixturevalue("postgres_server")
        return server.text.replace("postgresql+psycopg", "postgresql")
    server = request.getfixturevalue("mariadb_server")
    return server.text.replace("mysql+pymysql", "mariadb")


def source(url: str, query: str = BY_ADDRESS, **how: Any) -> dict[str, Any]:
    return {"sql": {"url": url, "query": query, **how}}


async def refusal(sources: Sources, address: str = "taro@example.com") -> SourceError:
    with pytest.raises(SourceError) as refused:
        await values_of(sources, address)
    assert refused.value.temporary
    return refused.value


# On each kind of database.


async def test_a_row_gives_the_values(tmp_path: Path, url: str) -> None:
    async with started(tmp_path, source(url)) as sources:
        known = await values_of(sources, "taro@example.com")
        assert known | {"vip": bool(known["vip"])} == {
            "email": "taro@example.com",
            "name": "太郎",
            "points": 1200,
            "balance": known["balance"],
            "vip": True,
            "born": known["born"],
            "seen": known["seen"],
        }
        if not url.startswith("sqlite"):
            assert str(known["balance"]) == "19.90"
            assert isinstance(known["balance"], Decimal)
            assert known["born"] == date(1980, 2, 29)
            assert known["seen"] == datetime(2024, 1, 2, 3, 4, 5)  # noqa: DTZ001 - the table has no zone
        known = await values_of(sources, "Hanako@example.com")
        assert (known["name"], known["points"], known["born"]) == ("花子 😀", None, None)
        assert await values_of(sources, "nobody@example.com") == {}


async def test_rows_become_a_list(tmp_path: Path, url: str) -> None:
    query = "SELECT item, price FROM orders WHERE email = :address ORDER BY price"
    async with started(tmp_path, source(url, query, rows="orders")) as sources:
        known = await values_of(sources, "taro@example.com")
        assert [row["item"] for row in known["orders"]] == ["茶", "碗"]
        known = await values_of(sources, "hanako@example.com")
        assert [row["item"] for row in known["orders"]] == ["米"]
        assert await values_of(sources, "nobody@example.com") == {}


async def test_many_are_asked_about_at_once(tmp_path: Path, url: str) -> None:
    query = "SELECT email, item FROM orders WHERE email IN :addresses ORDER BY price"
    async with started(tmp_path, source(url, query, rows="orders", batch=3, wait="1s")) as sources:
        whole = message("taro@example.com", "nobody@example.com", "HANAKO@Example.com")
        known = [await sources.values(*one) for one in copies(whole)]
    assert [row["item"] for row in known[0]["orders"]] == ["茶", "碗"]
    assert known[1] == {}
    if "mariadb" in url:  # where texts compare in any case
        assert [row["item"] for row in known[2]["orders"]] == ["米"]


async def test_every_parameter(tmp_path: Path, url: str) -> None:
    names = ("address", "local_part", "domain", "sender", "stream", "campaign", "message_id")
    columns = ", ".join(f"CAST(:{name} AS char(40)) AS p_{name}" for name in names)
    async with started(tmp_path, source(url, f"SELECT {columns}")) as sources:
        known = await values_of(sources, "Taro.Y@Example.COM", id="ID7", campaign="春 'x'; --")
    assert {name: known[f"p_{name}"].strip() for name in names} == {
        "address": "Taro.Y@Example.COM",
        "local_part": "Taro.Y",
        "domain": "example.com",
        "sender": "shop@example.com",
        "stream": "bulk",
        "campaign": "春 'x'; --",
        "message_id": "ID7",
    }


@pytest.mark.parametrize(
    "query",
    [
        "SELECT nmae FROM customers WHERE email = :address",
        "SELECT name FROM custmers WHERE email = :address",
        "SELECT name FORM customers WHERE email = :address",
        "SELECT name FROM customers WHERE emial IN :addresses",
        "WITH c AS (SELECT * FROM customers) SELECT nmae FROM c WHERE email = :address",
    ],
)
async def test_a_wrong_query_is_found_at_the_start(tmp_path: Path, url: str, query: str) -> None:
    with pytest.raises(ValueError, match="the query cannot be run: ") as refused:
        async with started(tmp_path, source(url, query)):
            pass
    assert "\n" not in str(refused.value)


async def test_a_query_that_fails_later_is_temporary(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    query = "SELECT name, 1 / (points - points) AS n FROM customers WHERE email = :address"
    if "sqlite" in url:
        query = "SELECT name, abs(-9223372036854775808) FROM customers WHERE email = :address"
    if "mariadb" in url:
        query = "SELECT name, exp(points) AS n FROM customers WHERE email = :address"
    async with started(tmp_path, source(url, query)) as sources:
        refused = await refusal(sources)
        assert refused.text == "The recipient's data cannot be had now"
        assert await values_of(sources, "nobody@example.com") == {}, "the pool is as it was"
    errors = [record.getMessage() for record in caplog.records]
    assert len(errors) == 1
    assert errors[0].startswith("source sql ")
    assert "taro@example.com" not in errors[0]


async def test_a_slow_query_is_given_up_and_ended(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    sleep = "(SELECT CASE WHEN :address LIKE 'slow%' THEN {} END) AS x"
    slow = {"postgresql": "pg_sleep(60)", "mariadb": "sleep(60)"}
    endless = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c "
        "WHERE :address LIKE 'slow%') SELECT count(*) AS n FROM c"
    )
    kind = url.partition(":")[0]
    query = endless if kind == "sqlite" else f"SELECT 1 AS n, {sleep.format(slow[kind])}"
    # One connection: were the late query not ended, the next one would have to wait for it.
    async with started(tmp_path, source(url, query, timeout="300ms", pool_size=1)) as sources:
        with pytest.raises(SourceError):
            await values_of(sources, "slow@example.com")
        assert "no answer within 0.3 s" in caplog.text

        async def answered() -> bool:
            try:
                return await values_of(sources, "quick@example.com") != {}
            except SourceError:
                return False

        async with asyncio.timeout(20):
            while not await answered():
                pass


async def test_the_loop_goes_on_meanwhile(tmp_path: Path, url: str) -> None:
    """As many queries as there are connections run at a time, each in a thread."""
    threads: set[str] = set()
    async with started(tmp_path, source(url, pool_size=3)) as sources:
        asking = [
            asyncio.create_task(values_of(sources, "taro@example.com", id=f"ID{n}"))
            for n in range(60)
        ]
        while not all(task.done() for task in asking):
            threads |= {one.name for one in threading.enumerate() if "-sql" in one.name}
            await asyncio.sleep(0)
        assert {task.result()["name"] for task in asking} == {"太郎"}
    assert len(threads) <= 3
    await until(
        lambda: not [one for one in threading.enumerate() if "-sql" in one.name], "their end"
    )


# Types.


async def test_types_of_postgresql(tmp_path: Path, postgres_server: DatabaseServer) -> None:
    query = """
        SELECT 12.50::numeric AS price, 1.5::float AS rate,
          timestamptz '2024-01-02 03:04:05+09' AS at,
          ARRAY['a','b'] AS tags, '{"x": [1, null, {"y": "z"}]}'::jsonb AS data,
          9223372036854775807 AS big, :address AS "Odd ""name; --", NULL AS nothing
    """
    async with started(tmp_path, source(postgres_server.text, query)) as sources:
        known = await values_of(sources, "taro@example.com")
    at = known.pop("at")
    assert at == datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=9)))
    assert at.astimezone(UTC).hour == 18
    assert known == {
        "price": Decimal("12.50"),
        "rate": 1.5,
        "tags": ["a", "b"],
        "data": {"x": [1, None, {"y": "z"}]},
        "big": 9223372036854775807,
        'Odd "name; --': "taro@example.com",
        "nothing": None,
    }
    assert str(known["price"]) == "12.50"


async def test_the_check_at_the_start_does_not_stumble_over_numbers(
    tmp_path: Path, postgres_server: DatabaseServer, caplog: pytest.LogCaptureFixture
) -> None:
    query = "SELECT name FROM customers WHERE points > :campaign AND email = :address"
    async with started(tmp_path, source(postgres_server.text, query)) as sources:
        assert caplog.text == ""
        assert await values_of(sources, "taro@example.com", campaign="1000") == {"name": "太郎"}
        assert await values_of(sources, "taro@example.com", campaign="2000") == {}


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("'\\x00ff'::bytea", "x: a template cannot be given a value of type bytes"),
        ("'00000000-0000-0000-0000-000000000000'::uuid", "x: a template cannot be given"),
        ("ARRAY[interval '1 day']", "x: a template cannot be given a value of type timedelta"),
        ("repeat('x', 2000000)", "more than 1048576 characters"),
    ],
)
async def test_types_that_are_refused(
    tmp_path: Path,
    postgres_server: DatabaseServer,
    caplog: pytest.LogCaptureFixture,
    expression: str,
    reason: str,
) -> None:
    query = f"SELECT {expression} AS x WHERE :address <> ''"
    async with started(tmp_path, source(postgres_server.text, query)) as sources:
        refused = await refusal(sources)
    assert refused.text == "The recipient's data cannot be used"
    assert reason in caplog.text
    assert "convert it in the query" in caplog.text


# The number of rows.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return sqlite_file(tmp_path)


@pytest.mark.parametrize(
    ("query", "rows", "reason"),
    [
        ("SELECT item FROM orders WHERE email = :address", None, "several rows; add LIMIT 1, or"),
        ("SELECT email, item FROM orders WHERE email IN :addresses", None, "several rows"),
        (
            "SELECT item FROM orders WHERE email IN :addresses",
            "orders",
            "no address in the column 'email'",
        ),
        (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000) "
            "SELECT x FROM c WHERE :address <> ''",
            "n",
            "more than 1000 rows",
        ),
        (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000) "
            "SELECT 'someone@else.example.com' AS email FROM c WHERE '' NOT IN :addresses",
            "n",
            "more than 1000 rows",
        ),
    ],
)
async def test_a_number_of_rows_that_cannot_be_meant(
    tmp_path: Path,
    file: Path,
    caplog: pytest.LogCaptureFixture,
    query: str,
    rows: str | None,
    reason: str,
) -> None:
    async with started(tmp_path, source(f"sqlite:///{file}", query, rows=rows)) as sources:
        await refusal(sources)
    assert reason in caplog.text


async def test_those_with_the_same_case_go_first(tmp_path: Path, file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO customers (email, name) VALUES ('TARO@example.com', 'T')")
    connection.close()
    query = "SELECT email, name FROM customers WHERE lower(email) IN :addresses"
    url = f"sqlite:///{file}"
    async with started(tmp_path, source(url, query, key="email", batch=1)) as sources:
        assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
    query = "SELECT * FROM customers WHERE email IN :addresses OR email LIKE 'taro@%'"
    async with started(tmp_path, source(url, query)) as sources:
        assert (await values_of(sources, "taro@EXAMPLE.com"))["name"] == "太郎"
        assert (await values_of(sources, "TARO@example.com"))["name"] == "T"


async def test_other_parameters_beside_many_addresses(tmp_path: Path, file: Path) -> None:
    query = "SELECT email, :campaign AS campaign FROM customers WHERE email IN :addresses"
    async with started(tmp_path, source(f"sqlite:///{file}", query, wait="50ms")) as sources:
        asking = [
            values_of(sources, address, campaign=campaign, id=campaign + address)
            for address in ("taro@example.com", "Hanako@example.com")
            for campaign in ("spring", "summer")
        ]
        answers = await asyncio.gather(*asking)
    assert [answer["campaign"] for answer in answers] == ["spring", "summer"] * 2


# Answers that are kept, and the file that is never written.


async def test_answers_are_kept_if_asked_for(tmp_path: Path, file: Path) -> None:
    url = f"sqlite:///{file}"
    async with (
        started(tmp_path, source(url, cache="60s")) as keeping,
        started(tmp_path, source(url)) as asking,
    ):
        for sources in (keeping, asking):
            assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE customers SET name = 'new'")
        connection.close()
        assert (await values_of(keeping, "taro@example.com", id="ID2"))["name"] == "太郎"
        assert (await values_of(asking, "taro@example.com", id="ID2"))["name"] == "new"


async def test_an_sqlite_file_is_not_made_and_not_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cust omers%41?.db"
    url = "sqlite:///cust%20omers%2541%3F.db"
    async with started(tmp_path, source(url)) as sources:
        await refusal(sources)
        assert "unable to open database file" in caplog.text
        assert not path.exists()
        sqlite_file(tmp_path).rename(path)
        assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
    async with started(
        tmp_path, source(url, "DELETE FROM customers WHERE email = :address RETURNING name")
    ) as sources:
        await refusal(sources)
    assert "attempt to write a readonly database" in caplog.text


async def test_a_locked_file_is_waited_for_and_then_given_up(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        async with started(tmp_path, source(f"sqlite:///{file}", timeout="200ms")) as sources:
            await refusal(sources)
            assert "database is locked" in caplog.text or "no answer within" in caplog.text
            lock.execute("ROLLBACK")
            assert await values_of(sources, "taro@example.com")
    finally:
        lock.close()


# Servers that come and go.


@asynccontextmanager
async def eventually(sources: Sources) -> AsyncIterator[None]:
    """Waits until lookups work again."""
    async with asyncio.timeout(30):
        while True:
            try:
                assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
            except SourceError:
                await asyncio.sleep(0.02)
            else:
                break
    yield


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
async def test_a_server_that_goes_and_comes_back(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    name = "postgres_server" if kind == "postgresql" else "mariadb_server"
    server: DatabaseServer = request.getfixturevalue(name)
    async with started(tmp_path, source(server.text, timeout="2s", pool_size=2)) as sources:
        assert await values_of(sources, "taro@example.com")
        server.stop()
        refused = await refusal(sources)
        assert refused.text == "The recipient's data cannot be had now"
        server.restart()
        async with eventually(sources):
            pass
        server.stop()
        server.restart()
        assert await values_of(sources, "taro@example.com"), "connections from before are replaced"
        server.stop()
        async with started(tmp_path, source(server.text, timeout="2s")) as later:
            await refusal(later)
            server.restart()
            async with eventually(later):
                pass
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
async def test_a_wrong_password_is_shown_nowhere(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    name = "postgres_server" if kind == "postgresql" else "mariadb_server"
    server: DatabaseServer = request.getfixturevalue(name)
    url = server.url.set(password="geheim-137").render_as_string(hide_password=False)
    caplog.set_level("DEBUG")
    async with started(tmp_path, source(url)) as sources:
        refused = await refusal(sources)
    assert "gateway" in caplog.text
    assert "geheim" not in caplog.text
    assert "geheim" not in repr(refused)
    assert refused.__context__ is None


async def test_a_server_that_hangs(
    tmp_path: Path, mariadb_server: DatabaseServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The server takes connections and says nothing, as behind a firewall that forgot them."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for drivername in ("mysql+pymysql", "postgresql+psycopg"):
            url = mariadb_server.url.set(port=silent.getsockname()[1], drivername=drivername)
            text = url.render_as_string(hide_password=False)
            async with started(tmp_path, source(text, timeout="200ms")) as sources:
                await refusal(sources)
    assert caplog.text.count("no answer within 0.2 s") >= 2


async def test_without_the_library_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ValueError, match=r"pip install 'mail-gateway\[sql\]'"):
        SqlConfig.model_validate({"url": "sqlite:///x.db", "query": BY_ADDRESS})


async def test_the_check_of_the_configuration_asks_no_server(tmp_path: Path) -> None:
    for url in ("postgresql://u:p@192.0.2.1/d", "mysql://u:p@192.0.2.1/d", "sqlite:///none.db"):
        assert build(configs(tmp_path, source(url)))


async def test_a_wrong_query_leaves_nothing_open(tmp_path: Path, file: Path) -> None:
    sources = Sources(
        build(configs(tmp_path, source(f"sqlite:///{file}", "SELECT :address FROM x")))
    )
    with pytest.raises(ValueError, match="no such table: x"):
        await sources.start(context(tmp_path))
    await until(
        lambda: not [one for one in threading.enumerate() if "-sql" in one.name], "their end"
    )
