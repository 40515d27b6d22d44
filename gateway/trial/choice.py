"""Which plugins a trial has: those of a configuration, or those that are named for it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent

from gateway.configuration.config import Config, ConfigError, load_config
from gateway.configuration.yaml_document import Problem, parse, read
from gateway.hooks.load import LoadedPlugin, load_plugins

_BARE = "hostname: gw.example.com\nlisten: [{address: '127.0.0.1:25'}]\nplugins:\n"


@dataclass(frozen=True, slots=True)
class Named:
    """A plugin that is named for a trial.

    `reference` is as in gateway.yaml; `settings` is YAML, or `@` and the name of a file of it;
    None: as the site has it, or none.
    """

    reference: str
    settings: str | None = None

    @classmethod
    def parse(cls, text: str) -> Named:
        """Reads `footer`, `./footer.py:Footer`, `footer={text: Hi}` or `footer=@footer.yaml`.

        Raises:
            ValueError: there is no name.
        """
        reference, equals, settings = text.partition("=")
        if not reference.strip():
            raise ValueError(f"{text!r}: expected PLUGIN or PLUGIN=CONFIG")
        return cls(reference.strip(), settings if equals else None)


def chosen(path: Path | None, named: Sequence[Named]) -> tuple[Config, list[LoadedPlugin]]:
    """The configuration of a trial, and its plugins in their order.

    Args:
        path: gateway.yaml; None: a configuration that has nothing but the plugins.
        named: the plugins; without any, all of the configuration. One without settings that
            gateway.yaml has is as it is there.

    Raises:
        ConfigError: with everything that is wrong.
    """
    site = None if path is None else load_config(path)
    if not named:
        assert site is not None, "either a configuration or plugins"
        return site, load_plugins(site)
    of_site: list[LoadedPlugin | None] = []
    for one in named:
        entries = [] if site is None or one.settings is not None else site.plugins
        known = [entry for entry in entries if one.reference in (entry.name, entry.reference)]
        only = None
        if site is not None and known:
            (only,) = load_plugins(site.model_copy(update={"plugins": (known[0],)}))
        of_site.append(only)
    rest = [one for one, known in zip(named, of_site, strict=True) if known is None]
    bare, plugins = _bare(rest, Path() if site is None else site.base)
    new = iter(plugins)
    return site or bare, [next(new) if known is None else known for known in of_site]


def _bare(named: Sequence[Named], base: Path) -> tuple[Config, list[LoadedPlugin]]:
    """A configuration with these plugins, and them; paths in it start from `base`."""
    text = _BARE
    places: list[tuple[int, Path]] = []
    for one in named:
        places.append((text.count("\n") + 1, _place(one)))
        text += f"  - {json.dumps(one.reference)}:\n"
        if one.settings is not None:
            text += indent(_settings(one), "      ")
    try:
        config = load_config(base / "gateway.yaml", text if named else f"{text}  []\n")
        return config, load_plugins(config)
    except ConfigError as error:
        raise ConfigError([_placed(problem, places) for problem in error.problems]) from None


def _placed(problem: Problem, places: Sequence[tuple[int, Path]]) -> Problem:
    """A problem, in the lines of the settings that it is in."""
    before = [(first, place) for first, place in places if first <= problem.line]
    if not before:
        return problem
    first, place = before[-1]
    path = re.sub(r'^plugins\[\d+\](?:\["[^"]*"\]|\.[\w-]+)\.?', "", problem.path)
    return replace(problem, file=place, line=problem.line - first, path=path)


def _place(named: Named) -> Path:
    """Where settings stand, for problems."""
    if named.settings is not None and named.settings.startswith("@"):
        return Path(named.settings[1:])
    return Path(f"-p {named.reference}")


def _settings(named: Named) -> str:
    """YAML that was checked by itself, so that what is wrong is found in its own lines."""
    assert named.settings is not None
    place, text = _place(named), named.settings
    if text.startswith("@"):
        text = read(place)
    if not text.strip():
        raise ConfigError([Problem(place, 0, "", "expected settings, for example {key: value}")])
    parse(place, text)
    return text if text.endswith("\n") else f"{text}\n"
