"""What is known of receivers: the shipped file, a site's own and gateway.yaml, one over the other.

A later layer replaces single values of an earlier one; null takes away what it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from plugins.throttle.destination import Destination, Provider, ReceiversFile, Rule
from plugins.throttle.lined_yaml import KeyPath, LinedYaml, read

SHIPPED = Path(__file__).with_name("receivers.yaml")

Tree = dict[str, Any]
"""Sections by key, and values at the ends."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Values, and where each is from: a line of a file, or a key of gateway.yaml."""

    tree: Tree
    file: str
    document: LinedYaml | None = None

    def origin(self, path: KeyPath) -> str:
        """Where a value is from, as people read it."""
        if self.document is None:
            return f"{self.file}: {'.'.join(path)}"
        return f"{self.file}:{self.document.line(path)}"


@dataclass(frozen=True)
class Receivers:
    """All layers together.

    Attributes:
        providers: receivers by name, in the order in which they are looked for.
        default, smarthosts: for servers of no provider, and for those that somebody names.
        rules: those for all, by name, in order.
        origins: where each value is from.
    """

    providers: Mapping[str, Provider]
    default: Destination
    smarthosts: Destination
    rules: Mapping[str, Rule]
    origins: Mapping[KeyPath, str] = field(repr=False)

    def origin(self, path: KeyPath) -> str:
        """Where the value at a path is from, or what holds it; '' if nobody said it."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return ""


def tree_of(section: BaseModel) -> Tree:
    """What was said in a section, with the keys that it was said under."""
    tree: Tree = {}
    for name, info in type(section).model_fields.items():
        if name in section.model_fields_set:
            alias = info.validation_alias
            tree[alias if isinstance(alias, str) else name] = _branch(getattr(section, name))
    return tree


def _branch(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return tree_of(value)
    if isinstance(value, Mapping):
        return {key: _branch(inner) for key, inner in value.items()}
    return value


def read_layer(path: Path, name: str) -> Layer:
    """Reads a file of receivers.

    Raises:
        ValueError: something is wrong in it; the text says where, on one line.
    """
    document = read(path, name)
    values = {} if document.values is None else document.values
    if not isinstance(values, dict):
        raise ValueError(f"{name}:1: expected keys such as providers, default and rules")
    try:
        file = ReceiversFile.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(_complaints(error, name, document))) from None
    return Layer(tree_of(file), name, document)


def _complaints(error: ValidationError, name: str, document: LinedYaml) -> Iterator[str]:
    for item in error.errors(include_url=False):
        path = tuple(str(step) for step in item["loc"] if step != "[key]")
        text = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        text = text.removeprefix("Value error, ")
        yield f"{name}:{document.line(path)}: {'.'.join(path)}: {text}"


def settle(layers: Sequence[Layer]) -> Receivers:
    """Puts layers one over the other.

    Raises:
        ValueError: what they say together makes no sense; the text says where, on one line.
    """
    tree: Tree = {}
    origins: dict[KeyPath, str] = {}
    for layer in layers:
        _check_removals(tree, layer)
        tree = _merged(tree, layer.tree, (), layer, origins)
    try:
        whole = ReceiversFile.model_validate(tree)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        path = tuple(str(step) for step in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        raise ValueError(f"{'.'.join(path)}: {text}") from None
    receivers = Receivers(
        {name: one for name, one in whole.providers.items() if one is not None},
        whole.default,
        whole.smarthosts,
        {name: rule for name, rule in (whole.rules or {}).items() if rule is not None},
        origins,
    )
    problems = [*_incomplete_providers(receivers), *_incomplete_rules(receivers)]
    if problems:
        raise ValueError("; ".join(problems))
    return receivers


_NAMED = ("providers", "rules")
"""Sections whose keys are names: what is new in a later layer is looked at first."""


def _merged(
    lower: Tree, upper: Tree, path: KeyPath, layer: Layer, origins: dict[KeyPath, str]
) -> Tree:
    merged: Tree = {}
    if path and path[-1] in _NAMED:
        merged = {key: None for key in upper if key not in lower}
    merged.update(lower)
    for key, value in upper.items():
        below = (*path, key)
        if value is None:
            merged.pop(key, None)
            for old in [one for one in origins if one[: len(below)] == below]:
                del origins[old]
            continue
        if isinstance(value, dict):
            held = lower.get(key)
            merged[key] = _merged(
                held if isinstance(held, dict) else {}, value, below, layer, origins
            )
            # Of a section that several layers have a part in, all are named.
            held_at, here = origins.get(below), layer.origin(below)
            origins[below] = here if held_at is None else f"{held_at}, {here}"
        else:
            merged[key] = value
            origins[below] = layer.origin(below)
    return merged


def _check_removals(tree: Tree, layer: Layer) -> None:
    """A name that is taken away must have been there."""
    known = tree.get("providers", {})
    for name, provider in layer.tree.get("providers", {}).items():
        if provider is None and name not in known:
            raise ValueError(_unknown(layer.origin(("providers", name)), name, known))
    for path, rules in _rule_sections(layer.tree):
        held: Any = tree
        for step in path:
            held = (held or {}).get(step)
        for name, rule in rules.items():
            if rule is None and name not in (held or {}):
                where = layer.origin((*path, name))
                raise ValueError(f"{where}: there is no rule {name!r} to take away")


def _rule_sections(tree: Tree) -> Iterator[tuple[KeyPath, Tree]]:
    places: list[KeyPath] = [(), ("default",), ("smarthosts",)]
    places += [("providers", name) for name in tree.get("providers", {})]
    for place in places:
        section: Any = tree
        for step in place:
            section = (section or {}).get(step)
        if section and section.get("rules"):
            yield (*place, "rules"), section["rules"]


def _unknown(where: str, name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, known, 1, 0.6)
    hint = f'; did you mean "{close[0]}"?' if close else ""
    return (
        f'{where}: there is no provider "{name}"{hint or "; known are " + ", ".join(known)}'
        " (one of your own needs domains or mx)"
    )


def _incomplete_providers(receivers: Receivers) -> Iterator[str]:
    known = {name: one for name, one in receivers.providers.items() if one.domains or one.mx}
    for name in receivers.providers:
        if name not in known:
            yield _unknown(receivers.origin(("providers", name)), name, known)


def _incomplete_rules(receivers: Receivers) -> Iterator[str]:
    sections: list[tuple[KeyPath, Mapping[str, Rule | None]]] = [
        (("rules",), receivers.rules),
        (("default", "rules"), receivers.default.rules or {}),
        (("smarthosts", "rules"), receivers.smarthosts.rules or {}),
    ]
    for name, provider in receivers.providers.items():
        sections.append((("providers", name, "rules"), provider.rules or {}))
    for path, rules in sections:
        for name, rule in rules.items():
            where = receivers.origin((*path, name))
            if rule is None:
                continue
            if not rule.action:
                yield f"{where}: the rule {name!r} lacks an action, such as action: slow"
            if not (rule.code or rule.status or rule.text):
                yield f"{where}: the rule {name!r} needs code, status or text"
            if not set(rule.action or ()) & {"pause", "bounce"} and rule.lasting is not None:
                yield f"{where}: the rule {name!r} has for, and its action does not last"
