"""The configuration of the plugin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.hooks import Duration, When, domain_name
from plugins.ippool.block import SHIPPED, BlockRule
from plugins.ippool.day import zone_of
from plugins.ippool.provider import OTHER, PROVIDERS, Provider
from plugins.ippool.suspension import Policy
from plugins.ippool.warmup import CURVE

HOUR = 3_600.0
DAY = 24 * HOUR

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_STATUS = re.compile(r"[45](?:\.\d{1,3}){0,2}")
_CODE = re.compile(r"[45]\d{0,2}")

Stage = Literal["connect", "ehlo", "mail", "rcpt", "data", "dot"]


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name; expected up to 63 letters, digits, hyphens, dots and underscores"
        )
    return text


def _address(text: str) -> str:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        raise ValueError(f"{text!r} is no IP address; for example: 192.0.2.1") from None
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        raise ValueError(f"mail cannot be sent from {text}; expected an address of this machine")
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"write {text} as {address.ipv4_mapped}")
    return str(address)


def _helo(text: str) -> str:
    try:
        name = domain_name(text.rstrip("."))
    except ValueError:
        name = ""
    if not _HOST.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise ValueError(
            f"{text!r} is no host name to say in EHLO; expected one such as mta1.example.com"
        )
    return name


def _pattern(text: str) -> str:
    wildcard, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        return wildcard + domain_name(name)
    except ValueError:
        raise ValueError(
            f"{text!r} is no domain; expected one such as example.com, or *.example.com for all "
            "names below it"
        ) from None


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def _matching(pattern: re.Pattern[str], example: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        text = str(value)
        if isinstance(value, bool) or not pattern.fullmatch(text):
            raise ValueError(f"expected something like {example}")
        return text

    return check


Name = Annotated[str, AfterValidator(_name)]
IpAddress = Annotated[str, AfterValidator(_address)]
DomainPattern = Annotated[str, AfterValidator(_pattern)]
Curve = tuple[Annotated[int, Field(ge=1)], ...]
Length = Annotated[Duration, Field(gt=0)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WarmUpConfig(_Model):
    """The first days of a source."""

    since: date = Field(description="The first day; before it nothing is sent.")
    curve: Curve | None = Field(
        default=None,
        min_length=1,
        description="Recipients for each day and provider; as `curve`, if left out.",
    )


class SourceConfig(_Model):
    """An address that mail is sent from."""

    address: IpAddress = Field(description="An IP address of this machine.", examples=["192.0.2.1"])
    helo: Annotated[str, AfterValidator(_helo)] = Field(
        description="The name that it gives in EHLO.", examples=["mta1.example.com"]
    )
    weight: int = Field(default=1, description="Its share of a pool's mail.")
    public: IpAddress | None = Field(
        default=None, description="The address that receivers see, behind a NAT."
    )
    warmup: WarmUpConfig | None = Field(default=None, description="Its warm-up; null: it is warm.")

    @field_validator("weight")
    @classmethod
    def _some(cls, weight: int) -> int:
        if weight < 1:
            raise ValueError(
                f"a weight is 1 or more, not {weight}; a source that is to send nothing is left "
                "out of the pools"
            )
        return weight


class PoolConfig(_Model):
    """Sources for the same mail."""

    sources: tuple[str, ...] = Field(description="Names of sources.", examples=["[mta1, mta2]"])
    sticky: bool = Field(
        default=False,
        description="Mail of one sender's domain to one recipients' domain keeps its source.",
    )
    fallback: str | None = Field(
        default=None, description="The pool for mail that no source of this one can take."
    )


class RuleConfig(_Model):
    """Which mail a pool is for."""

    pool: str = Field(description="The name of the pool.")
    when: When = Field(description="Which mail.")


class ProviderConfig(_Model):
    """A receiver, told by its domains or by its servers."""

    domains: tuple[DomainPattern, ...] = Field(default=(), description="Recipients' domains.")
    mx: tuple[DomainPattern, ...] = Field(
        default=(), description="Names of the servers that take its mail."
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.domains and not self.mx:
            raise ValueError("needs domains or mx")
        return self


class BlockConfig(_Model):
    """A reply that says that a source is blocked; every key that is given must fit."""

    text: Annotated[str, AfterValidator(_expression)] | None = Field(
        default=None, description="A regular expression found in the text; case does not matter."
    )
    code: Annotated[str | int, AfterValidator(_matching(_CODE, "550, or 5 for 5xx"))] | None = (
        Field(default=None, description="The reply code, or its first digits.")
    )
    status: (
        Annotated[str | float, AfterValidator(_matching(_STATUS, "5.7.1, or 5.7 for 5.7.x"))] | None
    ) = Field(default=None, description="The enhanced status code, or its first parts.")
    stage: tuple[Stage, ...] = Field(default=(), description="What was answered.")
    provider: tuple[str, ...] = Field(default=(), description="Who answered; any, if left out.")
    suspend: Duration | None = Field(
        default=None, description="How long at first; 0: this is no block."
    )
    after: int = Field(
        default=1, ge=1, description="How many messages refused like this within an hour it takes."
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.text is None and self.code is None and self.status is None:
            raise ValueError("needs at least one of text, code and status")
        return self

    @property
    def rule(self) -> BlockRule:
        """The rule, compiled."""
        return BlockRule(
            None if self.text is None else re.compile(self.text, re.IGNORECASE),
            str(self.code or ""),
            str(self.status or ""),
            frozenset(self.stage),
            frozenset(self.provider),
            self.suspend,
            self.after,
        )


class SuspensionConfig(_Model):
    """How long a source that is blocked is not used."""

    first: Length = Field(
        default=HOUR,
        description="The first time; it doubles with every time.",
        json_schema_extra={"default": "1h"},
    )
    longest: Length = Field(
        default=DAY, description="At most so long.", json_schema_extra={"default": "1d"}
    )
    forget: Length = Field(
        default=DAY,
        description="After so long without a block it begins anew.",
        json_schema_extra={"default": "1d"},
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.longest < self.first:
            raise ValueError("longest must not be shorter than first")
        return self

    @property
    def policy(self) -> Policy:
        """The same, as a value."""
        return Policy(self.first, self.longest, self.forget)


class IpPoolConfig(_Model):
    """The sources, their pools, and which mail goes from which."""

    sources: Mapping[Name, SourceConfig] = Field(
        min_length=1, description="The addresses that mail is sent from, by name."
    )
    pools: Mapping[Name, PoolConfig] = Field(
        default_factory=dict,
        description="The pools by name; left out, all sources are one pool, `default`.",
    )
    default: str | None = Field(
        default=None, description="The pool for mail that no rule fits; the only one, if left out."
    )
    rules: tuple[RuleConfig, ...] = Field(
        default=(), description="Which mail goes from which pool; the first that fits is taken."
    )
    curve: Curve = Field(
        default=CURVE, min_length=1, description="Recipients for each day of a warm-up."
    )
    timezone: str = Field(default="UTC", description="Where the days of warm-ups begin.")
    providers: Mapping[Name, ProviderConfig | None] = Field(
        default_factory=dict,
        description="Receivers besides the shipped ones, or instead of them; null removes one.",
    )
    blocks: tuple[BlockConfig, ...] = Field(
        default=(), description="Replies that say that a source is blocked, asked first."
    )
    shipped_blocks: bool = Field(default=True, description="Whether the shipped ones are asked.")
    suspension: SuspensionConfig = Field(
        default=SuspensionConfig(), description="How long a source that is blocked is not used."
    )

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            zone_of(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone; expected one such as Asia/Tokyo") from None
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problem = next(self._problems(), None)
        if problem is not None:
            raise ValueError(problem)
        return self

    @property
    def all_pools(self) -> Mapping[str, PoolConfig]:
        """The pools, also where none is written."""
        return self.pools or {"default": PoolConfig(sources=tuple(self.sources))}

    @property
    def default_pool(self) -> str:
        """The name of the default pool."""
        return self.default or next(iter(self.all_pools))

    @property
    def all_providers(self) -> dict[str, Provider]:
        """The shipped providers, with what the configuration makes of them."""
        own = {
            name: None if one is None else Provider(one.domains, one.mx)
            for name, one in self.providers.items()
        }
        return {name: one for name, one in {**PROVIDERS, **own}.items() if one is not None}

    @property
    def rules_of_blocks(self) -> tuple[BlockRule, ...]:
        """All replies that count, in the order in which they are asked."""
        return (*(one.rule for one in self.blocks), *(SHIPPED if self.shipped_blocks else ()))

    def _problems(self) -> Iterator[str]:
        yield from self._problems_of_sources()
        pools = self.all_pools
        for name, pool in pools.items():
            where = f"pools.{name}"
            if not pool.sources:
                yield f"{where} has no sources"
            for source in pool.sources:
                yield from _unknown(where, "source", source, self.sources)
                if pool.sources.count(source) > 1:
                    yield f"{where} names {source} twice; for a larger share it has a weight"
            if pool.fallback is not None:
                yield from _unknown(f"{where}.fallback", "pool", pool.fallback, pools)
        yield from self._loops()
        if self.default is not None:
            yield from _unknown("default", "pool", self.default, pools)
        elif len(pools) > 1:
            yield f"default is missing: which of the pools {', '.join(pools)} is for all other mail"
        for number, rule in enumerate(self.rules, 1):
            yield from _unknown(f"rules: rule {number}", "pool", rule.pool, pools)
        yield from self._problems_of_providers()

    def _problems_of_sources(self) -> Iterator[str]:
        names: dict[str, str] = {}
        for name, source in self.sources.items():
            other = names.setdefault(source.address, name)
            if other != name:
                yield f"sources.{name} has the address {source.address} of {other}"

    def _loops(self) -> Iterator[str]:
        for name in self.all_pools:
            way = [name]
            while (following := self.all_pools[way[-1]].fallback) is not None:
                if following in way:
                    yield f"pools fall back in a circle: {' -> '.join([*way, following])}"
                    return
                if following not in self.all_pools:
                    return
                way.append(following)

    def _problems_of_providers(self) -> Iterator[str]:
        for name, provider in self.providers.items():
            if name == OTHER:
                yield f'providers.{name}: the name "{OTHER}" stands for all who have none'
            if provider is None and name not in PROVIDERS:
                yield from _unknown(f"providers.{name}: null", "provider", name, PROVIDERS)
        known = [*self.all_providers, OTHER]
        for number, block in enumerate(self.blocks, 1):
            for name in block.provider:
                yield from _unknown(f"blocks: block {number}", "provider", name, known)


def _unknown(
    where: str, kind: str, name: str, known: Mapping[str, object] | list[str]
) -> Iterator[str]:
    if name in known:
        return
    close = get_close_matches(name, list(known), 1)
    hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"
    yield f"{where}: there is no {kind} {name}; {hint}"
