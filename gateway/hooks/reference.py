"""Plugin classes by their reference in gateway.yaml: those of packages and a site's own files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway import hooks
from gateway.configuration.validation import nearest
from gateway.hooks import spec
from gateway.hooks.api import API_VERSION, api_complaint
from gateway.hooks.plugin import Plugin

GROUP = "gateway.plugins"
"""The entry-point group under which packages offer plugins."""

_API = ("gateway.hooks", "gateway.testing")
"""The packages that plugins are written against."""


class PluginError(Exception):
    """A plugin cannot be used. The text says why and what would be right."""


def methods(plugin_class: type) -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """Each method of a class: its name, as it stands in the class, and the function itself."""
    for name in dir(plugin_class):
        raw = inspect.getattr_static(plugin_class, name)
        function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
        if inspect.isroutine(function) and not name.startswith("__"):
            yield name, raw, function


def hooks_of(plugin_class: type) -> dict[str, dict[str, Any]]:
    """The methods of a class that are marked with `@hookimpl`, with the marker's options."""
    marked = {}
    for name, _, function in methods(plugin_class):
        options = getattr(function, f"{spec.PROJECT}_impl", None)
        if isinstance(options, dict):
            marked[name] = options
    return marked


class PluginClasses:
    """Finds the plugin class that a reference in gateway.yaml means."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.installed: dict[str, EntryPoint] = {}
        self._twice: set[str] = set()
        self._modules: dict[Path, ModuleType] = {}
        for point in importlib.metadata.entry_points(group=GROUP):
            if self.installed.setdefault(point.name, point).value != point.value:
                self._twice.add(point.name)

    def find(self, reference: str) -> type[Plugin[Any]]:
        """Imports what a name or a path stands for.

        Raises:
            PluginError: there is no such plugin, it cannot be imported, or it is none.
        """
        match = re.fullmatch(r"(.+\.py)(?::(\w+))?", reference)
        if match:
            return self._in_file(self.base / match[1], match[2])
        point = self.installed.get(reference)
        if point is None:
            raise PluginError(self._unknown(reference))
        if reference in self._twice:
            offers = importlib.metadata.entry_points(group=GROUP, name=reference)
            values = ", ".join(sorted({point.value for point in offers}))
            raise PluginError(f"several installed packages offer it ({values}); remove all but one")
        try:
            found = point.load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"cannot be imported ({point.value}): {described(error)}") from None
        return _checked(found, point.value)

    def _unknown(self, reference: str) -> str:
        if "/" in reference or (self.base / f"{reference}.py").exists():
            return f"a path ends in .py, for example ./{reference.removeprefix('./')}.py"
        names = sorted(self.installed)
        hint = nearest(reference, names)
        return "; ".join(
            filter(
                None,
                (
                    "no such plugin",
                    hint,
                    f"installed are {', '.join(names) or 'none'}",
                    "others come as Python packages, or as a file: ./name.py",
                ),
            )
        )

    def _in_file(self, path: Path, name: str | None) -> type[Plugin[Any]]:
        module = self._modules.get(path)
        if module is None:
            module = self._modules[path] = _import(path)
        if name is not None:
            if not hasattr(module, name):
                raise PluginError(f"{path} has no class {name}; {self._hint(module, name)}")
            return _checked(getattr(module, name), f"{path}:{name}")
        found = _plugins_in(module)
        if len(found) == 1:
            return _checked(found[0], str(path))
        if found:
            names = " or ".join(f"{path.name}:{one.__name__}" for one in found)
            raise PluginError(f"{path} has several plugins; name one: {names}")
        for other in vars(module).values():
            if isinstance(other, type) and hooks_of(other) and other.__module__ == module.__name__:
                return _checked(other, str(path))
        raise PluginError(f"{path} has no plugin; expected: class Name(Plugin[Config])")

    @staticmethod
    def _hint(module: ModuleType, name: str) -> str:
        names = [found.__name__ for found in _plugins_in(module)]
        return nearest(name, names) or f"its plugins are {', '.join(names) or 'none'}"


def _plugins_in(module: ModuleType) -> list[type[Plugin[Any]]]:
    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Plugin)
        and value.__module__ == module.__name__
        and value.__name__ == name
    ]


def _checked(found: Any, place: str) -> type[Plugin[Any]]:
    if not isinstance(found, type):
        raise PluginError(f"{place} is no class; expected: class Name(Plugin[Config])")
    if not issubclass(found, Plugin) or found is Plugin:
        raise PluginError(
            f"{place} is no plugin; expected: class {found.__name__}(Plugin[Config]), "
            "with Plugin from gateway.hooks"
        )
    # Before its hooks are looked at: those of a newer version are not known here.
    complaint = api_complaint(found.api)
    if complaint:
        raise PluginError(complaint)
    return found


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"no such file: {path}")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    name = f"_gateway_site_{digest}_{path.stem}"
    loader = SourceFileLoader(name, str(path))
    module = ModuleType(name)
    module.__file__ = str(path)
    # pydantic and dataclasses look a class's module up by its name.
    sys.modules[name] = module
    try:
        # Without bytecode: an edit is never missed, and the folder need not be writable.
        code = loader.source_to_code(loader.get_data(str(path)), str(path))
        exec(code, vars(module))  # noqa: S102 - running the site's plugin is the purpose
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"cannot be imported: {described(error, path)}") from None
    return module


def described(error: BaseException, file: Path | None = None) -> str:
    """Says what was raised and where: the last line in the plugin's file, if it is there."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    text += _missing_in_api(error)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename != __file__
    ]
    inside = [frame for frame in frames if file is not None and frame.filename == str(file)]
    last = (inside or frames)[-1:]
    return f"{last[0].filename}:{last[0].lineno}: {text}" if last else text


def _missing_in_api(error: BaseException) -> str:
    """What to do where a plugin asks the API for what it has not; '' for any other error."""
    if isinstance(error, AttributeError):
        module = getattr(error.obj, "__name__", "") if isinstance(error.obj, ModuleType) else ""
        missing = str(error.name)
    elif isinstance(error, ImportError):
        module = error.name or ""
        match = re.match(r"cannot import name '(\w+)'", str(error))
        missing = match[1] if match else ""
    else:
        return ""
    if not f"{module}.".startswith(tuple(f"{name}." for name in _API)):
        return ""
    hint = nearest(missing, hooks.__all__) if module == hooks.__name__ else ""
    older = f"this gateway has plugin API {API_VERSION}, and may be too old for the plugin"
    return f"; {hint} Or else {older}" if hint else f"; {older}"
