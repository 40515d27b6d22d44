"""The version of the plugin API, and whether a plugin that was made for another can be used."""

from __future__ import annotations

import re

API_VERSION = "1.0"
"""The version of what `gateway.hooks` and `gateway.testing` offer to plugins, as MAJOR.MINOR.

MAJOR grows when something was taken away or means something else: what was made for another major
version cannot be used. MINOR grows when something was added: a plugin that was made for 1.2 can be
used with 1.2, 1.3 and all that follow, up to 2.0.
"""

_VERSION = re.compile(r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})", re.ASCII)


def api_complaint(declared: object, offered: str = API_VERSION) -> str:
    """Says why a plugin with `api = declared` cannot be used; '' if it can.

    An empty text is a plugin that does not say, and is taken as made for the version `offered`.
    """
    if declared == "" and isinstance(declared, str):
        return ""
    asked = _VERSION.fullmatch(declared) if isinstance(declared, str) else None
    if asked is None:
        shown = declared if isinstance(declared, str | int | float) else type(declared)
        return (
            f"api = {shown!r} is no version of the plugin API; it is text with two numbers, as in "
            f'api = "{offered}"'
        )
    wanted = int(asked[1]), int(asked[2])
    major, minor = map(int, offered.split("."))
    start = f"is made for plugin API {declared}, and this gateway has {offered}: "
    if wanted > (major, minor):
        return start + "upgrade the gateway, or use an older version of the plugin"
    if wanted[0] < major:
        return start + "upgrade the plugin, or use an older version of the gateway"
    return ""
