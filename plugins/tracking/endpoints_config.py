"""What the endpoints record, and what the page for unsubscribing says."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from gateway.hooks import Duration
from plugins.tracking.pages import TEXTS, Language, Texts

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_REASON = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_SHORTEST_SECRET = 16

Line = Annotated[str, Field(min_length=1, max_length=500)]


class LanguageConfig(BaseModel):
    """The page's words in one language; where a key is left out, ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    brand: Line | None = Field(default=None, description="Whose mail it is, above the heading.")
    heading: Line | None = Field(default=None, description="The heading of the page that asks.")
    question: Line | None = Field(default=None, description="The question below it.")
    button: Line | None = Field(default=None, description="What is on the button.")
    reasons: Line | None = Field(default=None, description="The question above the reasons.")
    done_heading: Line | None = Field(default=None, description="The heading that confirms.")
    done: Line | None = Field(default=None, description="The text below it.")

    def texts(self, language: Language) -> Texts:
        """All texts of a language, with these in place of ours."""
        return replace(TEXTS[language], **self.model_dump(exclude_none=True))


class ReasonConfig(BaseModel):
    """A reason to choose when unsubscribing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="What events call it, such as too-many.")
    en: Line = Field(description="In English.")
    ja: Line = Field(description="In Japanese.")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _REASON.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name for a reason; expected small letters, digits, - and _"
            )
        return name

    def text(self, language: Language) -> str:
        """What the page says."""
        return self.en if language == "en" else self.ja


class UnsubscribePageConfig(BaseModel):
    """The page with the button."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: Language = Field(
        default="en", description="For browsers that ask for neither English nor Japanese."
    )
    en: LanguageConfig = Field(default=LanguageConfig(), description="Words in English.")
    ja: LanguageConfig = Field(default=LanguageConfig(), description="Words in Japanese.")
    reasons: tuple[ReasonConfig, ...] = Field(
        default=(), max_length=20, description="Reasons to choose from; choosing is optional."
    )

    @field_validator("reasons")
    @classmethod
    def _check_reasons(cls, reasons: tuple[ReasonConfig, ...]) -> tuple[ReasonConfig, ...]:
        names = [reason.name for reason in reasons]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the reason {name} is there twice")
        return reasons


class ConversionsConfig(BaseModel):
    """How a shop says that a click became an order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel: bool = Field(
        default=False,
        description="Take conversions from an image in a page of the shop. Whoever has clicked a "
        "link can make such a request up.",
    )
    secret: SecretStr | None = Field(
        default=None,
        description="Take conversions from the shop's server, which sends this as a bearer token.",
    )
    remember: Annotated[Duration, Field(gt=0)] = Field(
        default=34_560_000.0,
        description="How long an order that comes again is known to be the same.",
    )

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        value = "" if secret is None else secret.get_secret_value()
        if secret is not None and (
            len(value) < _SHORTEST_SECRET or not value.isascii() or not value.isprintable()
        ):
            raise ValueError(
                f"the secret must have at least {_SHORTEST_SECRET} printable ASCII characters"
            )
        return secret

    @model_validator(mode="after")
    def _check_some_way(self) -> ConversionsConfig:
        if not self.pixel and self.secret is None:
            raise ValueError("no conversion can come in; set pixel: true, or a secret")
        return self


class EndpointsConfig(BaseModel):
    """What is recorded of clicks, opens and conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_address: bool = Field(
        default=False, description="Keep the IP address of each request, as the note ip."
    )
    store_user_agent: bool = Field(
        default=False, description="Keep the User-Agent of each request, as the note user_agent."
    )
    burst_links: int = Field(
        default=3,
        ge=2,
        le=50,
        description="Following this many different links of a message makes a robot …",
    )
    burst_window: Annotated[Duration, Field(ge=1, le=600)] = Field(
        default=10.0, description="… if it takes no longer than this."
    )
    click_parameter: str | None = Field(
        default=None,
        description="Add this parameter to the URLs that clicks lead to, with a token that "
        "conversions name.",
    )
    click_cookie: str | None = Field(
        default=None, description="Set this cookie at each click, so that the pixel finds it."
    )
    click_cookie_lifetime: Annotated[Duration, Field(ge=1)] = Field(
        default=2_592_000.0, description="How long the cookie lasts."
    )
    conversions: ConversionsConfig | None = Field(
        default=None, description="How conversions come in; null: not at all."
    )
    unsubscribe_page: UnsubscribePageConfig = Field(
        default=UnsubscribePageConfig(), description="The page for unsubscribing."
    )

    @field_validator("click_parameter", "click_cookie")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name; expected letters, digits, - and _, such as mail_click"
            )
        return name
