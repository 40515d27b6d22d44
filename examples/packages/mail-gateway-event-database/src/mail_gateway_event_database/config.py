"""What stands in `gateway.yaml`: which database, which events, and for how long."""

from __future__ import annotations

import re
from typing import Annotated

from gateway.hooks import Duration
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

DAY = 86_400.0

_URL = re.compile(r"\w+(?:\+\w+)?://\S*", re.ASCII)
_SHORTEST_TOKEN = 16


class PageConfig(BaseModel):
    """The page with the counts of the last hours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: SecretStr = Field(
        min_length=_SHORTEST_TOKEN,
        description="Who asks for the page must send it: Authorization: Bearer TOKEN.",
    )
    hours: int = Field(24, ge=1, le=168, description="How many hours the page shows.")


class EventDatabaseConfig(BaseModel):
    """Where events go, which ones, and how long they are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: SecretStr | None = Field(
        None,
        description="The URL of the database, as SQLAlchemy reads it; a SQLite file in the "
        "plugin's own folder, if left out.",
        examples=["postgresql+psycopg://gateway:password@db.example.com/mail"],
    )
    types: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="The types of events that are written; all, if left out.",
        examples=[["delivered", "bounced", "expired"]],
    )
    keep: Annotated[Duration, Field(ge=DAY)] | None = Field(
        90 * DAY,
        description="How long events are kept, at least a day; null: for ever.",
        json_schema_extra={"default": "90d"},
    )
    page: PageConfig | None = Field(None, description="The page; none, if left out.")

    @field_validator("database")
    @classmethod
    def _is_url(cls, database: SecretStr | None) -> SecretStr | None:
        # SQLAlchemy reads it at the start: to load it here would cost each worker its memory.
        if database is not None and not _URL.fullmatch(database.get_secret_value()):
            raise ValueError(
                "expected a URL, for example postgresql+psycopg://user:password@host/name "
                "or sqlite:///events.db"
            )
        return database
