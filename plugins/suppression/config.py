"""The configuration of the plugin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.hooks import Duration, SitePath
from plugins.suppression.address import normal_domain, normal_entry
from plugins.suppression.entry import Reason

Action = Literal["reject", "discard"]
LearnedScope = Literal["sender_domain", "stream", "everywhere"]
Finding = Literal["pass", "report", "reject"]

_STATUS = re.compile(r"[45]\.(?:\d{1,3}|\*)(?:\.(?:\d{1,3}|\*))?")


def _status(text: str) -> str:
    if not _STATUS.fullmatch(text):
        raise ValueError(f"{text!r} is no status; expected one like 5.1.1 or 5.1.* (RFC 3463)")
    return text


def _domain(text: str) -> str:
    """`example.org`, or `.example.org` with its subdomains, as an entry of the list."""
    name = normal_domain(text.removeprefix("."))
    return f"@.{name}" if text.startswith(".") else f"@{name}"


_Length = Annotated[Duration, Field(gt=0)]
_Statuses = tuple[Annotated[str, AfterValidator(_status)], ...]

_NO_SUCH_USER = (
    "*user unknown*",
    "*unknown user*",
    "*no such user*",
    "*no such mailbox*",
    "*mailbox not found*",
    "*recipient unknown*",
    "*unknown recipient*",
    "*invalid recipient*",
    "*no mailbox here by that name*",
    "*doesn't have a * account*",
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BounceRule(_Model):
    """Which refusals count, and how many of them suppress an address."""

    after: int = Field(default=1, ge=1, description="How many messages have to come back.")
    within: _Length = Field(
        default=30 * 86400.0, description="In which time, without a delivery in between."
    )
    expire: _Length | None = Field(
        default=None, description="How long the address stays suppressed; null: for ever."
    )
    status: _Statuses = Field(
        default=("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"),
        description="Enhanced status codes that count; * stands for any number.",
    )
    text: tuple[str, ...] = Field(
        default=_NO_SUCH_USER,
        description="Texts that count where the status says nothing; * stands for anything.",
    )
    classes: tuple[str, ...] = Field(
        default=("no-such-user", "no-such-domain", "inactive"),
        description="Classes of failures that count; where the plugin bounces has found one, "
        "neither status nor text are looked at.",
    )


class SoftBounceRule(BounceRule):
    """The same for mailboxes that are full and servers that are not there."""

    after: int = Field(default=5, ge=1, description="How many messages have to come back.")
    status: _Statuses = Field(
        default=("4.2.*", "4.4.*", "5.2.2", "5.4.*"),
        description="Enhanced status codes that count; * stands for any number.",
    )
    text: tuple[str, ...] = Field(
        default=(),
        description="Texts that count where the status says nothing; * stands for anything.",
    )
    classes: tuple[str, ...] = Field(
        default=("mailbox-full",),
        description="Classes of failures that count; where the plugin bounces has found one, "
        "neither status nor text are looked at.",
    )


class LearningConfig(_Model):
    """What is learned from what happens to mail."""

    bounces: BounceRule | None = Field(
        default=BounceRule(), description="Addresses that do not exist; null: not learned."
    )
    soft_bounces: SoftBounceRule | None = Field(
        default=None, description="Mailboxes that took nothing for long; null: not learned."
    )
    complaints: bool = Field(default=True, description="Learn from complaints.")
    complaint_scope: LearnedScope = Field(
        default="sender_domain", description="Where a complaint holds."
    )
    unsubscribes: bool = Field(default=True, description="Learn from unsubscriptions.")
    unsubscribe_scope: LearnedScope = Field(
        default="sender_domain", description="Where an unsubscription holds."
    )


class HygieneConfig(_Model):
    """What is done about recipients that cannot be right."""

    misspelled: Finding = Field(
        default="report", description="Domains that are one slip away from a big one."
    )
    without_mail: Finding = Field(
        default="report", description="Domains that do not exist or take no mail, says the DNS."
    )
    known: frozenset[Annotated[str, AfterValidator(normal_domain)]] = Field(
        default=frozenset(), description="Domains that are spelled right, however they look."
    )
    timeout: Annotated[_Length, Field(le=9)] = Field(
        default=2.0, description="How long the DNS may take; then the recipient is taken."
    )

    @property
    def asks_dns(self) -> bool:
        """Whether the DNS is asked at all."""
        return self.without_mail != "pass"


class SuppressionConfig(_Model):
    """Who is suppressed, what is answered, and what is learned."""

    addresses: frozenset[Annotated[str, AfterValidator(normal_entry)]] = Field(
        default=frozenset(), description="Addresses, and patterns such as info@*."
    )
    domains: frozenset[Annotated[str, AfterValidator(_domain)]] = Field(
        default=frozenset(),
        description="Domains; with a dot before them their subdomains too: .example.org.",
    )
    file: SitePath | None = Field(
        default=None,
        description="A list with an address or @domain on each line, read again when it changes.",
    )
    action: Action = Field(
        default="reject",
        description="Refuse the recipient (reject), or accept and never deliver (discard).",
    )
    actions: Mapping[Reason, Action] = Field(
        default={}, description="Another action for some reasons."
    )
    exempt: Mapping[Reason, tuple[str, ...]] = Field(
        default={}, description="Streams to which entries of a reason do not apply."
    )
    streams_known: Literal["rcpt", "message"] = Field(
        default="rcpt",
        description="Apply entries and exemptions of streams at RCPT already (rcpt), or only when "
        "the whole message is known (message).",
    )
    gmail_dots: bool = Field(
        default=False, description="Ignore dots and tags in addresses at gmail.com."
    )
    subaddresses: bool = Field(
        default=False, description="Ignore the tag in user+tag@example.com, at all domains."
    )
    learn: LearningConfig = Field(
        default=LearningConfig(), description="What is learned from what happens to mail."
    )
    hygiene: HygieneConfig | None = Field(
        default=None, description="What is done about recipients that cannot be right; null: none."
    )

    @property
    def exemptions(self) -> dict[str, tuple[str, ...]]:
        """`exempt`, by any text."""
        return {str(reason): streams for reason, streams in self.exempt.items()}
