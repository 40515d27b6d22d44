"""Values in a database, through SQLAlchemy."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

import sqlalchemy
from sqlalchemy import exc

from gateway.hooks import Context, Recipient
from plugins.personalization.sources.address import ByAddress, exact
from plugins.personalization.sources.batch import Answer, Batched, Question
from plugins.personalization.sources.config import PARAMETERS, SqlConfig
from plugins.personalization.sources.outage import Outage
from plugins.personalization.sources.source import SourceError
from plugins.personalization.sources.values import MOST_ROWS, check

_EXPLAINABLE = re.compile(r"\s*(?:SELECT|WITH|VALUES)\b", re.IGNORECASE)
_EXPLAINING = ("sqlite", "postgresql", "mysql", "mariadb")
# SQLITE_ERROR, and SQLITE_SCHEMA, which some syntax errors are reported as.
_SQLITE_WRONG_QUERY = frozenset({1, 17})
# No such column, table or function, an ambiguous column, bad syntax, not permitted.
_MYSQL_WRONG_QUERY = frozenset({1052, 1054, 1064, 1142, 1143, 1146, 1305, 1370})

Row = dict[str, Any]


def sql_source(config: SqlConfig) -> Batched:
    """The source of a configuration."""
    return Batched(
        Database(config),
        size=config.batch if "addresses" in config.parameters else 1,
        wait=config.wait,
        most=config.pool_size,
        cache=config.cache,
    )


@dataclass(slots=True, eq=False)
class _Running:
    """A query that a thread runs; `connection` is the driver's while it does."""

    connection: Any = None
    lock: Lock = field(default_factory=Lock)

    def cancel(self, timeout: float) -> None:
        """Ends the query, if its driver can. May wait for the server."""
        # Held, so that the connection cannot come to run another query meanwhile.
        with self.lock:
            if hasattr(self.connection, "interrupt"):
                self.connection.interrupt()
            elif hasattr(self.connection, "cancel_safe"):
                self.connection.cancel_safe(timeout=timeout)


