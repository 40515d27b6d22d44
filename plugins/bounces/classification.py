"""What the refusal of a server means: classes of failures, and the rules that tell them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

SHIPPED = Path(__file__).with_name("rules.yaml")

LONGEST_TEXT = 1000
"""Characters of a text that the rules look at."""
_REMEMBERED = 4096
# Several times as fast, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_STATUS_PATTERN = re.compile(r"[245*]\.(?:\d{1,3}|\*)\.(?:\d{1,3}|\*)", re.ASCII)
_ADDRESS = re.compile(r"[^\s<>()\[\]:;,\"'=@]{1,64}@[A-Za-z0-9\[][A-Za-z0-9.:_-]{0,254}\]?")


class FailureClass(StrEnum):
    """Why a message did not arrive."""

    NO_SUCH_USER = "no-such-user"
    NO_SUCH_DOMAIN = "no-such-domain"
    INACTIVE = "inactive"
    MAILBOX_FULL = "mailbox-full"
    TOO_LARGE = "too-large"
    POLICY = "policy"
    SPAM = "spam"
    BLOCKED = "blocked"
    AUTHENTICATION = "authentication"
    RATE_LIMITED = "rate-limited"
    CONTENT = "content"
    RELAY_DENIED = "relay-denied"
    NETWORK = "network"
    SERVER = "server"
    PROTOCOL = "protocol"
    OTHER = "other"

    @property
    def kind(self) -> str:
        """`hard`: nothing that is sent to this address will arrive. `soft`: all else."""
        return "hard" if self in _HARD else "soft"


_HARD = frozenset((FailureClass.NO_SUCH_USER, FailureClass.NO_SUCH_DOMAIN, FailureClass.INACTIVE))


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _status(text: str) -> str:
    if not _STATUS_PATTERN.fullmatch(text):
        raise ValueError(f"{text!r} is no status; expected one such as 5.1.1, *.1.1 or 5.7.*")
    return text


def _code(number: int) -> int:
    if not (number == 0 or 400 <= number <= 599):
        raise ValueError(f"{number} is no reply code of a failure; expected 400 to 599, or 0")
    return number


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


class Rule(BaseModel):
    """One rule of a file: a class, and what a failure must be like to belong to it.

    Of a key's values any may match; every key that is there must.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_: FailureClass = Field(alias="class")
    status: Annotated[
        tuple[Annotated[str, AfterValidator(_status)], ...], BeforeValidator(_as_list)
    ] = ()
    code: Annotated[
        tuple[Annotated[int, AfterValidator(_code)], ...], BeforeValidator(_as_list)
    ] = ()
    text: Annotated[
        tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(_as_list)
    ] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Rule:
        if not (self.status or self.code or self.text):
            raise ValueError("a rule needs status, code or text")
        return self


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure was found to be.

    Attributes:
        failure: its class.
        rule: where the rule that says so stands, as `rules.yaml, rule 3`; '' if none does.
        matched: what of the text it was that the rule knew; '' if it did not look at it.
    """

    failure: FailureClass
    rule: str = ""
    matched: str = ""


@dataclass(frozen=True, slots=True)
class _Compiled:
    failure: FailureClass
    place: str
    status: re.Pattern[str] | None
    codes: frozenset[int]
    text: re.Pattern[str] | None


class Classifier:
    """Tells the class of a failure by ordered rules: the first that matches decides.

    Args:
        site: a file with rules that are asked before the shipped ones; None: only these.

    Raises:
        ValueError: a file cannot be read, or has a bad rule; the text names both on one line.
    """

    def __init__(self, site: Path | None = None) -> None:
        paths = [SHIPPED] if site is None else [site, SHIPPED]
        self._rules = [compiled for path in paths for compiled in _compile(path)]
        self.verdict = lru_cache(maxsize=_REMEMBERED)(self._verdict)

    def _verdict(self, code: int, status: str, text: str) -> Verdict:
        """The verdict on what a server said.

        Args:
            code: the SMTP reply code, 0 if there is none.
            status: the enhanced status code (RFC 3463), '' if there is none.
            text: the text, in whatever language; only its first 1,000 characters count.
        """
        said = normal(text)
        for rule in self._rules:
            if rule.codes and code not in rule.codes:
                continue
            if rule.status is not None and not rule.status.fullmatch(status):
                continue
            if rule.text is None:
                return Verdict(rule.failure, rule.place)
            match = rule.text.search(said)
            if match is not None:
                return Verdict(rule.failure, rule.place, match[0])
        return Verdict(FailureClass.OTHER)


def normal(text: str) -> str:
    """A text as rules see it: one line, lower case, and an `@` for each address.

    A user name or a domain must not be taken for what the server says.
    """
    text = text[:LONGEST_TEXT]
    if not text.isascii():
        # Full-width letters and half-width katakana are the same to a reader.
        text = unicodedata.normalize("NFKC", text)[:LONGEST_TEXT]
    words = text.lower().split()
    if "@" in text:
        words = [_ADDRESS.sub("@", word) if "@" in word else word for word in words]
    return " ".join(words)


def read(path: Path) -> list[Rule]:
    """The rules in a file, in their order.

    Raises:
        ValueError: it cannot be read, or has a bad rule; the text names both on one line.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)  # noqa: S506 - a safe one
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or "cannot be understood"
        raise ValueError(f"{path}{place}: is not YAML: {problem}") from None
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path}: expected a list of rules, each with class and text or status")
    rules = []
    for number, entry in enumerate(content, 1):
        try:
            rules.append(Rule.model_validate(entry))
        except ValidationError as error:
            raise ValueError(f"{path}: rule {number}: {_complaint(error)}") from None
    return rules


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if key == "class" and first["type"] == "enum":
        return f"there is no class {first['input']!r}; known are {', '.join(FailureClass)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"there is no key {key}; known are class, status, code, text"
    return f"{key}: {message}" if key else message


def _compile(path: Path) -> Sequence[_Compiled]:
    return [
        _Compiled(
            rule.class_,
            f"{path.name}, rule {number}",
            _statuses(rule.status),
            frozenset(rule.code),
            re.compile("|".join(f"(?:{text})" for text in rule.text)) if rule.text else None,
        )
        for number, rule in enumerate(read(path), 1)
    ]


def _statuses(patterns: Sequence[str]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    digits = [pattern.replace(".", r"\.").replace("*", r"\d{1,3}") for pattern in patterns]
    return re.compile("|".join(digits), re.ASCII)
