"""The lines of the log: readable as Postfix's are, or as JSON, and impossible to forge."""

from __future__ import annotations

import logging
import os
import re
import time
import traceback
from json.encoder import encode_basestring as _quoted
from typing import NamedTuple

DELIVERY = "gateway.delivery"
INGRESS = "gateway.ingress"

# Controls of C0 and C1, line and paragraph separators, marks that reorder text, half surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """Makes one line of a text that came from outside; what it shows cannot end or reorder it."""
    # Nearly every text is printable, and asking is faster than searching.
    return text if text.isprintable() else _UNSAFE.sub(_escape_character, text)


def _escape_character(match: re.Match[str]) -> str:
    point = ord(match[0])
    return f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}"


class AcceptRecord(NamedTuple):
    """A message that is on disk; as a string, a line such as Postfix writes.

    `size` is in octets, `recipients` counts those that the message goes to. `plugins` is the text
    of the message's trace: what plugins did to it.
    """

    message_id: str
    helo: str
    address: str
    user: str
    sender: str
    size: int
    recipients: int
    stream: str
    plugins: str = ""

    def __str__(self) -> str:
        user = f", user={self.user}" if self.user else ""
        plugins = f", plugins={self.plugins}" if self.plugins else ""
        return (
            f"{self.message_id}: client={self.helo}[{self.address}]{user}, "
            f"from=<{_unbracketed(self.sender)}>, size={self.size}, nrcpt={self.recipients}, "
            f"stream={self.stream}{plugins}"
        )


class AttemptRecord(NamedTuple):
    """How one attempt ended for one recipient; as a string, the line that Postfix would write.

    `status` is `sent`, `deferred`, `bounced`, `expired`, `held` or `discarded`. `delay` and
    `delays` are in seconds: before the attempt, waiting for a connection, connecting, sending.
    """

    message_id: str
    to: str
    relay: str
    delay: float
    delays: tuple[float, float, float, float]
    dsn: str
    status: str
    reply: str

    def __str__(self) -> str:
        message_id, to, relay, delay, (queued, waiting, connecting, sending), dsn, status, reply = (
            self
        )
        return (
            f"{message_id}: to=<{_unbracketed(to)}>, relay={relay}, delay={_seconds(delay)}, "
            f"delays={_seconds(queued)}/{_seconds(waiting)}/{_seconds(connecting)}"
            f"/{_seconds(sending)}, dsn={dsn}, status={status} ({reply})"
        )


def _unbracketed(address: str) -> str:
    if ">" in address or "<" in address:
        # A quoted local part may hold them, and would end the address for who reads the line.
        return address.replace("<", "\\x3c").replace(">", "\\x3e")
    return address


_HUNDREDTHS = tuple(f"{hundredths / 100:g}" for hundredths in range(101))


def _seconds(value: float) -> str:
    """Two digits of seconds, hundredths at the finest, as Postfix shows delays."""
    if value < 1:
        return _HUNDREDTHS[int(value * 100 + 0.5)] if value > 0 else "0"
    if value < 99.5:
        return f"{value:.2g}"
    return f"{value:.0f}"


class _Stamp:
    """The time of a record as RFC 3339 in local time; a second's text is made once."""

    def __init__(self) -> None:
        self._second = -1
        self._start = self._zone = ""

    def __call__(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            local = time.localtime(second)
            self._start = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            zone = time.strftime("%z", local)
            self._zone = f"{zone[:3]}:{zone[3:]}"
            self._second = second
        return f"{self._start}.{int((created - second) * 1000):03d}{self._zone}"


def _message(record: logging.LogRecord) -> str:
    # A call with a mistake in it must not cost mail.
    try:
        return record.getMessage()
    except Exception:
        try:
            return f"{record.msg} {record.args!r} (cannot be formatted)"
        except Exception:
            return f"a {type(record.msg).__name__} that cannot be shown"


def _trace(record: logging.LogRecord) -> str:
    if record.exc_info is None or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1]))


