"""What a plugin's class says of itself: that it says so, and that it holds together."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import Any

from gateway.hooks.api import API_VERSION
from gateway.hooks.plugin import Plugin
from gateway.testing.conformance.examination import Examination

_WORD = re.compile(r"sender|recipients|stream|body|parts|header:(\*|[!-9;-~]+)|text/[!-~]+")


async def check(examination: Examination) -> str:
    """Looks at the docstring and the attributes that `Plugin` has."""
    plugin_class = examination.candidate.plugin_class
    instance = examination.site.instance().loaded.instance
    name = plugin_class.__name__
    if not inspect.cleandoc(plugin_class.__doc__ or ""):
        examination.warn(f"{name} has no docstring; `gateway plugin list` shows its first line")
    if not plugin_class.api:
        examination.warn(
            f'{name} does not say which plugin API it is made for; write: api = "{API_VERSION}"'
        )
    for attribute in ("changes", "observes", "unused"):
        value = getattr(instance, attribute)
        if value is not None and not _is_names(value):
            examination.error(
                f"{attribute} is {value!r}; it is a collection of texts: "
                f'{attribute} = ("{value if isinstance(value, str) else "..."}",)'
            )
    for word in instance.changes or ():
        if not isinstance(instance.changes, str) and not _WORD.fullmatch(str(word)):
            examination.error(
                f"changes has {word!r}, and there are: sender, recipients, stream, body, parts, "
                "text/plain, text/html, header:NAME, header:*"
            )
    _check_hooks(examination, instance)
    declared = "undeclared"
    if instance.changes is not None:
        declared = ", ".join(sorted(map(str, instance.changes))) or "nothing"
    return f"api {plugin_class.api or 'undeclared'}; changes: {declared}"


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, Collection)
        and not isinstance(value, str | bytes)
        and all(isinstance(one, str) for one in value)
    )


def _check_hooks(examination: Examination, instance: Plugin[Any]) -> None:
    hooks = examination.site.instance().loaded.hooks
    if instance.per_recipient and "message" not in hooks and "message" not in instance.unused:
        examination.warn("per_recipient has no effect: there is no hook message")
    if type(instance).observes is not None and "observe" not in {*hooks, *instance.unused}:
        examination.warn("observes has no effect: there is no hook observe")
    if "observe" in hooks and instance.observes is not None and not instance.observes:
        examination.warn(
            'observe is never called: observes is empty; add "observe" to unused, or name events'
        )
    if not set(hooks) - {"start", "stop"}:
        examination.error("no hook is left to call; the configuration leaves out all of them")
