"""All targets by name. Their modules are imported when they are asked for."""

from __future__ import annotations

from importlib import import_module

from fuzz.target import Target

_PLACES = {
    "smtp": ("fuzz.smtp", "target"),
    "header": ("fuzz.message", "header"),
    "mime": ("fuzz.message", "mime"),
    "html": ("fuzz.html", "target"),
    "template": ("fuzz.template", "target"),
    "bounce": ("fuzz.bounce", "bounce"),
    "reply": ("fuzz.bounce", "reply"),
    "yaml": ("fuzz.document", "target"),
}

NAMES = tuple(_PLACES)


def load(name: str) -> Target:
    """A target. What it tests is imported only now, so that atheris can instrument it.

    Raises:
        KeyError: there is no such target.
    """
    module, function = _PLACES[name]
    found: Target = getattr(import_module(module), function)()
    return found
