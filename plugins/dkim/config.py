"""The configuration of the plugin, checked down to the key files."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from gateway.hooks import Duration, SitePath
from plugins.dkim.author import domain_name
from plugins.dkim.key import PrivateKey, read_private_key
from plugins.dkim.signature import UNSIGNABLE

_FIELD_NAME = re.compile(r"[!-9;-~]+")
_IDENTITY = re.compile(r"[A-Za-z0-9!#$%&'*+/?^_`{|}~.-]*@([A-Za-z0-9_.-]+)")


class KeyConfig(BaseModel):
    """A private key and the domain that it signs for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str = Field(description="The domain of From that this key signs for; the tag `d=`.")
    selector: str = Field(
        description="Under which name the public key is in DNS: <selector>._domainkey.<domain>."
    )
    file: SitePath = Field(
        description="The private key, PEM: RSA of 2048 bits or more, or Ed25519."
    )
    identity: str | None = Field(
        default=None, description="The tag `i=`: user@domain or @domain, at or below the domain."
    )
    subdomains: bool = Field(
        default=False, description="Sign for subdomains too, where they have no key of their own."
    )

    _private_key: PrivateKey = PrivateAttr()

    @property
    def private_key(self) -> PrivateKey:
        """The key that is in the file."""
        return self._private_key

    @field_validator("domain", "selector")
    @classmethod
    def _normalise(cls, value: str) -> str:
        return domain_name(value)

    @model_validator(mode="after")
    def _check_identity(self) -> KeyConfig:
        if self.identity is not None:
            match = _IDENTITY.fullmatch(self.identity)
            if match is None:
                raise ValueError("identity must look like user@domain or @domain")
            if not f".{match[1].lower()}".endswith(f".{self.domain}"):
                raise ValueError(f"identity must be at or below the domain {self.domain}")
        return self

    @model_validator(mode="after")
    def _read_private_key(self) -> KeyConfig:
        self._private_key = read_private_key(self.file)
        return self


class DkimConfig(BaseModel):
    """Which keys sign, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyConfig, ...] = Field(description="The keys, at least one.")
    canonicalization: Literal[
        "relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"
    ] = Field(
        default="relaxed/relaxed",
        description="How header/body are evened out before they are hashed.",
    )
    unsigned: Literal["pass", "reject", "tempfail"] = Field(
        default="pass",
        description="What happens to a message that no key is for: it leaves unsigned (pass), or "
        "the client keeps it, for good (reject) or for now (tempfail).",
    )
    expire: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="How long a signature is valid, such as 30d; null: for ever.",
    )
    sign: tuple[str, ...] = Field(
        default=(), description="Names of header fields to sign besides the usual ones."
    )

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: tuple[KeyConfig, ...]) -> tuple[KeyConfig, ...]:
        if not keys:
            raise ValueError("without a key nothing can be signed; name at least one key")
        seen = set()
        for key in keys:
            name = f"{key.selector}._domainkey.{key.domain}"
            if name in seen:
                raise ValueError(f"{name} is there twice; each key needs a selector of its own")
            seen.add(name)
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
