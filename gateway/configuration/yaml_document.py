"""A YAML file as plain values that know where they stand, and the problems found in it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

KeyPath: TypeAlias = tuple[Any, ...]
"""Where a value stands: keys of mappings and indexes in lists."""

_MAX_REPEATS = 10_000
"""How many values aliases may repeat: a few nested ones can stand for billions."""

_MAX_DEPTH = 50

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; both numbers count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file, and what would be right.

    `line` and `column` are 0 where the problem has no place. `path` leads to the value, such as
    `listen[0].address`; it is empty where the whole file is meant.
    """

    file: Path
    line: int
    path: str
    message: str
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        text = f"{self.path}: {self.message}" if self.path else self.message
        if not text.isprintable():
            # What was set is quoted: it must not end the line, nor lead a terminal.
            text = "".join([one if one.isprintable() else repr(one)[1:-1] for one in text])
        return f"{place}: {text}"


class ConfigError(Exception):
    """A file cannot be used. `problems` holds everything that is wrong, in the file's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(
            dict.fromkeys(problems), key=lambda problem: (problem.file, problem.line)
        )
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def dotted(path: Sequence[object]) -> str:
    """Writes a path as people read it: `plugins[2].footer.text`."""
    text = ""
    for step in path:
        if isinstance(step, int) and not isinstance(step, bool):
            text += f"[{step}]"
        elif str(step).replace("_", "").replace("-", "").isalnum():
            text += f".{step}" if text else str(step)
        else:
            text += f'["{step}"]'
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """The values of a YAML file and the place of each.

    Attributes:
        file: the file's name, for problems.
        data: dicts, lists and scalars; left out of the repr, as it may hold secrets.
        marks: where the value of each path stands.
        keys: where the key of each path stands, for those in mappings.
    """

    file: Path
    data: Any = field(repr=False)
    marks: dict[KeyPath, Mark] = field(default_factory=dict, repr=False)
    keys: dict[KeyPath, Mark] = field(default_factory=dict, repr=False)

    def mark(self, path: KeyPath, *, key: bool = False) -> Mark:
        """Finds where a path stands, or what holds it if there is nothing at the path itself.

        A mapping or a list under a key is found at its key.
        """
        while path:
            if key and path in self.keys:
                return self.keys[path]
            if path in self.marks:
                return self.marks[path]
            path, key = path[:-1], True
        return self.marks.get((), Mark(0, 0))

    def problem(self, path: KeyPath, message: str, *, key: bool = False) -> Problem:
        """Makes the problem of the value at a path, or of its key."""
        mark = self.mark(path, key=key)
        return Problem(self.file, mark.line, dotted(path), message, mark.column)


def read(file: Path) -> str:
    """Reads a text file in UTF-8.

    Raises:
        ConfigError: the file is missing, cannot be read or is not UTF-8.
    """
    try:
        return decode(file, file.read_bytes())
    except FileNotFoundError:
        raise ConfigError([Problem(file, 0, "", "no such file")]) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError([Problem(file, 0, "", f"cannot be read: {reason}")]) from None


def decode(file: Path, content: bytes) -> str:
    """Turns a file's octets into text.

    Raises:
        ConfigError: they are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        octet = content[error.start]
        message = f"not UTF-8: octet 0x{octet:02x} in column {column}; save the file as UTF-8"
        raise ConfigError([Problem(file, before.count(b"\n") + 1, "", message, column)]) from None


