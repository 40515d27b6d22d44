"""What the sections of gateway.yaml share: their base, and fields with written defaults."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.configuration.quantity import parse_duration, parse_size


def written(parsed: Any, text: str, description: str, **limits: Any) -> Any:
    """A field whose default people write in another way than the program holds it."""
    return Field(
        parsed,
        description=description,
        json_schema_extra={"default": text},
        examples=[text],
        **limits,
    )


def time_field(text: str, description: str) -> Any:
    """A field of a time, whose default is that text."""
    return written(parse_duration(text), text, description)


def size_field(text: str, description: str, **limits: Any) -> Any:
    """A field of a size, whose default is that text; `limits` are pydantic's."""
    return written(parse_size(text), text, description, **limits)


def listing(description: str, example: str) -> Any:
    """A field of a list, empty if it is left out."""
    # Not strict: YAML has lists, frozen objects have tuples.
    return Field((), description=description, examples=[example], strict=False)


class Section(BaseModel):
    """A part of gateway.yaml: frozen, and without keys that it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )
