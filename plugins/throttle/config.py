"""The configuration of the plugin."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from gateway.hooks import SiteFile, When
from plugins.throttle.destination import Name, ReceiversFile, Section
from plugins.throttle.receivers import (
    SHIPPED,
    Layer,
    Receivers,
    read_layer,
    settle,
    tree_of,
)
from plugins.throttle.window import PERIODS, Period, zone_of


class Amounts(Section):
    """How many in an hour, a day and a month of the calendar."""

    hour: int | None = Field(default=None, ge=1, description="In an hour.")
    day: int | None = Field(default=None, ge=1, description="In a day.")
    month: int | None = Field(default=None, ge=1, description="In a month.")

    @model_validator(mode="after")
    def _consistent(self) -> Amounts:
        named = self.by_period
        if not named:
            raise ValueError("expected hour, day or month, for example {day: 1000}")
        for shorter, longer in pairwise(named.items()):
            if shorter[1] > longer[1]:
                raise ValueError(
                    f"{shorter[0]}: {shorter[1]} is more than {longer[0]}: {longer[1]} allows"
                )
        return self

    @property
    def by_period(self) -> dict[Period, int]:
        """Those that are set, the shortest period first."""
        amounts = {period: getattr(self, period) for period in PERIODS}
        return {period: amount for period, amount in amounts.items() if amount is not None}


class QuotaConfig(Section):
    """How much somebody may send."""

    when: When | None = Field(default=None, description="Which mail counts; all, if left out.")
    by: Literal["user", "sender", "sender_domain", "stream", "client"] | None = Field(
        default=None, description="Each by itself; left out, all of it together."
    )
    messages: Amounts | None = Field(default=None, description="Messages.")
    recipients: Amounts | None = Field(
        default=None, description="Different recipients: who gets ten messages counts once."
    )
    at_limit: Literal["refuse", "hold"] = Field(
        default="refuse", description="Refuse for now (452), or accept and hold for a person."
    )

    @model_validator(mode="after")
    def _not_empty(self) -> QuotaConfig:
        if self.messages is None and self.recipients is None:
            raise ValueError("needs messages or recipients, for example messages: {day: 1000}")
        return self


class ThrottleConfig(ReceiversFile):
    """How fast mail goes out, and how much of it comes in."""

    receivers: SiteFile | None = Field(
        default=None, description="A file of receivers of your own, in the form of the shipped one."
    )
    shipped: bool = Field(default=True, description="Start from the file that comes with it.")
    quotas: Mapping[Name, QuotaConfig] = Field(
        default={}, description="How much clients may send, by name."
    )
    time_zone: str = Field(
        default="UTC", description="Where hours, days and months of quotas begin: Asia/Tokyo."
    )

    @field_validator("time_zone")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        try:
            zone_of(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone; expected one such as Asia/Tokyo") from None
        return name

    @model_validator(mode="after")
    def _sensible(self) -> ThrottleConfig:
        # What the layers say together is looked at with everything else in gateway.yaml.
        try:
            _ = self.merged
        except ValueError as error:
            raise ValueError(str(error).replace(f"{_HERE}: ", "")) from None
        return self

    @cached_property
    def merged(self) -> Receivers:
        """What the shipped file, the site's own and this say together."""
        layers = [read_layer(SHIPPED, "shipped receivers.yaml")] if self.shipped else []
        if self.receivers is not None:
            layers.append(read_layer(self.receivers, self.receivers.name))
        said = {key: value for key, value in tree_of(self).items() if key in _RECEIVERS}
        return settle([*layers, Layer(said, _HERE)])


_HERE = "gateway.yaml"
_RECEIVERS = frozenset(ReceiversFile.model_fields)
