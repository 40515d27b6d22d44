"""Lines of the log as what happened to a message, in both formats. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from gateway.events import Event
from gateway.history.happening import Happening
from gateway.hooks.trace import parse

_LINE = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d) \S+ gateway/\w+\[\d+\]: "
    r"(?:(?:debug|warning|error|fatal): )?"
)
"""How a line begins. What wrote the journal may have put something before it."""

_SUBJECT = re.compile(r"(?:plugin\.([^:]*): )?([0-9A-Z]{13}): (.*)", re.DOTALL)
_ACCEPTED = re.compile(
    r"client=(\S*)\[([^\]\s]*)\](?:, user=(.*?))?, from=<([^<>]*)>, size=(\d+), nrcpt=(\d+), "
    r"stream=([^\s,]+)(?:, plugins=(.*))?"
)
_ATTEMPT = re.compile(
    r"to=<([^<>]*)>, relay=(\S+), delay=([\d.]+), delays=([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+), "
    r"dsn=(\S+), status=(\w+) \((.*)\)"
)
_OF_RECIPIENT = re.compile(r"to=<([^<>]*)>, (.*)")
_DISCARDED = re.compile(r"status=discarded \((.*)\)")
_REPORT = re.compile(r"report to <(.*)>: ([0-9A-Z]{13})")
_BY_HAND = re.compile(r"(held|released|dropped|rerouted|to be retried) by hand")
_REFUSED = re.compile(r"message refused: (.*?)(?:, client=(\S*), from=<([^<>]*)>, plugins=(.*))?")

_KINDS = {"sent": "delivered"}
"""The events' words where those of the log are Postfix's."""


def happening_of(line: str, id: str) -> Happening | None:  # noqa: A002 - the word that everyone uses
    """What a line tells of the message of that id; None if it is about something else."""
    return _of_json(line, id) if line.startswith("{") else _of_text(line, id)


def happening_of_event(event: Event) -> Happening:
    """What an event tells."""
    details: dict[str, Any] = {"relay": event.relay} if event.relay else {}
    text = event.reason
    if event.status:
        details["dsn"] = event.status
        text = f"{event.code or ''} {event.status} {event.reason}".strip()
    if event.type == "accepted":
        details |= {"client": event.client, "user": event.user, "sender": event.sender}
        details["stream"] = event.stream
    return Happening(event.time, event.type, event.recipient, text, "outbox", details)


def _of_text(line: str, id: str) -> Happening | None:  # noqa: A002
    begin = _LINE.search(line)
    if begin is None:
        return None
    return _of_message(_seconds(begin[1]), line[begin.end() :], id)


def _of_json(line: str, id: str) -> Happening | None:  # noqa: A002
    try:
        data = json.loads(line)
        time = _seconds(data["time"])
        if "message" in data:
            text = str(data["message"])
            logger = str(data.get("logger", ""))
            if logger.startswith("gateway.plugin."):
                text = f"{logger.removeprefix('gateway.')}: {text}"
            return _of_message(time, text, id)
        if data["id"] != id:
            return None
        if data["status"] == "accepted":
            return _accepted(time, data)
        return Happening(
            time,
            _KINDS.get(data["status"], data["status"]),
            data["to"],
            data["reply"],
            details={
                "relay": data["relay"],
                "delay": float(data["delay"]),
                "delays": [float(delay) for delay in data["delays"]],
                "dsn": data["dsn"],
            },
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _accepted(time: float, data: dict[str, Any]) -> Happening:
    return Happening(
        time,
        "accepted",
        details={
            "helo": data["helo"],
            "client": data["client"],
            "user": data["user"],
            "sender": data["from"],
            "size": int(data["size"]),
            "recipients": int(data["nrcpt"]),
            "stream": data["stream"],
        },
        plugins=tuple(parse(data.get("plugins") or "")),
    )


def _of_message(time: float, message: str, id: str) -> Happening | None:  # noqa: A002
    subject = _SUBJECT.fullmatch(message)
    if subject is None:
        return None
    plugin, about, text = subject[1], subject[2], subject[3]
    if about != id:
        found = _REPORT.fullmatch(text)
        if found is None or found[2] != id:
            return None
        told = f"it is the report about {about}"
        return Happening(time, "note", found[1], told, details={"about": about})
    if plugin is not None:
        recipient = _OF_RECIPIENT.fullmatch(text)
        address, text = recipient.groups() if recipient else ("", text)
        return Happening(time, "note", address, text, details={"plugin": plugin})
    return _of_core(time, text)


def _of_core(time: float, text: str) -> Happening:
    if found := _ACCEPTED.fullmatch(text):
        names = ("helo", "client", "user", "from", "size", "nrcpt", "stream", "plugins")
        return _accepted(time, dict(zip(names, found.groups(default=""), strict=True)))
    if found := _ATTEMPT.fullmatch(text):
        details = {
            "relay": found[2],
            "delay": float(found[3]),
            "delays": [float(found[part]) for part in (4, 5, 6, 7)],
            "dsn": found[8],
        }
        kind = _KINDS.get(found[9], found[9])
        return Happening(time, kind, found[1], found[10], details=details)
    if found := _REFUSED.fullmatch(text):
        details = {"client": found[2], "sender": found[3]} if found[2] is not None else {}
        plugins = tuple(parse(found[4] or ""))
        return Happening(time, "refused", text=found[1], details=details, plugins=plugins)
    if found := _REPORT.fullmatch(text):
        told = f"the sender <{found[1]}> is told by {found[2]}"
        return Happening(time, "report", text=told, details={"report": found[2]})
    if text.startswith("held: "):
        return Happening(time, "held", text=text.removeprefix("held: "))
    if found := _OF_RECIPIENT.fullmatch(text):
        recipient, rest = found.groups()
        if inner := _DISCARDED.fullmatch(rest):
            return Happening(time, "discarded", recipient, inner[1])
        if inner := _BY_HAND.fullmatch(rest):
            kind = inner[1] if inner[1] in ("held", "released", "dropped") else "note"
            return Happening(time, kind, recipient, "by hand" if kind != "note" else rest)
        return Happening(time, "note", recipient, rest)
    return Happening(time, "note", text=text)


def _seconds(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0
