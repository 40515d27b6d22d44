"""The configuration of the plugin."""

from __future__ import annotations

import re
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.hooks import Size
from plugins.personalization.localization import known_currency, parse_locale
from plugins.personalization.sources import SourceConfig
from plugins.personalization.sources.values import check
from plugins.personalization.syntax import Delimiters

_FIELD_NAME = re.compile(r"[!-9;-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_DELIMITER = 10
_STRUCTURE = ("content-", "dkim-", "arc-", "received", "mime-version", "return-path")

Pair = tuple[str, str]


class DelimitersConfig(BaseModel):
    """What begins and ends a tag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variable: Pair = Field(default=("{{", "}}"), description="What begins and ends a value.")
    block: Pair = Field(default=("{%", "%}"), description="What begins and ends if, for and set.")
    comment: Pair = Field(default=("{#", "#}"), description="What begins and ends a comment.")

    @model_validator(mode="after")
    def _check(self) -> DelimitersConfig:
        pairs = (self.variable, self.block, self.comment)
        for mark in (mark for pair in pairs for mark in pair):
            if not mark or len(mark) > _LONGEST_DELIMITER or not mark.isprintable() or " " in mark:
                raise ValueError(
                    f"{mark!r} cannot delimit a tag; expected up to {_LONGEST_DELIMITER} "
                    "characters without white space"
                )
        if len({pair[0] for pair in pairs}) < len(pairs):
            raise ValueError("variable, block and comment need three different beginnings")
        return self

    @property
    def delimiters(self) -> Delimiters:
        """The same as templates are read with."""
        return Delimiters(self.variable, self.block, self.comment)


class VariantConfig(BaseModel):
    """One variant of an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: int = Field(default=1, ge=0, le=1_000_000, description="Its share of all people.")
    values: dict[str, Any] = Field(
        default_factory=dict,
        description="What templates know in this variant besides; `subject` replaces the Subject.",
    )

    @field_validator("values")
    @classmethod
    def _check_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        subject = values.get("subject", "")
        if not isinstance(subject, str) or _CONTROL.search(subject):
            raise ValueError("subject is no text of one line")
        return check(values)


class PersonalizationConfig(BaseModel):
    """What is filled in, and where the values come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[SourceConfig, ...] = Field(
        default=(), description="Where the values come from, in order; later ones win."
    )
    only_with_header: str | None = Field(
        default="X-Merge",
        description="Only messages with this header field, or with the field of a source "
        "`header`, are looked at; it is removed. null: all messages.",
    )
    headers: tuple[str, ...] = Field(
        default=("Subject",), description="The header fields that may have templates in them."
    )
    missing: Literal["reject", "default", "empty"] = Field(
        default="reject",
        description="What a value that nobody knows means: the message is refused (reject), "
        "`defaults` has one or it is refused (default), or nothing is written (empty).",
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="Values for those that are missing, by name."
    )
    locale: str = Field(
        default="en",
        description="The language of dates and numbers, for recipients without a value `locale`.",
    )
    timezone: str = Field(
        default="UTC", description="The time zone of dates and times, such as Asia/Tokyo."
    )
    currency: str | None = Field(
        default=None, description="The currency that the filter `currency` takes without another."
    )
    delimiters: DelimitersConfig = Field(
        default=DelimitersConfig(), description="What begins and ends a tag."
    )
    allow_html: bool = Field(
        default=False, description="Allow the filter `safe`, which writes values as HTML."
    )
    max_output: Size = Field(
        default=1 << 20,
        gt=0,
        description="The most that templates may write into one part, in octets.",
        json_schema_extra={"default": "1MiB"},
    )
    max_steps: int = Field(
        default=250_000,
        gt=0,
        description="The most work that the templates of a message may make: about a step for each "
        "name in them, and again in each turn of a loop.",
    )
    variants: dict[str, dict[str, VariantConfig]] = Field(
        default_factory=dict,
        description="Experiments: campaign (* stands for any text) → variant → its share and "
        "values. The first campaign that matches counts.",
    )

    @field_validator("only_with_header")
    @classmethod
    def _check_switch(cls, name: str | None) -> str | None:
        if name is not None and not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header field")
        return name

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _FIELD_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header field")
            if name.lower().startswith(_STRUCTURE):
                raise ValueError(
                    f"{name} says how the message is built, and is no place for values"
                )
        return tuple(dict.fromkeys(names))

    @field_validator("locale")
    @classmethod
    def _check_locale(cls, name: str) -> str:
        parse_locale(name)
        return name

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone; expected one such as Asia/Tokyo") from None
        return name

    @field_validator("currency")
    @classmethod
    def _check_currency(cls, code: str | None) -> str | None:
        if code is not None and not known_currency(code):
            raise ValueError(f"{code!r} is no currency; expected a code such as JPY")
        return code

    @field_validator("defaults")
    @classmethod
    def _check_defaults(cls, defaults: dict[str, Any]) -> dict[str, Any]:
        return check(defaults)

    @field_validator("variants")
    @classmethod
    def _check_variants(
        cls, variants: dict[str, dict[str, VariantConfig]]
    ) -> dict[str, dict[str, VariantConfig]]:
        for campaign, experiment in variants.items():
            if sum(variant.weight for variant in experiment.values()) == 0:
                raise ValueError(f"{campaign}: no variant has a weight; nobody could get one")
        return variants

    @model_validator(mode="after")
    def _check_missing(self) -> PersonalizationConfig:
        if self.defaults and self.missing != "default":
            raise ValueError("defaults are used with missing: default only")
        if self.missing == "default" and not self.defaults:
            raise ValueError("missing: default needs defaults")
        return self
