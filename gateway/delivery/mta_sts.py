"""MTA-STS (RFC 8461): what a domain demands of connections to its mail exchangers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

LONGEST_AGE = 31_557_600
"""The longest time for which a policy may be kept, in seconds (RFC 8461 3.2)."""

_VERSION = re.compile(rb"v=STSv1[ \t]*;")
_ID = re.compile(rb"v=STSv1[ \t]*;(?:.*?;)?[ \t]*id=([A-Za-z0-9]{1,32})[ \t]*(?:;.*)?", re.DOTALL)
_FIELD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


class Mode(StrEnum):
    """What follows if the policy is broken: the server is not used; it is only told; nothing."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Policy:
    """A domain's policy.

    `mx` are the names that its servers may have; `*.` stands for one label. `max_age` is how long
    the policy holds, in seconds.
    """

    mode: Mode
    mx: tuple[str, ...]
    max_age: int

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Reads the text that the policy host serves (RFC 8461 3.2).

        Raises:
            ValueError: it is no policy; the message says why.
        """
        fields: dict[str, str] = {}
        names: list[str] = []
        for line in text.replace("\r\n", "\n").split("\n"):
            if not line.strip():
                continue
            name, colon, value = line.partition(":")
            if not colon or not _FIELD_NAME.fullmatch(name):
                raise ValueError(f"{line[:80]!r} is not a field")
            if name == "mx":
                names.append(value.strip(" \t").lower())
            else:
                fields.setdefault(name, value.strip(" \t"))
        if fields.get("version") != "STSv1":
            raise ValueError("it has no version: STSv1")
        if fields.get("mode") not in list(Mode):
            raise ValueError("its mode is none of enforce, testing, none")
        mode = Mode(fields["mode"])
        age = fields.get("max_age", "")
        if not re.fullmatch(r"[0-9]{1,10}", age, re.ASCII):
            raise ValueError("its max_age is not a number of seconds")
        wrong = next((name for name in names if not _NAME.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError(f"{wrong[:80]!r} is not the name of a server")
        if not names and mode is not Mode.NONE:
            raise ValueError("it names no mx")
        return cls(mode, tuple(name.rstrip(".") for name in names), min(int(age), LONGEST_AGE))

    def allows(self, host: str) -> bool:
        """Whether a server may have this name (RFC 8461 4.1)."""
        name = host.rstrip(".").lower()
        label, _, parent = name.partition(".")
        return any(
            bool(label) and parent == allowed[2:] if allowed.startswith("*.") else name == allowed
            for allowed in self.mx
        )


def policy_id(records: Iterable[bytes]) -> str | None:
    """The id in the TXT records of `_mta-sts.<domain>`; None if there is no policy (RFC 8461 3.1).

    Records of other kinds are passed over; two that announce a policy count as none.
    """
    announced = [record for record in records if _VERSION.match(record)]
    found = _ID.fullmatch(announced[0]) if len(announced) == 1 else None
    return found[1].decode() if found is not None else None