def parse(file: Path, text: str) -> YamlDocument:
    """Reads YAML of one document, whose top level must be a mapping.

    Raises:
        ConfigError: the YAML is wrong, a key is there twice, or the top level is no mapping.
    """
    composer = _Composer(file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            composer.visit(root, (), ())
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(file, error)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"character U+{ord(text[error.position]):04X} is not allowed in YAML"
        raise ConfigError([Problem(file, line, "", message)]) from None
    except RecursionError:
        raise ConfigError([Problem(file, 0, "", "nested too deeply")]) from None
    if root is None:
        raise ConfigError(
            [
                Problem(
                    file,
                    1,
                    "",
                    "the file is empty; expected keys and values, for example `key: value`",
                )
            ]
        )
    if composer.problems:
        raise ConfigError(composer.problems)
    if not isinstance(root, yaml.MappingNode):
        message = "the top level must be a mapping: lines such as `key: value`"
        raise ConfigError([Problem(file, root.start_mark.line + 1, "", message)])
    return YamlDocument(file, composer.data, composer.marks, composer.keys)


_UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")
"""What YAML's escapes can make, and no file name, reply or message can carry."""

_HINTS = (
    ("\\t", "a tab; YAML wants spaces"),
    ("undefined alias", "a value that starts with * must be in quotes (or the &anchor is missing)"),
    ("scanning an alias", "a value that starts with * must be in quotes"),
    ("scanning an anchor", "a value that starts with & must be in quotes"),
    ("duplicate anchor", "the same &anchor twice; a value that starts with & must be in quotes"),
    ("expected a single document", "`---` starts a second document; only one is allowed"),
    (
        "mapping values are not allowed",
        "a colon where none may be; check the indentation, and put a value with `: ` in quotes",
    ),
    ("could not find expected ':'", "a key without a colon; write `key: value`"),
    ("cannot start any token", "a value that starts with @, ` or % must be in quotes"),
    ("quoted scalar", "a quotation mark is not closed"),
    (
        "expected <block end>",
        "check the indentation; a value such as [::1]:25 must be in quotes as a whole",
    ),
    ("expected the node content", "a value is missing, or starts with a colon or comma: quote it"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
)


def _syntax_problem(file: Path, error: yaml.MarkedYAMLError) -> Problem:
    """Says what is wrong in our words: PyYAML's may quote the text, and that may be a secret."""
    mark = error.problem_mark or error.context_mark
    said = f"{error.context or ''} {error.problem or ''}"
    hint = next((hint for words, hint in _HINTS if words in said), "the YAML is wrong here")
    if mark is None:
        return Problem(file, 0, "", hint)
    return Problem(
        file, mark.line + 1, "", f"YAML syntax, column {mark.column + 1}: {hint}", mark.column + 1
    )


class _Composer:
    """Turns nodes into values, and keeps the place of each."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.data: Any = None
        self.marks: dict[KeyPath, Mark] = {}
        self.keys: dict[KeyPath, Mark] = {}
        self.problems: list[Problem] = []
        self._scalars = yaml.constructor.SafeConstructor()
        self._seen: set[int] = set()
        self._repeats = 0

    def visit(self, root: yaml.Node, path: KeyPath, parents: tuple[int, ...]) -> None:
        self.data = self._value(root, path, parents)

    def _complain(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        mark = node.start_mark
        self.problems.append(
            Problem(self.file, mark.line + 1, dotted(path), message, mark.column + 1)
        )

    def _value(self, node: yaml.Node, path: KeyPath, parents: tuple[int, ...]) -> Any:
        mark = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.ScalarNode) or path not in self.keys:
            self.marks.setdefault(path, mark)
        else:
            self.marks.setdefault(path, self.keys[path])
        if id(node) in parents:
            self._complain(node, path, "an alias inside of what it stands for")
            return None
        if len(parents) > _MAX_DEPTH:
            self._complain(node, path, f"nested more than {_MAX_DEPTH} levels deep")
            return None
        if id(node) in self._seen and self._too_many(node, path):
            return None
        self._seen.add(id(node))
        inside = (*parents, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self._value(item, (*path, i), inside) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._complain(
            node,
            path,
            "this !tag is not allowed here; a value that starts with ! must be in quotes",
        )
        return None

    def _too_many(self, node: yaml.Node, path: KeyPath) -> bool:
        """Counts a value that an alias repeats; complains once."""
        self._repeats += 1
        if self._repeats == _MAX_REPEATS + 1:
            self._complain(node, path, f"aliases repeat more than {_MAX_REPEATS} values")
        return self._repeats > _MAX_REPEATS

    def _mapping(
        self, node: yaml.MappingNode, path: KeyPath, parents: tuple[int, ...]
    ) -> dict[Hashable, Any]:
        values: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(
                    key_node,
                    path,
                    "a key must be plain text; one that starts with [, { or ? must be in quotes",
                )
                continue
            key = self._scalar(key_node, path)
            below = (*path, key)
            if key in values:
                first = self.keys[below].line
                self._complain(key_node, below, f"duplicate key; first on line {first}")
                continue
            values[key] = self._entry(key_node, value_node, below, parents)
        for key_node, value_node in self._merged(node, path, parents):
            key = self._scalar(key_node, path)
            if key not in values:
                values[key] = self._entry(key_node, value_node, (*path, key), parents)
        return values

    def _entry(
        self, key: yaml.Node, value: yaml.Node, path: KeyPath, parents: tuple[int, ...]
    ) -> Any:
        self.keys[path] = Mark(key.start_mark.line + 1, key.start_mark.column + 1)
        return self._value(value, path, parents)

    def _merged(
        self, node: yaml.MappingNode, path: KeyPath, parents: tuple[int, ...]
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """The entries that `<<: *anchor` brings in; of the same key the first is to be taken."""
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            many = isinstance(value_node, yaml.SequenceNode)
            for source in value_node.value if many else [value_node]:
                if not isinstance(source, yaml.MappingNode) or id(source) in parents:
                    self._complain(source, path, "`<<` takes a mapping: `<<: *anchor`")
                    continue
                if self._too_many(source, path):
                    return
                for inner_key, inner_value in source.value:
                    if isinstance(inner_key, yaml.ScalarNode) and inner_key.tag != _MERGE:
                        yield inner_key, inner_value
                yield from self._merged(source, path, (*parents, id(source)))

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = self._scalars.construct_object(node)
            if isinstance(value, str) and _UNUSABLE.search(value):
                self._complain(node, path, "NUL, or half of a character (\\uD800 to \\uDFFF)")
                return None
            return value
        except yaml.YAMLError:
            self._complain(
                node,
                path,
                "this !tag is not allowed here; a value that starts with ! must be in quotes",
            )
        except (ValueError, KeyError, IndexError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            self._complain(node, path, f"looks like a YAML {kind}, but is none; put it in quotes")
        return None
