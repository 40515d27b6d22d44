"""What stands in `gateway.yaml`: who sends, and how recipients reach them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from gateway.hooks import domain_name
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Language = Literal["ja", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

EVERYONE_ELSE = "*"

_URL = re.compile(r"https?://[^\s<>\"]+", re.ASCII)
_ADDRESS = re.compile(r"[^\s<>\"@]+@[^\s<>\"@]+")
_LONGEST_LINE = 200


def is_url(text: str) -> bool:
    """Whether it is a web address."""
    return _URL.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Whether it is a mail address."""
    return _ADDRESS.fullmatch(text) is not None


def _one_line(text: str) -> str:
    text = text.strip()
    if not text or len(text) > _LONGEST_LINE or not text.isprintable():
        raise ValueError(f"expected one line of 1 to {_LONGEST_LINE} characters")
    return text


def _reachable(text: str) -> str:
    text = _one_line(text)
    if not (is_url(text) or is_address(text)):
        raise ValueError("expected a web address, https://…, or a mail address")
    return text


Line = Annotated[str, AfterValidator(_one_line)]


class Details(BaseModel):
    """The details of a sender, in one language."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Line = Field(description="The name of the company or person who sends.")
    address: Line = Field(description="The postal address.")
    representative: Line | None = Field(None, description="The person who is responsible.")
    contact: tuple[Line, ...] = Field(
        min_length=1,
        description="Where to ask and complain: telephone numbers, mail and web addresses.",
    )
    unsubscribe: Annotated[str, AfterValidator(_reachable)] = Field(
        description="Where to say that no more mail is wanted: a web or a mail address."
    )


class Sender(BaseModel):
    """A sender, in one language or two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ja: Details | None = Field(None, description="The details in Japanese.")
    en: Details | None = Field(None, description="The details in English.")

    @model_validator(mode="after")
    def _says_something(self) -> Sender:
        if self.ja is None and self.en is None:
            raise ValueError("give the details in Japanese (ja), in English (en) or in both")
        return self


class LegalFooterConfig(BaseModel):
    """Whose details are added, and in which language."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    senders: Mapping[str, Sender] = Field(
        min_length=1,
        description="The details by the domain of the From field. `.example.com` means the "
        "subdomains of example.com, and `*` every other domain.",
    )
    language: Literal["auto", "ja", "en", "both"] = Field(
        "auto", description="auto: Japanese for messages with kana in them, English for others."
    )

    @field_validator("senders")
    @classmethod
    def _comparable(cls, senders: Mapping[str, Sender]) -> Mapping[str, Sender]:
        found: dict[str, Sender] = {}
        for domain, sender in senders.items():
            name = domain
            if domain != EVERYONE_ELSE:
                dot = "." if domain.startswith(".") else ""
                name = dot + domain_name(domain.removeprefix("."))
            if name in found:
                raise ValueError(f"{domain} is there twice")
            found[name] = sender
        return found
