"""The public plugin API as text: every name, its kind, its signatures and attributes.

`python -m tests.hooks.api_listing` writes it into public_api.txt.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from gateway import hooks, testing
from gateway.hooks import spec

FILE = Path(__file__).with_name("public_api.txt")

_SPECIAL = {
    *("__init__", "__call__", "__enter__", "__aenter__", "__iter__", "__aiter__", "__len__"),
    *("__contains__", "__getitem__", "__setitem__", "__bool__", "__str__", "__or__"),
}


def listing() -> str:
    """The whole API, one line for each thing in it."""
    lines = [f"API {hooks.API_VERSION}"]
    for module in (hooks, testing):
        for name in sorted(module.__all__):
            lines += ["", *_described(f"{module.__name__}.{name}", getattr(module, name))]
    lines += ["", "hooks"]
    for name, stage in spec.STAGES.items():
        answers = ", ".join(one.__name__ for one in stage.answers)
        kind = "plain or async" if stage.may_be_async else "plain"
        lines.append(f"    {name}{_signature(getattr(spec, name))}; {kind}; answers: {answers}")
    return "\n".join(lines) + "\n"


def difference(recorded: str, now: str) -> str:
    """What differs between two listings, as lines with + and -; '' if nothing does."""
    lines = difflib.unified_diff(recorded.splitlines(), now.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if re.match(r"[+-](?!--|\+\+)", line))


def _described(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, type):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"{path}: class({bases})"
        yield from (f"    {line}" for line in sorted(_members(value)))
    elif inspect.isroutine(value):
        yield f"{path}: {_kind(value)}{_signature(value)}"
    elif isinstance(value, str | int | float):
        yield f"{path}: {type(value).__name__}"
    else:
        yield f"{path}: {type(value).__name__.lstrip('_')}"


def _members(one: type) -> Iterator[str]:
    """What a class has, as far as classes of ours define it."""
    if issubclass(one, enum.Enum):
        for member in one:
            yield f"{member.name} = {member.value!r}"
    seen: set[str] = set()
    for owner in one.__mro__:
        if not owner.__module__.startswith("gateway"):
            continue
        for name, annotation in inspect.get_annotations(owner).items():
            if name not in seen and not name.startswith("_"):
                yield f"{name}: {_annotation(annotation)}{_given(one, name)}"
            seen.add(name)
        for name, member in vars(owner).items():
            wanted = not name.startswith("_") or (
                name in _SPECIAL and not dataclasses.is_dataclass(owner)
            )
            if name in seen or not wanted:
                continue
            seen.add(name)
            if isinstance(member, property | cached_property):
                getter = member.fget if isinstance(member, property) else member.func
                assert getter is not None
                can_be_set = isinstance(member, property) and member.fset is not None
                result = inspect.signature(getter).return_annotation
                end = " (can be set)" if can_be_set else ""
                yield f"{name}: {_annotation(result)}, property{end}"
                continue
            function = getattr(member, "__func__", member)
            # What the standard library puts in differs from version to version.
            ours = str(getattr(function, "__module__", "")).startswith("gateway")
            if inspect.isroutine(function) and ours:
                how = f"{type(member).__name__} " if function is not member else ""
                yield f"{how}{_kind(function)}{name}{_signature(function)}"


def _given(one: type, name: str) -> str:
    """The default of an attribute, as the class has it."""
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            if field.name == name and field.default_factory is not dataclasses.MISSING:
                return " = ..."
            if field.name == name and field.default is not dataclasses.MISSING:
                return f" = {_value(field.default)}"
        return ""
    default = vars(one).get(name, inspect.Parameter.empty)
    return "" if default is inspect.Parameter.empty else f" = {_value(default)}"


def _kind(function: Callable[..., Any]) -> str:
    return "async " if inspect.iscoroutinefunction(function) else ""


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    parts = []
    marked = False
    for parameter in signature.parameters.values():
        text = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            text, marked = f"*{text}", True
        elif parameter.kind is parameter.VAR_KEYWORD:
            text = f"**{text}"
        elif parameter.kind is parameter.KEYWORD_ONLY and not marked:
            parts.append("*")
            marked = True
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {_value(parameter.default)}"
        parts.append(text)
    result = signature.return_annotation
    end = "" if result is signature.empty else f" -> {_annotation(result)}"
    return f"({', '.join(parts)}){end}"


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return " ".join(text.split())


def _value(value: Any) -> str:
    """A default; objects whose text says where they are in memory are dots."""
    text = repr(value)
    return "..." if " at 0x" in text or "\n" in text else text


if __name__ == "__main__":
    FILE.write_text(listing())
