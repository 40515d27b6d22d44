"""The configuration of the plugin, checked down to the key files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from gateway.hooks import Duration, SitePath, domain_name
from plugins.dkim.key import PrivateKey, read_private_key
from plugins.dkim.keyring import ANY
from plugins.dkim.record import record_name
from plugins.dkim.signature import UNSIGNABLE
from plugins.dkim.validity import Validity, gaps, instant_text, parse_instant

_FIELD_NAME = re.compile(r"[!-9;-~]+")
_IDENTITY = re.compile(r"[A-Za-z0-9!#$%&'*+/?^_`{|}~.-]*@([A-Za-z0-9_.-]+)")
_PLACE = "{domain}"


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _section(value: Any) -> Any:
    """`true` for a section with nothing in it, `false` for none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Domains = Annotated[
    tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])
]
Instant = Annotated[
    float,
    BeforeValidator(parse_instant),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d"}),
]


class KeyConfig(BaseModel):
    """A private key and the domains that it signs for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domains: Domains = Field(
        validation_alias="domain",
        min_length=1,
        description="The domain of From that this key signs for, the tag `d=`; several in a list. "
        '`"*.example.com"` is each domain below, `"*"` each one there is.',
    )
    selector: str = Field(
        description="Under which name the public key is in DNS: <selector>._domainkey.<domain>."
    )
    file: SitePath = Field(
        description="The private key, PEM: RSA of 2048 bits or more, or Ed25519. `{domain}` in it "
        "stands for the domain, where each has a key of its own."
    )
    identity: str | None = Field(
        default=None, description="The tag `i=`: user@domain or @domain, at or below the domain."
    )
    subdomains: bool = Field(
        default=False, description="Sign for subdomains too, where they have no key of their own."
    )
    not_before: Instant | None = Field(
        default=None,
        description="When the key begins to sign: a date (UTC) or a time with its zone.",
    )
    not_after: Instant | None = Field(
        default=None, description="From when on it does not sign any more, in the same form."
    )

    _private_keys: dict[str, PrivateKey] = PrivateAttr(default_factory=dict)

    @property
    def private_keys(self) -> Mapping[str, PrivateKey]:
        """The keys that are in the files, by domain or by pattern (`*.example.com`, `*`)."""
        return self._private_keys

    @property
    def validity(self) -> Validity:
        """When the key signs."""
        always = Validity()
        return Validity(
            always.start if self.not_before is None else self.not_before,
            always.end if self.not_after is None else self.not_after,
        )

    @field_validator("domains")
    @classmethod
    def _normalise_domains(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_pattern, domains))

    @field_validator("selector")
    @classmethod
    def _normalise_selector(cls, value: str) -> str:
        return domain_name(value)

    @model_validator(mode="after")
    def _check_identity(self) -> KeyConfig:
        if self.identity is not None:
            match = _IDENTITY.fullmatch(self.identity)
            if match is None:
                raise ValueError("identity must look like user@domain or @domain")
            for domain in self.domains:
                if not f".{match[1].lower()}".endswith(f".{domain}"):
                    raise ValueError(f"identity must be at or below the domain {domain}")
        return self

    @model_validator(mode="after")
    def _check_validity(self) -> KeyConfig:
        if self.validity.start >= self.validity.end:
            raise ValueError("the key never signs: not_after must be later than not_before")
        return self

    @model_validator(mode="after")
    def _read_private_keys(self) -> KeyConfig:
        if _PLACE not in str(self.file):
            key = read_private_key(self.file)
            self._private_keys.update(dict.fromkeys(self.domains, key))
            return self
        for pattern in self.domains:
            for domain in _found(self.file, pattern) if pattern.startswith(ANY) else [pattern]:
                if domain not in self._private_keys:
                    self._private_keys[domain] = read_private_key(_file(self.file, domain))
        return self


@dataclass(frozen=True, slots=True)
class Use:
    """What keys that follow each other are for: a type of key, and a domain or a pattern."""

    type: str
    domain: str

    def __str__(self) -> str:
        return f"a key of type {self.type} for {self.domain}"


class VerifyConfig(BaseModel):
    """How signatures of mail that comes in are verified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authserv_id: str | None = Field(
        default=None,
        description="The name that Authentication-Results begins with; null: the hostname.",
    )
    signatures: int = Field(
        default=8,
        ge=1,
        le=100,
        description="How many signatures of a message are verified, from the top.",
    )

    @field_validator("authserv_id")
    @classmethod
    def _normalise(cls, value: str | None) -> str | None:
        return None if value is None else domain_name(value)


