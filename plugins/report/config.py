"""The configuration of the plugin."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.hooks import Duration
from plugins.report.days import zone_of

DAY = 86_400.0


class ReportConfig(BaseModel):
    """What is counted, and for how long it is known of each recipient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: Annotated[Duration, Field(ge=DAY)] = Field(
        default=400 * DAY,
        description="How long it is known what each recipient did; after that only sums are.",
        json_schema_extra={"default": "400d"},
    )
    campaigns_only: bool = Field(
        default=False, description="Count only mail that belongs to a campaign."
    )
    timezone: str = Field(
        default="UTC", description="The time zone of days and times, such as Asia/Tokyo."
    )

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            zone_of(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone; expected one such as Asia/Tokyo") from None
        return name
