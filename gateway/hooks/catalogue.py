"""The plugins that a site can use, with what their packages and classes say about them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from gateway.hooks import spec
from gateway.hooks.load import complaints, model_of
from gateway.hooks.plugin import Plugin
from gateway.hooks.reference import PluginClasses, PluginError, hooks_of

_HOME_PAGES = ("homepage", "home page", "home", "documentation", "docs", "repository", "source")
"""The labels of pages in a package's metadata, the best first."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The package that a plugin came with. What its metadata does not say is ''."""

    name: str
    version: str
    home_page: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A plugin that gateway.yaml can name by `reference`, or could if nothing was wrong with it.

    Attributes:
        reference: the name or the path that stands in gateway.yaml.
        place: where its class is, such as `plugins.dkim:Dkim` or the path of a file.
        distribution: its package; None for a site's own file.
        plugin_class: its class; None if it cannot be imported.
        problem: why it cannot be used, in one line; '' if it can.
    """

    reference: str
    place: str
    distribution: Distribution | None
    plugin_class: type[Plugin[Any]] | None
    problem: str = ""

    @property
    def description(self) -> str:
        """What the class says about itself; '' if it says nothing."""
        return inspect.cleandoc((self.plugin_class and self.plugin_class.__doc__) or "")

    @property
    def summary(self) -> str:
        """The first paragraph of the description, on one line."""
        return summary_of(self.description)

    @property
    def hooks(self) -> list[str]:
        """The hooks that it has, in the order in which a message meets them."""
        marked = hooks_of(self.plugin_class) if self.plugin_class is not None else ()
        return [name for name in spec.STAGES if name in marked]

    def hook_summary(self, hook: str) -> str:
        """What one of its hooks does: as its docstring says, or else as the hook itself says."""
        own = inspect.cleandoc(getattr(self.plugin_class, hook).__doc__ or "")
        return summary_of(own or inspect.getdoc(getattr(spec, hook)) or "")


def summary_of(text: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(text.partition("\n\n")[0].split())


def offers(base: Path, references: Iterable[str] = ()) -> list[Offer]:
    """What is installed, by name, and then what else is referred to.

    Args:
        base: the folder that paths of files start from.
        references: names and paths as in gateway.yaml.
    """
    classes = PluginClasses(base)
    names = sorted(classes.installed)
    others = [one for one in dict.fromkeys(references) if one not in classes.installed]
    return [offer(classes, name) for name in (*names, *others)]


def offer(classes: PluginClasses, reference: str) -> Offer:
    """The plugin that a reference stands for. What is wrong with it stands in `problem`."""
    point = classes.installed.get(reference)
    place = point.value if point is not None else reference
    distribution = _distribution(point) if point is not None else None
    try:
        plugin_class = classes.find(reference)
    except PluginError as error:
        return Offer(reference, place, distribution, None, str(error))
    if point is None:
        place = f"{reference.partition('.py:')[0].removesuffix('.py')}.py:{plugin_class.__name__}"
    problem = next(_problems(plugin_class), "")
    return Offer(reference, place, distribution, plugin_class, problem)


def _problems(plugin_class: type[Plugin[Any]]) -> Iterator[str]:
    try:
        model_of(plugin_class)
    except PluginError as error:
        yield str(error)
    yield from complaints(plugin_class)


def _distribution(point: EntryPoint) -> Distribution | None:
    if point.dist is None:
        return None
    metadata = point.dist.metadata
    pages = dict(_pages(metadata.get_all("Project-URL") or []))
    stated = metadata.get_all("Home-page") or [
        pages[label] for label in _HOME_PAGES if label in pages
    ]
    return Distribution(metadata["Name"], metadata["Version"], next(iter(stated), ""))


def _pages(urls: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The pages of a distribution by their labels in lower case."""
    for url in urls:
        match = re.fullmatch(r"\s*([^,]+?)\s*,\s*(\S+)\s*", url)
        if match:
            yield match[1].lower(), match[2]
