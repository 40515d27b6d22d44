"""A module of the template, cut down to what some hooks need."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from gateway.hooks.spec import STAGES

_WIDTH = 100

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def cut(
    source: str, hooks: Collection[str], modules: Mapping[str, str], own: Collection[str] = ()
) -> str:
    """The source of a module with some of its hooks, or with the tests of some.

    What only the others needed goes as well: functions, methods, fields of the configuration,
    header fields in `changes`, imports.

    Args:
        source: the module of the template.
        hooks: the names of those that stay.
        modules: modules that are imported under another name in the new source.
        own: the modules, by their new names, that belong to the new package itself.
    """
    tree = ast.parse(source)
    docstring, *body = tree.body
    statements = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    kept = _needed(statements, hooks)
    pieces = [_Piece(source, node, kept) for node in statements if id(node) in kept]
    texts = [piece.text for piece in pieces]
    names = {name for text in texts for name in _names(ast.parse(text))}
    imports = _imports(body, names, modules, own)
    head = f"{ast.get_source_segment(source, docstring)}\n"
    blocks = [head, imports]
    for piece, text in zip(pieces, texts, strict=True):
        blocks.append(text if piece.is_simple else f"\n{text}")
    return "\n".join(block.rstrip("\n") + "\n" for block in blocks)


class _Piece:
    """A statement of the module as it will stand in the new one."""

    def __init__(self, source: str, node: ast.stmt, kept: Collection[int]) -> None:
        self.is_simple = not isinstance(node, _Definition)
        self.text = _segment(source, node)
        if isinstance(node, ast.ClassDef):
            inner = [one for one in node.body[1:] if id(one) in kept]
            methods = [_segment(source, one) for one in inner if not _is_attribute(one)]
            texts = {text for one in inner for text in _strings(one) if not _is_attribute(one)}
            attributes = [
                _with_changes(one, texts) or _segment(source, one)
                for one in inner
                if _is_attribute(one)
            ]
            lines = source.split("\n")[node.lineno - 1 : node.body[0].end_lineno]
            parts = ["\n".join(lines), *_joined(inner, attributes), *methods]
            self.text = "\n\n".join(part for part in parts if part)


def _joined(inner: Sequence[ast.stmt], attributes: Sequence[str]) -> list[str]:
    """Attributes of a class: plain ones together, those of a model's configuration apart."""
    annotated = any(isinstance(one, ast.AnnAssign) for one in inner)
    return list(attributes) if annotated else ["\n".join(attributes)]


def _needed(statements: Sequence[ast.stmt], hooks: Collection[str]) -> set[int]:
    """The ids of the nodes that the hooks need: statements, and those inside of classes."""
    nodes: dict[int, ast.stmt] = {}
    roots: list[ast.stmt] = []
    named: dict[str, list[int]] = {}
    for node in statements:
        nodes[id(node)] = node
        members = node.body if isinstance(node, ast.ClassDef) else []
        for inner in members:
            nodes[id(inner)] = inner
            if _is_root(inner, hooks, in_class=True):
                roots.append(inner)
            for name in _defined(inner):
                named.setdefault(name, []).append(id(inner))
        if _is_root(node, hooks, in_class=False):
            roots.append(node)
        for name in _defined(node):
            named.setdefault(name, []).append(id(node))
    kept: set[int] = set()
    waiting = roots
    while waiting:
        node = waiting.pop()
        if id(node) in kept:
            continue
        kept.add(id(node))
        # Of a class its parts are looked at one by one.
        looked_at: Iterable[ast.AST] = (
            [*node.bases, *node.decorator_list] if isinstance(node, ast.ClassDef) else [node]
        )
        for name in {name for one in looked_at for name in _names(one)}:
            waiting += [nodes[found] for found in named.get(name, ()) if not _is_hook(nodes[found])]
    return kept


def _is_root(node: ast.stmt, hooks: Collection[str], *, in_class: bool) -> bool:
    """Whether a statement stays by itself, and not because another needs it."""
    if isinstance(node, ast.ClassDef):
        return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if in_class:
            return _is_hook(node) and node.name in hooks
        test = re.match(r"test_([a-z]+)", node.name)
        return test is not None and (test[1] in hooks or test[1] not in STAGES)
    return in_class and isinstance(node, ast.Assign | ast.Expr)


def _is_hook(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
        ast.unparse(one) == "hookimpl" for one in node.decorator_list
    )


def _is_attribute(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, _Definition):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


def _names(tree: ast.AST) -> Iterator[str]:
    """Every name and attribute that is used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _with_changes(node: ast.stmt, texts: Collection[str]) -> str:
    """`changes` with the header fields that the hooks name; '' if it is something else."""
    if not isinstance(node, ast.Assign) or list(_defined(node)) != ["changes"]:
        return ""
    declared = [text for text in _strings(node.value) if text.removeprefix("header:") in texts]
    inner = ", ".join(f'"{text}"' for text in declared)
    return f"    changes = ({inner}{',' if len(declared) == 1 else ''})"


def _segment(source: str, node: ast.stmt) -> str:
    """The lines of a statement, with its decorators."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    return "\n".join(source.split("\n")[first - 1 : node.end_lineno])


# Imports, in the order that ruff has them.


def _imports(
    body: Iterable[ast.stmt],
    names: Collection[str],
    modules: Mapping[str, str],
    own: Collection[str],
) -> str:
    sections: dict[int, list[tuple[bool, str, str]]] = {}
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in names:
                    line = f"import {alias.name}"
                    _file(sections, alias.name, own).append((True, alias.name, line))
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            used = sorted((alias.name for alias in node.names if alias.name in names), key=_rank)
            if node.module == "__future__":
                used = [alias.name for alias in node.names]
            if used:
                module = modules.get(node.module, node.module)
                _file(sections, module, own).append((False, module, _line(module, used)))
    blocks = []
    for _, lines in sorted(sections.items()):
        ordered = sorted(lines, key=lambda line: (not line[0], line[1]))
        blocks.append("\n".join(text for _, _, text in ordered))
    return "\n\n".join(blocks) + "\n"


def _file(
    sections: dict[int, list[tuple[bool, str, str]]], module: str, own: Collection[str]
) -> list[tuple[bool, str, str]]:
    root = module.partition(".")[0]
    if root == "__future__":
        section = 0
    elif root in sys.stdlib_module_names:
        section = 1
    else:
        section = 3 if module in own else 2
    return sections.setdefault(section, [])


def _rank(name: str) -> tuple[int, str]:
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1 if name[0].isupper() else 2), name


def _line(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    inner = "".join(f"    {name},\n" for name in names)
    return f"from {module} import (\n{inner})"