class Database:
    """A database that is asked by one query."""

    def __init__(self, config: SqlConfig) -> None:
        self._config = config
        self._batched = "addresses" in config.parameters
        self._statement = _statement(config.query, batched=self._batched)
        url = config.database
        self._outage = Outage(f"sql {url.get_backend_name()} {url.host or ''}".rstrip())
        self._engine: sqlalchemy.Engine | None = None
        self._threads: ThreadPoolExecutor | None = None

    async def open(self, context: Context) -> None:
        """Makes the pool, and looks whether the query can be run, if the server can be reached.

        Raises:
            ValueError: the query cannot be run.
        """
        self._outage.start(context.log)
        config = self._config
        self._threads = ThreadPoolExecutor(config.pool_size, f"{context.name}-sql")
        self._engine = sqlalchemy.create_engine(
            config.database,
            pool_size=config.pool_size,
            max_overflow=0,
            pool_timeout=config.timeout,
            # Nothing is written: no transaction has to be begun, and none rolled back.
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            hide_parameters=True,
            connect_args=_connect_args(config),
        )
        try:
            await self._in_thread(self._explain)
        except exc.DataError:
            pass  # the empty texts that it was tried with are no numbers
        except (exc.SQLAlchemyError, TimeoutError) as error:
            if _is_wrong_query(error):
                await self.close()
                raise ValueError(f"the query cannot be run: {self._text(error)}") from None
            self._outage.failed(self._text(error))

    async def close(self) -> None:
        """Closes all connections. A query that still runs ends by itself."""
        engine, self._engine = self._engine, None
        threads, self._threads = self._threads, None
        if engine is not None:
            await asyncio.to_thread(engine.dispose)
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    def together(self, question: Question) -> Hashable:
        """The parameters that are not the address."""
        parameters = self._config.parameters - {"addresses"}
        return tuple([_parameter(question, name) for name in PARAMETERS if name in parameters])

    def identity(self, question: Question) -> Hashable:
        """All parameters of the query."""
        common = self.together(question)
        return (common, question.address) if self._batched else common

    async def ask(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Asks about some recipients, or about one where the query is for one.

        Raises:
            SourceError: the database cannot be reached, is late or refuses the query; temporary,
                for no customer's mail should be returned because of that.
        """
        parameters: dict[str, Any] = {
            name: _parameter(questions[0], name)
            for name in PARAMETERS
            if name in self._config.parameters
        }
        if self._batched:
            parameters["addresses"] = [question.address for question in questions]
        try:
            rows = await self._in_thread(self._fetch, parameters, MOST_ROWS * len(questions))
        except (exc.SQLAlchemyError, TimeoutError) as error:
            self._outage.failed(self._text(error))
            raise SourceError("The recipient's data cannot be had now", temporary=True) from None
        answers = self._share_out(rows, questions)
        if not any(isinstance(answer, SourceError) for answer in answers.values()):
            self._outage.worked()
        return answers

    async def _in_thread(self, query: Any, *arguments: Any) -> list[Row]:
        """Runs a query in a thread; too long a one is cancelled.

        Raises:
            TimeoutError: it took too long.
            SQLAlchemyError: it failed.
        """
        assert self._threads is not None, "not started"
        loop = asyncio.get_running_loop()
        running = _Running()
        timeout = self._config.timeout
        try:
            async with asyncio.timeout(timeout):
                rows: list[Row] = await loop.run_in_executor(
                    self._threads, query, running, *arguments
                )
                return rows
        except (TimeoutError, asyncio.CancelledError):
            loop.run_in_executor(None, self._cancel, running)
            raise

    def _cancel(self, running: _Running) -> None:
        try:
            running.cancel(self._config.timeout)
        except Exception as error:
            self._outage.failed(f"a late query cannot be cancelled: {self._text(error)}")

    # In a thread.

    def _explain(self, running: _Running) -> list[Row]:
        engine = self._engine
        assert engine is not None
        with engine.connect() as connection:
            query = self._config.query
            if connection.dialect.name in _EXPLAINING and _EXPLAINABLE.match(query):
                parameters: dict[str, Any] = dict.fromkeys(self._config.parameters, "")
                if self._batched:
                    parameters["addresses"] = [""]
                explain = _statement(f"EXPLAIN {query}", batched=self._batched)
                self._run(connection, running, explain, parameters, MOST_ROWS)
        return []

    def _fetch(self, running: _Running, parameters: dict[str, Any], most: int) -> list[Row]:
        engine = self._engine
        assert engine is not None
        started = monotonic()
        try:
            with engine.connect() as connection:
                return self._run(connection, running, self._statement, parameters, most)
        except exc.DBAPIError as error:
            # The server may have closed a connection that was idle; the next one is new.
            if not error.connection_invalidated or monotonic() - started > self._config.timeout / 2:
                raise
        with engine.connect() as connection:
            return self._run(connection, running, self._statement, parameters, most)

    def _run(
        self,
        connection: sqlalchemy.Connection,
        running: _Running,
        statement: sqlalchemy.TextClause,
        parameters: dict[str, Any],
        most: int,
    ) -> list[Row]:
        with running.lock:
            running.connection = connection.connection.dbapi_connection
        try:
            result = connection.execute(statement, parameters)
            columns = list(result.keys())
            rows = result.fetchmany(most + 1)
            result.close()
        finally:
            with running.lock:
                running.connection = None
            if self._engine is None:
                # Closed meanwhile: nobody else will close this one.
                connection.invalidate()
        return [dict(zip(columns, row, strict=True)) for row in rows]

    # In the loop again.

    def _share_out(self, rows: list[Row], questions: Sequence[Question]) -> dict[str, Answer]:
        """Who gets which rows."""
        if not self._batched:
            (question,) = questions
            return {question.address: self._values(rows)} if rows else {}
        if len(rows) > MOST_ROWS * len(questions):
            return self._all_bad(
                f"the query gives more than {MOST_ROWS} rows a recipient", questions
            )
        key = self._config.key
        groups: dict[str, list[Row]] = {}
        for row in rows:
            address = row.get(key)
            if not isinstance(address, str):
                reason = f"the query gives no address in the column {key!r}; set key to its name"
                return self._all_bad(reason, questions)
            groups.setdefault(exact(address), []).append(row)
        known = ByAddress(groups.items())
        answers: dict[str, Answer] = {}
        for question in questions:
            found = known.get(question.address)
            if found is not None:
                answers[question.address] = self._values(found)
        return answers

    def _values(self, rows: list[Row]) -> Answer:
        name = self._config.rows
        if name is None and len(rows) > 1:
            return self._bad("the query gives a recipient several rows; add LIMIT 1, or set rows")
        if len(rows) > MOST_ROWS:
            return self._bad(f"the query gives more than {MOST_ROWS} rows a recipient")
        try:
            return check({name: rows} if name else rows[0])
        except ValueError as error:
            return self._bad(f"the answer cannot be used: {error}; convert it in the query")

    def _bad(self, reason: str) -> SourceError:
        self._outage.failed(reason)
        return SourceError("The recipient's data cannot be used", temporary=True)

    def _all_bad(self, reason: str, questions: Sequence[Question]) -> dict[str, Answer]:
        return dict.fromkeys([question.address for question in questions], self._bad(reason))

    def _text(self, error: BaseException) -> str:
        """What went wrong, on one line and without the password."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self._config.timeout:g} s"
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        password = self._config.database.password
        return text.replace(str(password), "***") if password else text


def _statement(query: str, *, batched: bool) -> sqlalchemy.TextClause:
    statement = sqlalchemy.text(query)
    if batched:
        return statement.bindparams(sqlalchemy.bindparam("addresses", expanding=True))
    return statement


def _parameter(question: Question, name: str) -> str:
    if name == "local_part":
        return question.address.rpartition("@")[0]
    if name == "domain":
        return Recipient(question.address).domain
    value: str = getattr(question, name)
    return value


def _connect_args(config: SqlConfig) -> dict[str, Any]:
    """What makes the driver give up in time, where it is not told otherwise in the URL."""
    url = config.database
    seconds = math.ceil(config.timeout)
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        arguments = {"timeout": config.timeout}
    elif url.get_driver_name() == "psycopg":
        arguments = {
            "connect_timeout": seconds,
            "tcp_user_timeout": int(config.timeout * 1000),
        }
    elif url.get_driver_name() == "pymysql":
        arguments = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), seconds)
    return {name: value for name, value in arguments.items() if name not in url.query}


def _is_wrong_query(error: BaseException) -> bool:
    """Whether the database would refuse the query again; only then is nothing gained by waiting."""
    original: Any = getattr(error, "orig", None)
    if hasattr(original, "sqlite_errorcode"):
        return original.sqlite_errorcode in _SQLITE_WRONG_QUERY
    if hasattr(original, "sqlstate"):
        return str(original.sqlstate).startswith("42")
    return original is not None and original.args[:1] and original.args[0] in _MYSQL_WRONG_QUERY
