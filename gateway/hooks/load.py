"""From the entries of gateway.yaml to checked plugin instances.

What is wrong with a plugin is found here, before any mail: a hook that would never be called
would let mail out unfiltered.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, SecretStr

from gateway.configuration.config import Config
from gateway.configuration.entry import RESERVED, PluginEntry
from gateway.configuration.validation import check, key_names, nearest
from gateway.configuration.yaml_document import ConfigError, Problem
from gateway.hooks import spec
from gateway.hooks.condition import Condition, Streams
from gateway.hooks.plugin import Plugin
from gateway.hooks.reference import PluginClasses, PluginError, described, hooks_of, methods
from gateway.hooks.thread_pool import ThreadPool

_KNOWN_AT = {
    "connect": frozenset({"client"}),
    "helo": frozenset({"client"}),
    "auth": frozenset({"client"}),
    "mail": frozenset({"client", "user", "sender", "stream"}),
    "claim": frozenset({"client", "user", "sender", "stream", "recipient"}),
    "rcpt": frozenset({"client", "user", "sender", "stream", "recipient"}),
}
"""What a condition may ask for at the stages before the final dot."""


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin, checked and ready.

    `hooks` are its bound methods by hook, `is_async` tells which are coroutine functions. `pool`
    has the threads in which those of a blocking plugin run; None: they run on the event loop.
    """

    entry: PluginEntry
    instance: Plugin[Any]
    condition: Condition | None
    hooks: Mapping[str, Callable[..., Any]]
    is_async: Mapping[str, bool]
    pool: ThreadPool | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.instance.blocking:
            pool = ThreadPool(f"plugin {self.entry.name}", self.instance.threads)
            object.__setattr__(self, "pool", pool)


def load_plugins(config: Config) -> list[LoadedPlugin]:
    """Makes an instance of each plugin in gateway.yaml, in its order.

    Raises:
        ConfigError: with everything that is wrong in all of them.
    """
    manager = pluggy.PluginManager(spec.PROJECT)
    manager.add_hookspecs(spec)
    streams = Streams(config.streams)
    classes = PluginClasses(config.base)
    plugins: list[LoadedPlugin] = []
    problems: list[Problem] = []
    for entry in config.plugins:
        try:
            plugins.append(_load(entry, config, streams, classes, manager))
        except ConfigError as error:
            problems += error.problems
        except PluginError as refused:
            problems.append(config.document.problem(entry.path, str(refused), key=True))
    if problems:
        raise ConfigError(problems)
    return plugins


def installed_models() -> dict[str, type[BaseModel]]:
    """The configuration models of the installed plugins that can be used, by name."""
    classes = PluginClasses(Path())
    models = {}
    for name in classes.installed:
        try:
            models[name] = model_of(classes.find(name))
        except PluginError:
            continue
    return models


