"""When mail is tried again, for all of it and by stream."""

from __future__ import annotations

from pydantic import Field

from gateway.configuration.quantity import Time, parse_duration
from gateway.configuration.section import Section, time_field
from gateway.hooks.condition import Stream


class Retry(Section):
    """When mail that could not be delivered is tried again."""

    schedule: tuple[Time, ...] = Field(
        tuple(map(parse_duration, ("5m", "15m", "30m", "1h", "2h", "4h"))),
        description="Waits between attempts; the last one repeats.",
        json_schema_extra={"default": ["5m", "15m", "30m", "1h", "2h", "4h"]},
        examples=["[5m, 15m, 1h]"],
        strict=False,
        min_length=1,
    )
    jitter: float = Field(
        0.1, description="The part of each wait that is left to chance.", ge=0, le=0.5
    )
    lifetime: Time = time_field("5d", "How long mail is tried before the sender gets a report.")
    delay_warning: Time | None = Field(
        None,
        description="After how long the sender is told that mail is late; not at all, if left out.",
        examples=["4h"],
    )


class StreamSection(Stream):
    """A kind of mail, how urgent it is, and when it is tried again."""

    retry: Retry | None = Field(
        None, description="When mail of this stream is tried again; as retry says, if left out."
    )
