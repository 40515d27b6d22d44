"""The JSON Schema of gateway.yaml, which editors complete from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from gateway.configuration.config import Config
from gateway.configuration.entry import Rules


class _Schema(GenerateJsonSchema):
    def handle_invalid_for_json_schema(
        self, schema: core_schema.CoreSchema, error_info: str
    ) -> dict[str, Any]:
        return {}  # a type of a plugin's own that JSON Schema cannot express: anything goes


def model_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one model, such as the configuration of a plugin."""
    return model.model_json_schema(schema_generator=_Schema)


def schema(models: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of gateway.yaml.

    `models` are the plugins' configurations by the name that stands in the file. Plugins by path
    (`./site/footer.py`) may have any settings.
    """
    shapes: list[type[BaseModel]] = [Config, Rules, *models.values()]
    inputs: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (shape, "validation") for shape in shapes
    ]
    references, root = models_json_schema(inputs, schema_generator=_Schema)
    definitions: dict[str, Any] = root["$defs"]

    def definition(model: type[BaseModel]) -> dict[str, Any]:
        found = definitions[references[model, "validation"]["$ref"].rpartition("/")[2]]
        assert isinstance(found, dict)
        return found

    rules = definition(Rules)["properties"]
    settings: dict[str, Any] = {}
    bare = []
    for name, model in models.items():
        own = definition(model)
        entry = {"additionalProperties": False} | own
        entry |= {"properties": own.get("properties", {}) | rules}
        settings[name] = entry
        if not own.get("required"):
            bare.append(name)
            settings[name] = {"anyOf": [entry, {"type": "null"}]}
    by_path = r"\.py(:\w+)?$"
    files = {"type": ["object", "null"], "properties": rules}
    result = dict(definition(Config))
    result["properties"] = result["properties"] | {
        "plugins": {
            "description": Config.model_fields["plugins"].description,
            "type": ["array", "null"],
            "items": {
                "anyOf": [
                    {"enum": bare} if bare else False,
                    {"type": "string", "pattern": by_path},
                    {
                        "type": "object",
                        "properties": settings,
                        "patternProperties": {by_path: files},
                        "additionalProperties": False,
                        "minProperties": 1,
                        "maxProperties": 1,
                    },
                ]
            },
        }
    }
    result.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway.yaml",
        **result,
        "$defs": {name: definitions[name] for name in sorted(_used(result, definitions, set()))},
    }


def _used(value: Any, definitions: Mapping[str, Any], found: set[str]) -> set[str]:
    """The names of the definitions that a schema refers to, directly and through others."""
    if isinstance(value, dict):
        name = str(value.get("$ref")).rpartition("/")[2]
        if name in definitions and name not in found:
            found.add(name)
            _used(definitions[name], definitions, found)
        for inner in value.values():
            _used(inner, definitions, found)
    elif isinstance(value, list):
        for inner in value:
            _used(inner, definitions, found)
    return found
