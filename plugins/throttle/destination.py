"""Limits and rules for destinations: the keys of gateway.yaml and of files of receivers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from gateway.hooks import Duration, Rate
from plugins.throttle.pattern import check_pattern

Stage = Literal["connect", "ehlo", "tls", "auth", "mail", "rcpt", "data", "dot"]
Action = Literal["slow", "pause", "bounce", "retry", "fail", "none"]

_CODE = re.compile(r"[45](?:\d\d|\dx|xx)")
_STATUS = re.compile(r"[45]\.(?:\d{1,3}|\*)\.(?:\d{1,3}|\*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DOMAIN = re.compile(r"[a-z0-9*?_.-]+")


def _listed(value: Any) -> Any:
    """One value is short for a list of it."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("an empty list; name at least one value, or leave the key out")
        return tuple(value)
    return None if value is None else (value,)


def _code(value: Any) -> str:
    text = str(value).lower()
    if isinstance(value, bool) or not _CODE.fullmatch(text):
        raise ValueError(f"{text!r} is no code of a refusal; expected one like 421, 45x or 4xx")
    return text


def _status(text: str) -> str:
    if not _STATUS.fullmatch(text):
        raise ValueError(f"{text!r} is no status; expected one like 4.7.28 or 4.7.* (RFC 3463)")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name; it has letters, digits, -, _ and dots")
    return text


def _domain(text: str) -> str:
    """A domain or host, with * and ? for what may be anything, in A-labels."""
    try:
        labels = [
            label if label.isascii() else label.encode("idna").decode("ascii")
            for label in text.lower().rstrip(".").split(".")
        ]
    except UnicodeError:
        labels = [""]
    name = ".".join(labels)
    if not _DOMAIN.fullmatch(name):
        raise ValueError(f"{text!r} is no domain; expected one like example.jp or *.example.jp")
    return name


def _rate(value: Any) -> Rate:
    if isinstance(value, Rate):
        return value
    if not isinstance(value, str):
        raise ValueError("expected a rate, for example 100/s, 60/m, 5000/h, 20000/d or 10/30s")
    return Rate.parse(value)


def _check_rates(rates: tuple[Rate, ...] | None) -> tuple[Rate, ...] | None:
    """Of several rates each longer period must allow more than the shorter ones."""
    ordered = sorted(rates or (), key=lambda rate: rate.seconds)
    for shorter, longer in pairwise(ordered):
        if shorter.seconds == longer.seconds:
            raise ValueError(f"{shorter} and {longer} are for the same time; leave one of them out")
        if longer.count < shorter.count:
            raise ValueError(
                f"{longer} is less than {shorter} lets through in a shorter time; "
                f"leave {shorter} out"
            )
    return None if rates is None else tuple(ordered)


_ONE_OR_MORE: Any = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
_Rates = Annotated[
    tuple[Annotated[Rate, BeforeValidator(_rate)], ...] | None,
    BeforeValidator(_listed),
    AfterValidator(_check_rates),
    WithJsonSchema(_ONE_OR_MORE),
]
_Length = Annotated[Duration, Field(gt=0)]
_Patterns = Annotated[
    tuple[Annotated[str, AfterValidator(_domain)], ...] | None, BeforeValidator(_listed)
]


Name = Annotated[str, AfterValidator(_name)]


