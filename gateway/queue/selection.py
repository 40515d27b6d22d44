"""Which part of the queue a person means, as a condition in SQL and in Python."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from gateway.configuration.network import NetworkSet, parse_network
from gateway.mail.address import domain_of
from gateway.mail.message import Recipient
from gateway.spool import queue_id
from gateway.spool.queue_entry import Envelope

NEVER_TRIED = "d.attempts=0 AND d.reply=''"

STATES = {
    "active": "(d.held IS NULL AND (+d.due IS NULL OR +d.due<=?1))",
    "deferred": f"(+d.due>?1 AND NOT ({NEVER_TRIED}))",
    "scheduled": f"(+d.due>?1 AND {NEVER_TRIED})",
    "held": "(d.held IS NOT NULL)",
}
"""The states of mail in the queue, as conditions; ?1 is the time.

The plus keeps SQLite from the index of due times: the queue is read in the order of its ids.
"""

_ENVELOPE = "json_extract(CASE WHEN json_valid(m.envelope) THEN m.envelope END, '$.{}')"
CAMPAIGN, USER, ADDRESS = map(_ENVELOPE.format, ("notes.campaign", "user", "address"))
"""What the envelope says; NULL where it is damaged."""

_LIKE_AN_ADDRESS = re.compile(r".*/.*|\[.*|[0-9]*\.[0-9.]*|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Where:
    """A condition in SQL; `message` tells that it asks for columns of `messages`.

    The values are those of ?1, which is the time, ?2, and so on.
    """

    text: str
    values: list[Any]
    message: bool

    def also(self, text: str, *values: Any) -> Where:
        """This condition and another one, in which {} stands for each of its values."""
        first = len(self.values) + 1
        numbers = [f"?{first + place}" for place in range(len(values))]
        return Where(
            f"{self.text} AND {text.format(*numbers)}", [*self.values, *values], self.message
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """All mail that meets every condition given.

    Selections that mean the same are equal: values that are compared without case are in lower
    case.

    Attributes:
        ids: queue ids.
        sender, recipient, stream, lane: compared without case.
        domain: the recipients' domain.
        campaign: the note of that name, as it is.
        client: an IP address or a network, or the user that the client logged in as.
        state: `active`, `deferred`, `scheduled` or `held`.

    Raises:
        ValueError: an id is no queue id, the client no network, or a text no valid UTF-8.
    """

    ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    stream: str | None = None
    lane: str | None = None
    campaign: str | None = None
    client: str | None = None
    state: str | None = None

    def __post_init__(self) -> None:
        for text in self.ids:
            queue_id.from_text(text)
        for name, text in self.given.items():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{name}: {text!r} is no valid UTF-8") from None
        for name in ("sender", "recipient", "stream"):
            self._replace(name, fold)
        self._replace("lane", _lane)
        self._replace("domain", _domain)
        self._replace("client", _client)

    def _replace(self, name: str, normal: Any) -> None:
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, normal(value))

    @property
    def given(self) -> dict[str, str]:
        """The conditions besides the ids, by name."""
        names = [field.name for field in fields(self) if field.name != "ids"]
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def where(self, now: float) -> Where:
        """The condition in SQL: d is a row of `deliveries`, m its row of `messages`.

        The connection needs the functions `domain_of` and `in_network`.
        """
        where = Where("1", [now], message=False)
        if self.ids:
            numbers = [queue_id.from_text(text) for text in self.ids]
            where = where.also("d.id IN (SELECT value FROM json_each({}))", json.dumps(numbers))
        if self.state is not None:
            where = where.also(STATES[self.state])
        if self.lane is not None:
            where = where.also("lower(d.lane)={}", self.lane)
        if self.recipient is not None:
            where = where.also("lower(d.recipient)={}", self.recipient)
        if self.domain is not None:
            where = where.also("domain_of(d.recipient)={}", self.domain)
        by_row = where
        if self.sender is not None:
            where = where.also("lower(m.sender)={}", self.sender)
        if self.stream is not None:
            where = where.also("lower(m.stream)={}", self.stream)
        if self.campaign is not None:
            where = where.also(CAMPAIGN + "={}", self.campaign)
        if self.client is not None and network_set(self.client) is not None:
            where = where.also(f"in_network({ADDRESS}, {{}})", self.client)
        elif self.client is not None:
            where = where.also(USER + "={}", self.client)
        return Where(where.text, where.values, message=where is not by_row)

    def matches(self, envelope: Envelope, lane: str, recipient: Recipient) -> bool:
        """Whether a recipient is meant, whatever the ids and the state: the same as `where`."""
        if self.campaign is not None and envelope.notes.get("campaign") != self.campaign:
            return False
        if self.lane is not None and fold(lane) != self.lane:
            return False
        if self.stream is not None and fold(envelope.stream) != self.stream:
            return False
        if self.domain is not None and recipient.domain != self.domain:
            return False
        if self.sender is not None and fold(envelope.sender) != self.sender:
            return False
        if self.recipient is not None and fold(recipient.address) != self.recipient:
            return False
        if self.client is None:
            return True
        networks = network_set(self.client)
        if networks is None:
            return envelope.client.user == self.client
        return envelope.client.address in networks


def fold(text: str) -> str:
    """A text in lower case, as SQLite's lower() makes it: ASCII only."""
    return text.lower() if text.isascii() else text.encode().lower().decode()


@lru_cache(maxsize=64)
def network_set(client: str) -> NetworkSet | None:
    """The network that a client is chosen by; None if it is the name of a user."""
    try:
        return NetworkSet([parse_network(client)])
    except ValueError:
        return None


@lru_cache(maxsize=8192)
def in_network(address: str | None, network: str) -> bool:
    """Whether an address lies in a network; one that is not known lies in none."""
    networks = network_set(network)
    return address is not None and networks is not None and address in networks


def _client(text: str) -> str:
    if not _LIKE_AN_ADDRESS.fullmatch(text):
        return text
    return str(parse_network(text))


def _domain(text: str) -> str:
    return domain_of(f"@{text}")


def _lane(text: str) -> str:
    # Not every lane is a domain; those that are stand there in A-labels.
    return text.lower() if text.isascii() else _domain(text)
