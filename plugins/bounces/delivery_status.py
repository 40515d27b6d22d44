"""The part of a report that is written for programs (RFC 3464, RFC 6533). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.hooks import Headers

MOST_RECIPIENTS = 200
_LARGEST = 65_536
LONGEST_SAID = 2000
_BLANK = re.compile(rb"(?:\r\n[ \t]*)+\r\n")
_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)", re.ASCII)
_SHORT_STATUS = re.compile(r"([245])(\d)(\d)", re.ASCII)
_CODE = re.compile(r"(?<![\w.#])([45]\d\d)(?=[ -]|$)", re.ASCII)
_CODE_BEFORE_STATUS = re.compile(r"(?<![\w.#])([45]\d\d)[ -]+#?[245]\.\d{1,3}\.\d{1,3}", re.ASCII)
_ADDRESS = re.compile(
    r"(?:\"[^\"\\@]{1,64}\"|[^\s<>()\[\]:;,\"@]{1,64})@"
    r"(?:[^\s<>()\[\]:;,\"@/]{1,254}|\[[0-9A-Fa-f.:Vv]{2,50}\])"
)
_DELIMITERS = re.compile(r"[\s<>()\[\]:;,\"]+")
_LONGEST_ADDRESS = 320
_POINT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_TYPE = re.compile(r"[\w.+-]{1,40}\s*;\s*")


class Action(StrEnum):
    """What became of the mail for a recipient (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a report says about one recipient.

    Attributes:
        action: what became of the mail.
        recipient: whom the reporting server tried to reach; '' if it does not say.
        original: whom the sender wrote to, as far as the server knows; '' if it does not say.
        status: the enhanced status code (RFC 3463); '' without one.
        code: the SMTP reply code, 0 without one.
        said: what a server said, on one line; '' if nothing.
    """

    action: Action
    recipient: str = ""
    original: str = ""
    status: str = ""
    code: int = 0
    said: str = ""


def address_in(text: str) -> str:
    """The first address in a text; '' if there is none."""
    match = _ADDRESS.search(text[:LONGEST_SAID])
    return "" if match is None else match[0].strip("'.")


def addresses_in(text: str) -> Iterator[str]:
    """All addresses in a text, in order, but for those with a quoted local part."""
    for word in _DELIMITERS.split(text):
        local, at, domain = word.strip("'.").rpartition("@")
        if at and local and domain and len(word) <= _LONGEST_ADDRESS:
            yield f"{local}@{domain}"
            behind = local.rpartition("=")[2]
            if behind not in ("", local):  # smtp.mailfrom=user@example.com
                yield f"{behind}@{domain}"


def status_in(text: str) -> str:
    """The first enhanced status code in a text; '' if there is none."""
    match = _STATUS.search(text)
    return "" if match is None else f"{match[1]}.{int(match[2])}.{int(match[3])}"


def code_in(text: str) -> int:
    """The SMTP reply code of a failure in a text; 0 if there is none."""
    match = _CODE_BEFORE_STATUS.search(text) or _CODE.search(text)
    return 0 if match is None else int(match[1])


def one_line(text: str, limit: int = LONGEST_SAID) -> str:
    """Text on one line, without what is not printable."""
    text = text[:limit]
    if not text.isprintable():
        text = "".join([one if one.isprintable() else " " for one in text])
    return " ".join(text.split())


def read(octets: bytes) -> tuple[str, list[Finding]]:
    """The server that reports ('' if it does not say), and what it says about each recipient."""
    reporter = ""
    found: list[Finding] = []
    for fields in _groups(octets):
        if not reporter:
            reporter = one_line(_untyped(fields.get("reporting-mta", "")), 255)
        finding = _finding(fields)
        if finding is not None:
            found.append(finding)
    return reporter, found


def _groups(octets: bytes) -> Iterator[dict[str, str]]:
    """The fields of the message and those of each recipient, by names in lower case.

    A blank line stands between them; where it is missing, a second recipient begins a group.
    """
    count = 0
    for block in _BLANK.split(octets[:_LARGEST], 2 * MOST_RECIPIENTS):
        fields: dict[str, str] = {}
        for field in Headers(block.strip(b"\r\n") + b"\r\n"):
            name = field.lower.decode("latin-1")
            if name == "final-recipient" and name in fields:
                yield fields
                fields = {}
                count += 1
            fields.setdefault(name, field.value)
            if count == MOST_RECIPIENTS:
                return
        if fields:
            yield fields
            count += 1


def _finding(fields: dict[str, str]) -> Finding | None:
    final = fields.get("final-recipient", "")
    original = fields.get("original-recipient", "")
    if not final and not original and not ("action" in fields and "status" in fields):
        return None
    said = one_line(_untyped(fields.get("diagnostic-code", "")))
    status = _own_status(fields.get("status", ""))
    action = _action(fields.get("action", ""), status)
    if action is None:
        return None
    finding = Finding(
        action,
        _address(final) or _address(fields.get("x-actual-recipient", "")),
        _address(original),
        status,
        code_in(said),
        said,
    )
    more = status_in(said)
    if more and status[1:] in ("", ".0.0") and (not status or more[0] == status[0]):
        return replace(finding, status=more)
    return finding


def _own_status(text: str) -> str:
    status = status_in(text)
    if not status:
        short = _SHORT_STATUS.fullmatch(text.strip())
        status = "" if short is None else ".".join(short.groups())
    return status


def _action(text: str, status: str) -> Action | None:
    word = text.strip().lower().partition(" ")[0].rstrip(";,.")
    try:
        return Action(word)
    except ValueError:
        pass
    # 4.4.7: given up, after it could not be delivered for too long.
    if word.startswith("fail") or status.startswith("5") or status == "4.4.7":
        return Action.FAILED
    if word.startswith("delay") or status.startswith("4"):
        return Action.DELAYED
    return Action.DELIVERED if status.startswith("2") else None


def _untyped(value: str) -> str:
    """The value of a field without the type before it: `smtp; 550 …`."""
    match = _TYPE.match(value)
    return value if match is None else value[match.end() :]


def _address(value: str) -> str:
    if "\\x{" in value:
        value = _POINT.sub(_character, value)
    return address_in(_untyped(value))


def _character(match: re.Match[str]) -> str:
    point = int(match[1], 16)
    return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else "?"
