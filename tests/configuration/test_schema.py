from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.configuration.config import Config
from gateway.configuration.schema import schema


class Inner(BaseModel):
    x: int


class FooterConfig(BaseModel):
    """A footer."""

    text: str = Field(description="What is put below.")
    inner: Inner | None = None


class Footer2Config(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    mode: Literal["a", "b"] = "a"
    odd: complex | None = None


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def test_every_key_is_described_and_has_its_default() -> None:
    made = schema({})
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["required"] == ["listen"]
    assert made["additionalProperties"] is False
    assert set(made["properties"]) == set(Config.model_fields)
    for name, definition in [("", made), *made["$defs"].items()]:
        for key, value in definition.get("properties", {}).items():
            target = made["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            assert value.get("description") or target.get("description"), f"{name}.{key}"
            is_section = target.get("type") == "object"
            has_default = "default" in value or key in definition.get("required", ())
            assert name == "" or is_section or has_default, key
    assert made["$defs"]["Limits"]["properties"]["command_timeout"]["default"] == "5m"
    assert made["$defs"]["Limits"]["properties"]["message_size"]["default"] == "50MiB"
    assert made["$defs"]["Relay"]["properties"]["connections"]["default"] == 20
    assert made["$defs"]["Retry"]["properties"]["schedule"]["default"][0] == "5m"


def test_references_lead_somewhere_and_all_is_json() -> None:
    made = schema({"footer": FooterConfig, "footer2": Footer2Config})
    assert json.loads(json.dumps(made)) == made
    assert references(made) == {f"#/$defs/{name}" for name in made["$defs"]}


def test_plugins_have_their_own_keys_and_the_reserved_ones() -> None:
    made = schema({"footer": FooterConfig, "footer2": Footer2Config})
    names, paths, entries = made["properties"]["plugins"]["items"]["anyOf"]
    assert names == {"enum": ["footer2"]}  # footer needs a text
    assert paths["pattern"] in entries["patternProperties"]
    footer = entries["properties"]["footer"]
    assert set(footer["properties"]) == {"text", "inner", "when", "timeout", "on_error"}
    assert footer["additionalProperties"] is False
    assert footer["required"] == ["text"]
    assert footer["properties"]["text"]["description"] == "What is put below."
    second, nothing = entries["properties"]["footer2"]["anyOf"]
    assert nothing == {"type": "null"}
    assert second["additionalProperties"] is True
    assert second["properties"]["mode"]["enum"] == ["a", "b"]