class DkimConfig(BaseModel):
    """Which keys sign, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyConfig, ...] = Field(
        default=(), description="The keys; without any, nothing is signed."
    )
    canonicalization: Literal[
        "relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"
    ] = Field(
        default="relaxed/relaxed",
        description="How header/body are evened out before they are hashed.",
    )
    unsigned: Literal["pass", "reject", "tempfail", "default"] = Field(
        default="pass",
        description="What happens to a message that no key is for: it leaves unsigned (pass), the "
        "client keeps it, for good (reject) or for now (tempfail), or the keys of the domain in "
        "`default` sign it (default).",
    )
    default: str | None = Field(
        default=None,
        description="A domain of `keys`, whose keys sign what no other key is for.",
    )
    expire: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="How long a signature is valid, such as 30d; null: for ever.",
    )
    sign: tuple[str, ...] = Field(
        default=(), description="Names of header fields to sign besides the usual ones."
    )
    verify: Annotated[
        VerifyConfig | None,
        BeforeValidator(_section, json_schema_input_type=VerifyConfig | bool | None),
    ] = Field(
        default=None,
        description="Verify the signatures of mail that comes in, and write the results into "
        "Authentication-Results: true, or a section.",
    )

    def uses(self) -> Mapping[Use, Sequence[Validity]]:
        """What there are keys for, and when each key for it signs."""
        return _uses(self.keys)

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: tuple[KeyConfig, ...]) -> tuple[KeyConfig, ...]:
        seen = set()
        for key in keys:
            for domain in key.private_keys:
                name = record_name(key.selector, domain)
                if name in seen:
                    raise ValueError(f"{name} is there twice; each key needs a selector of its own")
                seen.add(name)
        for use, validities in _uses(keys).items():
            for gap in gaps(validities):
                raise ValueError(
                    f"{use} is missing from {instant_text(gap.start)} to {instant_text(gap.end)}; "
                    "let not_before of each key be not_after of the one before it"
                )
        return keys

    @field_validator("sign")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        refused = {name.lower() for name in UNSIGNABLE}
        for name in names:
            if not _FIELD_NAME.fullmatch(name) or ";" in name:
                raise ValueError(f"{name!r} is not the name of a header field")
            if name.lower() in refused:
                raise ValueError(f"{name} must not be signed: relays add, change or remove it")
        return names

    @field_validator("default")
    @classmethod
    def _normalise_default(cls, value: str | None) -> str | None:
        return None if value is None else domain_name(value)

    @model_validator(mode="after")
    def _check_default(self) -> DkimConfig:
        if (self.default is not None) is not (self.unsigned == "default"):
            raise ValueError(
                "`default: example.com` names the keys that sign with `unsigned: default`; "
                "set both or neither"
            )
        if self.default is not None and not any(
            self.default in key.private_keys for key in self.keys
        ):
            raise ValueError(f"default: no key is for the domain {self.default} itself")
        return self


def _uses(keys: tuple[KeyConfig, ...]) -> dict[Use, list[Validity]]:
    uses: dict[Use, list[Validity]] = {}
    for key in keys:
        for domain, private in key.private_keys.items():
            for name in (domain, f"{ANY}.{domain}") if key.subdomains else (domain,):
                uses.setdefault(Use(private.public.type, name), []).append(key.validity)
    return uses


def _pattern(value: str) -> str:
    if value == ANY:
        return value
    start = f"{ANY}." if value.startswith(f"{ANY}.") else ""
    return start + domain_name(value.removeprefix(start))


def _file(file: Path, domain: str) -> Path:
    return Path(str(file).replace(_PLACE, domain))


def _found(file: Path, pattern: str) -> Iterator[str]:
    """The domains that match a pattern and have a key file."""
    part = next(index for index, part in enumerate(file.parts) if _PLACE in part)
    before, _, after = file.parts[part].partition(_PLACE)
    for entry in sorted(Path(*file.parts[:part]).glob("*")):
        name = entry.name.removeprefix(before).removesuffix(after)
        if (
            entry.name == f"{before}{name}{after}"
            and name.endswith(pattern.removeprefix(ANY))
            and _is_domain(name)
            and _file(file, name).exists()
        ):
            yield name


def _is_domain(name: str) -> bool:
    try:
        return domain_name(name) == name
    except ValueError:
        return False
