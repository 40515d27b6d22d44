"""The table of events, and what of an event goes into a row of it."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

from gateway.hooks import Event
from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql

METADATA = MetaData()

EVENTS = Table(
    "mail_gateway_events",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("fingerprint", String(40), nullable=False, unique=True),
    # In UTC. MySQL and MariaDB would cut it to seconds.
    Column(
        "time", DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"), nullable=False
    ),
    Column("type", String(64), nullable=False),
    Column("message_id", String(64), nullable=False),
    Column("campaign", String(200), nullable=False),
    Column("sender", String(320), nullable=False),
    Column("recipient", String(320), nullable=False),
    Column("stream", String(64), nullable=False),
    Column("client", String(64), nullable=False),
    Column("login", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("relay", String(320), nullable=False),
    Column("code", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("notes", Text, nullable=False),
    Index("mail_gateway_events_time", "time"),
    Index("mail_gateway_events_message", "message_id"),
    Index("mail_gateway_events_recipient", "recipient"),
    Index("mail_gateway_events_campaign", "campaign"),
    # Otherwise MySQL and MariaDB take `Anna` and `anna` for one campaign.
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mariadb_charset="utf8mb4",
    mariadb_collate="utf8mb4_bin",
)

_LONGEST_TEXT = 16_000
"""Characters; MySQL's TEXT has room for 65,535 octets."""
_LARGEST_CODE = 2**31 - 1
_EPOCH = datetime(1970, 1, 1)


def fingerprint(event: Event) -> str:
    """What tells events apart: those that are equal in everything have the same.

    The fields are named one by one, so that an event which comes again after an upgrade of the
    gateway has the fingerprint that it had before.
    """
    values = (
        event.type,
        event.time,
        event.message_id,
        event.sender,
        event.recipient,
        event.stream,
        event.client,
        event.user,
        event.reason,
        event.relay,
        event.code,
        event.status,
        sorted(event.notes.items()),
    )
    octets = json.dumps(values, default=str).encode()
    return hashlib.blake2b(octets, digest_size=20).hexdigest()


def row_of(event: Event) -> dict[str, Any]:
    """The row of an event, whatever a plugin has put into it.

    What is too long is cut: a row that the database refuses would come again for ever.
    """
    values: dict[str, Any] = {
        "fingerprint": fingerprint(event),
        "time": _utc(event.time),
        "code": event.code if event.code in range(_LARGEST_CODE) else 0,
        "login": event.user,
        "campaign": event.notes.get("campaign", ""),
        "notes": json.dumps(dict(event.notes), ensure_ascii=False, default=str),
    }
    for column in EVENTS.columns:
        if isinstance(column.type, String):
            value = values.get(column.name, getattr(event, column.name, ""))
            values[column.name] = _storable(str(value), column.type.length or _LONGEST_TEXT)
    return values


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as the table has them: in UTC, without saying so."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _utc(seconds: float) -> datetime:
    try:
        return moment(seconds) if math.isfinite(seconds) else _EPOCH
    except (TypeError, OverflowError, ValueError, OSError):
        return _EPOCH


def _storable(text: str, longest: int) -> str:
    text = text[:longest]
    if text.isascii() and "\0" not in text:
        return text
    # PostgreSQL has no NUL, and nothing can encode half of a surrogate pair.
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
