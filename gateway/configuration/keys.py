"""The keys of a configuration in plain words, for people who write it.

They come from the JSON Schema of its pydantic model: what the words say is what is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

from gateway.configuration.quantity import Duration, Size
from gateway.configuration.schema import model_schema
from gateway.hooks.condition import When

_Shape = Mapping[str, Any]

_FORMATS = {
    "path": "path",
    "file-path": "path of a file",
    "directory-path": "path of a folder",
    "password": "secret text",
    "date": "date (such as 2026-01-31)",
}
_NULL = {"type": "null"}
_SIMPLE = {"string": "text", "number": "number", "boolean": "true or false", "null": "null"}
_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_OCTETS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}
_PLAIN = re.compile(r"(?:[A-Za-z_]|\.{0,2}/)[\w ./@+-]*|\d+(?:ms|[smhdw]|[KMG]i?B)", re.ASCII)
_SHORT = 60
_BARE = 2
_WORDS_OF_YAML = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True, slots=True)
class Written:
    """A value as it is written in YAML."""

    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a configuration.

    Attributes:
        name: the key; those inside of its value are in `keys`.
        type: what its value is, in plain words.
        required: it has to be there.
        default: the value that it has if it is left out, as people write it; None for none.
        description: what it means, in one line.
        sample: a value that it could have, made of lists, mappings and scalars; None for none.
        has_example: the sample is an example that the model gives.
        keys: the keys of its value, or of each value in it.
    """

    name: str
    type: str
    required: bool
    default: Any
    description: str
    sample: Any
    has_example: bool = False
    keys: tuple[Key, ...] = ()


def keys(model: type[BaseModel]) -> tuple[Key, ...]:
    """The keys that a model takes, in its order."""
    schema = model_schema(model)
    definitions = schema.get("$defs", {})
    above = frozenset({_referred(schema)} if "$ref" in schema else ())
    for name in above:
        schema = definitions[name]
    return _Reader(definitions).keys(schema, above)


def example(reference: str, taken: Sequence[Key]) -> str:
    """An entry for `plugins` in gateway.yaml, with examples for what is required.

    The plain ones of the other keys are comments below it, with their defaults or examples.
    """
    required = {key.name: key.sample for key in taken if key.required}
    lines = ["plugins:", f"  - {written(reference)}:", *_block(required, 6)]
    for key in taken:
        if not key.required and not key.keys and (key.default or key.has_example):
            text = written(key.sample)
            if len(text) <= _SHORT and not isinstance(key.sample, dict):
                lines.append(f"      # {written(key.name)}: {text}")
    if len(lines) == _BARE:
        lines[1] = f"  - {written(reference)}"
    return "\n".join(lines) + "\n"


