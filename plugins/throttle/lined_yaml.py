"""YAML files with the line of each key, so that whoever reads their values can say where from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[str, ...]
"""The keys from the top of a file to a value; in a list, the number of the item."""

_DEEPEST = 20
# The one in C, where PyYAML was built with it, is ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class LinedYaml:
    """The values of a file, and the line of each path."""

    values: Any
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Where a path stands, or what holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(path: Path, name: str) -> LinedYaml:
    """Reads a file.

    Args:
        path: the file.
        name: what it is called in errors.

    Raises:
        ValueError: it cannot be read, is no YAML or has a key twice; the text says where.
    """
    try:
        text = path.read_text("utf-8-sig")
        root = yaml.compose(text, Loader=_LOADER)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}: not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ValueError(f"{name}:{line}: {error.problem or 'the YAML is wrong'}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from None
    lines: dict[KeyPath, int] = {}
    values = None if root is None else _value(root, (), lines, name)
    return LinedYaml(values, lines)


def _value(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> Any:
    line = node.start_mark.line + 1
    if len(path) > _DEEPEST:
        raise ValueError(f"{name}:{line}: nested too deeply")
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ValueError(f"{name}:{line}: a key must be plain text")
            key = key_node.value
            if key in values:
                raise ValueError(f"{name}:{line}: {key} is there twice")
            lines[(*path, key)] = line
            values[key] = _value(value_node, (*path, key), lines, name)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(item, (*path, str(number)), lines, name)
            for number, item in enumerate(node.value)
        ]
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        raise ValueError(f"{name}:{line}: this is no value; put it in quotes") from None
