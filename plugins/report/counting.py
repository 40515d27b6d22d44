"""From events to rows.

Events come at least once, and those of different processes in any order. So a row says what
happened and when it first did, and nothing is added up before a report is made: whatever comes
again changes nothing. Every change below is a minimum, a maximum or an insertion, so that their
order does not matter either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import apsw

from gateway.hooks import Event
from plugins.report.database import KINDS, MILESTONES

_LONGEST = 500
_LONGEST_URL = 4_000
_LATEST = 2.0**33
"""Seconds since the epoch, in the year 2242: what is beyond is no time."""
_VALUE = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}")

_MEET = """
INSERT INTO recipients (message_id, recipient, campaign, variant, domain, stream, first{columns})
VALUES (?,?,?,?,?,?,?{values})
ON CONFLICT DO UPDATE SET
  first=min(first, excluded.first){updates},
  campaign=max(campaign, excluded.campaign),
  variant=max(variant, excluded.variant),
  stream=max(stream, excluded.stream)
"""
_SEEN = _MEET.format(columns="", values="", updates="")
_REACHED = {
    name: _MEET.format(
        columns=f", {name}",
        values=",?7",
        updates=f", {name}=min(ifnull({name}, excluded.{name}), excluded.{name})",
    )
    for name in MILESTONES
}
_TAKEN = {**_REACHED, **dict.fromkeys((*KINDS, "converted"), _SEEN)}
COUNTED = tuple(_TAKEN)
"""The types of events that are counted."""
_ACTION = """
INSERT INTO actions VALUES (?,?,?,?,?,?)
ON CONFLICT DO UPDATE SET robot=max(robot, excluded.robot)
"""
_CONVERSION = """
INSERT INTO conversions VALUES (?,?,?,?,?,?,?)
ON CONFLICT DO UPDATE SET robot=max(robot, excluded.robot)
"""


def count(db: apsw.Connection, events: Iterable[Event], campaigns_only: bool) -> None:
    """Writes what events tell, in one transaction.

    Raises:
        apsw.Error: the file cannot be written; nothing of these events is.
    """
    with db:
        for event in events:
            sql = _TAKEN.get(event.type)
            time = event.time
            if sql is None or not 0 <= time < _LATEST:
                continue
            notes = event.notes
            campaign = notes.get("campaign", "")[:_LONGEST]
            if campaigns_only and not campaign:
                continue
            key = event.message_id, event.recipient
            _, at, domain = event.recipient.rpartition("@")
            domain = domain.lower() if at else ""
            variant = notes.get("variant", "")[:_LONGEST]
            db.execute(sql, (*key, campaign, variant, domain, event.stream, time))
            if sql is not _SEEN:
                continue
            robot = notes.get("robot", "")[:_LONGEST]
            kind = KINDS.get(event.type)
            if kind is not None:
                url = notes.get("url", "")[:_LONGEST_URL]
                db.execute(_ACTION, (*key, kind, time, url, robot))
            else:
                reference = notes.get("order", "")[:_LONGEST]
                row = (*key, reference, time, *_worth(notes), robot)
                db.execute(_CONVERSION, row)


def _worth(notes: Mapping[str, str]) -> tuple[str, str]:
    """The value and the currency; both empty unless they make sense together."""
    value, currency = notes.get("value", ""), notes.get("currency", "")
    if _VALUE.fullmatch(value) and _CURRENCY.fullmatch(currency):
        return value, currency
    return "", ""