class TextLines:
    """Lines as syslog writes them; each line of a traceback is one of its own, marked with `|`."""

    _LEVELS = {  # noqa: RUF012 - a constant
        logging.DEBUG: "debug: ",
        logging.INFO: "",
        logging.WARNING: "warning: ",
        logging.ERROR: "error: ",
        logging.CRITICAL: "fatal: ",
    }

    def __init__(self, hostname: str, role: str) -> None:
        self._stamp = _Stamp()
        self._origin = f" {hostname} gateway/{role}[{os.getpid()}]: "
        self._names: dict[str, str] = {}

    def __call__(self, record: logging.LogRecord) -> str:
        """The record's lines, each with its line end."""
        start = self._stamp(record.created) + self._origin
        level = self._LEVELS.get(record.levelno, "")
        text = f"{start}{level}{self._name(record.name)}{escape(_message(record))}\n"
        if record.exc_info is not None:
            for line in _trace(record).splitlines():
                text += f"{start}| {escape(line)}\n"
        return text

    def attempt(self, attempt: AttemptRecord, now: float) -> str:
        """The line of an attempt, at a time in seconds since the epoch."""
        return f"{self._stamp(now)}{self._origin}{escape(str(attempt))}\n"

    def accepted(self, accepted: AcceptRecord, now: float) -> str:
        """The line of an accepted message, at a time in seconds since the epoch."""
        return f"{self._stamp(now)}{self._origin}{escape(str(accepted))}\n"

    def _name(self, name: str) -> str:
        """Who speaks, if it is not the gateway itself."""
        shown = self._names.get(name)
        if shown is None:
            own = name == "gateway" or name.startswith("gateway.")
            plugin = name.startswith(("gateway.plugin.", "gateway.plugins."))
            shown = "" if own and not plugin else f"{escape(name.removeprefix('gateway.'))}: "
            self._names[name] = shown
        return shown


class JsonLines:
    """One JSON object on one line for each record; attempts have their values as keys."""

    def __init__(self, hostname: str, role: str) -> None:
        self._stamp = _Stamp()
        self._origin = f'"host":{_quoted(hostname)},"process":{_quoted(role)},"pid":{os.getpid()}'

    def __call__(self, record: logging.LogRecord) -> str:
        """The record's line with its line end."""
        if isinstance(record.msg, AttemptRecord):
            return self.attempt(record.msg, record.created)
        if isinstance(record.msg, AcceptRecord):
            return self.accepted(record.msg, record.created)
        values = {"message": _message(record)}
        if trace := _trace(record):
            values["traceback"] = trace
        fields = ",".join(f'"{key}":{_quoted(value)}' for key, value in values.items())
        level, name = record.levelname.lower(), _quoted(record.name)
        return _ended(
            f'{{"time":"{self._stamp(record.created)}",{self._origin},'
            f'"level":"{level}","logger":{name},{fields}}}'
        )

    def attempt(self, attempt: AttemptRecord, now: float) -> str:
        """The line of an attempt, at a time in seconds since the epoch."""
        message_id, to, relay, delay, (queued, waiting, connecting, sending), dsn, status, reply = (
            attempt
        )
        # Put together by hand: the encoder takes three times as long for a mapping.
        return _ended(
            f'{{"time":"{self._stamp(now)}",{self._origin},"level":"info","logger":"{DELIVERY}",'
            f'"id":{_quoted(message_id)},"to":{_quoted(to)},"relay":{_quoted(relay)},'
            f'"delay":{delay:.3f},'
            f'"delays":[{queued:.3f},{waiting:.3f},{connecting:.3f},{sending:.3f}],'
            f'"dsn":{_quoted(dsn)},"status":{_quoted(status)},"reply":{_quoted(reply)}}}'
        )

    def accepted(self, accepted: AcceptRecord, now: float) -> str:
        """The line of an accepted message, at a time in seconds since the epoch."""
        message_id, helo, address, user, sender, size, recipients, stream, plugins = accepted
        traced = f',"plugins":{_quoted(plugins)}' if plugins else ""
        return _ended(
            f'{{"time":"{self._stamp(now)}",{self._origin},"level":"info","logger":"{INGRESS}",'
            f'"id":{_quoted(message_id)},"status":"accepted","helo":{_quoted(helo)},'
            f'"client":{_quoted(address)},"user":{_quoted(user)},"from":{_quoted(sender)},'
            f'"size":{size},"nrcpt":{recipients},"stream":{_quoted(stream)}{traced}}}'
        )


def _ended(line: str) -> str:
    """A JSON line with its end; outside of strings JSON has nothing that needs an escape."""
    if not line.isprintable():
        line = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)
    return line + "\n"