class Section(BaseModel):
    """A part of the configuration: frozen, and without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Bounds(Section):
    """How much may go at a time."""

    rate: _Rates = Field(
        default=None, description="Messages: 100/s, 60/m, 5000/h, 20000/d, or a list of such."
    )
    recipient_rate: _Rates = Field(
        default=None, description="Recipients: each address that a message goes to counts."
    )
    connections: int | None = Field(
        default=None, ge=1, description="Connections open at a time, over all workers."
    )


class Share(Bounds):
    """The same, for all source addresses together and for each by itself."""

    per_source: Bounds | None = Field(
        default=None, description="The same keys, for each source address by itself."
    )


class Backoff(Section):
    """How mail is slowed down."""

    rate: Annotated[Rate, BeforeValidator(_rate), WithJsonSchema({"type": "string"})] | None = (
        Field(default=None, description="What it starts from where there is no rate: 10/s.")
    )
    halvings: int | None = Field(
        default=None, ge=1, le=20, description="How often rate and connections halve, at most: 6."
    )
    every: _Length | None = Field(
        default=None, description="They halve at most once in this time: 1m."
    )
    recover: _Length | None = Field(
        default=None, description="After this time without such replies they double again: 15m."
    )


class Rule(Section):
    """What to do when a server says something. Every condition that is given must hold."""

    code: Annotated[
        tuple[Annotated[str, BeforeValidator(_code)], ...] | None, BeforeValidator(_listed)
    ] = Field(default=None, description="Reply codes: 421, 45x, 4xx.")
    status: Annotated[
        tuple[Annotated[str, AfterValidator(_status)], ...] | None, BeforeValidator(_listed)
    ] = Field(default=None, description="Enhanced codes: 4.7.28, 4.7.*.")
    text: Annotated[
        tuple[Annotated[str, AfterValidator(check_pattern)], ...] | None, BeforeValidator(_listed)
    ] = Field(
        default=None,
        description="Regular expressions on the text after the codes, in any case.",
    )
    stage: Annotated[tuple[Stage, ...] | None, BeforeValidator(_listed)] = Field(
        default=None, description="What was answered: connect, ehlo, tls, auth, mail, rcpt, ..."
    )
    action: Annotated[tuple[Action, ...] | None, BeforeValidator(_listed)] = Field(
        default=None, description="slow, pause, bounce, retry, fail, none; or a list of them."
    )
    lasting: _Length | None = Field(
        default=None, validation_alias="for", description="How long to pause or bounce: 10m."
    )
    scope: Literal["provider", "site", "domain"] | None = Field(
        default=None,
        description="What is slowed or paused; provider: else the site.",
    )
    per_source: bool | None = Field(
        default=None, description="Only the source address that met the reply: true."
    )
    after: int | None = Field(default=None, ge=1, description="How many such replies it takes: 1.")
    within: _Length | None = Field(default=None, description="In which time: 10m.")

    @model_validator(mode="after")
    def _consistent(self) -> Rule:
        actions = set(self.action or ())
        for one, other in (("retry", "fail"), ("pause", "bounce")):
            if {one, other} <= actions:
                raise ValueError(f"action: {one} and {other} contradict each other")
        if "none" in actions and len(actions) > 1:
            raise ValueError("action: none stands alone")
        return self


_Rules = Mapping[Name, Rule | None]


class Destination(Section):
    """Limits and rules for sites."""

    site: Share | None = Field(
        default=None, description="For each site: domains with the same servers count together."
    )
    domain: Share | None = Field(default=None, description="For each recipients' domain.")
    messages_per_connection: int | None = Field(
        default=None, ge=1, description="After so many messages a connection is closed."
    )
    recipients_per_message: int | None = Field(
        default=None, ge=1, description="More recipients go in further transactions."
    )
    slow: Backoff | None = Field(default=None, description="How mail is slowed down.")
    rules: _Rules | None = Field(
        default=None,
        description="What to do when a server says something, by name; the first "
        "that matches is taken.",
    )


class Provider(Destination, Share):
    """A receiver with many domains, or many servers."""

    domains: _Patterns = Field(default=None, description="Recipients' domains, with * and ?.")
    mx: _Patterns = Field(default=None, description="Its mail exchangers, with * and ?.")
    via_smarthosts: bool | None = Field(
        default=None, description="Its rates hold for mail that goes through smarthosts too: false."
    )


class ReceiversFile(Section):
    """What a file of receivers holds."""

    providers: Mapping[Name, Provider | None] = Field(
        default={}, description="Receivers by name; null takes one away."
    )
    default: Destination = Field(
        default=Destination(), description="For servers that belong to no provider."
    )
    smarthosts: Destination = Field(
        default=Destination(), description="For servers that gateway.yaml or a plugin names."
    )
    rules: _Rules = Field(default={}, description="Rules for all, after those of the receiver.")