def written(value: Any) -> str:
    """A value as it is written in YAML, on one line."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and value == value.strip()
    if plain and value.lower() not in _WORDS_OF_YAML:
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return text if "." in text else text.replace("e", ".0e")
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)


class _Reader:
    def __init__(self, definitions: Mapping[str, _Shape]) -> None:
        self._definitions = definitions
        self._duration = TypeAdapter(Duration).json_schema()["anyOf"]
        self._size = TypeAdapter(Size).json_schema()["anyOf"]

    def keys(self, shape: _Shape, above: frozenset[str]) -> tuple[Key, ...]:
        """The keys of a mapping; `above` are the definitions that it stands in."""
        required = shape.get("required", ())
        return tuple(
            self._key(name, value, name in required, above)
            for name, value in shape.get("properties", {}).items()
        )

    def _key(self, name: str, shape: _Shape, required: bool, above: frozenset[str]) -> Key:
        inner: dict[str, Key] = {}
        description = shape.get("description", "")
        for reference in self._references(shape):
            definition = self._definitions[reference]
            description = description or definition.get("description", "").partition("\n\n")[0]
            if reference not in above and not _is_condition(definition):
                for key in self.keys(definition, above | {reference}):
                    inner.setdefault(key.name, key)
        return Key(
            name=name,
            type=self._type(shape),
            required=required,
            default=None if required else self._default(shape),
            description=" ".join(description.split()),
            sample=self._sample(shape, above),
            has_example=bool(shape.get("examples")),
            keys=tuple(inner.values()),
        )

    def _references(self, shape: _Shape) -> Iterator[str]:
        """The definitions that a value may be of, or that are in its list or mapping."""
        if "$ref" in shape:
            yield _referred(shape)
        for one in (*_choices(shape), shape.get("items"), shape.get("additionalProperties")):
            if isinstance(one, dict):
                yield from self._references(one)

    def _type(self, shape: _Shape, many: bool = False) -> str:
        if "$ref" in shape:
            definition = self._definitions[_referred(shape)]
            if _is_condition(definition):
                return "conditions, as in when"
            if "properties" not in definition and definition.get("type") != "object":
                return self._type(definition, many)
            return "mappings" if many else "mapping"
        if "enum" in shape:
            return ("" if many else "one of ") + ", ".join(map(str, shape["enum"]))
        if "const" in shape:
            return str(shape["const"])
        choices = _choices(shape)
        if choices:
            return self._alternatives(choices, many)
        sort = shape.get("type")
        if sort == "string" and shape.get("format") in _FORMATS:
            return _FORMATS[shape["format"]]
        if sort == "integer":
            return ("whole numbers" if many else "whole number") + _bounds(shape)
        if sort == "number":
            return ("numbers" if many else "number") + _bounds(shape)
        if sort == "array":
            items = shape.get("items")
            return f"list of {self._type(items, True)}" if items else "list"
        if sort == "object":
            values = shape.get("additionalProperties")
            if not isinstance(values, dict):
                return "mappings" if many else "mapping"
            return f"mapping of names to {self._type(values, 'enum' not in values)}"
        return _SIMPLE.get(str(sort), "anything")

    def _alternatives(self, choices: list[_Shape], many: bool) -> str:
        words = []
        for quantity, word in (
            (self._duration, "time (such as 30s)"),
            (self._size, "size (such as 64KiB)"),
        ):
            if all(one in choices for one in quantity):
                choices = [one for one in choices if one not in quantity]
                words.append(word)
        words += [self._type(one, many) for one in choices if not (many and one == _NULL)]
        return " or ".join(dict.fromkeys(words))

    def _default(self, shape: _Shape) -> Any:
        default = shape.get("default")
        if isinstance(default, dict) and any(self._references(shape)):
            return None  # its keys have their own
        if not isinstance(default, int | float) or isinstance(default, bool):
            return default
        choices = _choices(shape)
        if all(one in choices for one in self._duration):
            return _in_units(default, _UNITS) or f"{default:.15g}s"
        if all(one in choices for one in self._size):
            return _in_units(default, _OCTETS) or default
        return default

    def _sample(self, shape: _Shape, above: frozenset[str]) -> Any:
        if shape.get("examples"):
            given = shape["examples"][0]
            is_text = self._type(shape).startswith(("text", "path", "secret"))
            return Written(given) if isinstance(given, str) and not is_text else given
        default = self._default(shape)
        if default is not None:
            return default
        if "$ref" in shape:
            name = _referred(shape)
            definition = self._definitions[name]
            if name in above or _is_condition(definition):
                return {}
            if "properties" not in definition:
                return self._sample(definition, above | {name})
            inner = self.keys(definition, above | {name})
            return {key.name: key.sample for key in inner if key.required}
        choices = _choices(shape)
        if choices:
            words = self._type(shape)
            if words.startswith("time"):
                return "30s"
            if words.startswith("size"):
                return "64KiB"
            return self._sample(choices[0], above)
        if "enum" in shape:
            return shape["enum"][0]
        if "const" in shape:
            return shape["const"]
        return self._plain_sample(shape, above)

    def _plain_sample(self, shape: _Shape, above: frozenset[str]) -> Any:
        match shape.get("type"):
            case "string":
                texts = {"date": "2026-01-31", "password": "secret", "path": "./file"}
                return texts.get(str(shape.get("format")), "text")
            case "integer" | "number":
                return shape.get("minimum", shape.get("exclusiveMinimum", 0) + 1)
            case "boolean":
                return True
            case "array":
                items = shape.get("prefixItems") or [shape.get("items", {})]
                return [self._sample(one, above) for one in items]
            case "object":
                values = shape.get("additionalProperties")
                return {"name": self._sample(values, above)} if isinstance(values, dict) else {}
        return None


def _choices(shape: _Shape) -> list[_Shape]:
    found: list[_Shape] = shape.get("anyOf") or shape.get("oneOf") or shape.get("allOf") or []
    return found


def _referred(shape: _Shape) -> str:
    return str(shape["$ref"]).rpartition("/")[2]


def _is_condition(definition: _Shape) -> bool:
    return set(definition.get("properties", ())) == set(When.model_fields)


def _bounds(shape: _Shape) -> str:
    least, most = shape.get("minimum"), shape.get("maximum")
    if least is not None and most is not None:
        return f" ({least} to {most})"
    for key, words in (
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("exclusiveMinimum", "more than"),
        ("exclusiveMaximum", "less than"),
    ):
        if key in shape:
            return f" ({words} {shape[key]})"
    return ""


def _in_units(amount: float, units: Mapping[str, int]) -> str:
    """The amount in the largest unit that it is a whole number of; '' if there is none."""
    for unit, size in units.items():
        if amount >= size and amount % size == 0:
            return f"{int(amount // size)}{unit}"
    return ""


def _block(value: Mapping[str, Any], indent: int) -> list[str]:
    """A mapping as lines of YAML."""
    space = " " * indent
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            lines += [f"{space}{written(key)}:", *_block(inner, indent + 2)]
        elif isinstance(inner, list) and any(isinstance(one, dict) and one for one in inner):
            lines.append(f"{space}{written(key)}:")
            for one in inner:
                first, *rest = _block(one, indent + 4) if isinstance(one, dict) else [written(one)]
                lines += [f"{space}  - {first.lstrip()}", *rest]
        else:
            lines.append(f"{space}{written(key)}: {written(inner)}")
    return lines
