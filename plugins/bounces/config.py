"""The configuration of the plugin."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.hooks import Duration, SiteFile, SitePath, When, domain_name

LONGEST_PREFIX = 16
_PREFIX = re.compile(r"[a-z0-9](?:[a-z0-9._]*[a-z0-9])?", re.ASCII)
_MAILBOX = re.compile(r"[a-z0-9!#$'*+/=?^_`{|}~.-]{1,64}", re.ASCII)
_FIELD_NAME = re.compile(r"[!-9;-~]+")


def _prefix(text: str) -> str:
    name = text.lower()
    if not _PREFIX.fullmatch(name) or ".." in name or len(name) > LONGEST_PREFIX:
        raise ValueError(
            f"{text!r} is no prefix; expected up to {LONGEST_PREFIX} letters and digits, such as b"
        )
    return name


def _mailbox(text: str) -> str:
    name = text.lower()
    if not _MAILBOX.fullmatch(name):
        raise ValueError(f"{text!r} is no name of a mailbox; expected one such as postmaster")
    return name


def _address(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if not at or not _MAILBOX.fullmatch(local.lower()):
        raise ValueError(f"{text!r} is not an address; expected one such as fbl@bounce.example.com")
    return f"{local.lower()}@{domain_name(domain)}"


Domain = Annotated[str, AfterValidator(domain_name)]


class BouncesConfig(BaseModel):
    """Which return paths mail gets, and what is done with what comes back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: Domain | None = Field(
        default=None,
        description="The domain of return paths, which is for nothing else; null: none.",
        examples=["bounce.example.com"],
    )
    domains: dict[str, Domain] = Field(
        default={},
        description="Another one by the sender's domain; a subdomain takes its parent's.",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="b", description="What return paths begin with."
    )
    style: Literal["verp", "token"] = Field(
        default="verp",
        description="Whether the recipient stands in the return path where there is room (verp), "
        "or only a hash (token).",
    )
    only: When | None = Field(
        default=None, description="Which mail gets a return path; null: all that has a sender."
    )
    lifetime: Annotated[Duration, Field(gt=0)] = Field(
        default=30 * 86400.0, description="How long a return path takes mail."
    )
    keys: SitePath | None = Field(
        default=None,
        description="The file of secret keys; default: keys.json in the plugin's data folder.",
    )
    complaints: frozenset[Annotated[str, AfterValidator(_address)]] = Field(
        default=frozenset(), description="Addresses that providers send complaints to."
    )
    unsigned_complaints: Literal["hold", "accept"] = Field(
        default="hold",
        description="What happens to complaints in which no return path of ours is found.",
    )
    roles: frozenset[Annotated[str, AfterValidator(_mailbox)]] = Field(
        default=frozenset({"postmaster", "abuse"}),
        description="Mailboxes for people that the domains of return paths have.",
    )
    rules: SiteFile | None = Field(
        default=None, description="A file of rules that are asked before the ones of the plugin."
    )
    campaign_header: str | None = Field(
        default="X-Campaign",
        description="The field of returned mail that names its campaign; null: none.",
    )

    @field_validator("domains")
    @classmethod
    def _check_domains(cls, domains: dict[str, str]) -> dict[str, str]:
        return {domain_name(name): domain for name, domain in domains.items()}

    @field_validator("campaign_header")
    @classmethod
    def _check_campaign_header(cls, name: str | None) -> str | None:
        if name is not None and not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no header name; it has no colon and no space")
        return name

    @model_validator(mode="after")
    def _check_return_paths(self) -> BouncesConfig:
        if not self.bounce_domains:
            needing = {"only", "keys", "style", "prefix", "lifetime"} & self.model_fields_set
            if needing:
                raise ValueError(
                    f"{min(needing)} is about return paths, and there is no domain for them; "
                    "say domain: bounce.example.com"
                )
        for address in self.complaints:
            local, _, domain = address.rpartition("@")
            if domain in self.bounce_domains and local.startswith(f"{self.prefix}+"):
                raise ValueError(f"{address} looks like a return path; choose another name")
        return self

    @property
    def bounce_domains(self) -> frozenset[str]:
        """All domains of return paths."""
        domains = frozenset(self.domains.values())
        return domains if self.domain is None else domains | {self.domain}

    def domain_of(self, sender_domain: str) -> str | None:
        """The domain of return paths for a sender's domain (lower case, A-labels)."""
        name = sender_domain
        while name and self.domains:
            if name in self.domains:
                return self.domains[name]
            name = name.partition(".")[2]
        return self.domain

    def sender_domain_of(self, bounce_domain: str) -> str:
        """The only sender's domain whose return paths are in that domain; '' if it is not known."""
        if bounce_domain == self.domain:
            return ""
        found = [name for name, domain in self.domains.items() if domain == bounce_domain]
        return found[0] if len(found) == 1 else ""