def _load(
    entry: PluginEntry,
    config: Config,
    streams: Streams,
    classes: PluginClasses,
    manager: pluggy.PluginManager,
) -> LoadedPlugin:
    plugin_class = classes.find(entry.reference)
    model = model_of(plugin_class)
    problems = [
        config.document.problem(entry.path, complaint, key=True)
        for complaint in complaints(plugin_class)
    ]
    names = list(hooks_of(plugin_class))
    condition = Condition(entry.when, streams) if entry.when is not None else None
    if condition is not None:
        problems += _unknown_too_early(entry, config, condition, names)
    settings: BaseModel | None = None
    try:
        settings = check(
            model, config.document, dict(entry.settings), entry.path, {"base": config.base}
        )
    except ConfigError as error:
        problems += error.problems
    except Exception as error:
        # A validator that raises something else than ValueError.
        raise PluginError(f"its settings cannot be checked: {described(error)}") from None
    if problems or settings is None:
        raise ConfigError(problems)
    try:
        instance = plugin_class(settings)
    except Exception as error:
        text = described(error, _source(plugin_class))
        for secret in _secrets(settings):
            text = text.replace(secret, "**********")
        raise PluginError(f"cannot be made: {text}") from None
    for name, value in vars(instance).items():
        if name in names or (name in spec.STAGES and callable(value)):
            raise PluginError(f"the attribute self.{name} is named like a hook; rename it")
    try:
        manager.register(instance, entry.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(" ".join(str(error).split())) from None
    unknown = [name for name in instance.unused if name not in names]
    if unknown:
        raise PluginError(f"unused names {unknown[0]}, and it has no such hook")
    used = [name for name in spec.STAGES if name in names and name not in instance.unused]
    hooks = {name: getattr(instance, name) for name in used}
    return LoadedPlugin(
        entry,
        instance,
        condition,
        hooks,
        {name: inspect.iscoroutinefunction(hook) for name, hook in hooks.items()},
    )


def _secrets(value: Any) -> Iterator[str]:
    """The secrets in a configuration, which an exception's text may repeat."""
    if isinstance(value, SecretStr) and value.get_secret_value():
        yield value.get_secret_value()
    elif isinstance(value, BaseModel | Mapping):
        for inner in (vars(value) if isinstance(value, BaseModel) else value).values():
            yield from _secrets(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _secrets(inner)


def _source(plugin_class: type) -> Path | None:
    module = sys.modules.get(plugin_class.__module__)
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def model_of(plugin_class: type[Plugin[Any]]) -> type[BaseModel]:
    """The configuration model of a plugin.

    Raises:
        PluginError: it names none, or one with a key that every entry has.
    """
    try:
        model = plugin_class.config_model()
    except TypeError as error:
        raise PluginError(str(error)) from None
    for key in RESERVED:
        if key in key_names(model):
            raise PluginError(
                f'{model.__name__} has a field "{key}", which the gateway keeps for itself '
                f"({', '.join(RESERVED)}); rename it"
            )
    return model


def _unknown_too_early(
    entry: PluginEntry, config: Config, condition: Condition, names: list[str]
) -> Iterator[Problem]:
    assert entry.when is not None
    for name in names:
        missing = condition.needs - _KNOWN_AT.get(name, condition.needs)
        if not missing:
            continue
        keys = [
            key for key in entry.when.model_fields_set if key.removesuffix("_domain") in missing
        ]
        key = min(keys, default="stream")
        what = ", ".join(sorted(missing))
        message = (
            f"the plugin has the hook {name}, which runs before this is known ({what}); "
            f"known there: {', '.join(sorted(_KNOWN_AT[name]))}"
        )
        yield config.document.problem((*entry.path, "when", key), message, key=True)
        return


# Hooks: are they what the chain will call?


def complaints(plugin_class: type[Plugin[Any]]) -> Iterator[str]:
    """Says what is wrong with the hooks of a plugin's class."""
    marked = hooks_of(plugin_class)
    known = list(spec.STAGES)
    if not any(hasattr(plugin_class, name) for name in [*known, *marked]):
        names = ", ".join(known)
        yield f"{plugin_class.__name__} has no hooks; mark its methods with @hookimpl: {names}"
    threads: Any = plugin_class.threads
    if not isinstance(threads, int) or threads < 1:
        yield f"{plugin_class.__name__} says threads = {threads!r}; expected: a number from 1"
    if "claim" in marked and "receive" not in marked:
        yield f"{plugin_class.__name__} claims mail, and has no hook receive that takes it"
    for name in known:
        if name not in marked and hasattr(plugin_class, name):
            where = _where(inspect.getattr_static(plugin_class, name))
            yield f"{where}{name} is named like a hook, but has no @hookimpl"
    for name, raw, function in methods(plugin_class):
        where = _where(function)
        if name not in marked:
            continue
        if name not in spec.STAGES:
            hint = nearest(name, known) or f"hooks are {', '.join(known)}"
            yield f'{where}there is no hook "{name}"; {hint}'
            continue
        options = [option for option, value in marked[name].items() if value]
        if options:
            yield (
                f"{where}@hookimpl({options[0]}=...) of {name}: hooks take no options, and "
                "the order is the order in gateway.yaml"
            )
        yield from (f"{where}{complaint}" for complaint in _signature(name, raw, function))
        if plugin_class.blocking:
            yield from (f"{where}{complaint}" for complaint in _in_threads(name, function))


def _signature(name: str, raw: Any, function: Callable[..., Any]) -> Iterator[str]:
    subject = list(inspect.signature(getattr(spec, name)).parameters)
    parameters = list(inspect.signature(function).parameters.values())
    if not isinstance(raw, staticmethod):
        parameters = parameters[1:]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if [p.name for p in parameters] != subject or any(p.kind not in plain for p in parameters):
        given = ", ".join(["self", *map(str, inspect.signature(function).parameters)][:9])
        given = given.replace("self, self", "self")
        yield f"wrong arguments ({given}); expected: def {name}({', '.join(['self', *subject])})"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        yield f"{name} must not yield; it returns its answer"
    elif inspect.iscoroutinefunction(function) and not spec.STAGES[name].may_be_async:
        yield f"{name} must not be async; expected: def {name}({', '.join(['self', *subject])})"


def _in_threads(name: str, function: Callable[..., Any]) -> Iterator[str]:
    if name in ("claim", "source", "admit", "reply"):
        yield (
            f"{name} runs on the event loop, where nothing may block, and the plugin says "
            f"blocking = True; put {name} into a plugin of its own, without it"
        )
    elif inspect.iscoroutinefunction(function):
        yield (
            f"{name} must not be async: the plugin says blocking = True, and its hooks run in "
            f"threads; write def {name}, or leave out blocking"
        )


def _where(function: Any) -> str:
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}: " if code is not None else ""
