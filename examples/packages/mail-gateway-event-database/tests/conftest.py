"""Where the tests' databases are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from mail_gateway_event_database.table import METADATA

SERVERS = {"postgresql": "TEST_POSTGRESQL_URL", "mariadb": "TEST_MARIADB_URL"}


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database: SQLite's, and those that the environment names."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events.db'}"
        return
    variable = SERVERS[request.param]
    if variable not in os.environ:
        pytest.skip(f"{variable} names no database; it is emptied by the tests")
    found = os.environ[variable]
    _empty(found)
    yield found
    _empty(found)


def _empty(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    METADATA.drop_all(engine)
    engine.dispose()
